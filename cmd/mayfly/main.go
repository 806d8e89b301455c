// Command mayfly gives every GitHub Actions job its own Windows VM on Proxmox VE.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program: it returns the exit code. 0 is success, 1 a failure told in one line, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var wrong usageError
	if errors.As(err, &wrong) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(stderr, "mayfly: %v\nSee `mayfly --help`.\n", err)
		return 2
	}
	fmt.Fprintf(stderr, "mayfly: %v\n", err)
	return 1
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "mayfly",
		Short: "A Windows VM on Proxmox VE for every GitHub Actions job, born for it and destroyed after it",
		Example: `  mayfly demo                     a day on an embedded Proxmox, GitHub and Windows guests
  mayfly config example > mayfly.yaml
  mayfly serve -c mayfly.yaml     the orchestrator
  mayfly status                   pools, runners, jobs, nodes of a running serve
  mayfly why 51000000001          why a job waits`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), demoCommand(), simCommand(), statusCommand(), whyCommand(), planCommand(), configCommand(), versionCommand())
	return root
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

// output is the -o flag of a command.
type output string

func (o *output) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP((*string)(o), "output", "o", "text", "text or json")
}

func (o output) json() (bool, error) {
	switch o {
	case "json":
		return true, nil
	case "text":
		return false, nil
	}
	return false, usageError{fmt.Errorf("-o takes text or json, not %q", string(o))}
}

func versionCommand() *cobra.Command {
	var out output
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		asJSON, err := out.json()
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(cmd.OutOrStdout(), map[string]string{"version": version})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "mayfly", version)
		return err
	}}
	out.add(cmd)
	return cmd
}
