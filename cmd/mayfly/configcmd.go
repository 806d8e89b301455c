package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"mayfly/internal/config"
)

func configCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "config", Short: "Check a config, print it with its defaults, or print an example that explains every key",
		Example: "  mayfly config check -c /etc/mayfly/mayfly.yaml\n  mayfly config example > mayfly.yaml",
	})
	var path string
	var out output
	check := &cobra.Command{
		Use: "check", Short: "Read the config and its secrets, and say what is wrong; asks nobody outside", Args: noArgs,
		Example: "  mayfly config check\n  mayfly config check -c /etc/mayfly/mayfly.yaml -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := out.json()
			if err != nil {
				return err
			}
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			warnings := cfg.Warnings()
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), map[string]any{"config": path, "ok": true, "warnings": warnings})
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path, "is good")
			return err
		},
	}
	out.add(check)
	print := &cobra.Command{
		Use: "print", Short: "Print the config as it takes effect, defaults included, secrets hidden", Args: noArgs,
		Example: "  mayfly config print -c /etc/mayfly/mayfly.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	example := &cobra.Command{
		Use: "example", Short: "Print a config that explains every key", Args: noArgs,
		Example: "  mayfly config example > mayfly.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), config.Example())
			return err
		},
	}
	for _, c := range []*cobra.Command{check, print} {
		c.Flags().StringVarP(&path, "config", "c", "mayfly.yaml", "the config file")
	}
	cmd.AddCommand(check, print, example)
	return cmd
}
