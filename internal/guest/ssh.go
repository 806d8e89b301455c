// Package guest starts runners inside guests: over SSH, by the helper that the template holds.
//
// A guest runs strangers' jobs, so whatever it says is bounded and cleaned before it is believed,
// stored or shown, and no error, log line or metric ever holds a secret that was sent to it.
package guest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
	"mayfly/internal/guest/wire"
)

// DefaultCommand is where the template puts the helper.
const DefaultCommand = `C:\runner-agent\mayfly-guest.exe`

// The helper gives itself 300 s to set a runner up, and a first start is slow while Defender
// scans it (10–20 s); the orchestrator waits that and some more. These are deadlines, so Speed does
// not divide them.
const (
	statusTimeout = time.Minute
	startTimeout  = 330 * time.Second
	// After the helper's last line sshd should close the session; it never does while another
	// process holds the output's pipe (Win32-OpenSSH issue 2452).
	closeTimeout = 5 * time.Second
)

// Config is what an SSH needs. Zero values take the defaults named.
type Config struct {
	User    string     // who logs in; required
	Signer  ssh.Signer // the private key that guests let in; required
	Port    int        // 22
	Command string     // of the helper: a path without blanks, quotes or anything that a shell reads; DefaultCommand
	// BannerTimeout bounds one try to connect, up to the end of the SSH handshake: 25 s. A shorter one
	// makes a storm of retries while sshd is busy starting.
	BannerTimeout time.Duration
	Tries         int // connections that Start tries, 3
	// Dial connects to a guest, or to Via; a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Via  string // http://host:port of an HTTP proxy through which guests are reached; "" none
	// Observe is told every call (connect, status, start) with "ok" or its error's class.
	Observe func(call, outcome string, took time.Duration)
	Log     *slog.Logger // nil: none
	Speed   float64      // divides pauses between tries, 1
}

// SSH speaks to guests over SSH. Its methods may be called from several goroutines.
type SSH struct {
	user    string
	signer  ssh.Signer
	port    int
	command string
	banner  time.Duration
	tries   int
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	observe func(call, outcome string, took time.Duration)
	log     *slog.Logger
	speed   float64
}

// A command goes through cmd.exe or whatever shell the guest has, so it holds nothing that any of them reads.
var plainCommand = regexp.MustCompile(`^[A-Za-z0-9_.:/\\-]{1,200}$`)

// NewSSH checks c. Its errors are of class fleet.ErrConfig and show nothing of the key.
func NewSSH(c Config) (*SSH, error) {
	if c.User == "" {
		return nil, fmt.Errorf("guest ssh: %w: no user", fleet.ErrConfig)
	}
	if c.Signer == nil {
		return nil, fmt.Errorf("guest ssh: %w: no private key", fleet.ErrConfig)
	}
	s := &SSH{
		user: c.User, signer: c.Signer,
		port: cmp.Or(c.Port, 22), command: cmp.Or(c.Command, DefaultCommand), banner: cmp.Or(c.BannerTimeout, 25*time.Second),
		tries: cmp.Or(c.Tries, 3), dial: c.Dial, observe: c.Observe, log: c.Log, speed: cmp.Or(c.Speed, 1),
	}
	switch {
	case s.port < 1 || s.port > 65535:
		return nil, fmt.Errorf("guest ssh: %w: port %d", fleet.ErrConfig, s.port)
	case !plainCommand.MatchString(s.command):
		return nil, fmt.Errorf("guest ssh: %w: the helper's path %q needs quoting; give one without blanks and shell characters", fleet.ErrConfig, s.command)
	case s.banner < 0 || s.tries < 1 || s.speed <= 0:
		return nil, fmt.Errorf("guest ssh: %w: banner timeout, tries and speed must be above zero", fleet.ErrConfig)
	}
	if s.dial == nil {
		s.dial = new(net.Dialer).DialContext
	}
	if c.Via != "" {
		u, err := url.Parse(c.Via)
		if err != nil || u.Scheme != "http" || u.Port() == "" {
			return nil, fmt.Errorf("guest ssh: %w: the proxy is not of the form http://host:port", fleet.ErrConfig)
		}
		s.dial = viaProxy(s.dial, u.Host)
	}
	if s.observe == nil {
		s.observe = func(string, string, time.Duration) {}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Status asks a guest for its state, with one connection. fleet.ErrNotReady: it answers and is still being
// set up. Any other error says nothing about its runner, but fleet.ErrConfig: the template is broken.
func (s *SSH) Status(ctx context.Context, a fleet.Address) (fleet.Guest, error) {
	began := time.Now()
	g, err := s.status(ctx, a)
	if err != nil {
		err = fmt.Errorf("guest %s: status: %w", shown(a.IP), err)
	}
	s.observe("status", outcome(err), time.Since(began))
	return g, err
}

func (s *SSH) status(ctx context.Context, a fleet.Address) (fleet.Guest, error) {
	to, err := s.target(a)
	if err != nil {
		return fleet.Guest{}, err
	}
	client, err := s.connect(ctx, to)
	if err != nil {
		return fleet.Guest{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, statusTimeout, fmt.Errorf("no answer within %v", statusTimeout))
	defer cancel()
	answer, err := run(ctx, client, s.command+" "+wire.CommandStatus, nil)
	if err != nil {
		return fleet.Guest{}, err
	}
	return answer.guest()
}

// Start has the guest start its runner, detached, and returns once it listens. The same order again
// reports its state. It tries to connect a few times, and sends the order once at most.
//
// fleet.ErrUnknown: the order was sent, and the connection lost before an answer. fleet.ErrNotReady: the guest
// is still being set up. fleet.ErrBusy: it works on another order. fleet.ErrConfig: the template is broken or its
// runner too old, and every guest of it will say so. Otherwise the runner was not started, or has ended.
func (s *SSH) Start(ctx context.Context, a fleet.Address, o fleet.Order) (fleet.Guest, error) {
	began := time.Now()
	g, err := s.start(ctx, a, o)
	if err != nil {
		err = fmt.Errorf("guest %s: start of %s: %w", shown(a.IP), shown(o.ID), err)
	}
	s.observe("start", outcome(err), time.Since(began))
	return g, err
}

func (s *SSH) start(ctx context.Context, a fleet.Address, o fleet.Order) (fleet.Guest, error) {
	to, err := s.target(a)
	if err != nil {
		return fleet.Guest{}, err
	}
	for try := 1; ; try++ {
		var answer answer
		client, err := s.connect(ctx, to)
		if err == nil {
			answer, err = s.order(ctx, client, o)
		}
		switch {
		case err == nil:
			g, err := answer.guest()
			if err == nil && g.ID != o.ID {
				return g, fmt.Errorf("%w: it reports the order %q", fleet.ErrBusy, g.ID)
			}
			return g, err
		case !isUnsent(err), ctx.Err() != nil, try >= s.tries:
			return fleet.Guest{}, err
		}
		pause := time.Duration(float64(try) * float64(time.Second) / s.speed)
		s.log.LogAttrs(ctx, slog.LevelInfo, "guest not reached, trying again", slog.String("address", to.addr),
			slog.String("order", o.ID), slog.Int("try", try), slog.Duration("pause", pause), slog.String("error", err.Error()))
		select {
		case <-ctx.Done():
			return fleet.Guest{}, fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// order sends o over client, which it closes.
func (s *SSH) order(ctx context.Context, client *client, o fleet.Order) (answer, error) {
	line, err := wire.EncodeOrder(wire.Order{
		V: wire.Version, ID: o.ID, Now: time.Now().UTC(), Mode: wire.ModeJIT, JIT: o.Secret.Reveal(),
		URL: o.URL, Labels: o.Labels, Deadline: int64(o.Deadline / time.Second), PowerOff: true,
	})
	if err != nil {
		client.close()
		return answer{}, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %v", startTimeout))
	defer cancel()
	answer, err := run(ctx, client, s.command+" "+wire.CommandStart, line)
	answer.secret = o.Secret
	return answer, err
}

func outcome(err error) string { return cmp.Or(fleet.Class(err), "ok") }
