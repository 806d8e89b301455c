// Package guest is the simulator's Windows guests: they boot, their agent comes up, they get an
// address, make SSH host keys, and run the helper's commands over a real SSH protocol.
//
// Time is plain time.Now and timers, so guests live in real time and inside a testing/synctest bubble.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// DefaultCommand is where the simulated template has its helper.
const DefaultCommand = `C:\runner-agent\mayfly-guest.exe`

// A Range is a duration drawn evenly between Min and Max.
type Range struct{ Min, Max time.Duration }

// Config describes all guests of a Farm. A Range that is zero takes its default, which is that
// of linked clones of a Windows 11 template.
type Config struct {
	Seed  uint64  // every random choice comes from it, but one RSA host key
	Speed float64 // divides every simulated delay and the length of jobs; 0 is 1

	Boot     Range // until Windows runs: 30–45 s
	Agent    Range // from then until the QEMU guest agent answers: 5–10 s
	SSH      Range // from then until the guest is ready; sshd answers at 70 % of it: 10–20 s
	Register Range // from the order until its runner listens: 5–10 s
	// PowerOff is from the runner's end until the guest powers itself off: 2–5 s.
	PowerOff Range

	// OOBE: guests reboot once before they are ready, as sysprep'd clones do. Agent and sshd answer
	// between the reboots as well (Pumba98/proxmox-packer-templates README).
	OOBE   bool
	Linger Range // from the first pass' end to the reboot: 2–5 s
	Reboot Range // until the agent answers again: 20–40 s; another SSH follows

	AuthorizedKey string // the orchestrator's public key, authorized_keys form; sshd accepts no other
	Command       string // path of the helper; DefaultCommand
	Hub           Hub    // what runners see of GitHub; nil: it rejects all

	Faults Faults
}

// Faults are what goes wrong, each with a probability from 0 to 1 drawn when a guest boots.
type Faults struct {
	Hang       float64 // Windows never comes up
	NoSSH      float64 // sshd never listens
	WrongKey   float64 // sshd has another Ed25519 key than the file says
	DropStart  float64 // the connection is lost when the order has been read; its runner starts all the same
	RunnerFail float64 // the runner ends before it listens
	RunnerExit int     // the exit code that Runner.Listener then has: 1, 5, 7, …
}

// A Hub is GitHub as runners see it.
type Hub interface {
	// Connect starts a session with a JIT configuration. ErrConflict: the runner has one already; any
	// other error: the configuration is rejected.
	Connect(jit string) (Session, error)
}

// A Session is a connected runner. Exactly one of Done, Lost or an error of Next that is not ctx's ends it.
type Session interface {
	// Next puts the runner online and waits for a job. An error other than ctx's: its registration is gone.
	Next(ctx context.Context) (Job, error)
	// Done ends the job with its conclusion.
	Done(job int64, conclusion string)
	// Lost: the machine died, in a job or idle. It must not block.
	Lost()
}

// A Job is what a runner gets to do.
type Job struct {
	ID         int64
	Length     time.Duration // before Speed
	Conclusion string        // success, failure, …
	Cancelled  <-chan struct{}
}

// ErrConflict: the runner has a session already.
var ErrConflict = errors.New("a session for this runner already exists")

// A Farm is all guests. Create it inside the bubble that it shall live in.
type Farm struct {
	cfg    Config
	login  []byte // the accepted public key
	shared func() ([]ssh.Signer, error)

	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu     sync.Mutex
	closed bool
	alive  map[*Guest]bool // those with power
	byIP   map[netip.Addr]*Guest
	boots  map[int]uint64 // by VMID
	delays map[int]map[string]time.Duration
}

// New makes a Farm without guests. It must be closed. An AuthorizedKey that is no key lets nobody in.
func New(c Config) *Farm {
	for _, d := range []struct {
		r        *Range
		min, max time.Duration
	}{
		{&c.Boot, 30 * time.Second, 45 * time.Second},
		{&c.Agent, 5 * time.Second, 10 * time.Second},
		{&c.SSH, 10 * time.Second, 20 * time.Second},
		{&c.Register, 5 * time.Second, 10 * time.Second},
		{&c.PowerOff, 2 * time.Second, 5 * time.Second},
		{&c.Linger, 2 * time.Second, 5 * time.Second},
		{&c.Reboot, 20 * time.Second, 40 * time.Second},
	} {
		if *d.r == (Range{}) {
			*d.r = Range{d.min, d.max}
		}
	}
	if c.Speed <= 0 {
		c.Speed = 1
	}
	if c.Command == "" {
		c.Command = DefaultCommand
	}
	f := &Farm{
		cfg: c, alive: map[*Guest]bool{}, byIP: map[netip.Addr]*Guest{}, boots: map[int]uint64{}, delays: map[int]map[string]time.Duration{},
		shared: sync.OnceValues(func() ([]ssh.Signer, error) { return templateKeys(c.Seed) }),
	}
	if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.AuthorizedKey)); err == nil {
		f.login = key.Marshal()
	}
	f.ctx, f.end = context.WithCancel(context.Background())
	return f
}

// Boot is called when the VM has been started. powerOff is the guest's own power-off; it may call Off. A VM that
// is started again has the same disk, and so the same host key.
func (f *Farm) Boot(vmid int, name, mac string, powerOff func()) *Guest {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boots[vmid]++
	rng := rand.New(rand.NewPCG(f.cfg.Seed, uint64(vmid)<<24^f.boots[vmid]))
	g := newGuest(f, rng, vmid, name, mac, powerOff)
	f.delays[vmid] = g.told()
	if f.closed {
		g.cut()
		return g
	}
	f.alive[g], f.byIP[g.ip] = true, g
	f.work.Go(g.live)
	return g
}

// Delays are the simulated delays of the VM's last boot, by name: boot, agent, ssh, register, and with OOBE linger,
// reboot and ssh_again. Their sum is the least time from Boot to a runner that listens. Nil: never booted.
func (f *Farm) Delays(vmid int) map[string]time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.delays[vmid])
}

// Dial connects to port 22 of a guest. Where nothing listens it is refused; a frozen guest never
// answers, and the dial ends with ctx.
func (f *Farm) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	f.mu.Lock()
	g := f.byIP[to.Addr()]
	f.mu.Unlock()
	refused := func(why error) error {
		return &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: why}
	}
	switch {
	case g == nil:
		return nil, refused(syscall.EHOSTUNREACH)
	case to.Port() != 22:
		return nil, refused(syscall.ECONNREFUSED)
	}
	conn, frozen := g.accept()
	if frozen {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
		case <-g.power.Done():
		}
	}
	if conn == nil {
		return nil, refused(syscall.ECONNREFUSED)
	}
	return conn, nil
}

// Close cuts every guest's power and waits until all has ended. The Hub must still be there.
func (f *Farm) Close() {
	f.mu.Lock()
	f.closed = true
	guests := slices.Collect(maps.Keys(f.alive))
	f.mu.Unlock()
	f.end()
	for _, g := range guests {
		g.Off()
	}
	f.work.Wait()
}

// spawn runs do in a goroutine that Close waits for; false when the Farm is closed.
func (f *Farm) spawn(do func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.work.Go(do)
	}
	return !f.closed
}

// forget drops a guest without power, unless another has its address by now.
func (f *Farm) forget(g *Guest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.alive, g)
	if f.byIP[g.ip] == g {
		delete(f.byIP, g.ip)
	}
}

func (f *Farm) mayLogIn(key ssh.PublicKey) bool {
	return f.login != nil && bytes.Equal(key.Marshal(), f.login)
}
