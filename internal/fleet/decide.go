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
	w        World
	plan     Plan
	pools    map[string]*pool
	order    []*pool // pools of the config in its order, then those that only rows know
	rows     []*row  // by name
	homes    map[string]*home
	troubles map[[2]string]*Trouble // by pool and node
	jobs     []*Job                 // open, oldest first
	on       map[int64]*row         // which living runner a job in progress is on
	lost     []*Job                 // in progress on no living runner of ours, though a pool of ours matches
	noPool   map[int64]string       // why no pool matches
}

// row is a Seen with what this plan makes of it.
type row struct {
	*Seen
	pool   *pool
	as     Phase         // what it counts as
	job    *Job          // in progress on it
	age    time.Duration // of its phase
	wished bool
}

// pool is a Pool with its jobs and runners counted.
type pool struct {
	Pool
	removed   bool      // rows have it, the config does not
	queued    []*Job    // oldest first
	begun     int       // jobs in progress on its runners that serve
	preparing []*row    // leaving ones too
	have      [6][]*row // by the rank of the phase that they count as
	work      int
	need      int
	placed    map[int64]string // launched now: job → node
	launched  int
	crowded   bool // no node can take more
	berths    []*berth
	expired   string // of its launches, what has run out of time just now
	refused   string // why no more was launched
}

func newDecision(w World) *decision {
	d := &decision{
		w: w, pools: make(map[string]*pool, len(w.Pools)), rows: make([]*row, len(w.Runners)), homes: make(map[string]*home, len(w.Nodes)),
		troubles: make(map[[2]string]*Trouble, len(w.Troubles)), on: map[int64]*row{}, noPool: map[int64]string{},
	}
	for _, p := range w.Pools {
		d.addPool(p, false)
	}
	rows := make([]row, len(w.Runners))
	for i := range w.Runners {
		rows[i] = row{Seen: &w.Runners[i], as: w.Runners[i].Phase, age: w.Now.Sub(w.Runners[i].Since)}
		d.rows[i] = &rows[i]
	}
	slices.SortFunc(d.rows, func(a, b *row) int { return cmp.Compare(a.Name, b.Name) })
	var last *pool // neighbours by name are mostly of one pool
	for _, r := range d.rows {
		if last == nil || last.Name != r.Pool {
			last = d.pools[r.Pool]
		}
		if last == nil {
			last = d.addPool(Pool{Name: r.Pool, JobTimeout: 24 * time.Hour, BootTimeout: 5 * time.Minute, CloneTimeout: 15 * time.Minute}, true)
		}
		r.pool = last
		if r.Phase == Preparing {
			r.pool.preparing = append(r.pool.preparing, r)
		}
	}
	for i, t := range w.Troubles {
		if t.Count > 0 {
			d.troubles[[2]string{t.Pool, t.Node}] = &w.Troubles[i]
		}
	}
	for i := range w.Jobs {
		if w.Jobs[i].Status != StatusCompleted {
			d.jobs = append(d.jobs, &w.Jobs[i])
		}
	}
	slices.SortFunc(d.jobs, byAge)
	return d
}

// byAge orders jobs, the oldest first.
func byAge(a, b *Job) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) }

func (d *decision) addPool(p Pool, removed bool) *pool {
	q := &pool{Pool: p, removed: removed, placed: map[int64]string{}}
	d.pools[p.Name], d.order = q, append(d.order, q)
	return q
}

// wish claims r for one wish of this plan; false if it has one.
func (r *row) wish() bool {
	if r.wished {
		return false
	}
	r.wished = true
	return true
}

// 1. match
func (d *decision) match() {
	type match struct {
		pool *pool
		why  string
	}
	known := map[string]match{} // by labels: most jobs ask for the same
	poolOf := func(j *Job) (*pool, string) {
		key := strings.Join(j.Labels, "\x00")
		m, ok := known[key]
		if !ok {
			m.pool, m.why = d.poolOf(j)
			known[key] = m
		}
		return m.pool, m.why
	}
	d.begin()
	for _, j := range d.jobs {
		if d.on[j.ID] != nil {
			continue
		}
		p, why := poolOf(j)
		switch {
		case j.Status == StatusInProgress && p != nil:
			d.lost = append(d.lost, j)
		case j.Status == StatusInProgress: // GitHub's own runners have jobs too
		case p == nil:
			d.noPool[j.ID] = why
		case j.Status == StatusQueued:
			p.queued = append(p.queued, j)
		}
	}
}

// begin finds the living runner of each job in progress: by its registration, or as the ledger says.
func (d *decision) begin() {
	named, told := map[string]*row{}, map[int64]*row{}
	for _, j := range d.jobs {
		if j.Status == StatusInProgress {
			named[j.Runner], told[j.ID] = nil, nil
		}
	}
	delete(named, "")
	for _, r := range d.rows {
		if r.Phase == Leaving {
			continue
		}
		if _, ok := named[r.Registration]; ok {
			named[r.Registration] = r
		}
		if _, ok := told[r.JobID]; ok && r.JobEnded.IsZero() {
			told[r.JobID] = r
		}
	}
	for _, j := range d.jobs {
		if j.Status == StatusInProgress {
			if r := cmp.Or(named[j.Runner], told[j.ID]); r != nil {
				d.on[j.ID], r.job = r, j
			}
		}
	}
}

func (d *decision) poolOf(j *Job) (*pool, string) {
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
	for _, r := range d.rows {
		if r.Held != NotHeld || r.Phase == Busy || r.Phase == Leaving {
			continue // a held row is written by its holder only; it will be seen again
		}
		switch {
		case r.job != nil:
			d.advanceTo(r, r.job.ID, fmt.Sprintf("job %d runs on it", r.job.ID))
		case r.Hub == Occupied:
			d.advanceTo(r, 0, "GitHub lists it as busy")
		case r.JobID != 0:
			d.advanceTo(r, r.JobID, fmt.Sprintf("job %d ran on it", r.JobID))
		}
	}
}

func (d *decision) advanceTo(r *row, job int64, cause string) {
	if r.wish() {
		r.as = Busy
		d.plan.Advance = append(d.plan.Advance, Advance{Runner: r.Runner, To: Busy, Job: job, Cause: cause})
	}
}

// 3. end
func (d *decision) end() {
	for _, r := range d.rows {
		if r.Phase != Busy {
			continue
		}
		timeout := r.pool.JobTimeout
		late := timeout > 0 && r.age >= timeout
		switch {
		case r.Held != NotHeld && late:
			r.as = Leaving // as soon as its holder is done, if that is not what it does
		case r.Held != NotHeld:
		case r.over() && d.w.Now.Sub(r.JobEnded) >= d.w.Pace.Linger:
			d.leave(r, fmt.Sprintf("job %d has ended", r.JobID), "")
		case late:
			d.leave(r, fmt.Sprintf("its job ran longer than job_timeout (%v)", timeout), "")
		}
	}
}

// over tells whether r's job has ended, and no other is in progress on it.
func (r *row) over() bool { return !r.JobEnded.IsZero() && r.job == nil }

// inJob tells whether somebody says that a job runs on r. Whatever its row says, that is sacred.
func (r *row) inJob() bool { return r.job != nil || r.Hub == Occupied }

func (d *decision) leave(r *row, cause, class string) {
	if r.wish() {
		r.as = Leaving
		d.plan.Leave = append(d.plan.Leave, Action{r.Runner, cause, class})
	}
}

// 4. doubt
func (d *decision) doubt() {
	for _, r := range d.rows {
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
		case r.Hub == Offline && r.Phase == Idle && r.age >= r.pool.BootTimeout:
			d.examine(r, "GitHub lists it as offline", AboutRegistration)
		}
	}
}

func (d *decision) examine(r *row, cause string, about Doubt) {
	if r.wish() {
		d.plan.Examine = append(d.plan.Examine, Examine{r.Runner, cause, about})
	}
}

// 5. expire
func (d *decision) expire() {
	for _, r := range d.rows {
		if r.Phase != Preparing || r.inJob() {
			continue
		}
		p := r.pool
		switch {
		case r.UPID == "" && r.AskedAt.IsZero() && r.Held == NotHeld:
			d.cancel(r, "nothing was asked for before its launcher went away")
		case r.UPID == "" && r.Held == NotHeld:
			d.leave(r, "clone outcome unknown: it was perhaps asked for, and its task is not known", "unknown")
		case r.UPID != "" && r.StartedAt.IsZero() && d.w.Now.Sub(r.AskedAt) >= p.CloneTimeout:
			d.timeOut(r, fmt.Sprintf("not cloned and started within clone_timeout (%v)", p.CloneTimeout))
		case !r.StartedAt.IsZero() && d.w.Now.Sub(r.StartedAt) >= p.BootTimeout:
			d.timeOut(r, fmt.Sprintf("not ready within boot_timeout (%v)", p.BootTimeout))
		}
	}
}

// cancel ends a row for which Proxmox was asked for nothing.
func (d *decision) cancel(r *row, cause string) {
	if r.wish() {
		r.as = Leaving
		d.plan.Cancel = append(d.plan.Cancel, Action{r.Runner, cause, ""})
	}
}

// timeOut is a failure that stands in no World yet, so it keeps the pool from launching until it does.
func (d *decision) timeOut(r *row, cause string) {
	d.leave(r, cause, "timeout")
	r.pool.expired = r.Name + " was " + cause
}

// 6. resume
func (d *decision) resume() {
	for _, r := range d.rows {
		if r.Held != NotHeld {
			continue
		}
		switch r.Phase {
		case Preparing:
			if r.wish() {
				d.plan.Resume = append(d.plan.Resume, Action{r.Runner, "nobody works on it", ""})
			}
		case Joining:
			if r.wish() {
				d.plan.Settle = append(d.plan.Settle, Action{r.Runner, "nobody knows whether its runner was started", ""})
			}
		case Leaving:
			d.leave(r, r.Cause, "")
		}
	}
}

// 7. need
func (d *decision) need() {
	for _, r := range d.rows {
		// A VM that lingers after its job serves nobody: a new job must not wait for its end.
		if r.as == Busy && r.over() {
			r.as = Leaving
		}
		p := r.pool
		in := &p.have[r.as.rank()]
		*in = append(*in, r)
		if r.job != nil && r.as != Leaving {
			p.begun++
		}
	}
	for _, p := range d.order {
		p.work = max(len(p.queued)+p.begun, len(p.in(Busy)))
		p.need = min(p.Max, p.work+p.Ready)
		for _, phase := range []Phase{Preparing, Ready, Joining, Idle} {
			slices.SortFunc(p.in(phase), func(a, b *row) int {
				if a.age != b.age {
					return cmp.Compare(b.age, a.age) // the oldest first
				}
				return cmp.Compare(a.Name, b.Name)
			})
		}
	}
}

// in is the runners of p that count as being in the phase; the oldest first, but for Busy and Leaving, in order of name.
func (p *pool) in(phase Phase) []*row { return p.have[phase.rank()] }

// count is how many runners of p are in one of the phases.
func (p *pool) count(phases ...Phase) int {
	n := 0
	for _, phase := range phases {
		n += len(p.in(phase))
	}
	return n
}

// live is the runners that serve, or will serve, a job.
func (p *pool) live() int { return p.count(Preparing, Ready, Joining, Idle, Busy) }

// 8. join
func (d *decision) join() {
	for _, p := range d.order {
		n := p.work - p.count(Joining, Idle, Busy)
		for _, r := range p.in(Ready) {
			if r.joins() {
				n--
			}
		}
		for _, r := range p.in(Ready) {
			if n <= 0 {
				break
			}
			if r.Held == NotHeld && !p.removed && r.wish() {
				d.plan.Join = append(d.plan.Join, Action{r.Runner, "a job waits", ""})
				r.as = Joining
				n--
			}
		}
	}
}

// joins tells whether a Ready runner that somebody works on is being joined, its row not yet saying so. Work on one
// whose VM is in doubt is an examination.
func (r *row) joins() bool {
	return r.Held != NotHeld && r.VM != Stopped && r.VM != Missing
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

// sorted returns m's keys in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
