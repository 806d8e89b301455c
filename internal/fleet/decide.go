package fleet

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Decide returns what to do now. It is a pure function of w: the same world gives the same plan.
func Decide(w World) Plan {
	d := newDecision(w)
	d.match()   // 1
	d.advance() // 2
	d.end()     // 3
	d.doubt()   // 4
	d.expire()  // 5
	d.resume()  // 6
	d.need()    // 7
	d.join()    // 8
	d.launch()  // 9
	d.spare()   // 10
	d.strays()  // 11
	d.ghosts()  // 12
	d.lookUp()  // 13
	d.explain() // 14
	return d.plan
}

// decision is the working space of one Decide.
type decision struct {
	w       World
	plan    Plan
	pools   map[string]*pool
	order   []*pool // pools of the config in its order, then those that only rows know
	runners []*Seen // by name
	wished  map[string]bool
	homes   map[string]*home // nodes by name
	living  map[string]*Seen // by registration
	jobs    []Job            // open, oldest first
	lost    []Job            // open, in progress on a runner that is not here
	noPool  map[int64]string // why no pool matches
}

// pool is a Pool with its jobs and runners counted.
type pool struct {
	Pool
	removed bool  // rows have it, the config does not
	queued  []Job // oldest first
	begun   int   // jobs in progress on a living runner of ours
	have    map[Phase][]*Seen
	work    int
	need    int
	placed  map[int64]Launch // launched now, by job
	refused string           // why no more was launched
}

func newDecision(w World) *decision {
	d := &decision{
		w: w, pools: map[string]*pool{}, wished: map[string]bool{},
		homes: map[string]*home{}, living: map[string]*Seen{}, noPool: map[int64]string{},
	}
	for _, p := range w.Pools {
		d.addPool(p, false)
	}
	for i := range w.Runners {
		r := &w.Runners[i]
		d.runners = append(d.runners, r)
		if r.Registration != "" && r.Phase != Leaving {
			d.living[r.Registration] = r
		}
	}
	slices.SortFunc(d.runners, func(a, b *Seen) int { return cmp.Compare(a.Name, b.Name) })
	for _, r := range d.runners {
		if d.pools[r.Pool] == nil {
			d.addPool(Pool{Name: r.Pool, JobTimeout: 24 * time.Hour, BootTimeout: 5 * time.Minute, CloneTimeout: 15 * time.Minute}, true)
		}
	}
	for _, j := range w.Jobs {
		if j.Status != StatusCompleted {
			d.jobs = append(d.jobs, j)
		}
	}
	slices.SortFunc(d.jobs, func(a, b Job) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return d
}

func (d *decision) addPool(p Pool, removed bool) {
	q := &pool{Pool: p, removed: removed, have: map[Phase][]*Seen{}, placed: map[int64]Launch{}}
	d.pools[p.Name], d.order = q, append(d.order, q)
}

// wish claims r for one wish of this plan; false if it has one.
func (d *decision) wish(r *Seen) bool {
	if d.wished[r.Name] {
		return false
	}
	d.wished[r.Name] = true
	return true
}

// 1. match
func (d *decision) match() {
	for _, j := range d.jobs {
		if j.Status == StatusInProgress {
			if r := d.living[j.Runner]; j.Runner != "" && r != nil {
				d.pools[r.Pool].begun++
			} else {
				d.lost = append(d.lost, j)
			}
			continue
		}
		if p, why := d.poolOf(j); p == nil {
			d.noPool[j.ID] = why
		} else if j.Status == StatusQueued {
			p.queued = append(p.queued, j)
		}
	}
}

func (d *decision) poolOf(j Job) (*pool, string) {
	if len(j.Labels) == 0 {
		return nil, "the job has no labels, so no pool can match it; it needs a scale set"
	}
	var best *pool
	for _, p := range d.order {
		if !p.removed && Match(j.Labels, p.Labels) && (best == nil || len(p.Labels) < len(best.Labels)) {
			best = p
		}
	}
	if best == nil {
		return nil, "no pool has all of its labels: " + strings.Join(j.Labels, ", ")
	}
	return best, ""
}

// 2. advance
func (d *decision) advance() {
	begun := map[string]Job{}
	for _, j := range d.jobs {
		if j.Status == StatusInProgress && j.Runner != "" {
			begun[j.Runner] = j
		}
	}
	for _, r := range d.runners {
		if r.Held != NotHeld || r.Phase != Joining && r.Phase != Idle {
			continue // a held row is written by its holder only; it will be seen again
		}
		j, told := begun[r.Registration]
		switch {
		case told:
			d.advanceTo(r, j.ID, fmt.Sprintf("job %d runs on it", j.ID))
		case r.Hub == Occupied:
			d.advanceTo(r, 0, "GitHub lists it as busy")
		case r.JobID != 0 && !r.JobEnded.IsZero():
			d.advanceTo(r, r.JobID, fmt.Sprintf("job %d ran on it", r.JobID))
		}
	}
}

func (d *decision) advanceTo(r *Seen, job int64, cause string) {
	if d.wish(r) {
		d.plan.Advance = append(d.plan.Advance, Advance{Runner: r.Runner, To: Busy, Job: job, Cause: cause})
	}
}

// 3. end
func (d *decision) end() {
	for _, r := range d.runners {
		if r.Phase != Busy || r.Held != NotHeld {
			continue
		}
		timeout := d.pools[r.Pool].JobTimeout
		switch {
		case !r.JobEnded.IsZero() && d.w.Now.Sub(r.JobEnded) >= d.w.Pace.Linger:
			d.leave(r, fmt.Sprintf("job %d has ended", r.JobID), "")
		case timeout > 0 && d.w.Now.Sub(r.Since) >= timeout:
			d.leave(r, fmt.Sprintf("its job ran longer than job_timeout (%v)", timeout), "")
		}
	}
}

func (d *decision) leave(r *Seen, cause, class string) {
	if d.wish(r) {
		d.plan.Leave = append(d.plan.Leave, Action{r.Runner, cause, class})
	}
}

// 4. doubt
func (d *decision) doubt() {
	for _, r := range d.runners {
		if r.Held != NotHeld || r.Phase == Preparing || r.Phase == Leaving {
			continue // a launch sees for itself; what leaves is asked for singly anyway
		}
		switch {
		case r.VM == Stopped:
			d.examine(r, "Proxmox lists its VM as stopped", AboutVM)
		case r.VM == Missing:
			d.examine(r, "Proxmox does not list its VM", AboutVM)
		case r.Hub == Unlisted && (r.Phase == Idle || r.Phase == Busy):
			d.examine(r, "GitHub does not list it", AboutRegistration)
		case r.Hub == Offline && r.Phase == Idle && d.w.Now.Sub(r.Since) >= d.pools[r.Pool].BootTimeout:
			d.examine(r, "GitHub lists it as offline", AboutRegistration)
		}
	}
}

func (d *decision) examine(r *Seen, cause string, about Doubt) {
	if d.wish(r) {
		d.plan.Examine = append(d.plan.Examine, Examine{r.Runner, cause, about})
	}
}

// 5. expire
func (d *decision) expire() {
	for _, r := range d.runners {
		if r.Phase != Preparing {
			continue
		}
		p := d.pools[r.Pool]
		switch {
		case r.UPID == "" && r.Held == NotHeld:
			d.leave(r, "clone outcome unknown: it was perhaps asked for, and its task is not known", "unknown")
		case r.UPID != "" && r.StartedAt.IsZero() && d.w.Now.Sub(r.AskedAt) >= p.CloneTimeout:
			d.leave(r, fmt.Sprintf("not cloned and started within clone_timeout (%v)", p.CloneTimeout), "timeout")
		case !r.StartedAt.IsZero() && d.w.Now.Sub(r.StartedAt) >= p.BootTimeout:
			d.leave(r, fmt.Sprintf("not ready within boot_timeout (%v)", p.BootTimeout), "timeout")
		}
	}
}

// 6. resume
func (d *decision) resume() {
	for _, r := range d.runners {
		if r.Held != NotHeld {
			continue
		}
		switch r.Phase {
		case Preparing:
			if d.wish(r) {
				d.plan.Resume = append(d.plan.Resume, Action{r.Runner, "nobody works on it", ""})
			}
		case Joining:
			if d.wish(r) {
				d.plan.Settle = append(d.plan.Settle, Action{r.Runner, "nobody knows whether its runner was started", ""})
			}
		case Leaving:
			d.leave(r, r.Cause, "")
		}
	}
}

// 7. need
func (d *decision) need() {
	leaving := map[string]bool{}
	for _, a := range d.plan.Leave {
		leaving[a.Runner.Name] = true
	}
	advanced := map[string]bool{}
	for _, a := range d.plan.Advance {
		advanced[a.Runner.Name] = true
	}
	for _, r := range d.runners {
		phase := r.Phase
		if advanced[r.Name] {
			phase = Busy
		}
		// A VM that lingers after its job serves nobody: a new job must not wait for its end.
		if leaving[r.Name] || phase == Busy && !r.JobEnded.IsZero() {
			phase = Leaving
		}
		p := d.pools[r.Pool]
		p.have[phase] = append(p.have[phase], r)
	}
	for _, p := range d.order {
		p.work = max(len(p.queued)+p.begun, len(p.have[Busy]))
		p.need = min(p.Max, p.work+p.Ready)
		for _, phase := range Phases() {
			slices.SortStableFunc(p.have[phase], func(a, b *Seen) int {
				return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Name, b.Name))
			})
		}
	}
}

// count is how many runners of p are in one of the phases.
func (p *pool) count(phases ...Phase) int {
	n := 0
	for _, phase := range phases {
		n += len(p.have[phase])
	}
	return n
}

// live is the runners that serve, or will serve, a job.
func (p *pool) live() int { return p.count(Preparing, Ready, Joining, Idle, Busy) }

// 8. join
func (d *decision) join() {
	for _, p := range d.order {
		n := p.work - p.count(Joining, Idle, Busy)
		for _, r := range p.have[Ready] {
			if n <= 0 {
				break
			}
			if r.Held == NotHeld && !p.removed && d.wish(r) {
				d.plan.Join = append(d.plan.Join, Action{r.Runner, "a job waits", ""})
				n--
			}
		}
	}
}

// 11. strays
func (d *decision) strays() {
	d.plan.Inspect = slices.Clone(d.w.Unknown)
	slices.SortFunc(d.plan.Inspect, func(a, b VM) int { return cmp.Compare(a.ID, b.ID) })
}

// 12. ghosts
func (d *decision) ghosts() {
	if d.w.Now.Sub(d.w.GitHubAsOf) > d.w.Pace.GitHubFresh || d.w.Now.Sub(d.w.ProxmoxAsOf) > d.w.Pace.GitHubFresh {
		return // without both looks nobody can say that it has neither row nor VM
	}
	for _, g := range d.w.Ghosts {
		if !g.Busy {
			d.plan.Forget = append(d.plan.Forget, g)
		}
	}
	slices.SortFunc(d.plan.Forget, func(a, b Registration) int { return cmp.Compare(a.ID, b.ID) })
}

// maxLookUps bounds what one plan asks GitHub; the rest comes with the next plans.
const maxLookUps = 20

// 13. look up
func (d *decision) lookUp() {
	var due []Job
	ask := func(j Job) {
		last := j.Changed
		if j.Checked.After(last) {
			last = j.Checked
		}
		// Waits double: the longer nothing changes, the less it is asked.
		wait := max(d.w.Pace.LookUp, last.Sub(j.Changed))
		if d.w.Now.Sub(last) >= wait {
			due = append(due, j)
		}
	}
	for _, p := range d.order {
		for _, j := range p.queued {
			ask(j)
		}
	}
	for _, j := range d.lost {
		ask(j)
	}
	slices.SortFunc(due, func(a, b Job) int {
		return cmp.Or(a.Checked.Compare(b.Checked), a.Changed.Compare(b.Changed), cmp.Compare(a.ID, b.ID))
	})
	d.plan.LookUp = due[:min(len(due), maxLookUps)]
}

// 14. explain
func (d *decision) explain() {
	say := func(w Wait) { d.plan.Waits = append(d.plan.Waits, w) }
	for _, j := range d.jobs {
		switch {
		case j.Status == StatusWaiting:
			say(Wait{Job: j.ID, Reason: "GitHub holds it back (environment or deployment rule)", Held: true})
		case d.noPool[j.ID] != "":
			say(Wait{Job: j.ID, Reason: d.noPool[j.ID], Held: true})
		case j.Status == StatusInProgress:
			if r := d.living[j.Runner]; j.Runner != "" && r != nil {
				say(Wait{Job: j.ID, Pool: r.Pool, Coming: r.Name, Reason: "runs on " + r.Name})
			} else {
				say(Wait{Job: j.ID, Reason: "runs on " + cmp.Or(j.Runner, "a runner") + ", which is not one of ours or has left"})
			}
		}
	}
	for _, p := range d.order {
		coming := slices.Concat(p.have[Idle], p.have[Joining], p.have[Ready], p.have[Preparing])
		for i, j := range p.queued {
			w := Wait{Job: j.ID, Pool: p.Name}
			launch, launched := p.placed[j.ID]
			switch {
			case i < len(coming):
				r := coming[i]
				w.Coming, w.Reason = r.Name, fmt.Sprintf("%s is %s on %s", r.Name, r.Phase, r.Node)
				if r.Held == AtGate {
					w.Reason = fmt.Sprintf("%s waits for its turn to be cloned on %s", r.Name, r.Node)
				}
			case launched:
				w.Reason = "a VM is being made on " + launch.Node
			case p.live() >= p.Max:
				w.Reason, w.Held = fmt.Sprintf("pool %s is full: %d of max %d runners", p.Name, p.live(), p.Max), true
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

// sorted returns m's keys in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
