package fleet_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

// TestLaws draws worlds and holds every plan to what must be true of all of them.
func TestLaws(t *testing.T) {
	for _, law := range []struct {
		name  string
		holds func(fleet.World, fleet.Plan) error
	}{
		{"each wish is about a row, and each runner has one at most", oneWishEach},
		{"only what is known to be over is ended", runningIsSacred},
		{"a pool is never launched above its max", neverAboveMax},
		{"a launch goes where it is known to fit", launchesFit},
		{"failures are waited for, then tried one at a time", failuresAreWaitedFor},
		{"each open job has one reason, and it is true", waitsAreTrue},
		{"strays are looked at and ghosts only forgotten when both sides are seen", strangersAreSafe},
	} {
		t.Run(law.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				w := worlds(t)
				if err := law.holds(w, fleet.Decide(w)); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// ends is every wish that takes a runner away.
func ends(p fleet.Plan) []fleet.Action { return slices.Concat(p.Leave, p.Cancel, p.Retire) }

// aboutRunners is the runners of all wishes of p.
func aboutRunners(p fleet.Plan) []fleet.Runner {
	var all []fleet.Runner
	for _, a := range slices.Concat(ends(p), p.Resume, p.Settle, p.Join) {
		all = append(all, a.Runner)
	}
	for _, a := range p.Advance {
		all = append(all, a.Runner)
	}
	for _, x := range p.Examine {
		all = append(all, x.Runner)
	}
	return all
}

func rowsOf(w fleet.World) map[string]fleet.Seen {
	rows := map[string]fleet.Seen{}
	for _, r := range w.Runners {
		rows[r.Name] = r
	}
	return rows
}

func poolsOf(w fleet.World) map[string]fleet.Pool {
	pools := map[string]fleet.Pool{}
	for _, p := range w.Pools {
		pools[p.Name] = p
	}
	return pools
}

// inProgressOn tells whether the ledger says that a job runs on r now.
func inProgressOn(w fleet.World, r fleet.Seen) bool {
	return slices.ContainsFunc(w.Jobs, func(j fleet.Job) bool {
		return j.Status == fleet.StatusInProgress && (j.Runner != "" && j.Runner == r.Registration || j.ID == r.JobID && r.JobEnded.IsZero())
	})
}

func oneWishEach(w fleet.World, p fleet.Plan) error {
	rows, seen := rowsOf(w), map[string]bool{}
	for _, r := range aboutRunners(p) {
		if rows[r.Name].Runner != r {
			return fmt.Errorf("a wish about %s, VM %d, which is no row", r.Name, r.VMID)
		}
		if seen[r.Name] {
			return fmt.Errorf("%s gets two wishes", r.Name)
		}
		seen[r.Name] = true
		if s := rows[r.Name]; s.Held != fleet.NotHeld && (s.Phase != fleet.Preparing || !slices.ContainsFunc(slices.Concat(p.Leave, p.Cancel), func(a fleet.Action) bool { return a.Runner == r })) {
			return fmt.Errorf("%s is held and gets a wish", r.Name)
		}
	}
	return nil
}

func runningIsSacred(w fleet.World, p fleet.Plan) error {
	rows, pools := rowsOf(w), poolsOf(w)
	for _, a := range ends(p) {
		r := rows[a.Runner.Name]
		timeout := 24 * time.Hour
		if pool, ok := pools[r.Pool]; ok {
			timeout = pool.JobTimeout
		}
		over := !r.JobEnded.IsZero() && w.Now.Sub(r.JobEnded) >= w.Pace.Linger && !inProgressOn(w, r)
		switch {
		case r.Phase == fleet.Leaving:
		case r.Phase == fleet.Busy && !over && w.Now.Sub(r.Since) < timeout:
			return fmt.Errorf("%s is Busy, and is ended: %s", r.Name, a.Cause)
		case r.Phase == fleet.Joining:
			return fmt.Errorf("%s is Joining, and is ended: %s", r.Name, a.Cause)
		case r.Phase != fleet.Busy && (inProgressOn(w, r) || r.Hub == fleet.Occupied):
			return fmt.Errorf("%s is in a job by what GitHub says, and is ended: %s", r.Name, a.Cause)
		case r.Phase != fleet.Preparing && r.Phase != fleet.Busy && (r.VM == fleet.Stopped || r.VM == fleet.Missing):
			return fmt.Errorf("%s is ended and its VM is in doubt: %s", r.Name, a.Cause)
		}
	}
	for _, a := range p.Cancel {
		if r := rows[a.Runner.Name]; r.Phase != fleet.Preparing || r.Held == fleet.AtWork || r.UPID != "" || !r.AskedAt.IsZero() {
			return fmt.Errorf("%s is cancelled, and its clone may have been asked for", r.Name)
		}
	}
	for _, a := range p.Retire {
		if r := rows[a.Runner.Name]; r.Phase != fleet.Idle || w.Now.Sub(w.GitHubAsOf) > w.Pace.GitHubFresh {
			return fmt.Errorf("%s (%s) retires on a look at GitHub of %v", r.Name, r.Phase, w.GitHubAsOf)
		}
	}
	for _, a := range p.Join {
		if r := rows[a.Runner.Name]; r.Phase != fleet.Ready {
			return fmt.Errorf("%s joins and is %s", r.Name, r.Phase)
		}
	}
	for _, a := range p.Advance {
		if r := rows[a.Runner.Name]; !r.Phase.Before(a.To) {
			return fmt.Errorf("%s goes from %s to %s", r.Name, r.Phase, a.To)
		}
	}
	return nil
}

// serves counts the runners of a pool that p leaves in service.
func serves(w fleet.World, p fleet.Plan, pool string) (n int) {
	for _, r := range w.Runners {
		leaves := r.Phase == fleet.Leaving || slices.ContainsFunc(slices.Concat(p.Leave, p.Cancel), func(a fleet.Action) bool { return a.Runner.Name == r.Name && (r.Held == fleet.NotHeld || r.UPID != "") })
		advances := slices.ContainsFunc(p.Advance, func(a fleet.Advance) bool { return a.Runner.Name == r.Name })
		lingers := (r.Phase == fleet.Busy || advances) && !r.JobEnded.IsZero() && !inProgressOn(w, r)
		late := r.Phase == fleet.Busy && w.Now.Sub(r.Since) >= poolsOf(w)[pool].JobTimeout
		if r.Pool == pool && !leaves && !lingers && !late {
			n++
		}
	}
	return n
}

func neverAboveMax(w fleet.World, p fleet.Plan) error {
	launches := map[string]int{}
	for _, l := range p.Launch {
		launches[l.Pool]++
	}
	pools := poolsOf(w)
	for pool, n := range launches {
		if live := serves(w, p, pool); live+n > pools[pool].Max {
			return fmt.Errorf("pool %s: %d live and %d launched, max %d", pool, live, n, pools[pool].Max)
		}
	}
	return nil
}

func launchesFit(w fleet.World, p fleet.Plan) error {
	if len(p.Launch) > 0 && (w.ProxmoxAsOf.IsZero() || w.Now.Sub(w.ProxmoxAsOf) > w.Pace.ProxmoxFresh) {
		return fmt.Errorf("a launch on a look at Proxmox of %v", w.ProxmoxAsOf)
	}
	pools, taken, rows := poolsOf(w), map[string]fleet.Bytes{}, map[string]int{}
	for _, r := range w.Runners {
		if rows[r.Node]++; r.VM != fleet.Running {
			taken[r.Node] += pools[r.Pool].Needs
		}
	}
	nodes := map[string]fleet.Node{}
	for _, n := range w.Nodes {
		nodes[n.Name] = n
	}
	for _, l := range p.Launch {
		n, ok := nodes[l.Node]
		needs := pools[l.Pool].Needs
		taken[l.Node] += needs
		rows[l.Node]++
		switch {
		case !ok, !n.Online, n.Cordoned, n.Full != "", pools[l.Pool].Templates[l.Node] == 0:
			return fmt.Errorf("%+v on %+v", l, n)
		case n.Memory == 0 && n.MaxRunners == 0, n.Memory > 0 && needs == 0:
			return fmt.Errorf("%+v on %+v, and nobody knows whether it fits", l, n)
		case n.MaxRunners > 0 && rows[l.Node] > n.MaxRunners:
			return fmt.Errorf("%d runners on %+v", rows[l.Node], n)
		case n.Memory > 0 && taken[l.Node]+max(n.Used, n.Configured) > n.Memory:
			return fmt.Errorf("%s taken on %+v", taken[l.Node], n)
		}
	}
	return nil
}

func failuresAreWaitedFor(w fleet.World, p fleet.Plan) error {
	for _, t := range w.Troubles {
		n := 0
		for _, l := range p.Launch {
			if l.Pool == t.Pool && (t.Node == "" || t.Node == l.Node) {
				n++
			}
		}
		trials := 0
		for _, r := range w.Runners {
			if r.Phase == fleet.Preparing && r.Pool == t.Pool && (t.Node == "" || t.Node == r.Node) && r.Born.After(t.Last) {
				trials++
			}
		}
		wait := t.Wait(w.Pace)
		switch {
		case n == 0 || t.Count == 0:
		case t.Class == "config" && t.Node == "":
			return fmt.Errorf("%d launches of a pool that a person must mend", n)
		case wait > 0 && w.Now.Sub(t.Last) < wait:
			return fmt.Errorf("%d launches %v after %+v", n, w.Now.Sub(t.Last), t)
		case wait > 0 && n+trials > 1:
			return fmt.Errorf("%d launches beside %d trials after %+v", n, trials, t)
		}
	}
	return nil
}

func waitsAreTrue(w fleet.World, p fleet.Plan) error {
	waits := map[int64]fleet.Wait{}
	for _, wait := range p.Waits {
		if _, twice := waits[wait.Job]; twice || wait.Reason == "" {
			return fmt.Errorf("job %d: two reasons, or none: %+v", wait.Job, wait)
		}
		waits[wait.Job] = wait
	}
	launched := map[int64]string{}
	for _, l := range p.Launch {
		if l.Job != 0 {
			launched[l.Job] = l.Pool
		}
	}
	rows, coming, counted := rowsOf(w), map[string]bool{}, map[string]int{}
	for _, j := range w.Jobs {
		wait, ok := waits[j.ID]
		delete(waits, j.ID)
		if ok != (j.Status != fleet.StatusCompleted) {
			return fmt.Errorf("job %d (%s) is explained: %v", j.ID, j.Status, ok)
		}
		if j.Status != fleet.StatusQueued || wait.Held {
			continue
		}
		r, known := rows[wait.Coming]
		switch {
		case wait.Coming != "":
			if !known || r.Pool != wait.Pool || r.Phase == fleet.Leaving || coming[wait.Coming] ||
				slices.ContainsFunc(ends(p), func(a fleet.Action) bool { return a.Runner.Name == wait.Coming }) {
				return fmt.Errorf("job %d: %s does not come: %+v", j.ID, wait.Coming, r)
			}
			coming[wait.Coming] = true
		case launched[j.ID] == "":
			counted[wait.Pool]++
		case launched[j.ID] != wait.Pool:
			return fmt.Errorf("job %d of %s is launched for in %s", j.ID, wait.Pool, launched[j.ID])
		}
	}
	if len(waits) > 0 {
		return fmt.Errorf("reasons for no jobs: %v", slices.Collect(maps.Keys(waits)))
	}
	for pool, n := range counted {
		busy := 0
		for _, r := range w.Runners {
			advances := slices.ContainsFunc(p.Advance, func(a fleet.Advance) bool { return a.Runner.Name == r.Name })
			if r.Pool == pool && (r.Phase == fleet.Busy || advances) && !inProgressOn(w, r) && r.JobEnded.IsZero() {
				busy++
			}
		}
		if n > busy {
			return fmt.Errorf("pool %s: %d jobs are said to run on %d busy runners of unknown jobs", pool, n, busy)
		}
	}
	return nil
}

func strangersAreSafe(w fleet.World, p fleet.Plan) error {
	if len(p.Inspect) != len(w.Unknown) {
		return fmt.Errorf("%d of %d strays are inspected", len(p.Inspect), len(w.Unknown))
	}
	blind := w.Now.Sub(w.GitHubAsOf) > w.Pace.GitHubFresh || w.Now.Sub(w.ProxmoxAsOf) > w.Pace.GitHubFresh
	for _, g := range p.Forget {
		if g.Busy || blind || !slices.Contains(w.Ghosts, g) {
			return fmt.Errorf("ghost %+v is forgotten, blind %v", g, blind)
		}
	}
	for _, j := range p.LookUp {
		if !slices.ContainsFunc(w.Jobs, func(k fleet.Job) bool { return k.ID == j.ID && k.Status != fleet.StatusCompleted }) {
			return fmt.Errorf("job %d is looked up", j.ID)
		}
	}
	return nil
}

// TestSameWorldSamePlan shuffles what has no order of its own.
func TestSameWorldSamePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worlds(t)
		want := fleet.Decide(w)
		w.Jobs = rapid.Permutation(w.Jobs).Draw(t, "jobs")
		w.Runners = rapid.Permutation(w.Runners).Draw(t, "runners")
		w.Nodes = rapid.Permutation(w.Nodes).Draw(t, "nodes")
		w.Troubles = rapid.Permutation(w.Troubles).Draw(t, "troubles")
		w.Unknown = rapid.Permutation(w.Unknown).Draw(t, "unknown")
		w.Ghosts = rapid.Permutation(w.Ghosts).Draw(t, "ghosts")
		if diff := cmp.Diff(want, fleet.Decide(w)); diff != "" {
			t.Fatalf("the order of the world matters (-first +shuffled):\n%s", diff)
		}
	})
}

// TestDecideChangesNothing: a World is the controller's, and is shown to people after the decision.
func TestDecideChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worlds(t)
		was := w
		was.Jobs, was.Runners, was.Nodes = slices.Clone(w.Jobs), slices.Clone(w.Runners), slices.Clone(w.Nodes)
		was.Unknown, was.Ghosts, was.Surplus = slices.Clone(w.Unknown), slices.Clone(w.Ghosts), maps.Clone(w.Surplus)
		fleet.Decide(w)
		if diff := cmp.Diff(was, w); diff != "" {
			t.Fatalf("the world has changed (-before +after):\n%s", diff)
		}
	})
}
