package github

import (
	"maps"
	"slices"
	"time"
)

// Stats counts what has happened.
type Stats struct {
	Submitted int
	Queued    int // now, those held back included
	Running   int // now, dead runners' jobs included until GitHub notices
	Succeeded int
	Failed    int // by their own conclusion, or because their runner died
	Cancelled int
	Other     int // completed with any other conclusion
	Killed    int // jobs whose machine died in mid-job
	Runners   int // registrations now
	Online    int
	Busy      int
	// Requests to the REST API by call: jitconfig, runners, runner, delete, job, registration_token,
	// remove_token, rate_limit, other; and faults, those that a Fault hit.
	Requests   map[string]int
	Deliveries int // of webhooks that were answered with 2xx
	Refused    int // of webhooks that were answered otherwise, or not
	Lost       int // of webhooks that were never sent
}

// Stats returns the counts of now.
func (g *GitHub) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{Submitted: len(g.jobs), Killed: g.killed, Runners: len(g.runners), Requests: maps.Clone(g.requests)}
	for _, j := range g.jobs {
		switch {
		case j.status == "queued", j.status == "waiting":
			s.Queued++
		case j.status == "in_progress":
			s.Running++
		case j.conclusion == "success":
			s.Succeeded++
		case j.conclusion == "failure":
			s.Failed++
		case j.conclusion == "cancelled":
			s.Cancelled++
		default:
			s.Other++
		}
	}
	for _, r := range g.runners {
		if r.online {
			s.Online++
		}
		if r.job != nil {
			s.Busy++
		}
	}
	for _, d := range g.log {
		switch {
		case d.Lost:
			s.Lost++
		case d.Code >= 200 && d.Code < 300:
			s.Deliveries++
		case d.Code != 0 || d.Err != "":
			s.Refused++
		}
	}
	return s
}

// A JobState is a job as it is now. Times not reached are zero.
type JobState struct {
	ID         int64
	Repo       string
	Name       string
	Labels     []string
	Status     string // waiting, queued, in_progress, completed
	Conclusion string
	Queued     time.Time
	Started    time.Time // when its runner picked it up; zero when none did
	Completed  time.Time
	Runner     string // that it was given to
	Killed     bool   // its machine died
}

// Jobs returns all jobs by id.
func (g *GitHub) Jobs() []JobState {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]JobState, 0, len(g.jobs))
	for _, j := range g.jobs {
		s := JobState{
			ID: j.id, Repo: j.spec.Repo, Name: j.spec.Name, Labels: slices.Clone(j.spec.Labels), Status: j.status, Conclusion: j.conclusion,
			Queued: j.created, Completed: j.completed, Killed: j.killed,
		}
		if j.runner != nil {
			s.Started, s.Runner = j.started, j.runner.name
		}
		out = append(out, s)
	}
	return out
}

// A RunnerState is a registration as it is now.
type RunnerState struct {
	ID        int64
	Name      string
	Labels    []string
	Connected bool // a runner has connected with it at least once
	Online    bool
	Busy      bool
	Job       int64 // given to it; 0 none
}

// Runners returns all registrations by id.
func (g *GitHub) Runners() []RunnerState {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]RunnerState, 0, len(g.runners))
	for _, r := range g.runners {
		s := RunnerState{ID: r.id, Name: r.name, Labels: slices.Clone(r.labels), Connected: r.met, Online: r.online, Busy: r.job != nil}
		if r.job != nil {
			s.Job = r.job.id
		}
		out = append(out, s)
	}
	return out
}
