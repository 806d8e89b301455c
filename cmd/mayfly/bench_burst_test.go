package main

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim"
)

// A burst is jobs that come at once to one node.
type burst struct {
	jobs  int
	gate  int     // clones and destroys at once; 0 the default
	agent int     // guest-agent calls at once; 0 the default
	slow  float64 // how much longer the storage's lock is held than usual; 0 is 1
	seed  uint64
}

// A burstEnd is what became of one.
type burstEnd struct {
	last     time.Duration // from the burst to its last listening runner
	timeouts int           // clones and destroys that waited too long for a lock
	failures int
	leaked   int
	requests float64 // of Proxmox, for each runner; looks apart
	looks    float64 // of both, a second
	github   float64 // requests for each job; looks and look-ups apart
	lookUps  float64 // of jobs that wait long, for each job: reconciliation
	clones   float64 // for each job
}

// run lets a node that has learned its ways meet the burst.
func (b burst) run(t *testing.T) (end burstEnd) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		lookUps := 0
		h := newHouse(t, houseOptions{sim: sim.Config{Seed: b.seed, OOBE: true, Memory: 2 << 40}, max: 200})
		if b.gate > 0 {
			h.cfg.Proxmox.Gates.Clone = b.gate
		}
		if b.agent > 0 {
			h.cfg.Proxmox.Gates.Agent = b.agent
		}
		count := h.out.count
		h.out.count = func(system, call, outcome string, took time.Duration) {
			if system == "github" && call == "job" {
				mu.Lock()
				lookUps++
				mu.Unlock()
			}
			count(system, call, outcome, took)
		}
		h.out.hear = append(h.out.hear, func(e fleet.Event) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == fleet.Failed && strings.Contains(e.Note, "got timeout") {
				end.timeouts++
			}
		})
		defer h.close()
		h.start()
		synctest.Sleep(12 * time.Second)
		for range 4 {
			h.submit(1, minutes(2))
			synctest.Sleep(5 * time.Second)
			h.untilEmpty(time.Hour)
		}
		if b.slow > 0 {
			h.world.PVE.SlowStorage(b.slow)
		}
		h.tally.zero()
		mu.Lock()
		lookUps = 0
		mu.Unlock()
		began := time.Now()
		h.submit(b.jobs, minutes(6))
		synctest.Sleep(5 * time.Second)
		h.untilEmpty(24 * time.Hour)
		synctest.Sleep(30 * time.Second)
		h.check(4 + b.jobs)
		mu.Lock()
		defer mu.Unlock()
		for _, j := range h.world.GitHub.Jobs() {
			end.last = max(end.last, j.Started.Sub(began))
		}
		ran := time.Since(began).Seconds()
		h.tally.mu.Lock()
		defer h.tally.mu.Unlock()
		end.failures, end.leaked = h.tally.failures, len(h.world.PVE.Leaked())
		end.requests, end.looks = per(h.tally.proxmox, h.tally.runners), float64(h.tally.looks)/ran
		end.github, end.clones = per(h.tally.github-lookUps, b.jobs), per(h.tally.clones, b.jobs)
		end.lookUps = per(lookUps, b.jobs)
	})
	return end
}

// zero begins to count anew.
func (t *tally) zero() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runners, t.clones, t.failures, t.proxmox, t.github, t.looks, t.leaked, t.quarantined = 0, 0, 0, 0, 0, 0, 0, 0
	t.queueClone, t.gateWait, t.readyJoin, t.listening = nil, nil, nil, nil
}
