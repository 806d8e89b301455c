package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
)

// target is an Address that was checked.
type target struct {
	addr string // host:port
	key  ssh.PublicKey
}

func (s *SSH) target(a fleet.Address) (target, error) {
	ip, err := netip.ParseAddr(a.IP)
	if err != nil {
		return target{}, errors.New("its address is no IP address")
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(a.HostKey))
	if err != nil || key.Type() != ssh.KeyAlgoED25519 {
		return target{}, errors.New("its host key, as the guest agent gave it, is no Ed25519 key")
	}
	return target{net.JoinHostPort(ip.String(), strconv.Itoa(s.port)), key}, nil
}

// unsent is an error before any byte of an order was sent: trying again is safe.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

func isUnsent(err error) bool {
	var e unsent
	return errors.As(err, &e)
}

// cleaned is an error whose text may hold what the other end says.
type cleaned struct{ error }

func (e cleaned) Error() string { return shown(e.error.Error()) }
func (e cleaned) Unwrap() error { return e.error }

// client is an SSH connection with nobody's goroutines left behind once it is closed.
type client struct {
	ssh  *ssh.Client
	conn net.Conn
}

func (c *client) close() {
	_ = c.conn.Close()
	_ = c.ssh.Wait()
}

// connect makes one try to reach a guest, log in and see that its host key is the pinned one.
func (s *SSH) connect(ctx context.Context, to target) (*client, error) {
	began := time.Now()
	c, err := s.handshake(ctx, to)
	took := time.Since(began)
	s.observe("connect", outcome(err), took)
	attrs := []slog.Attr{slog.String("address", to.addr), slog.Duration("took", took)}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	s.log.LogAttrs(ctx, slog.LevelDebug, "ssh connect", attrs...)
	return c, err
}

func (s *SSH) handshake(ctx context.Context, to target) (*client, error) {
	// One bound for all of it, by closing the connection: deadlines of a net.Conn do not
	// hear of ctx.
	ctx, cancel := context.WithTimeoutCause(ctx, s.banner, fmt.Errorf("no SSH handshake within %v", s.banner))
	defer cancel()
	conn, err := s.dial(ctx, "tcp", to.addr)
	if err != nil {
		return nil, unsent{fmt.Errorf("connect: %w", cleaned{withCause(ctx, err)})}
	}
	release := closeOn(ctx, conn)
	var other ssh.PublicKey
	sc, channels, requests, err := ssh.NewClientConn(conn, to.addr, &ssh.ClientConfig{
		User: s.user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(s.signer)},
		// sshd on Windows has RSA, ECDSA and Ed25519 keys; without this list another one than
		// the pinned may be negotiated.
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			err := ssh.FixedHostKey(to.key)(name, remote, key)
			if err != nil {
				other = key
			}
			return err
		},
	})
	release()
	switch {
	case other != nil:
		// Not an unsent: that the next try shows the right key would prove nothing good.
		_ = conn.Close()
		return nil, fmt.Errorf("connect: wrong host key: expected %s, as the guest agent gave it, got %s",
			ssh.FingerprintSHA256(to.key), ssh.FingerprintSHA256(other))
	case err != nil:
		_ = conn.Close()
		return nil, unsent{fmt.Errorf("connect: %w", cleaned{withCause(ctx, err)})}
	}
	c := &client{ssh.NewClient(sc, channels, requests), conn}
	if ctx.Err() != nil { // it ended as the handshake did: the connection is closed
		c.close()
		return nil, unsent{fmt.Errorf("connect: %w", context.Cause(ctx))}
	}
	return c, nil
}

// withCause puts in front of err why ctx ended, when it has.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// closeOn closes c when ctx ends, until release is called; release waits for a close that has begun.
func closeOn(ctx context.Context, c io.Closer) (release func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		_ = c.Close()
	})
	return func() {
		if !stop() {
			<-closed
		}
	}
}
