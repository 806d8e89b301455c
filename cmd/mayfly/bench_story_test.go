package main

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim"
)

// A story is what the events told of one runner's way to its job.
type story struct {
	vmid  int
	at    map[fleet.Kind]time.Time
	delay map[string]time.Duration // what the world really took for it, by name
}

// took is from the demand to the listening runner.
func (s *story) took() time.Duration { return s.at[fleet.Listening].Sub(s.at[fleet.JobQueued]) }

// simulated is what no orchestrator could have saved.
func (s *story) simulated() time.Duration {
	var sum time.Duration
	for _, d := range s.delay {
		sum += d
	}
	return sum
}

// stories hears the events of runners that come one after the other.
type stories struct {
	mu     sync.Mutex
	queued time.Time
	by     map[int]*story
}

func (s *stories) hear(e fleet.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Kind == fleet.JobQueued {
		s.queued = e.At
		return
	}
	if e.VMID == 0 {
		return
	}
	if s.by == nil {
		s.by = map[int]*story{}
	}
	of := s.by[e.VMID]
	if of == nil {
		of = &story{vmid: e.VMID, at: map[fleet.Kind]time.Time{fleet.JobQueued: s.queued}, delay: map[string]time.Duration{}}
		s.by[e.VMID] = of
	}
	if of.at[e.Kind].IsZero() {
		of.at[e.Kind] = e.At
	}
}

// told adds the world's own delays.
func (s *stories) told(w *sim.World) []*story {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*story
	for vmid, of := range s.by {
		for name, d := range w.PVE.Delays(vmid) {
			if name == "clone" || name == "start" {
				of.delay[name] = d
			}
		}
		for name, d := range w.Guests.Delays(vmid) {
			of.delay[name] = d
		}
		all = append(all, of)
	}
	return all
}

// oneByOne runs n jobs, each when the one before is over and gone.
func oneByOne(t *testing.T, seed uint64, n int) (all []*story, h *house) {
	synctest.Test(t, func(t *testing.T) {
		var s stories
		h = newHouse(t, houseOptions{sim: sim.Config{Seed: seed, OOBE: true}, max: 4})
		h.out.hear = append(h.out.hear, s.hear)
		defer h.close()
		h.start()
		synctest.Sleep(12 * time.Second) // both sides have been seen
		for i := range n {
			synctest.Sleep(time.Duration(i*7919%10007) * time.Millisecond) // anywhere between our ticks
			h.submit(1, minutes(5))
			synctest.Sleep(10 * time.Second)
			h.untilEmpty(time.Hour)
		}
		h.check(n)
		all = s.told(h.world)
	})
	return all, h
}
