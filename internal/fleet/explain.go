package fleet

import (
	"cmp"
	"fmt"
	"slices"
)

// maxLookUps bounds what one plan asks GitHub; the rest comes with the next plans.
const maxLookUps = 20

// 13. look up
func (d *decision) lookUp() {
	var due []*Job
	ask := func(jobs []*Job) {
		for _, j := range jobs {
			last := j.Changed
			if j.Checked.After(last) {
				last = j.Checked
			}
			// Waits double: the longer nothing changes, the less it is asked.
			if d.w.Now.Sub(last) >= max(d.w.Pace.LookUp, last.Sub(j.Changed)) {
				due = append(due, j)
			}
		}
	}
	for _, p := range d.order {
		ask(p.queued)
	}
	ask(d.lost)
	slices.SortFunc(due, func(a, b *Job) int {
		return cmp.Or(a.Checked.Compare(b.Checked), a.Changed.Compare(b.Changed), cmp.Compare(a.ID, b.ID))
	})
	for _, j := range due[:min(len(due), maxLookUps)] {
		d.plan.LookUp = append(d.plan.LookUp, *j)
	}
}

// 14. explain
func (d *decision) explain() {
	d.plan.Waits = make([]Wait, 0, len(d.jobs))
	say := func(w Wait) { d.plan.Waits = append(d.plan.Waits, w) }
	for _, j := range d.jobs {
		switch {
		case j.Status == StatusWaiting:
			say(Wait{Job: j.ID, Reason: "GitHub holds it back (environment or deployment rule)", Held: true})
		case d.noPool[j.ID] != "":
			say(Wait{Job: j.ID, Reason: d.noPool[j.ID], Held: true})
		case j.Status == StatusInProgress:
			if r := d.on[j.ID]; r != nil {
				say(Wait{Job: j.ID, Pool: r.Pool, Coming: r.Name, Reason: "runs on " + r.Name})
			} else {
				say(Wait{Job: j.ID, Reason: "runs on " + cmp.Or(j.Runner, "a runner") + ", which is not one of ours or has left"})
			}
		}
	}
	for _, p := range d.order {
		coming := p.coming()
		for i, j := range p.queued {
			w := Wait{Job: j.ID, Pool: p.Name}
			node, launched := p.placed[j.ID]
			switch {
			case i < len(coming):
				r := coming[i]
				w.Coming, w.Reason = r.Name, r.Name+" is "+string(r.Phase)+" on "+r.Node
				switch {
				case r.Phase == Preparing && r.Held == AtGate:
					w.Reason = r.Name + " waits for its turn to be cloned on " + r.Node
				case r.Phase == Joining && r.RunnerID == 0:
					w.Reason = r.Name + " waits to be registered at GitHub, at most one a second after a burst"
				}
			case launched:
				w.Reason = "a VM is being made on " + node
			case p.live()+p.launched >= p.Max:
				w.Reason, w.Held = fmt.Sprintf("pool %s is full: %d of max %d runners", p.Name, p.live()+p.launched, p.Max), true
			case p.refused != "":
				w.Reason, w.Held = p.refused, true
			default:
				// A Busy runner that GitHub has not told the job of: this job may be the one it runs.
				w.Reason = "it is counted as running on a busy runner of pool " + p.Name
			}
			say(w)
		}
	}
	slices.SortFunc(d.plan.Waits, func(a, b Wait) int { return cmp.Compare(a.Job, b.Job) })
	slices.Sort(d.plan.Surplus)
}

// coming is the runners of p that will take a job, the soonest first, without those that this plan gives up.
func (p *pool) coming() []*row {
	coming := slices.Concat(p.in(Idle), p.in(Joining))
	for _, now := range []bool{true, false} {
		for _, r := range p.in(Ready) {
			if (r.as == Joining || r.joins()) == now {
				coming = append(coming, r)
			}
		}
	}
	coming = append(coming, p.in(Preparing)...)
	return slices.DeleteFunc(coming, func(r *row) bool { return r.as == Leaving })
}
