package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"mayfly/internal/config"
)

func serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the orchestrator until it is told to stop",
		Long: `serve takes webhooks, makes VMs, starts their runners and destroys them.

SIGHUP gives pools that stopped for their configuration another try; the config itself is
read at the start only.

On SIGTERM or Ctrl-C it stops deciding; launches under way reach their next stored
step (at most 20 s), and nothing in Proxmox is touched: running jobs go on, and the
next serve takes everything up where it stands.`,
		Example: "  mayfly serve -c /etc/mayfly/mayfly.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "mayfly.yaml", "the config file")
	return cmd
}

func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path, os.Getenv)
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

func serve(ctx context.Context, cfg *config.Config, stderr io.Writer) (err error) {
	log := newLogger(cfg, stderr)
	for _, w := range cfg.Warnings() {
		log.Warn(w)
	}
	a, err := connect(cfg, outside{}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.preflight(ctx); err != nil {
		if ctx.Err() != nil { // told to stop before it began: nothing is wrong
			return nil
		}
		return err
	}
	if err := a.open(ctx); err != nil { // only now is anything left on the disk
		return err
	}
	if err := a.listen(ctx); err != nil {
		return err
	}
	log.Info(fmt.Sprintf("mayfly %s serves instance %s", version, cfg.Instance), "page", "http://"+cfg.Listen, "webhook", cfg.Webhook.Listen)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	a.hangups = hangups
	err = a.serve(ctx)
	log.Info("stopped; nothing in Proxmox was touched", "why", context.Cause(ctx))
	return err
}

func newLogger(cfg *config.Config, to io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Log.Level)); err != nil {
		level = slog.LevelInfo // the config was checked
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(to, opts))
	}
	return slog.New(slog.NewTextHandler(to, opts))
}
