package guest_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
	client "mayfly/internal/guest"
	"mayfly/internal/sim/guest"
)

// hub is GitHub for these tests: it gives out the jobs that are sent to it and notes what becomes of them.
type hub struct {
	jobs chan guest.Job
	drop chan struct{} // closed: registrations are gone

	mu     sync.Mutex
	told   []string
	reject error
}

func newHub() *hub {
	return &hub{jobs: make(chan guest.Job, 10), drop: make(chan struct{})}
}

func (h *hub) tell(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = append(h.told, fmt.Sprintf(format, args...))
}

func (h *hub) heard() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.told, ", ")
}

func (h *hub) Connect(jit string) (guest.Session, error) {
	if h.reject != nil {
		return nil, h.reject
	}
	h.tell("connect %s", jit)
	return session{h}, nil
}

type session struct{ *hub }

func (s session) Next(ctx context.Context) (guest.Job, error) {
	select {
	case j := <-s.jobs:
		return j, nil
	case <-s.drop:
		return guest.Job{}, errors.New("the registration is gone")
	case <-ctx.Done():
		return guest.Job{}, ctx.Err()
	}
}
func (s session) Done(job int64, conclusion string) { s.tell("done %d %s", job, conclusion) }
func (s session) Lost()                             { s.tell("lost") }

// bench is a farm and a client of it, in a bubble.
type bench struct {
	*testing.T
	farm *guest.Farm
	hub  *hub
	ssh  *client.SSH
}

func key(t *testing.T, seed byte) (private ssh.Signer, authorized string) {
	t.Helper()
	signer, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), ed25519.SeedSize))))
	if err != nil {
		t.Fatal(err)
	}
	return signer, string(ssh.MarshalAuthorizedKey(signer.PublicKey()))
}

func newBench(t *testing.T, c guest.Config, with ...func(*client.Config)) *bench {
	t.Helper()
	b := &bench{T: t, hub: newHub()}
	private, authorized := key(t, 0)
	c.Seed, c.AuthorizedKey, c.Hub = 7, authorized, b.hub
	b.farm = guest.New(c)
	t.Cleanup(b.farm.Close)
	cc := client.Config{User: "orchestrator", Signer: private, Dial: b.farm.Dial, Speed: c.Speed}
	for _, w := range with {
		w(&cc)
	}
	var err error
	if b.ssh, err = client.NewSSH(cc); err != nil {
		t.Fatal(err)
	}
	return b
}

// find does what the orchestrator does through the guest agent, with a look a second.
func (b *bench) find(g *guest.Guest, mac string) fleet.Address {
	b.Helper()
	for range 600 {
		for _, n := range g.Interfaces() {
			for _, ip := range n.IPs {
				content, _ := g.ReadFile(guest.HostKeyPath)
				if strings.EqualFold(n.MAC, mac) && ip.Addr().Is4() && !ip.Addr().IsLinkLocalUnicast() && content != "" {
					return fleet.Address{IP: ip.Addr().String(), HostKey: content}
				}
			}
		}
		time.Sleep(time.Second)
	}
	b.Fatal("the guest never told its address and host key")
	return fleet.Address{}
}

// ready polls the status until the guest is ready.
func (b *bench) ready(a fleet.Address) fleet.Guest {
	b.Helper()
	for range 600 {
		g, err := b.ssh.Status(b.Context(), a)
		if err == nil && g.Ready {
			return g
		}
		time.Sleep(time.Second)
	}
	b.Fatal("the guest never became ready")
	return fleet.Guest{}
}

func order(id string) fleet.Order {
	return fleet.Order{ID: id, Secret: "jit-of-" + fleet.Secret(id), URL: "https://github.com/o/r", Labels: []string{"windows"}, Deadline: 24 * time.Hour}
}

const mac = "BC:24:11:0A:0B:0C"

func sum(delays map[string]time.Duration) (total time.Duration) {
	for d := range maps.Values(delays) {
		total += d
	}
	return total
}
