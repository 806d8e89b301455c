package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/sim/pve"
)

// TestLyingWorld is the law that no look may end a running job: for spans of any length, lists drop rows, turn empty,
// 403 or 404, or say a stale "stopped". Single questions are answered honestly, as they are by the real ones.
func TestLyingWorld(t *testing.T) {
	for _, seed := range seeds(t, 12) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const jobs = 20
				rng := rand.New(rand.NewPCG(seed, 5))
				h := newHouse(t, houseOptions{sim: sim.Config{Seed: seed, Nodes: 2, Lose: map[string]float64{"in_progress": 0.3, "completed": 0.3}}, max: 10, ready: 1})
				defer h.close()
				strangers(h)
				h.start()
				h.submit(jobs, minutes(25))
				for range 40 {
					stop := h.lie(rng)
					synctest.Sleep(time.Duration(rng.Int64N(int64(4 * time.Minute))))
					stop()
					if rng.IntN(3) == 0 { // an honest moment, so that what was believed before is tested, too
						synctest.Sleep(time.Duration(rng.Int64N(int64(time.Minute))))
					}
					if n := h.world.GitHub.Stats().Killed; n != 0 {
						h.fatalState(fmt.Sprintf("seed %d: %d jobs were killed", seed, n))
					}
				}
				// Honest again, all is done; the pool keeps its ready VM.
				for began := time.Now(); ; synctest.Sleep(5 * time.Second) {
					st := h.world.GitHub.Stats()
					if st.Queued == 0 && st.Running == 0 && h.rows() <= 1 && len(h.ours()) <= 1 {
						break
					}
					if time.Since(began) > 6*time.Hour {
						h.fatalState(fmt.Sprintf("seed %d: not done", seed))
					}
				}
				st := h.world.GitHub.Stats()
				if st.Killed != 0 || st.Succeeded != jobs {
					t.Errorf("seed %d: %+v", seed, st)
				}
				if touched := h.world.PVE.Touched(); len(touched) != 0 {
					t.Errorf("seed %d: foreign VMs touched: %v", seed, touched)
				}
			})
		})
	}
}

// lie makes the lists of Proxmox, GitHub or both lie in one way, until stop is called.
func (h *house) lie(rng *rand.Rand) (stop func()) {
	var stops []func()
	if rng.IntN(3) > 0 {
		do := []pve.Action{pve.Empty(), pve.StaleStopped(), pve.DropRows(0.5), pve.DropRows(1), pve.Status(403, "Permission check failed"), pve.Status(404, "Not Found")}
		stops = append(stops, h.world.PVE.Inject(pve.Fault{Match: `^GET /cluster/resources`, Do: do[rng.IntN(len(do))]}))
	}
	if rng.IntN(3) > 0 {
		do := []github.Effect{github.Empty(), github.Short(), github.NotFound(), github.Status(403, "Forbidden")}
		stops = append(stops, h.world.GitHub.Inject(github.Fault{Match: "GET */actions/runners", Do: do[rng.IntN(len(do))]}))
	}
	return func() {
		for _, s := range stops {
			s()
		}
	}
}

// TestLostDatabase loses the database while jobs run: the marks bring the VMs back, no job is killed, and in the end
// nothing is left.
func TestLostDatabase(t *testing.T) {
	for _, seed := range seeds(t, 4) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const jobs = 12
				h := newHouse(t, houseOptions{sim: sim.Config{Seed: seed, Nodes: 2, OOBE: true}, max: 20})
				defer h.close()
				strangers(h)
				l := h.start()
				h.submit(jobs, func(i int) time.Duration { return time.Duration(10+5*i) * time.Minute })
				for h.world.GitHub.Stats().Running < jobs/2 { // some run, some are still being made
					synctest.Sleep(5 * time.Second)
				}
				l.crash()
				h.end(l)
				files, err := filepath.Glob(filepath.Join(filepath.Dir(h.cfg.Store.Path), "mayfly.db*"))
				if err != nil || len(files) == 0 {
					t.Fatal("no database to lose", err)
				}
				for _, f := range files {
					if err := os.Remove(f); err != nil {
						t.Fatal(err)
					}
				}
				h.start()
				if seed%2 == 0 { // and GitHub's list lies for a while: only the guests know that they work
					stop := h.world.GitHub.Inject(github.Fault{Match: "GET */actions/runners", Do: github.Empty()})
					synctest.Sleep(15 * time.Minute)
					stop()
				}
				// The ledger is lost, too: a person has GitHub send the deliveries of the jobs that wait again.
				waiting := map[int64]bool{}
				for _, j := range h.world.GitHub.Jobs() {
					waiting[j.ID] = j.Status == "queued"
				}
				for _, d := range h.world.GitHub.Deliveries() {
					if d.Action == "queued" && waiting[d.Job] {
						h.world.GitHub.Redeliver(d.GUID)
					}
				}
				synctest.Sleep(time.Minute)
				h.untilEmpty(12 * time.Hour)
				synctest.Sleep(5 * time.Minute)
				st := h.world.GitHub.Stats()
				if st.Killed != 0 || st.Succeeded != jobs {
					t.Errorf("seed %d: %+v", seed, st)
				}
				if left := h.ours(); len(left) != 0 || h.rows() != 0 {
					h.fatalState(fmt.Sprintf("seed %d: VMs left: %+v", seed, left))
				}
				if touched := h.world.PVE.Touched(); len(touched) != 0 {
					t.Errorf("seed %d: foreign VMs touched: %v", seed, touched)
				}
			})
		})
	}
}
