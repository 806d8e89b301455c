package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

// TestDecidingTwiceAddsNothing takes each plan as done, as far as the controller has it done before its next decision,
// and decides again: the second plan has no new launch, and no new wish to join or to go.
func TestDecidingTwiceAddsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := worlds(t)
		first := fleet.Decide(w)
		again := fleet.Decide(done(w, first, rapid.Bool().Draw(t, "rows are written")))
		if err := addsNothing(w, first, again); err != nil {
			t.Fatalf("%v\nfirst:\n%s\nagain:\n%s", err, writePlan(first), writePlan(again))
		}
	})
}

// done is w after the controller has begun p. written tells whether the new phases stand in the rows already, or
// only the holds can be seen.
func done(w fleet.World, p fleet.Plan, written bool) fleet.World {
	w.Runners, w.Troubles = slices.Clone(w.Runners), slices.Clone(w.Troubles)
	begin := func(actions []fleet.Action, to fleet.Phase) {
		for _, a := range actions {
			r := &w.Runners[slices.IndexFunc(w.Runners, func(r fleet.Seen) bool { return r.Name == a.Runner.Name })]
			if r.Held == fleet.NotHeld {
				r.Held = fleet.AtWork
			}
			// A launch of unknown outcome that is held looks like one at work; until its Leaving is written it counts.
			if (written || a.Class == "unknown") && to != "" && r.Phase != to {
				r.Phase, r.Since = to, w.Now
			}
		}
	}
	begin(p.Leave, fleet.Leaving)
	begin(p.Join, fleet.Joining)
	begin(slices.Concat(p.Resume, p.Settle, p.Retire), "")
	for _, x := range p.Examine {
		begin([]fleet.Action{{Runner: x.Runner}}, "")
	}
	for _, a := range p.Advance {
		r := &w.Runners[slices.IndexFunc(w.Runners, func(r fleet.Seen) bool { return r.Name == a.Runner.Name })]
		r.Phase, r.Since, r.Job = a.To, w.Now, a.Job
	}
	for _, a := range p.Leave {
		if a.Class == "unknown" || written && a.Class != "" {
			w.Troubles = failed(w.Troubles, a.Runner, a.Class, w.Now)
		}
	}
	for i, l := range p.Launch {
		w.Runners = append(w.Runners, fleet.Seen{Runner: fleet.Runner{
			Name: fmt.Sprintf("k-%s-new%05d", l.Pool, i), Pool: l.Pool, Node: l.Node, VMID: 500 + i, Template: 9000,
			Phase: fleet.Preparing, Since: w.Now, Born: w.Now,
		}, VM: fleet.Unseen, Hub: fleet.NotLooked, Held: fleet.AtGate})
	}
	was := w.Surplus
	w.Surplus = map[string]time.Time{}
	for _, pool := range p.Surplus {
		if w.Surplus[pool] = w.Now; !was[pool].IsZero() {
			w.Surplus[pool] = was[pool]
		}
	}
	return w
}

// failed adds one failure of r to its pool's and its pool-on-node's, as the controller does.
func failed(troubles []fleet.Trouble, r fleet.Runner, class string, at time.Time) []fleet.Trouble {
	for _, node := range []string{"", r.Node} {
		i := slices.IndexFunc(troubles, func(t fleet.Trouble) bool { return t.Pool == r.Pool && t.Node == node })
		if i < 0 {
			i, troubles = len(troubles), append(troubles, fleet.Trouble{Pool: r.Pool, Node: node})
		}
		t := &troubles[i]
		t.Count, t.Last, t.Class, t.Text = t.Count+1, at, class, "it failed"
	}
	return troubles
}

func addsNothing(w fleet.World, first, again fleet.Plan) error {
	// What the first plan did with a runner, the second may say once more.
	had := map[string]bool{}
	for _, a := range slices.Concat(ends(first), first.Join) {
		had[a.Runner.Name] = true
	}
	for _, a := range first.Advance { // whose job may have ended before it was known to have begun
		had[a.Runner.Name] = true
	}
	for _, a := range first.Resume { // and is now seen to be one too many
		had[a.Runner.Name] = true
	}
	for _, a := range slices.Concat(ends(again), again.Join) {
		if !had[a.Runner.Name] {
			return fmt.Errorf("%s gets a new wish: %s", a.Runner.Name, a.Cause)
		}
	}
	// A Ready runner of an old template is replaced once it is gone; a removed pool launches nothing.
	replaced := map[string]bool{}
	pools := poolsOf(w)
	for _, a := range first.Leave {
		if r := a.Runner; r.Phase == fleet.Ready && pools[r.Pool].Templates[r.Node] != r.Template {
			replaced[r.Pool] = true
		}
	}
	for _, a := range first.Advance {
		if a.Runner.Phase == fleet.Preparing { // it counts no longer as the one trial after failures
			replaced[a.Runner.Pool] = true
		}
	}
	more := map[string]int{}
	for _, l := range again.Launch {
		more[l.Pool]++
	}
	for pool := range more {
		if !replaced[pool] {
			return fmt.Errorf("pool %s launches %d more", pool, more[pool])
		}
	}
	return nil
}
