package main

import (
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/sim"
)

// TestOneJob is the path that everything else rests on: a webhook comes in, a VM is made, found, given its runner,
// the job runs, the VM is gone.
func TestOneJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, houseOptions{sim: sim.Config{Seed: 1, OOBE: true}, max: 4})
		defer h.close()
		h.start()
		h.submit(1, minutes(5))
		synctest.Sleep(10 * time.Second)
		h.untilEmpty(time.Hour)
		h.check(1)
		if n := len(h.world.PVE.Volumes()); n != 0 {
			t.Errorf("%d volumes left: %v", n, h.world.PVE.Volumes())
		}
		if h.tally.clones != 1 {
			t.Errorf("%d clones for one job", h.tally.clones)
		}
		t.Logf("Proxmox requests: %d (%v); GitHub requests: %d; %v", h.tally.proxmox, h.world.PVE.Requests(), h.tally.github, h.tally.listening)
	})
}

// TestDay is a day's work in fake time: jobs come and go, nothing is killed, nothing is left.
func TestDay(t *testing.T) {
	jobs := fromEnv(t, "MAYFLY_JOBS", 500)
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, houseOptions{sim: sim.Config{Seed: 2, Nodes: 4, OOBE: true}, max: 60})
		defer h.close()
		h.start()
		for i := range jobs {
			h.submit(1, func(int) time.Duration { return minutes(20)(i) })
			synctest.Sleep(time.Duration(i*i%97) * time.Second)
		}
		h.untilEmpty(24 * time.Hour)
		h.check(jobs)
		if n := len(h.world.PVE.Volumes()); n != 0 {
			t.Errorf("%d volumes left", n)
		}
		t.Logf("%d jobs, %d runners, %d failures; Proxmox requests per runner %.1f, GitHub requests per job %.1f", jobs, h.tally.runners, h.tally.failures, per(h.tally.proxmox, h.tally.runners), per(h.tally.github, jobs))
	})
}
