package guest

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/guest/wire"
)

// A Guest is what runs inside one VM from one boot to its power-off.
type Guest struct {
	farm     *Farm
	vmid     int
	name     string
	mac      string // lower case, as the agent of Windows tells it
	ip       netip.Addr
	powerOff func()
	plan     plan
	server   func() (*ssh.ServerConfig, error)

	power context.Context // ends with the power
	cut   context.CancelFunc
	os    context.Context // ends also when Windows freezes
	stop  context.CancelFunc

	mu       sync.Mutex
	agent    bool
	agentNew chan struct{} // closed at the next change of agent
	lease    lease
	keyFile  keyFile
	sshd     bool
	frozen   bool
	conns    map[net.Conn]bool

	state     wire.State
	stateNew  chan struct{} // closed at the next change of state
	startCode int           // what start exits with when its runner has ended before it listened
	session   Session       // while the runner is connected
}

// plan is what was drawn for a boot.
type plan struct {
	boot, agent, ssh, register, powerOff time.Duration
	linger, reboot, sshAgain             time.Duration // with OOBE

	hang, noSSH, wrongKey, dropStart, runnerFail bool
}

type lease int

const (
	noNetwork lease = iota
	noDHCP          // only an APIPA address yet
	leased
)

type keyFile int

const (
	keyMissing keyFile = iota
	keyEmpty           // ssh-keygen has created it and not yet written it
	keyWritten
)

func newGuest(f *Farm, rng *rand.Rand, vmid int, name, mac string, powerOff func()) *Guest {
	c := f.cfg
	draw := func(r Range) time.Duration {
		d := r.Min
		if r.Max > r.Min {
			d += time.Duration(rng.Int64N(int64(r.Max - r.Min + 1)))
		}
		return time.Duration(float64(d) / c.Speed)
	}
	happens := func(rate float64) bool { return rng.Float64() < rate }
	g := &Guest{
		farm: f, vmid: vmid, name: name, mac: strings.ToLower(mac), ip: addressOf(vmid), powerOff: powerOff,
		plan: plan{
			boot: draw(c.Boot), agent: draw(c.Agent), ssh: draw(c.SSH), register: draw(c.Register), powerOff: draw(c.PowerOff),
			linger: draw(c.Linger), reboot: draw(c.Reboot), sshAgain: draw(c.SSH),
			hang: happens(c.Faults.Hang), noSSH: happens(c.Faults.NoSSH), wrongKey: happens(c.Faults.WrongKey),
			dropStart: happens(c.Faults.DropStart), runnerFail: happens(c.Faults.RunnerFail),
		},
		agentNew: make(chan struct{}), stateNew: make(chan struct{}), conns: map[net.Conn]bool{},
		state: wire.State{Phase: wire.PhaseNone},
	}
	g.server = sync.OnceValues(g.serverConfig)
	g.power, g.cut = context.WithCancel(f.ctx)
	g.os, g.stop = context.WithCancel(g.power)
	return g
}

// told is the plan as Farm.Delays tells it.
func (g *Guest) told() map[string]time.Duration {
	d := map[string]time.Duration{"boot": g.plan.boot, "agent": g.plan.agent, "ssh": g.plan.ssh, "register": g.plan.register}
	if g.farm.cfg.OOBE {
		d["linger"], d["reboot"], d["ssh_again"] = g.plan.linger, g.plan.reboot, g.plan.sshAgain
	}
	return d
}

// addressOf is 10.x.y.z, one for each VMID below 15,625,000, never ending in .0 or .255.
func addressOf(vmid int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(vmid / 62500 % 250), byte(vmid / 250 % 250), byte(vmid%250 + 1)})
}

// live is Windows from power-on to ready.
func (g *Guest) live() {
	if g.plan.hang || !g.sleep(g.plan.boot) || !g.sleep(g.plan.agent) {
		return
	}
	last := !g.farm.cfg.OOBE
	if !g.comeUp(g.plan.ssh, last) || last {
		return
	}
	if !g.sleep(g.plan.linger) {
		return
	}
	g.goDown()
	if g.sleep(g.plan.reboot) {
		g.comeUp(g.plan.sshAgain, true)
	}
}

// comeUp is from the agent's first answer to the end of one pass, in the order in which a Windows
// clone shows its parts: DHCP takes some seconds after the agent, and the SSH host keys are made
// before sshd listens (PowerShell/openssh-portable, wmain_sshd.c).
func (g *Guest) comeUp(took time.Duration, last bool) bool {
	g.advance(func() { g.setAgent(true); g.lease = noDHCP })
	for _, step := range []struct {
		percent int
		do      func()
	}{
		{20, func() { g.lease = leased }},
		{20, func() { g.keyFile = max(g.keyFile, keyEmpty) }},
		{10, func() { g.keyFile = keyWritten }},
		{20, func() { g.sshd = !g.plan.noSSH }},
		{30, func() { g.state.Ready = last }},
	} {
		if !g.sleep(took * time.Duration(step.percent) / 100) {
			return false
		}
		g.advance(step.do)
	}
	return true
}

// goDown is a reboot, a freeze or the loss of power, as seen from outside.
func (g *Guest) goDown() {
	var conns []net.Conn
	g.change(func() {
		g.setAgent(false)
		g.lease, g.sshd = noNetwork, false
		for c := range g.conns {
			conns = append(conns, c)
		}
		clear(g.conns)
	})
	for _, c := range conns {
		_ = c.Close()
	}
}

// AgentUp says whether the guest agent answers; changed is closed when that changes.
func (g *Guest) AgentUp() (up bool, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.agent, g.agentNew
}

// A NIC is a network interface as the guest agent tells it.
type NIC struct {
	Name string
	MAC  string // lower case; "" if it has none
	IPs  []netip.Prefix
}

// Interfaces are the guest's network interfaces. Virtual switches come first, as they do on
// Windows with WSL, and every guest has the same address there; nil while the agent does not answer.
func (g *Guest) Interfaces() []NIC {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.agent {
		return nil
	}
	ethernet := NIC{Name: "Ethernet", MAC: g.mac}
	id := binary.BigEndian.AppendUint32(nil, uint32(g.vmid))
	switch g.lease {
	case noDHCP:
		ethernet.IPs = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, id[2], id[3]}), 16)}
	case leased:
		local := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x5d, 9: 0x2c, 12: id[0], 13: id[1], 14: id[2], 15: id[3]})
		ethernet.IPs = []netip.Prefix{netip.PrefixFrom(local, 64), netip.PrefixFrom(g.ip, 8)}
	}
	return []NIC{
		{"vEthernet (Default Switch)", "00:15:5d:01:02:03", []netip.Prefix{netip.MustParsePrefix("fe80::a1b2:c3d4:e5f6:1/64"), netip.MustParsePrefix("172.18.64.1/20")}},
		ethernet,
		{"Loopback Pseudo-Interface 1", "", []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.1/8")}},
	}
}

// HostKeyPath is the file that the guest agent reads the SSH host key from.
const HostKeyPath = `C:\ProgramData\ssh\ssh_host_ed25519_key.pub`

// ReadFile is the content of a file; ok is false if there is none. The guest has HostKeyPath only: it is
// missing at first, then empty for a moment.
func (g *Guest) ReadFile(path string) (content string, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.agent || g.keyFile == keyMissing || !strings.EqualFold(strings.ReplaceAll(path, "/", `\`), HostKeyPath) {
		return "", false
	}
	if g.keyFile == keyEmpty {
		return "", true
	}
	key, err := g.hostKey(g.plan.wrongKey)
	if err != nil {
		return "", true
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	return fmt.Sprintf("%s nt authority\\system@WIN-%d\n", line, g.vmid), true
}

// Off is the loss of power: everything ends now. A runner that is connected is lost. Again: nothing.
func (g *Guest) Off() {
	g.cut()
	g.goDown()
	g.farm.forget(g)
	g.lose()
}

// Freeze stops Windows without the VM: nothing in it answers any more, and its runner is lost.
func (g *Guest) Freeze() {
	g.change(func() { g.frozen = true })
	g.stop()
	g.goDown()
	g.lose()
}

// State is what the helper would say.
func (g *Guest) State() wire.State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

func (g *Guest) change(do func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	do()
}

// advance makes a change that only a living Windows makes.
func (g *Guest) advance(do func()) {
	g.change(func() {
		if g.os.Err() == nil {
			do()
		}
	})
}

func (g *Guest) setAgent(up bool) {
	if g.agent != up {
		g.agent = up
		close(g.agentNew)
		g.agentNew = make(chan struct{})
	}
}

// sleep waits for d; false when Windows ended before.
func (g *Guest) sleep(d time.Duration) bool { return sleep(g.os, d) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
