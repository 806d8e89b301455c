package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/controller"
	"mayfly/internal/fleet"
	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/sim/pve"
)

// A trap crashes Mayfly the first time that something has just happened.
type trap struct {
	name   string
	spring func(springs *springs)
	ready  int  // of the pool
	retire bool // the story needs a runner that is retired: its job is cancelled
	clones int  // at most, for the one job
}

// springs are the edges of a life with hooks after each call. A hook returns whether to crash there.
type springs struct {
	crash   func()
	created func() bool
	asked   func() bool
	waited  func(upid string) bool
	fitted  func() bool
	started func() bool
	updated func(r fleet.Runner) bool
	minted  func() bool
	ordered func() bool // when the guest has been sent the order, before it answers
	begun   func() bool
	removed func() bool
	deleted func() bool
}

func at(hook func() bool, s *springs) error {
	if hook != nil && hook() {
		s.crash()
		return errDead
	}
	return nil
}

func (s *springs) wrap(p controller.Parts) controller.Parts {
	p.Maker, p.Ender, p.Hub, p.Guests, p.Store = springMaker{p.Maker, s}, springEnder{p.Ender, s}, springHub{p.Hub, s}, springGuests{p.Guests, s}, springStore{p.Store, s}
	return p
}

type (
	springMaker struct {
		controller.Maker
		s *springs
	}
	springEnder struct {
		controller.Ender
		s *springs
	}
	springHub struct {
		controller.Hub
		s *springs
	}
	springGuests struct {
		controller.Guests
		s *springs
	}
	springStore struct {
		controller.Store
		s *springs
	}
)

func (m springMaker) Clone(ctx context.Context, r fleet.Runner, p fleet.Pool) (fleet.Clone, error) {
	c, err := m.Maker.Clone(ctx, r, p)
	if dead := at(m.s.asked, m.s); dead != nil {
		return fleet.Clone{}, dead
	}
	return c, err
}

func (m springMaker) Wait(ctx context.Context, upid string) error {
	err := m.Maker.Wait(ctx, upid)
	if m.s.waited != nil && m.s.waited(upid) {
		m.s.crash()
		return errDead
	}
	return err
}

func (m springMaker) Fit(ctx context.Context, r fleet.Runner, p fleet.Pool) (string, error) {
	mac, err := m.Maker.Fit(ctx, r, p)
	if dead := at(m.s.fitted, m.s); dead != nil {
		return "", dead
	}
	return mac, err
}

func (m springMaker) Start(ctx context.Context, r fleet.Runner) error {
	err := m.Maker.Start(ctx, r)
	if dead := at(m.s.started, m.s); dead != nil {
		return dead
	}
	return err
}

func (m springEnder) Destroy(ctx context.Context, r fleet.Runner) ([]string, error) {
	leaked, err := m.Ender.Destroy(ctx, r)
	if dead := at(m.s.deleted, m.s); dead != nil {
		return nil, dead
	}
	return leaked, err
}

func (m springHub) Register(ctx context.Context, name string, p fleet.Pool) (fleet.Permit, error) {
	permit, err := m.Hub.Register(ctx, name, p)
	if dead := at(m.s.minted, m.s); dead != nil {
		return fleet.Permit{}, dead
	}
	return permit, err
}

func (m springHub) Remove(ctx context.Context, id int64, name string) (fleet.Removal, error) {
	was, err := m.Hub.Remove(ctx, id, name)
	if dead := at(m.s.removed, m.s); dead != nil {
		return "", dead
	}
	return was, err
}

func (m springGuests) Start(ctx context.Context, a fleet.Address, o fleet.Order) (fleet.Guest, error) {
	if m.s.ordered != nil && m.s.ordered() {
		go func() { _, _ = m.Guests.Start(context.WithoutCancel(ctx), a, o) }() // the order is sent; nobody hears the answer
		_ = sleepFor(ctx, time.Second)
		m.s.crash()
		return fleet.Guest{}, errDead
	}
	g, err := m.Guests.Start(ctx, a, o)
	if dead := at(m.s.begun, m.s); dead != nil {
		return fleet.Guest{}, dead
	}
	return g, err
}

func (m springStore) Create(ctx context.Context, rows []fleet.Runner, ev ...fleet.Event) error {
	err := m.Store.Create(ctx, rows, ev...)
	if dead := at(m.s.created, m.s); dead != nil {
		return dead
	}
	return err
}

func (m springStore) Update(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error {
	err := m.Store.Update(ctx, r, ev...)
	if m.s.updated != nil && m.s.updated(r) {
		m.s.crash()
		return errDead
	}
	return err
}

func sleepFor(ctx context.Context, d time.Duration) error {
	pause(ctx, d)
	return ctx.Err()
}

// TestCrashAt crashes exactly where a step has been done and the next has not, and resumes.
func TestCrashAt(t *testing.T) {
	always := func() bool { return true }
	stored := func(is func(r fleet.Runner) bool) func(*springs) {
		return func(s *springs) { s.updated = is }
	}
	for _, trap := range []trap{
		{name: "after the row", spring: func(s *springs) { s.created = always }, clones: 1},
		{name: "after the POST", spring: func(s *springs) { s.asked = always }, clones: 2},
		{name: "after the UPID", spring: stored(func(r fleet.Runner) bool { return r.UPID != "" && r.ClonedAt.IsZero() }), clones: 1},
		{name: "after the clone", spring: func(s *springs) { s.waited = func(string) bool { return true } }, clones: 1},
		{name: "after the PUT", spring: func(s *springs) { s.fitted = always }, clones: 1},
		{name: "after the start", spring: func(s *springs) { s.started = always }, clones: 1},
		{name: "after ready", spring: stored(func(r fleet.Runner) bool { return r.Phase == fleet.Ready }), clones: 1},
		{name: "after joining is written", spring: stored(func(r fleet.Runner) bool { return r.Phase == fleet.Joining && r.RunnerID == 0 }), clones: 1},
		{name: "after the JIT POST", spring: func(s *springs) { s.minted = always }, clones: 1},
		{name: "after the id is stored", spring: stored(func(r fleet.Runner) bool { return r.Phase == fleet.Joining && r.RunnerID != 0 }), clones: 1},
		{name: "after start was sent", spring: func(s *springs) { s.ordered = always }, clones: 1},
		{name: "after listening", spring: func(s *springs) { s.begun = always }, clones: 1},
		{name: "after DELETE was sent", spring: func(s *springs) { s.removed = always }, retire: true, clones: 1},
		{name: "after Leaving is written", spring: stored(func(r fleet.Runner) bool { return r.Phase == fleet.Leaving }), clones: 1},
		{name: "after the VM is destroyed", spring: func(s *springs) { s.deleted = always }, clones: 1},
	} {
		t.Run(trap.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { crashAt(t, trap) })
		})
	}
}

func crashAt(t *testing.T, trap trap) {
	h := newHouse(t, houseOptions{sim: sim.Config{Seed: 3}, max: 4, ready: trap.ready})
	defer h.close()
	var l *life
	h.restart = func(n int) func(controller.Parts) controller.Parts {
		if n > 0 {
			return nil
		}
		s := &springs{crash: func() { l.crash() }}
		trap.spring(s)
		return s.wrap
	}
	l = h.start()
	id := h.world.GitHub.Submit(github.JobSpec{Repo: "octo-org/app", Labels: []string{"windows"}, Length: 3 * time.Minute})
	jobs := 1
	if trap.retire {
		jobs = 0
		for h.phases()[fleet.Joining] == 0 {
			synctest.Sleep(time.Second)
		}
		h.world.GitHub.Cancel(id) // its runner will listen for nothing
	}
	select {
	case <-l.dead:
	case <-time.After(30 * time.Minute):
		h.fatalState("it never came so far")
	}
	h.end(l)
	synctest.Sleep(time.Minute) // it stays away for a while
	l = h.start()
	synctest.Sleep(5 * time.Second)
	h.untilEmpty(2 * time.Hour)
	if trap.retire {
		if n := h.world.GitHub.Stats().Killed; n != 0 {
			t.Errorf("%d killed", n)
		}
	} else {
		h.check(jobs)
	}
	synctest.Sleep(3 * time.Minute) // ghosts take two looks
	if left := h.world.PVE.VMs(); len(left) != 0 {
		t.Errorf("VMs left: %+v", left)
	}
	if left := h.world.PVE.Volumes(); len(left) != 0 {
		t.Errorf("volumes left: %v", left)
	}
	if n := h.world.GitHub.Stats().Runners; n != 0 {
		t.Errorf("%d registrations left", n)
	}
	if h.tally.clones > trap.clones || h.world.PVE.Requests()["clone"] > trap.clones {
		t.Errorf("%d clone POSTs, want at most %d", h.world.PVE.Requests()["clone"], trap.clones)
	}
}

// phases counts the runners by phase, as the last decision saw them.
func (h *house) phases() map[fleet.Phase]int {
	n := map[fleet.Phase]int{}
	w, _ := h.live.app.control.Last()
	for _, r := range w.Runners {
		n[r.Phase]++
	}
	return n
}

// storm is a world in which everything goes wrong that may.
type storm struct {
	seed       uint64
	jobs, max  int
	nodes      int
	crashes    int
	life       time.Duration // at most, of one life
	failing    float64       // share of calls
	limit      time.Duration
	submitOver time.Duration
	longer     time.Duration // what each job takes beyond its few minutes
}

// TestCrash crashes Mayfly at random moments while 2 % of all calls fail and webhooks are lost, doubled, reordered and
// late. Every job must be done; nothing may be killed, left or touched that is not ours.
func TestCrash(t *testing.T) {
	for _, seed := range seeds(t, 20) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				weather(t, storm{
					seed: seed, jobs: fromEnv(t, "MAYFLY_STORM_JOBS", 40), max: 15, nodes: 3, crashes: 30, life: 90 * time.Second, failing: 0.02,
					limit: 24 * time.Hour, submitOver: 10 * time.Minute,
				})
			})
		})
	}
}

// TestSoakCrash is the same for 200 seeds.
func TestSoakCrash(t *testing.T) {
	if os.Getenv("MAYFLY_SOAK") == "" {
		t.Skip("set MAYFLY_SOAK=1, or run make soak-crash: it takes many minutes")
	}
	for _, seed := range seeds(t, 200) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				weather(t, storm{
					seed: seed, jobs: 100, max: 30, nodes: 4, crashes: 60, life: 90 * time.Second, failing: 0.02, limit: 24 * time.Hour, submitOver: 15 * time.Minute,
				})
			})
		})
	}
}

// TestSoakThousand runs 2,000 jobs, 1,000 at once, on 40 nodes, in the same weather.
func TestSoakThousand(t *testing.T) {
	if os.Getenv("MAYFLY_SOAK") == "" {
		t.Skip("set MAYFLY_SOAK=1, or run make soak-crash: it takes many minutes")
	}
	jobs := fromEnv(t, "MAYFLY_JOBS", 2000)
	synctest.Test(t, func(t *testing.T) {
		weather(t, storm{seed: 1, jobs: jobs, max: jobs / 2, nodes: max(jobs/50, 1), crashes: 10, life: 5 * time.Minute, failing: 0.02, limit: 48 * time.Hour, submitOver: time.Minute, longer: 20 * time.Minute})
	})
}

func weather(t *testing.T, s storm) {
	bad := map[string]float64{"in_progress": 0.1, "completed": 0.1}
	rng := rand.New(rand.NewPCG(s.seed, 99))
	h := newHouse(t, houseOptions{sim: sim.Config{
		Seed: s.seed, Nodes: s.nodes, OOBE: true,
		Lose: bad, Double: map[string]float64{"": 0.1}, Reorder: map[string]float64{"": 0.1}, Late: map[string]float64{"": 0.05},
	}, max: s.max})
	defer h.close()
	strangers(h)
	h.fail(s.failing)
	go func() {
		for i := range s.jobs {
			h.submit(1, func(int) time.Duration { return s.longer + minutes(8)(i) })
			time.Sleep(s.submitOver / time.Duration(s.jobs))
		}
	}()
	began, crashes := time.Now(), 0
	var peakJobs, peakVMs int
	defer func() { t.Logf("at most %d jobs running and %d VMs of ours at once", peakJobs, peakVMs) }()
	for {
		l := h.start()
		life := time.Duration(rng.Int64N(int64(s.life)))
		if crashes >= s.crashes {
			life = s.limit
		}
		for end := time.Now().Add(life); time.Now().Before(end); synctest.Sleep(min(5*time.Second, time.Until(end))) {
			peakJobs, peakVMs = max(peakJobs, h.world.GitHub.Stats().Running), max(peakVMs, len(h.ours()))
			if st := h.world.GitHub.Stats(); st.Submitted == s.jobs && h.empty() {
				break
			}
			if time.Since(began) > s.limit {
				h.fatalState(fmt.Sprintf("seed %d: not done after %v", s.seed, s.limit))
			}
		}
		st := h.world.GitHub.Stats()
		if st.Submitted == s.jobs && h.empty() {
			synctest.Sleep(3 * time.Minute) // strays and ghosts take a few looks
			if h.empty() && len(h.ours()) == 0 {
				h.end(l)
				break
			}
		}
		l.crash()
		h.end(l)
		crashes++
	}
	h.check(s.jobs)
	if left := h.world.PVE.Leaked(); len(left) != 0 {
		t.Errorf("volumes left: %v", left)
	}
	t.Logf("seed %d: %d jobs in %v, %d crashes, %d runners, %d clones, %d failures, %d quarantined", s.seed, s.jobs, time.Since(began).Round(time.Second), crashes, h.tally.runners, h.world.PVE.Requests()["clone"], h.tally.failures, h.tally.quarantined)
}

// ours are the VMs left that are no stranger's.
func (h *house) ours() []pve.VMState {
	var vms []pve.VMState
	for _, vm := range h.world.PVE.VMs() {
		if !vm.Foreign {
			vms = append(vms, vm)
		}
	}
	return vms
}

// strangers puts VMs of other people into our range: unmarked, copied from ours, marked by another instance, restored.
func strangers(h *house) {
	for i, s := range []pve.VMSpec{
		{Name: "fileserver", Running: true},
		{Name: "test-win-00000001", Running: true, Pool: sim.ProxmoxPool}, // named like ours, in our pool, no mark
		{Name: "Copy-of-VM-test-win-00000002", Description: "mayfly test test-win-00000002 born=2000-01-01T00:00:00Z", Running: true, Pool: sim.ProxmoxPool},
		{Name: "other-win-00000003", Description: "mayfly other other-win-00000003 born=2000-01-01T00:00:00Z", Running: true, Pool: sim.ProxmoxPool},
		{Name: "test-win-00000004", Description: "mayfly test test-win-00000004 born=2000-01-01T00:00:00Z"}, // marked, but not in our pool
	} {
		s.ID, s.Node, s.Foreign = 100003+2*i, "pve1", true
		h.world.PVE.AddVM(s)
	}
}

// fail lets a share of all calls fail in every way that the wire knows.
func (h *house) fail(share float64) {
	for _, do := range []pve.Action{
		pve.Status(596, "Connection timed out"), pve.Status(595, "No route to host"), pve.DropBefore(), pve.DropAfter(),
		pve.StatusAfter(500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout"),
	} {
		h.world.PVE.Inject(pve.Fault{Match: ".*", Rate: share / 5, Do: do})
	}
	for _, do := range []github.Effect{
		github.Status(502, "Bad Gateway"), github.StatusAfter(502, "Bad Gateway"), github.DropBefore(), github.DropAfter(), github.Limited(2 * time.Second),
	} {
		h.world.GitHub.Inject(github.Fault{Rate: share / 5, Do: do})
	}
}
