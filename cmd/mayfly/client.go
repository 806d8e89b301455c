package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"mayfly/internal/config"
	"mayfly/internal/web"
)

// client asks a running serve. The CLI never opens the database.
type client struct {
	server, config string
	out            output
	named          func() bool // whether the config was named on the command line
}

func (c *client) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.server, "server", "", "base URL of a running serve (default: listen of the config, else http://127.0.0.1:8080)")
	cmd.Flags().StringVarP(&c.config, "config", "c", "mayfly.yaml", "the config file, for listen and the token")
	c.named = func() bool { return cmd.Flags().Changed("config") }
	c.out.add(cmd)
}

// get fetches a path of the API into v.
func (c *client) get(ctx context.Context, path string, v any) error {
	if u, err := url.Parse(c.server); c.server != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		return usageError{fmt.Errorf("--server %q is no URL like http://127.0.0.1:8080", c.server)}
	}
	base, token := c.server, ""
	// Without --config, a mayfly.yaml that happens to be here helps; it need not be there.
	if _, err := os.Stat(c.config); c.named() || err == nil {
		cfg, err := config.Load(c.config, os.Getenv)
		switch {
		case err == nil:
			base, token = cmp.Or(base, "http://"+reachable(cfg.Listen)), cfg.Web.Token.Reveal()
		case c.named() || base == "":
			return err
		}
	}
	base = cmp.Or(base, "http://127.0.0.1:8080")
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", base, err)
	}
	if token = cmp.Or(os.Getenv("MAYFLY_TOKEN"), token); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no mayfly serve answers at %s (%w): start it, or say with --server or -c where it is", base, innermost(err))
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", base, err)
	}
	if resp.StatusCode != http.StatusOK {
		var p web.Problem
		if json.Unmarshal(body, &p) == nil && p.Error != "" {
			return errors.New(p.Error)
		}
		if resp.StatusCode == http.StatusUnauthorized {
			return fmt.Errorf("%s wants a token: set MAYFLY_TOKEN, or web.token_file in the config", base)
		}
		return fmt.Errorf("%s answers %s", base, resp.Status)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%s gave no answer of mayfly's: %w", base, err)
	}
	return nil
}

// innermost is a network's error without what everybody on the way has said, which repeats the address.
func innermost(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if o, ok := errors.AsType[*net.OpError](err); ok {
		err = o.Err
	}
	if s, ok := errors.AsType[*os.SyscallError](err); ok {
		err = s.Err
	}
	return err
}

// reachable is where a listener on all addresses is reached from here.
func reachable(listen string) string {
	for _, all := range []string{"0.0.0.0:", "[::]:", ":"} {
		if port, ok := strings.CutPrefix(listen, all); ok {
			return "127.0.0.1:" + port
		}
	}
	return listen
}

// show fetches path and prints it, as it came or by print.
func show[T any](cmd *cobra.Command, c *client, path string, print func(io.Writer, T) error) error {
	asJSON, err := c.out.json()
	if err != nil {
		return err
	}
	var v T
	if err := c.get(cmd.Context(), path, &v); err != nil {
		return err
	}
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), v)
	}
	return print(cmd.OutOrStdout(), v)
}

func statusCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "status", Short: "Pools, runners, jobs, nodes and last events of a running serve", Args: noArgs,
		Example: "  mayfly status\n  mayfly status --server http://127.0.0.1:8080 -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return show(cmd, &c, "/api/v1/status", printStatus) },
	}
	c.add(cmd)
	return cmd
}

func whyCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "why JOB", Short: "Why a job waits, and what happened to it", Example: "  mayfly why 51000000001",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("why takes one job id, as in its address at GitHub")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id <= 0 {
				return usageError{fmt.Errorf("%q is no job id: it is the number in the job's address at GitHub", args[0])}
			}
			return show(cmd, &c, "/api/v1/jobs/"+strconv.FormatInt(id, 10), printWhy)
		},
	}
	c.add(cmd)
	return cmd
}

func planCommand() *cobra.Command {
	var c client
	cmd := &cobra.Command{
		Use: "plan", Short: "What would be done now, and why; changes nothing", Args: noArgs, Example: "  mayfly plan\n  mayfly plan -o json",
		RunE: func(cmd *cobra.Command, _ []string) error { return show(cmd, &c, "/api/v1/plan", printPlan) },
	}
	c.add(cmd)
	return cmd
}

// table prints rows in columns.
func table(to io.Writer, rows func(row func(cells ...any))) error {
	t := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	rows(func(cells ...any) {
		texts := make([]string, len(cells))
		for i, c := range cells {
			texts[i] = fmt.Sprint(c)
		}
		fmt.Fprintln(t, strings.Join(texts, "\t"))
	})
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
