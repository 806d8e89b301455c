package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/sim/pve"
)

// inHouse runs what in a house of its own, in a bubble.
func inHouse(t *testing.T, o houseOptions, what func(t *testing.T, h *house)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, o)
		defer h.close()
		what(t, h)
	})
}

// until lets time pass until is is true.
func (h *house) until(what string, limit time.Duration, is func() bool) {
	h.t.Helper()
	for began := time.Now(); !is(); synctest.Sleep(time.Second) {
		if time.Since(began) > limit {
			h.fatalState("not within " + limit.String() + ": " + what)
		}
	}
}

// heard are the stored events of a kind, newest first.
func (h *house) heard(k fleet.Kind) []fleet.Event {
	h.t.Helper()
	all, err := h.live.app.store.Events(context.Background(), 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	var some []fleet.Event
	for _, e := range all {
		if e.Kind == k {
			some = append(some, e)
		}
	}
	return some
}

func TestReadyPoolStartsAtOnce(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 11, OOBE: true}, max: 4, ready: 2}, func(t *testing.T, h *house) {
		h.start()
		h.until("two are ready", 10*time.Minute, func() bool { return h.phases()[fleet.Ready] == 2 })
		if n := h.world.GitHub.Stats().Runners; n != 0 {
			t.Errorf("%d ready runners are registered: GitHub drops idle ones", n)
		}
		synctest.Sleep(time.Hour)
		h.submit(1, minutes(3))
		h.until("the job has started", time.Minute, func() bool { return !h.world.GitHub.Jobs()[0].Started.IsZero() })
		j := h.world.GitHub.Jobs()[0]
		t.Logf("queued → started on a ready VM: %v", j.Started.Sub(j.Queued).Round(100*time.Millisecond))
		h.until("the pool is full again", 20*time.Minute, func() bool { return h.phases()[fleet.Ready] == 2 && h.rows() == 2 })
		if st := h.world.GitHub.Stats(); st.Succeeded != 1 || st.Killed != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestCancelledJobKillsNothing(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 12}, max: 4}, func(t *testing.T, h *house) {
		h.start()
		h.submit(2, minutes(10))
		h.until("a runner is being started", 10*time.Minute, func() bool { return h.phases()[fleet.Joining] >= 1 })
		for _, j := range h.world.GitHub.Jobs() {
			if j.Status == "queued" {
				h.world.GitHub.Cancel(j.ID) // the other job gets whichever runner is there first
				break
			}
		}
		h.untilEmpty(2 * time.Hour)
		st := h.world.GitHub.Stats()
		if st.Killed != 0 || st.Succeeded != 1 || st.Cancelled != 1 {
			t.Errorf("%+v", st)
		}
		if n := len(h.ours()); n != 0 {
			t.Errorf("%d VMs left", n)
		}
	})
}

// TestRetireMeetsJob gives a spare listening runner a job, which nobody tells of, in the seconds around the moment
// when it is retired: GitHub's 422 makes it Busy, and nothing is killed.
func TestRetireMeetsJob(t *testing.T) {
	refused := make(chan bool, 64)
	t.Run("story", func(t *testing.T) {
		for after := range 24 {
			t.Run(fmt.Sprint(after), func(t *testing.T) {
				inHouse(t, houseOptions{sim: sim.Config{Seed: 22, Lose: map[string]float64{"in_progress": 1}}, max: 2}, func(t *testing.T, h *house) {
					h.start()
					h.submit(1, minutes(2))
					h.until("a runner is being started", 20*time.Minute, func() bool { return h.phases()[fleet.Joining] == 1 })
					h.world.GitHub.Cancel(h.world.GitHub.Jobs()[0].ID)
					h.until("it listens", 20*time.Minute, func() bool { return h.phases()[fleet.Idle] == 1 })
					synctest.Sleep(50*time.Second + time.Duration(after)*500*time.Millisecond)
					h.world.GitHub.Submit(github.JobSpec{Repo: "octo-org/app", Labels: []string{"windows"}, Length: 10 * time.Minute, Silent: true})
					synctest.Sleep(time.Minute)
					for _, e := range h.heard(fleet.RunnerBusy) {
						refused <- strings.Contains(e.Note, "in a job")
					}
					synctest.Sleep(20 * time.Minute)
					if n := h.world.GitHub.Stats().Killed; n != 0 {
						h.fatalState(fmt.Sprintf("%d killed", n))
					}
				})
			})
		}
	})
	close(refused)
	met := 0
	for r := range refused {
		if r {
			met++
		}
	}
	if met == 0 {
		t.Error("no DELETE met a job: the story shows nothing")
	}
	t.Logf("%d DELETEs were refused with 422", met)
}

func TestJobTimeout(t *testing.T) {
	pools := "  - name: win\n    labels: [self-hosted, windows, x64]\n    max: 2\n    templates: {pve1: 9000}\n    job_timeout: 30m\n"
	inHouse(t, houseOptions{sim: sim.Config{Seed: 13}, pools: pools}, func(t *testing.T, h *house) {
		h.start()
		h.world.GitHub.Submit(github.JobSpec{Repo: "octo-org/app", Labels: []string{"windows"}, Length: 5 * time.Hour})
		h.until("it runs", 10*time.Minute, func() bool { return h.phases()[fleet.Busy] == 1 })
		began := time.Now()
		h.until("its VM is gone", time.Hour, func() bool { return len(h.ours()) == 0 && h.rows() == 0 })
		if d := time.Since(began); d < 30*time.Minute || d > 32*time.Minute {
			t.Errorf("after %v", d)
		}
		if left := h.heard(fleet.RunnerLeaving); len(left) != 1 || !strings.Contains(left[0].Note, "job_timeout (30m0s)") {
			t.Errorf("%+v", left)
		}
	})
}

func TestKilledCloneIsQuarantined(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 14}, max: 2}, func(t *testing.T, h *house) {
		h.start()
		h.submit(1, minutes(3))
		h.until("it is being cloned", time.Minute, func() bool { return len(h.ours()) == 1 })
		id := h.ours()[0].ID
		if !h.world.PVE.KillClone(id) {
			t.Fatal("nothing was killed")
		}
		h.until("the job is done on another VM", 30*time.Minute, func() bool { return h.world.GitHub.Stats().Succeeded == 1 })
		h.until("its row has ended", 30*time.Minute, func() bool { return h.rows() == 0 })
		books, err := h.live.app.store.Load(context.Background())
		if err != nil || books.Quarantine[id] == "" {
			t.Errorf("VMID %d is not in quarantine: %v %v", id, books.Quarantine, err)
		}
		if vms := h.ours(); len(vms) != 1 || vms[0].ID != id || vms[0].Lock != "clone" {
			t.Errorf("the half-made VM, which no token can remove, should be all that is left: %+v", vms)
		}
		h.submit(1, minutes(2))
		h.until("capacity is not lost", 30*time.Minute, func() bool { return h.world.GitHub.Stats().Succeeded == 2 })
	})
}

func TestInterruptedDestroyIsShown(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 15}, max: 2}, func(t *testing.T, h *house) {
		h.start()
		h.submit(1, minutes(2))
		h.until("it runs", 10*time.Minute, func() bool { return h.phases()[fleet.Busy] == 1 })
		release := h.world.PVE.HoldUserCfg()
		h.until("half of it is destroyed", 30*time.Minute, func() bool { vms := h.ours(); return len(vms) == 1 && vms[0].Lock == "destroyed" })
		synctest.Sleep(time.Minute) // longer than the destroy waits for the lock
		release()
		h.until("its row has ended", time.Hour, func() bool { return h.rows() == 0 })
		if n := len(h.heard(fleet.Quarantined)); n != 1 {
			t.Errorf("%d quarantined", n)
		}
		if st := h.world.GitHub.Stats(); st.Killed != 0 || st.Succeeded != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestVMRemovedByHand(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 16}, max: 2}, func(t *testing.T, h *house) {
		h.start()
		h.submit(1, minutes(2))
		h.until("it boots", 10*time.Minute, func() bool { vms := h.ours(); return len(vms) == 1 && vms[0].Status == "running" })
		h.world.PVE.Kill(h.ours()[0].ID)
		h.until("the job is done on another VM", time.Hour, func() bool { return h.world.GitHub.Stats().Succeeded == 1 })
		h.untilEmpty(time.Hour)
		if n := len(h.ours()); n != 0 {
			t.Errorf("%d VMs left", n)
		}
	})
}

func TestHiddenIDIsPassedOver(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 17}, max: 2}, func(t *testing.T, h *house) {
		// In our range, and not in our pool: our token cannot see them, and nextid says that they are taken.
		for id := 100000; id < 100003; id++ {
			h.world.PVE.AddVM(pve.VMSpec{ID: id, Node: "pve1", Name: "somebody", Running: true, Foreign: true})
		}
		h.start()
		h.submit(1, minutes(2))
		h.untilEmpty(2 * time.Hour)
		h.check(1)
	})
}

// TestGhosts leaves registrations at GitHub that have neither row nor VM: ours go, once two lists have shown them, and
// those of others stay.
func TestGhosts(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 23}, max: 2}, func(t *testing.T, h *house) {
		l := h.start()
		pool := h.cfg.FleetPools()[0]
		for _, name := range []string{"test-win-0badcafe", "test-win-0badcafe-3", "other-win-0badcafe", "test-win-by-hand", "builder-1"} {
			if _, err := l.app.hub.Register(t.Context(), name, pool); err != nil {
				t.Fatal(err)
			}
		}
		h.submit(1, func(int) time.Duration { return 10 * time.Minute }) // a living one is no ghost
		h.until("its runner works", 10*time.Minute, func() bool { return h.phases()[fleet.Busy] == 1 })
		synctest.Sleep(3 * time.Minute)
		var left []string
		for _, r := range h.world.GitHub.Runners() {
			left = append(left, r.Name)
		}
		slices.Sort(left)
		w, _ := l.app.control.Last()
		want := []string{"builder-1", "other-win-0badcafe", "test-win-by-hand", w.Runners[0].Registration}
		slices.Sort(want)
		if !slices.Equal(left, want) {
			t.Errorf("left: %v, want %v", left, want)
		}
		if n := len(h.heard(fleet.GhostRemoved)); n != 2 {
			t.Errorf("%d ghosts told of", n)
		}
		h.untilEmpty(time.Hour)
		h.check(1)
	})
}

func TestNodeAway(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 18, Nodes: 2}, max: 6}, func(t *testing.T, h *house) {
		h.start()
		h.submit(4, func(int) time.Duration { return 40 * time.Minute })
		h.until("all run", 20*time.Minute, func() bool { return h.phases()[fleet.Busy] == 4 })
		h.world.PVE.SetNode("pve2", false)
		synctest.Sleep(15 * time.Minute)
		if n := h.world.GitHub.Stats().Killed; n != 0 {
			t.Errorf("%d killed while a node could not be reached", n)
		}
		h.submit(1, minutes(2)) // goes to the other node
		h.until("the new job is done", time.Hour, func() bool { return h.world.GitHub.Stats().Succeeded >= 1 })
		h.world.PVE.SetNode("pve2", true)
		h.untilEmpty(4 * time.Hour)
		h.check(5)
	})
}

func TestGitHubAway(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 19}, max: 6}, func(t *testing.T, h *house) {
		h.start()
		h.submit(3, func(int) time.Duration { return 3 * time.Hour })
		h.until("all run", 20*time.Minute, func() bool { return h.phases()[fleet.Busy] == 3 })
		back := h.world.GitHub.Inject(github.Fault{Do: github.Status(503, "Service Unavailable")})
		h.submit(1, minutes(2))
		synctest.Sleep(2 * time.Hour)
		if n := h.world.GitHub.Stats().Killed; n != 0 {
			t.Errorf("%d killed while GitHub was away", n)
		}
		back()
		h.untilEmpty(6 * time.Hour)
		h.check(4)
	})
}

func TestIdleDroppedByGitHub(t *testing.T) {
	inHouse(t, houseOptions{sim: sim.Config{Seed: 20, IdleDrop: 20 * time.Second}, max: 2}, func(t *testing.T, h *house) {
		h.start()
		h.submit(1, minutes(2))
		h.until("a runner is being started", 20*time.Minute, func() bool { return h.phases()[fleet.Joining] == 1 })
		h.world.GitHub.Cancel(h.world.GitHub.Jobs()[0].ID)
		h.untilEmpty(time.Hour)
		if f := h.heard(fleet.Failed); len(f) != 1 || f[0].Class != "no_job" {
			t.Errorf("a runner that ended without a job is a failure: %+v", f)
		}
		if n := len(h.ours()); n != 0 {
			t.Errorf("%d VMs left", n)
		}
		h.submit(1, minutes(2)) // only a job that runs clears it
		h.until("the next job is done", time.Hour, func() bool { return h.world.GitHub.Stats().Succeeded == 1 })
		if w, _ := h.live.app.control.Last(); len(w.Troubles) != 0 {
			t.Errorf("%+v", w.Troubles)
		}
	})
}

// TestStop is SIGTERM in every second of a launch: nothing in Proxmox is touched by it, and the next life makes no
// second clone.
func TestStop(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, 5 * time.Second, 14 * time.Second, 40 * time.Second, 70 * time.Second, 82 * time.Second, 2 * time.Minute} {
		t.Run(after.String(), func(t *testing.T) {
			inHouse(t, houseOptions{sim: sim.Config{Seed: 21}, max: 2}, func(t *testing.T, h *house) {
				l := h.start()
				h.submit(1, func(int) time.Duration { return 5 * time.Minute })
				synctest.Sleep(time.Second + after)
				began := time.Now()
				h.end(l)
				if d := time.Since(began); d > 20*time.Second {
					t.Errorf("stopping took %v", d)
				}
				was := h.world.PVE.Requests()
				synctest.Sleep(3 * time.Minute)
				for call, n := range h.world.PVE.Requests() {
					if n != was[call] {
						t.Errorf("after its stop: %d × %s", n-was[call], call)
					}
				}
				h.start()
				synctest.Sleep(5 * time.Second)
				h.untilEmpty(2 * time.Hour)
				h.check(1)
				if n := h.world.PVE.Requests()["clone"]; n != 1 {
					t.Errorf("%d clones", n)
				}
			})
		})
	}
}
