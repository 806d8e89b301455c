package guest

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
	"mayfly/internal/guest/wire"
)

// errLost: the session ended without an exit status, so the connection did, not the command.
var errLost = errors.New("the connection was lost before the answer")

// An answer is what one command of the helper came to.
type answer struct {
	code   int         // exit status
	state  *wire.State // the last that was told
	fatal  string      // the last message of a failure
	stderr head
	secret fleet.Secret // what was sent, for redaction
}

// run runs one command with the order, if any, on its standard input, and closes c.
//
// Its errors: unsent, when no byte of the order was written; with fleet.ErrUnknown when one was
// and there is no answer. Never with a PTY: it would echo the order.
func run(ctx context.Context, c *client, command string, order []byte) (a answer, err error) {
	defer c.close()
	defer closeOn(ctx, c.conn)()
	session, err := c.ssh.NewSession()
	if err != nil {
		return a, unsent{fmt.Errorf("open a session: %w", cleaned{withCause(ctx, err)})}
	}
	session.Stderr = &a.stderr
	stdin, err := session.StdinPipe()
	if err != nil {
		return a, unsent{err}
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return a, unsent{err}
	}
	if err := session.Start(command); err != nil {
		return a, unsent{fmt.Errorf("run the helper: %w", cleaned{withCause(ctx, err)})}
	}
	if len(order) > 0 {
		// A helper that refuses may end without reading; its exit status says more than this error.
		_, _ = stdin.Write(order)
	}
	_ = stdin.Close()

	exit, cancelExit := -1, func() {}
	defer func() { cancelExit() }()
	err = wire.ReadLines(stdout, func(l wire.Line) {
		switch l.What {
		case wire.HappenedState:
			a.state = l.State
		case wire.HappenedFatal:
			a.fatal = l.Message
		case wire.HappenedExit:
			if exit < 0 {
				cancelExit = closeSoon(ctx, c)
			}
			exit = l.Code
		}
	})
	if err != nil {
		_ = c.conn.Close() // it writes without end: Wait would wait with it
	}
	status := session.Wait()
	var failed *ssh.ExitError
	switch {
	case status == nil && err == nil:
		a.code = wire.ExitOK
	case errors.As(status, &failed):
		a.code = failed.ExitStatus()
	case exit >= 0:
		a.code = exit // said by the helper itself before the connection went
	case len(order) > 0:
		return a, fmt.Errorf("%w: %w", fleet.ErrUnknown, lost(ctx, err))
	default:
		return a, unsent{lost(ctx, err)}
	}
	return a, nil
}

// closeSoon gives sshd a while to close its session, then closes the connection. stop ends the wait.
func closeSoon(ctx context.Context, c *client) (stop func()) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	release := closeOn(ctx, c.conn)
	return func() {
		release()
		cancel()
	}
}

func lost(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, wire.ErrTooMuch):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errLost, context.Cause(ctx))
	}
	return errLost
}

// head keeps the first bytes that are written to it.
type head struct{ kept []byte }

// stderrKept is more than any error text shows of it.
const stderrKept = 8 << 10

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), stderrKept-len(h.kept))]...)
	return len(p), nil
}
