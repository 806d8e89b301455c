package github

import (
	"slices"
	"strings"
	"time"
)

// forcedEnd is how long a runner has to end a cancelled job (actions/runner: five minutes, then it is killed).
const forcedEnd = 5 * time.Minute

// A JobSpec is a job to be run.
type JobSpec struct {
	Repo       string        // owner/name; "" means the scope's, or an invented one of the organization
	Name       string        // "" means build
	Labels     []string      // as written in runs-on
	Length     time.Duration // how long its runner works; not divided by Speed here: the runner does that
	Conclusion string        // how it ends if nothing goes wrong; "" means success
	Held       time.Duration // how long an environment's protection holds it back before it is queued
	ID         int64         // of a job that somebody else tells of; 0 means the next one
	Silent     bool          // nothing is sent when it is queued
}

// A Job is what a runner gets.
type Job struct {
	ID         int64
	Repo       string
	Name       string
	Length     time.Duration
	Conclusion string
	Cancelled  <-chan struct{} // closed when somebody cancels it: the runner then ends it as cancelled
}

type job struct {
	id, run    int64
	spec       JobSpec
	want       []string // labels, lower case
	status     string   // waiting, queued, in_progress, completed
	conclusion string
	created    time.Time
	started    time.Time // of in_progress
	completed  time.Time
	runner     *registration // that it was given to
	cancelled  chan struct{}
	cancelling bool
	killed     bool
	callOff    func()    // stops the timer that watches the pick-up or the end
	due        time.Time // of its last delivery: the next one does not pass it
}

// Submit queues a job and sends its webhook. It returns the job's id.
func (g *GitHub) Submit(spec JobSpec) int64 {
	if spec.Repo == "" {
		spec.Repo = g.cfg.Scope
		if !strings.Contains(spec.Repo, "/") {
			spec.Repo += "/app"
		}
	}
	if spec.Name == "" {
		spec.Name = "build"
	}
	if spec.Conclusion == "" {
		spec.Conclusion = "success"
	}
	spec.Labels = slices.Clone(spec.Labels)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runIDs++
	j := &job{
		id: firstJob + int64(len(g.jobs)) + 1, run: g.runIDs, spec: spec, status: "queued", created: time.Now().UTC(),
		cancelled: make(chan struct{}), callOff: func() {},
	}
	if spec.ID != 0 {
		j.id = spec.ID
	}
	for _, l := range spec.Labels {
		j.want = append(j.want, strings.ToLower(l))
	}
	g.jobs = append(g.jobs, j)
	g.jobByID[j.id] = j
	if spec.Held <= 0 {
		g.release(j)
		return j.id
	}
	j.status = "waiting"
	if !spec.Silent { // two events before the one that counts, the first of them called queued
		g.announce(j, "queued")
		g.announce(j, "waiting")
	}
	j.callOff = g.later(spec.Held, func() { g.release(j) })
	return j.id
}

// release queues j, which nothing holds back any more.
func (g *GitHub) release(j *job) {
	j.status = "queued"
	if !j.spec.Silent {
		g.announce(j, "queued")
	}
	g.enqueue(j)
}

// Cancel cancels a job. One that runs is asked to end, and ends by force after five minutes;
// unknown and completed jobs are left alone.
func (g *GitHub) Cancel(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.job(id)
	if j == nil || j.status == "completed" || j.cancelling {
		return
	}
	j.cancelling = true
	close(j.cancelled)
	if j.status == "in_progress" {
		if j.killed {
			return // nobody is there to end it; it fails when its lock is lost
		}
		j.callOff = g.later(forcedEnd, func() { g.end(j, "cancelled") })
		return
	}
	g.queue = slices.DeleteFunc(g.queue, func(q *job) bool { return q == j })
	if r := j.runner; r != nil {
		j.callOff()
		j.runner, r.job = nil, nil
		g.end(j, "cancelled")
		if r.online {
			g.enterIdle(r)
		}
		return
	}
	g.end(j, "cancelled")
}

func (g *GitHub) job(id int64) *job {
	return g.jobByID[id]
}

// inScope tells whether runners of our scope serve the repository.
func (g *GitHub) inScope(repo string) bool {
	owner, _, _ := strings.Cut(repo, "/")
	return strings.EqualFold(g.cfg.Scope, repo) || strings.EqualFold(g.cfg.Scope, owner)
}

// enqueue offers j to the idle runners, any of them, and keeps it if none fits.
func (g *GitHub) enqueue(j *job) {
	if !g.inScope(j.spec.Repo) {
		return
	}
	var fit []*registration
	for _, r := range g.idle {
		if r.fits(j) {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		g.queue = append(g.queue, j)
		return
	}
	g.assign(j, fit[g.rng.IntN(len(fit))])
}

// enterIdle offers r any queued job that it fits, and keeps it if there is none.
func (g *GitHub) enterIdle(r *registration) {
	if r.removed || r.job != nil || slices.Contains(g.idle, r) {
		return
	}
	var fit []*job
	for _, j := range g.queue {
		if r.fits(j) {
			fit = append(fit, j)
		}
	}
	if len(fit) > 0 {
		j := fit[g.rng.IntN(len(fit))]
		g.queue = slices.DeleteFunc(g.queue, func(q *job) bool { return q == j })
		g.assign(j, r)
		return
	}
	g.idle = append(g.idle, r)
	if g.cfg.IdleDrop > 0 {
		r.notIdle = g.later(g.cfg.IdleDrop, func() { g.remove(r) })
	}
}

func (g *GitHub) leaveIdle(r *registration) {
	g.idle = slices.DeleteFunc(g.idle, func(i *registration) bool { return i == r })
	if r.notIdle != nil {
		r.notIdle()
		r.notIdle = nil
	}
}

// assign gives j to r, which has a minute to pick it up.
func (g *GitHub) assign(j *job, r *registration) {
	g.leaveIdle(r)
	j.runner, r.job = r, j
	j.callOff = g.later(g.cfg.RequeueAfter, func() {
		j.runner, r.job = nil, nil
		g.setOnline(r, false) // it did not answer
		g.enqueue(j)
	})
	if r.session != nil {
		r.session.nudge()
	}
}

// pickUp starts j on the runner that it was given to.
func (g *GitHub) pickUp(j *job) {
	j.callOff()
	j.status, j.started = "in_progress", time.Now().UTC()
	g.announce(j, "in_progress")
}

// end completes j, and its runner's registration with it: it was good for one job.
func (g *GitHub) end(j *job, conclusion string) {
	j.callOff()
	if j.started.IsZero() {
		j.started = time.Now().UTC()
	}
	j.status, j.conclusion, j.completed = "completed", conclusion, time.Now().UTC()
	g.announce(j, "completed")
	if r := j.runner; r != nil {
		r.job = nil
		if !j.killed {
			g.remove(r)
		}
	}
}
