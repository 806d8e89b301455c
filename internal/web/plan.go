package web

import (
	"fmt"
	"slices"
	"time"

	"mayfly/internal/fleet"
)

// planView makes one list of the plan's slices, in the order in which a person reads them:
// what comes, what changes, what goes, what is asked.
func planView(world fleet.World, plan fleet.Plan, now time.Time) PlanView {
	v := PlanView{Now: now.UTC(), AsOf: world.Now.UTC(), Wishes: []WishView{}, Waits: []WaitView{}, Surplus: []string{}}
	wish := func(w WishView) {
		w.Cause = clean(w.Cause, maxText)
		v.Wishes = append(v.Wishes, w)
	}
	runner := func(do string, r fleet.Runner, cause string) WishView {
		return WishView{Do: do, Runner: clean(r.Name, maxName), Pool: r.Pool, Node: r.Node, VMID: r.VMID, Job: r.Job, Cause: cause}
	}
	for _, l := range plan.Launch {
		wish(WishView{Do: "launch", Pool: l.Pool, Node: l.Node, Job: l.Job, Cause: l.Cause})
	}
	for _, a := range plan.Advance {
		w := runner("advance", a.Runner, fmt.Sprintf("%s → %s: %s", a.Runner.Phase, a.To, a.Cause))
		w.Job = a.Job
		wish(w)
	}
	for _, actions := range []struct {
		do   string
		list []fleet.Action
	}{
		{"join", plan.Join},
		{"resume", plan.Resume},
		{"settle", plan.Settle},
		{"cancel", plan.Cancel},
		{"retire", plan.Retire},
		{"leave", plan.Leave},
	} {
		for _, a := range actions.list {
			wish(runner(actions.do, a.Runner, a.Cause))
		}
	}
	for _, e := range plan.Examine {
		wish(runner("examine", e.Runner, e.Cause))
	}
	for _, vm := range plan.Inspect {
		wish(WishView{Do: "inspect", Runner: clean(vm.Name, maxName), Node: vm.Node, VMID: vm.ID, Cause: "a VM in our range without a row: whose is it?"})
	}
	for _, g := range plan.Forget {
		wish(WishView{Do: "forget", Runner: clean(g.Name, maxName), Cause: "a registration of ours without a row and without a VM"})
	}
	for _, j := range plan.LookUp {
		wish(WishView{Do: "look_up", Job: j.ID, Cause: "nothing was heard of it for long"})
	}
	for _, w := range plan.Waits {
		v.Waits = append(v.Waits, waitView(w))
	}
	v.Surplus = append(v.Surplus, plan.Surplus...)
	slices.Sort(v.Surplus)
	v.Content = len(v.Wishes) == 0
	return v
}

func waitView(w fleet.Wait) WaitView {
	return WaitView{
		Job: w.Job, Pool: clean(w.Pool, maxName), Coming: clean(w.Coming, maxName), Reason: clean(w.Reason, maxText), Held: w.Held,
	}
}
