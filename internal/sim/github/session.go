package github

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Session is a runner that is connected with its registration.
type Session struct {
	g    *GitHub
	r    *registration
	wake chan struct{}
	over bool // closed, lost or done; guarded by g.mu
}

// Connect starts a session with a JIT configuration. ErrBadConfig, ErrRemoved and
// ErrConflict say why not. The runner is online once Next is called.
func (g *GitHub) Connect(jit string) (*Session, error) {
	id, key, err := parseJIT(jit)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expire()
	r := g.runner(id)
	switch {
	case g.closed || r == nil:
		return nil, fmt.Errorf("connect runner %d: %w", id, ErrRemoved)
	case !r.proves(key):
		return nil, fmt.Errorf("connect runner %d: %w: wrong key", id, ErrBadConfig)
	case r.session != nil:
		return nil, fmt.Errorf("connect runner %s: %w", r.name, ErrConflict)
	}
	s := &Session{g: g, r: r, wake: make(chan struct{}, 1)}
	r.session, r.met = s, true
	return s, nil
}

// Name is the registration's name.
func (s *Session) Name() string { return s.r.name }

// ID is the registration's id.
func (s *Session) ID() int64 { return s.r.id }

func (s *Session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Next puts the runner online and waits until a job is given to it: any that matches its
// labels. ErrRemoved: the registration was deleted or dropped. When ctx ends, GitHub still
// believes that the runner listens, until Close or Lost.
func (s *Session) Next(ctx context.Context) (Job, error) {
	for {
		j, ok, err := s.take()
		if err != nil || ok {
			return j, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Job{}, fmt.Errorf("runner %s waits for a job: %w", s.r.name, ctx.Err())
		}
	}
}

func (s *Session) take() (Job, bool, error) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	switch {
	case s.r.removed:
		return Job{}, false, fmt.Errorf("runner %s: %w", s.r.name, ErrRemoved)
	case s.over:
		return Job{}, false, fmt.Errorf("runner %s: %w", s.r.name, errOver)
	case s.r.job != nil && s.r.job.status == "in_progress":
		return Job{}, false, fmt.Errorf("runner %s is in job %d already", s.r.name, s.r.job.id)
	}
	s.g.setOnline(s.r, true)
	s.g.enterIdle(s.r)
	j := s.r.job
	if j == nil {
		return Job{}, false, nil
	}
	s.g.pickUp(j)
	return Job{ID: j.id, Repo: j.spec.Repo, Name: j.spec.Name, Length: j.spec.Length, Conclusion: j.spec.Conclusion, Cancelled: j.cancelled}, true, nil
}

var errOver = errors.New("the session has ended")

// Done ends the job; the registration goes with it. It fails when GitHub has ended the job
// already, or the session is over.
func (s *Session) Done(jobID int64, conclusion string) error {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	j := s.r.job
	switch {
	case s.over:
		return fmt.Errorf("runner %s ends job %d: %w", s.r.name, jobID, errOver)
	case j == nil || j.id != jobID || j.status != "in_progress":
		return fmt.Errorf("runner %s ends job %d: it is not in it", s.r.name, jobID)
	}
	s.over = true
	s.g.end(j, conclusion)
	return nil
}

// Lost says that the machine died. A job that it was in counts as killed; GitHub notices
// when the job's lock runs out, and shows the runner offline and busy until then. Of a
// listening runner GitHub notices after RequeueAfter, and may still give it a job before.
// After Done or Close nothing happens.
func (s *Session) Lost() {
	g, r := s.g, s.r
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	r.session = nil
	s.nudge()
	if r.removed {
		return
	}
	if j := r.job; j != nil && j.status == "in_progress" {
		j.callOff()
		j.killed = true
		g.killed++
		g.setOnline(r, false)
		j.callOff = g.later(g.cfg.LostAfter, func() { g.end(j, "failure") })
		return
	}
	if !r.online {
		return
	}
	g.later(g.cfg.RequeueAfter, func() {
		if r.session == nil && r.job == nil {
			g.leaveIdle(r)
			g.setOnline(r, false)
		}
	})
}

// Close ends a session that is in no job, as a stopped runner does: offline at once, its
// registration stays. In a job it is the same as Lost.
func (s *Session) Close() {
	g, r := s.g, s.r
	g.mu.Lock()
	if s.over || r.removed || (r.job != nil && r.job.status == "in_progress") {
		g.mu.Unlock()
		s.Lost()
		return
	}
	defer g.mu.Unlock()
	s.over = true
	r.session = nil
	s.nudge()
	g.setOnline(r, false)
	if j := r.job; j != nil { // given to it and not picked up
		j.callOff()
		j.runner, r.job = nil, nil
		g.enqueue(j)
	}
	g.leaveIdle(r)
	r.since = time.Now()
}
