package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// TestMain makes this binary the command mayfly, too, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){"mayfly": main})
}

// tidy removes after all tests what they shared.
type tidy struct{ *testing.M }

func (m tidy) Run() int {
	code := m.M.Run()
	if built != "" {
		_ = os.RemoveAll(built) // a left-over in the temporary folder is no failure
	}
	return code
}

// TestScripts are testdata/script: what a person types, and what they are told.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("MAYFLY_TOKEN", "")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"refused": scriptRefused,
			"edit":    scriptEdit,
			"await":   scriptAwait,
			"ports":   scriptPorts,
			"secrets": scriptSecrets,
		},
	})
}

// scriptRefused runs `refused CODE ARGS...`: mayfly must exit with CODE, print nothing on stdout, and tell one problem in one
// line on stderr: `mayfly: …`. A config's line may be shown below it; wrong usage is followed by where the help is.
func scriptRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: refused CODE ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec("mayfly", args[1:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("mayfly %v: %v", args[1:], err)
		}
		got = exit.ExitCode()
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	if got != want {
		ts.Fatalf("mayfly %v: exit code %d, want %d", args[1:], got, want)
	}
	if stdout != "" {
		ts.Fatalf("mayfly %v: it failed and prints on stdout:\n%s", args[1:], stdout)
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	if !strings.HasPrefix(lines[0], "mayfly: ") {
		ts.Fatalf("mayfly %v: the first line on stderr is not `mayfly: …`", args[1:])
	}
	for _, more := range lines[1:] {
		switch {
		case want == 1 && strings.HasPrefix(more, "  "): // of the config
		case want == 2 && len(lines) == 2 && strings.HasPrefix(more, "See `mayfly"):
		default:
			ts.Fatalf("mayfly %v: more than one line is told: %q", args[1:], more)
		}
	}
	if want == 2 && len(lines) != 2 {
		ts.Fatalf("mayfly %v: wrong usage, and no hint at the help", args[1:])
	}
}

// scriptEdit is `edit FROM TO OLD NEW`: TO becomes FROM with its one OLD replaced; \n in NEW is a new line.
func scriptEdit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: edit FROM TO OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[2]); n != 1 {
		ts.Fatalf("%s has %q %d times", args[0], args[2], n)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Replace(text, args[2], strings.ReplaceAll(args[3], `\n`, "\n"), 1)), 0o600))
}

// scriptAwait is `await FILE` or `await URL`: until the file has something in it, or the URL answers 200.
func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: await FILE|URL")
	}
	there := func() bool {
		info, err := os.Stat(ts.MkAbs(args[0]))
		return err == nil && info.Size() > 0
	}
	if strings.HasPrefix(args[0], "http://") {
		there = func() bool {
			resp, err := http.Get(args[0])
			if err != nil {
				return false
			}
			return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
		}
	}
	if err := poll(context.Background(), patience, there); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

// scriptSecrets is `secrets`: the secrets that the example config names.
func scriptSecrets(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(new(simPlace).secrets(ts.MkAbs(".")))
}

// scriptPorts is `ports NAME...`: each becomes an address on loopback whose port nobody has.
func scriptPorts(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		address, err := freeAddress()
		ts.Check(err)
		ts.Setenv(name, address)
	}
}

// patience is how long tests wait for what must come; only what is broken is waited for as long.
const patience = 60 * time.Second

// poll waits until done, at most for as long as the limit.
func poll(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("not in %v", limit)
		}
	}
	return nil
}

// freeAddress is a loopback address for a process of its own to listen on. Its port is below those that the system gives to
// connections, so that none of these takes it in between.
func freeAddress() (string, error) {
	var last error
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000)))
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
		last = err
	}
	return "", fmt.Errorf("no free port: %w", last)
}

// TestHelp: every command says what it does, with an example, and nothing goes to stderr.
func TestHelp(t *testing.T) {
	var commands []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Name() == "completion" {
			return // cobra's
		}
		commands = append(commands, c)
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if len(commands) < 12 {
		t.Errorf("only %d commands", len(commands))
	}
	for _, c := range commands {
		path := strings.Fields(c.CommandPath())[1:]
		for _, args := range [][]string{append(path, "--help"), append([]string{"help"}, path...)} {
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), args, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
				t.Errorf("mayfly %v: exit code %d, stderr %q", args, code, stderr.String())
			}
			for _, want := range []string{c.Short, "Usage:\n", "Examples:\n  mayfly"} {
				if c.Long != "" && want == c.Short {
					want = c.Long
				}
				if !strings.Contains(stdout.String(), want) {
					t.Errorf("mayfly %v does not say %q:\n%s", args, want, &stdout)
				}
			}
		}
	}
}
