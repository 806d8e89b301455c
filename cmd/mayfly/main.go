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
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once; that is safe, as kill -9 is
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	os.Exit(code)
}

// run is the whole program: it returns the exit code. 0 is success, 1 a failure told in one line, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if wrong, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(stderr, "mayfly: %v\nSee `%s --help`.\n", wrong, cmd.CommandPath())
		return 2
	}
	fmt.Fprintf(stderr, "mayfly: %v\n", err)
	return 1
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "mayfly",
		Short: "A Windows VM on Proxmox VE for every GitHub Actions job, born for it and destroyed after it",
		Example: `  mayfly demo                     a day on an embedded Proxmox, GitHub and Windows guests
  mayfly config example > mayfly.yaml
  mayfly serve -c mayfly.yaml     the orchestrator
  mayfly status                   pools, runners, jobs, nodes of a running serve
  mayfly why 51000000001          why a job waits`,
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), demoCommand(), simCommand(), statusCommand(), whyCommand(), planCommand(), configCommand(), versionCommand())
	root.SetHelpCommand(helpCommand())
	root.CompletionOptions.HiddenDefaultCmd = true
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			group(c)
			c.Example = "  source <(mayfly completion bash)"
		}
	}
	return root
}

// group makes cmd one that only has other commands below it: alone it prints its help, and it refuses what is none of them.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usageError{fmt.Errorf("%s has no command %q; did you mean %s?", cmd.CommandPath(), args[0], strings.Join(near, " or "))}
		}
		return usageError{fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0])}
	}
	return cmd
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about any command", Example: "  mayfly help serve",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err == nil && len(rest) > 0 {
				err = about.Args(about, rest)
			}
			if err != nil {
				return err
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
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
	cmd := &cobra.Command{Use: "version", Short: "Print the version", Example: "  mayfly version\n  mayfly version -o json", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
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
