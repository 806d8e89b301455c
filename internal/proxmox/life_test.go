package proxmox_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/proxmox"
	"mayfly/internal/sim/pve"
)

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHTGvcZVTxRWBjnEQx9fpFxkMmPrmsXHcNRHkYMbPRsv"

// A windows is a guest whose agent answers after a while.
type windows struct {
	mac     string
	up      time.Time
	changed chan struct{}
	timer   *time.Timer
}

func boot(m pve.Machine, took time.Duration) *windows {
	w := &windows{mac: m.MAC, up: time.Now().Add(took), changed: make(chan struct{})}
	w.timer = time.AfterFunc(took, func() { close(w.changed) })
	return w
}

func (w *windows) AgentUp() (bool, <-chan struct{}) {
	if time.Now().Before(w.up) {
		return false, w.changed
	}
	return true, nil
}

func (w *windows) Interfaces() []pve.NIC {
	return []pve.NIC{
		{Name: "Loopback Pseudo-Interface 1", IPs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Name: "Ethernet", MAC: strings.ToLower(w.mac), IPs: []netip.Prefix{netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("10.1.3.77/24")}},
	}
}

func (w *windows) ReadFile(string) (string, bool) { return hostKey + "\r\n", true }
func (w *windows) Off()                           { w.timer.Stop() }

// A bench is a simulated cluster with our client.
type bench struct {
	*testing.T
	sim    *pve.Cluster
	client *proxmox.Client
	mu     sync.Mutex
	booted map[int]pve.Machine
	up     map[int]time.Time
	rnd    *rand.Rand
	calls  map[string]int
}

func newBench(t *testing.T, seed uint64, change ...func(*pve.Config)) *bench {
	t.Logf("seed %d", seed)
	b := &bench{T: t, booted: map[int]pve.Machine{}, up: map[int]time.Time{}, rnd: rand.New(rand.NewPCG(seed, 1)), calls: map[string]int{}}
	cfg := pve.Config{
		Seed: seed, Nodes: []pve.NodeSpec{{Name: "pve1", Memory: 256 << 30, Cores: 64}, {Name: "pve2", Memory: 256 << 30, Cores: 64}},
		Token: "mayfly@pve!orch", Secret: "s3cret", Pool: "runners", Delays: pve.Linked(),
		Templates: []pve.TemplateSpec{{ID: 9000, Node: "pve1", Name: "win", Memory: 8 << 30, Cores: 4}},
	}
	cfg.Boot = func(m pve.Machine) pve.Guest {
		b.mu.Lock()
		defer b.mu.Unlock()
		// 30-45 s to boot, 5-10 s more to the agent
		took := 30*time.Second + time.Duration(b.rnd.Int64N(int64(15*time.Second))) + 5*time.Second + time.Duration(b.rnd.Int64N(int64(5*time.Second)))
		b.booted[m.ID], b.up[m.ID] = m, time.Now().Add(took)
		return boot(m, took)
	}
	for _, f := range change {
		f(&cfg)
	}
	b.sim = pve.New(cfg)
	srv := httptest.NewTestServer(t, b.sim.Handler())
	t.Cleanup(func() { b.sim.Close(); srv.Close() })
	c, err := proxmox.New(proxmox.Config{
		Endpoints: []string{srv.URL}, Token: cfg.Token, Secret: fleet.Secret(cfg.Secret), Instance: "k3f9", Pool: "runners",
		IDs: proxmox.Range{From: 600, To: 799}, Templates: []int{9000}, HTTP: srv.Client(),
		Observe: func(call, outcome string, _ time.Duration) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.calls[call]++
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.client = c
	return b
}

func (b *bench) requests() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range b.calls {
		n += k
	}
	return n
}

func (b *bench) runner(n int) fleet.Runner {
	return fleet.Runner{Name: fmt.Sprintf("k3f9-win-%08x", n), Pool: "win", Node: "pve1", VMID: 600 + n, Template: 9000, Born: time.Now()}
}

// launch brings a runner up as the controller does, and returns how long our side took beyond
// the simulated work.
func (b *bench) launch(ctx context.Context, r *fleet.Runner) (late time.Duration, err error) {
	p := fleet.Pool{Name: "win", Cores: 4, Memory: 8 * fleet.GiB}
	leave, err := b.client.Admit(ctx, r.Node)
	if err != nil {
		return 0, err
	}
	defer leave()
	began := time.Now()
	k, err := b.client.Clone(ctx, *r, p)
	if err != nil {
		return 0, err
	}
	if err := b.client.Wait(ctx, k.UPID); err != nil {
		return 0, err
	}
	leave()
	if r.MAC, err = b.client.Fit(ctx, *r, p); err != nil {
		return 0, err
	}
	if err := b.client.Start(ctx, *r); err != nil {
		return 0, err
	}
	r.StartedAt = time.Now()
	a, err := b.client.Find(ctx, *r)
	if err != nil {
		return 0, err
	}
	if a.IP != "10.1.3.77" || a.HostKey != hostKey {
		return 0, fmt.Errorf("found %+v", a)
	}
	b.mu.Lock()
	up := b.up[r.VMID]
	b.mu.Unlock()
	work := b.sim.Delays(r.VMID)
	// What the clone and the start took, the boot, and nothing else.
	return time.Since(began) - work["clone"] - time.Until(up) - up.Sub(r.StartedAt), nil
}

func (b *bench) powerOff(id int) {
	b.mu.Lock()
	m := b.booted[id]
	b.mu.Unlock()
	m.PowerOff()
}

func TestLifeOfRunnersAlone(t *testing.T) {
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, seed)
		const many = 40
		for n := range many {
			r := b.runner(n)
			if _, err := b.launch(t.Context(), &r); err != nil {
				t.Fatal(err)
			}
			synctest.Sleep(time.Minute)
			b.powerOff(r.VMID)
			synctest.Sleep(5 * time.Second)
			if leaked, err := b.client.Destroy(t.Context(), r); err != nil || len(leaked) > 0 {
				t.Fatal(leaked, err)
			}
			if n == 0 {
				t.Log("the first runner's requests:", b.requests())
			}
		}
		mean := float64(b.requests()) / many
		t.Logf("%.1f requests a runner: %v", mean, b.calls)
		if mean > 32 {
			t.Errorf("%.1f requests a runner, more than 32", mean)
		}
		if left := b.sim.VMs(); len(left) > 0 {
			t.Error("left:", left)
		}
	})
}

func TestLifeOfRunnersInACrowd(t *testing.T) {
	seed := rand.Uint64()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, seed)
		const many = 24
		var wg sync.WaitGroup
		for n := range many {
			wg.Go(func() {
				r := b.runner(n)
				if _, err := b.launch(t.Context(), &r); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(10 * time.Minute) // so that all live at once
				b.powerOff(r.VMID)
				time.Sleep(5 * time.Second)
				if leaked, err := b.client.Destroy(t.Context(), r); err != nil || len(leaked) > 0 {
					t.Error(leaked, err)
				}
			})
		}
		wg.Wait()
		mean := float64(b.requests()) / many
		t.Logf("%.1f requests a runner: %v", mean, b.calls)
		if mean > 23 { // from a cold start, nothing learned yet
			t.Errorf("%.1f requests a runner", mean)
		}
		if left := b.sim.VMs(); len(left) > 0 {
			t.Error("left:", left)
		}
	})
}

// TestLifeWithFaults: whatever goes wrong on the way, calling Destroy again ends it, and the
// neighbours in the range are left alone.
func TestLifeWithFaults(t *testing.T) {
	seed := rand.Uint64()
	for name, faults := range map[string][]pve.Fault{
		"lost answers":       {{Match: "^(DELETE|POST .*/status/|PUT)", Rate: 0.5, Count: 6, Do: pve.DropAfter()}},
		"lost requests":      {{Match: "^(DELETE|POST .*/status/|PUT)", Rate: 0.5, Count: 6, Do: pve.DropBefore()}},
		"lost clone answer":  {{Match: "/clone$", Count: 1, Do: pve.DropAfter()}},
		"active lock":        {{Match: "^(DELETE|POST .*/(clone|start|stop))", Count: 2, Do: pve.StatusAfter(500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout")}},
		"node hops":          {{Match: "^GET", Rate: 0.3, Count: 20, Do: pve.Status(596, "Connection timed out")}},
		"destroy fails once": {{Match: "^DELETE", Count: 1, Do: pve.TaskFails("can't lock file '/var/lock/qemu-server/lock-600.conf' - got timeout")}},
		"rows dropped":       {{Match: "cluster/resources", Rate: 0.5, Count: 6, Do: pve.DropRows(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, seed)
				b.sim.AddVM(pve.VMSpec{ID: 601, Node: "pve1", Name: "database", Running: true, Pool: "runners"})
				b.sim.AddVM(pve.VMSpec{ID: 602, Node: "pve1", Name: "k3f9-win-00000000", Description: "mayfly k3f9 k3f9-win-00000001 born=2026-11-23T21:55:00Z", Pool: "runners"})
				for _, f := range faults {
					defer b.sim.Inject(f)()
				}
				r := b.runner(0)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
				defer cancel()
				_, err := b.launch(ctx, &r)
				t.Log("launch:", err)
				gone := 0
				for tries := 0; gone < 2; tries++ {
					if tries == 40 {
						t.Fatal("never gone:", err)
					}
					_, err = b.client.Destroy(ctx, r)
					if err != nil {
						t.Log("destroy:", err)
					}
					if ok, err := b.client.Free(ctx, r.VMID); ok && err == nil {
						gone++
					} else {
						gone = 0
					}
					synctest.Sleep(20 * time.Second)
				}
				for _, id := range []int{601, 602} {
					other := fleet.Runner{VMID: id, Node: "pve1"}
					if _, err := b.client.Destroy(ctx, other); err == nil || errors.Is(err, fleet.ErrGone) {
						t.Errorf("VM %d: %v", id, err)
					}
				}
				if touched := b.sim.Touched(); len(touched) > 0 {
					t.Error("touched:", touched)
				}
				if left := b.sim.VMs(); len(left) != 2 {
					t.Error("left:", left)
				}
			})
		})
	}
}
