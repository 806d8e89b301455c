package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

const (
	tick     = 5 * time.Second
	maxTicks = 6000 // over eight hours; a day of this model takes well under one
)

// TestNobodyStarves lives through days in which GitHub gives jobs to any runner that has their labels, events are
// lost and launches fail. Every job must be done, whatever the order and however the pools share nodes; then nothing
// but the ready VMs that were wished for may be left.
func TestNobodyStarves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for n := 0; !m.content(); n++ {
			if n == maxTicks {
				t.Fatalf("after %v:\n%s\n%+v", n*int(tick), writePlan(fleet.Decide(m.w)), m.w)
			}
			m.live()
		}
	})
}

// model is a world that goes on.
type model struct {
	*rapid.T
	drawer
	w      fleet.World
	doing  map[string]*doing // what holds a row
	coming []fleet.Job       // jobs not yet asked for
	begins map[int64]time.Time
	born   int
}

// doing is one goroutine of the controller.
type doing struct {
	left int // ticks
	done func(*fleet.Seen)
}

func newModel(t *rapid.T) *model {
	m := &model{T: t, drawer: drawer{t}, doing: map[string]*doing{}, begins: map[int64]time.Time{}}
	m.w = fleet.World{Now: noon, Pace: fleet.DefaultPace(), ProxmoxAsOf: noon, GitHubAsOf: noon}
	need, wished := fleet.Bytes(0), fleet.Bytes(0)
	for i := range 1 + m.upTo("pools", 3) {
		p := fleet.Pool{
			Name: fmt.Sprintf("p%d", i), Labels: append(m.labels("without"), "any"), Max: 1 + m.upTo("max", 4), Ready: max(0, m.upTo("ready", 4)-2),
			Templates: map[string]int{"big": 9000}, Needs: one[fleet.Bytes](m.drawer, "needs", 4, 8, 16) * fleet.GiB,
			CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute, JobTimeout: time.Hour,
		}
		if m.bool("small too") {
			p.Templates["small"] = 9000
		}
		need, wished = max(need, p.Needs), wished+fleet.Bytes(p.Ready)*p.Needs
		m.w.Pools = append(m.w.Pools, p)
	}
	m.w.Nodes = []fleet.Node{
		// Just enough that each pool has capacity: one runner beside all that is wished for ready.
		{Name: "big", Online: true, Memory: wished + need},
		{Name: "small", Online: true, Memory: 8 * fleet.GiB, MaxRunners: 2},
	}
	for i := range m.upTo("jobs", 12) {
		j := fleet.Job{ID: int64(i + 1), Labels: one(m.drawer, "of pool", m.w.Pools...).Labels, Status: fleet.StatusQueued}
		j.Created = noon.Add(time.Duration(m.upTo("asked at", 300)) * time.Second)
		m.coming = append(m.coming, j)
	}
	return m
}

// content tells whether all jobs are done and nothing is left but what is wished for.
func (m *model) content() bool {
	if len(m.coming) > 0 || slices.ContainsFunc(m.w.Jobs, func(j fleet.Job) bool { return j.Status != fleet.StatusCompleted }) {
		return false
	}
	for _, p := range m.w.Pools {
		n := 0
		for _, r := range m.w.Runners {
			if r.Pool == p.Name {
				n++
			}
		}
		if n > p.Ready {
			return false
		}
	}
	return true
}

// live is one tick: GitHub and the guests go on, then what is decided is begun.
func (m *model) live() {
	m.w.Now = m.w.Now.Add(tick)
	m.w.ProxmoxAsOf, m.w.GitHubAsOf = m.w.Now, m.w.Now
	m.coming = slices.DeleteFunc(m.coming, func(j fleet.Job) bool {
		due := !j.Created.After(m.w.Now)
		if j.Changed = m.w.Now; due {
			m.w.Jobs = append(m.w.Jobs, j)
		}
		return due
	})
	for i := range m.w.Runners {
		r := &m.w.Runners[i]
		if d := m.doing[r.Name]; d != nil {
			if d.left--; d.left <= 0 {
				delete(m.doing, r.Name)
				r.Held = fleet.NotHeld
				d.done(r)
			}
		}
		switch {
		case r.Phase == fleet.Idle && r.Hub != fleet.Occupied:
			m.assign(r)
		case r.Hub == fleet.Occupied:
			m.finish(r)
		}
	}
	m.w.Runners = slices.DeleteFunc(m.w.Runners, func(r fleet.Seen) bool { return r.Cause == "gone" })
	m.act(fleet.Decide(m.w))
}

// assign gives an idle runner the oldest job that it can do: GitHub knows nothing of our pools.
func (m *model) assign(r *fleet.Seen) {
	p := poolsOf(m.w)[r.Pool]
	best := -1
	for i, j := range m.w.Jobs {
		if j.Status == fleet.StatusQueued && m.begins[j.ID].IsZero() && fleet.Match(j.Labels, p.Labels) && (best < 0 || j.Created.Before(m.w.Jobs[best].Created)) {
			best = i
		}
	}
	if best < 0 || m.bool("GitHub takes its time") {
		return
	}
	j := &m.w.Jobs[best]
	r.Hub, m.begins[j.ID] = fleet.Occupied, m.w.Now
	r.Job = j.ID // what the guest knows; Decide does not read it
	if !m.seldom("in_progress is lost", 5) {
		j.Status, j.Runner, j.Changed, r.JobID = fleet.StatusInProgress, r.Registration, m.w.Now, j.ID
	}
}

func (m *model) finish(r *fleet.Seen) {
	i := slices.IndexFunc(m.w.Jobs, func(j fleet.Job) bool { return j.ID == r.Job })
	if !m.seldom("the job ends", 8) {
		return
	}
	j := &m.w.Jobs[i]
	j.Status, j.Runner, j.Changed = fleet.StatusCompleted, r.Registration, m.w.Now
	r.Hub, r.JobID, r.JobEnded = fleet.Unlisted, j.ID, m.w.Now
	if m.bool("its VM stops by itself") {
		r.VM = fleet.Stopped
	}
}

// hold has somebody work on a row for some ticks.
func (m *model) hold(name string, stage fleet.Hold, most int, done func(*fleet.Seen)) {
	i := slices.IndexFunc(m.w.Runners, func(r fleet.Seen) bool { return r.Name == name })
	m.w.Runners[i].Held = stage
	m.doing[name] = &doing{1 + m.upTo("ticks", most), done}
}

func (m *model) to(phase fleet.Phase) func(*fleet.Seen) {
	return func(r *fleet.Seen) { r.Phase, r.Since = phase, m.w.Now }
}

func gone(r *fleet.Seen) { r.Cause = "gone" }

func (m *model) leave(r *fleet.Seen) {
	m.to(fleet.Leaving)(r)
	r.Hub = fleet.NotLooked
	m.hold(r.Name, fleet.AtWork, 3, gone)
}

func (m *model) act(p fleet.Plan) {
	for _, law := range []func(fleet.World, fleet.Plan) error{neverAboveMax, launchesFit, oneWishEach, failuresAreWaitedFor} {
		if err := law(m.w, p); err != nil {
			m.Fatal(err)
		}
	}
	row := func(a fleet.Runner) *fleet.Seen {
		return &m.w.Runners[slices.IndexFunc(m.w.Runners, func(r fleet.Seen) bool { return r.Name == a.Name })]
	}
	for _, a := range p.Advance {
		m.to(a.To)(row(a.Runner))
	}
	for _, a := range ends(p) {
		if r := row(a.Runner); r.Hub == fleet.Occupied && r.Phase != fleet.Idle { // of an Idle one GitHub is asked
			m.Fatalf("%s is in job %d and is ended: %s", r.Name, r.Job, a.Cause)
		}
	}
	for _, a := range p.Leave {
		m.leave(row(a.Runner))
	}
	for _, a := range p.Cancel {
		m.hold(a.Runner.Name, fleet.AtGate, 0, gone)
	}
	for _, x := range p.Examine {
		m.hold(x.Runner.Name, fleet.AtWork, 2, func(r *fleet.Seen) {
			if r.VM == fleet.Stopped || !r.JobEnded.IsZero() {
				m.leave(r)
			}
		})
	}
	for _, a := range p.Join {
		r := row(a.Runner)
		r.Registration = r.Name
		m.to(fleet.Joining)(r)
		m.hold(r.Name, fleet.AtWork, 4, func(r *fleet.Seen) {
			m.to(fleet.Idle)(r)
			r.Hub = fleet.Online
		})
	}
	for _, a := range p.Retire {
		m.hold(a.Runner.Name, fleet.AtWork, 1, func(r *fleet.Seen) {
			if r.Hub != fleet.Occupied { // else GitHub says 422
				m.leave(r)
			}
		})
	}
	for _, l := range p.Launch {
		m.launch(l)
	}
	was := m.w.Surplus
	m.w.Surplus = map[string]time.Time{}
	for _, pool := range p.Surplus {
		if m.w.Surplus[pool] = m.w.Now; !was[pool].IsZero() {
			m.w.Surplus[pool] = was[pool]
		}
	}
}

func (m *model) launch(l fleet.Launch) {
	m.born++
	r := fleet.Seen{Runner: fleet.Runner{
		Name: fmt.Sprintf("k-%s-%08d", l.Pool, m.born), Pool: l.Pool, Node: l.Node, VMID: m.born, Template: 9000,
		Phase: fleet.Preparing, Since: m.w.Now, Born: m.w.Now,
	}, VM: fleet.Unseen, Hub: fleet.NotLooked}
	m.w.Runners = append(m.w.Runners, r)
	m.hold(r.Name, fleet.AtGate, 2, func(r *fleet.Seen) {
		r.AskedAt, r.UPID = m.w.Now, "UPID"
		m.hold(r.Name, fleet.AtWork, 6, func(r *fleet.Seen) {
			if m.seldom("the launch fails", 6) {
				m.w.Troubles = failed(m.w.Troubles, r.Runner, "other", m.w.Now)
				m.leave(r)
				return
			}
			r.ClonedAt, r.StartedAt = m.w.Now, m.w.Now
			m.to(fleet.Ready)(r)
			m.w.Troubles = slices.DeleteFunc(m.w.Troubles, func(t fleet.Trouble) bool {
				return t.Pool == r.Pool && (t.Node == "" || t.Node == r.Node)
			})
		})
	})
}
