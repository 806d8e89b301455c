package proxmox

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

func TestWaitAsksSeldomAndLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := s.newClient()
		for n, most := range []int{22, 3, 3} {
			before := len(s.requests("GET"))
			began := time.Now()
			if err := c.Wait(t.Context(), s.ends(n, "qmclone", "9000", 20*time.Second, "OK")); err != nil {
				t.Fatal(err)
			}
			polls := s.requests("GET")[before:]
			late := time.Since(began) - 20*time.Second
			t.Logf("wait %d: %d polls, %s late", n, len(polls), late)
			if len(polls) > most || late > 3*time.Second {
				t.Errorf("wait %d: %d polls, %s late", n, len(polls), late)
			}
			for i := 2; i < len(polls); i++ {
				if a, b := polls[i-1].at.Sub(polls[i-2].at), polls[i].at.Sub(polls[i-1].at); b < a-time.Millisecond {
					t.Errorf("wait %d: poll %d after %s, the one before after %s", n, i, b, a)
				}
			}
		}
	})
}

// TestWaitsOfManyLengths: the requests and the delay of clones that take 10 to 30 s.
func TestWaitsOfManyLengths(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := newServer(t)
		c := s.newClient()
		const many = 60
		var late time.Duration
		for n := range many {
			d := 10*time.Second + time.Duration(rnd.Int64N(int64(20*time.Second)))
			began := time.Now()
			if err := c.Wait(t.Context(), s.ends(n, "qmclone", "9000", d, "OK")); err != nil {
				t.Fatal(err)
			}
			late += time.Since(began) - d
		}
		polls := len(s.requests("GET"))
		t.Logf("%.1f polls a task, %s late", float64(polls)/many, late/many)
		if polls > 14*many || late > many*2*time.Second {
			t.Errorf("%.1f polls a task, %s late", float64(polls)/many, late/many)
		}
	})
}

func TestWaitEndings(t *testing.T) {
	for _, tc := range []struct{ kind, exit, class string }{
		{"qmclone", "OK", ""},
		{"qmstart", "WARNINGS: 1", ""},
		{"qmclone", "unable to create VM 700: config file already exists", "taken"},
		{"qmclone", "can't lock file '/var/lock/qemu-server/lock-700.conf' - got timeout", "taken"},
		{"qmclone", "clone failed: unable to create image: qemu-img: x: No space left on device", "full"},
		{"qmclone", "unexpected status", "unknown"},
		{"qmclone", "clone failed: interrupted by signal", "other"},
		{"qmclone", "", "unknown"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			err := s.newClient().Wait(t.Context(), s.ends(1, tc.kind, "9000", time.Second, tc.exit))
			if fleet.Class(err) != tc.class {
				t.Errorf("%q: %v, want %q", tc.exit, err, tc.class)
			}
		})
	}
}

func TestWaitOutlastsAnUnreachableNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		upid := upidOf(1, "qmclone", "9000")
		began := time.Now()
		s.on("GET /nodes/pve1/tasks/"+upid+"/status", func(w http.ResponseWriter, r *http.Request) {
			switch since := time.Since(began); {
			case since < time.Minute:
				fail(w, 595, "")
			case since < 2*time.Minute:
				cut(w, r)
			default:
				give(w, `{"status":"stopped","exitstatus":"OK"}`)
			}
		})
		if err := s.newClient().Wait(t.Context(), upid); err != nil {
			t.Fatal(err)
		}
		if n := len(s.requests("GET")); n > 20 {
			t.Errorf("%d polls in two minutes", n)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := s.newClient().Wait(ctx, s.ends(1, "qmclone", "9000", time.Hour, "OK"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestWaitForATaskThatCannotBeAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		upid := upidOf(1, "qmclone", "9000")
		s.on("GET /nodes/pve1/tasks/"+upid+"/status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			w.Write([]byte(`{"errors":{"upid":"no such task"},"message":"Parameter verification failed.\n","data":null}`))
		})
		c := s.newClient()
		for _, u := range []string{upid, "UPID:nonsense", ""} {
			if err := c.Wait(t.Context(), u); !errors.Is(err, fleet.ErrUnknown) {
				t.Errorf("%q: %v", u, err)
			}
		}
	})
}

// lists answers the node's task list as Proxmox does, for tasks that end at their times.
func (s *pveServer) lists(ends map[string]time.Time, hide bool) {
	s.on("GET /nodes/pve1/tasks", func(w http.ResponseWriter, r *http.Request) {
		rows := []map[string]any{}
		for upid, end := range ends {
			if hide {
				continue
			}
			status := "RUNNING"
			if !time.Now().Before(end) {
				status = "OK"
			}
			rows = append(rows, map[string]any{"upid": upid, "status": status, "type": "qmclone", "id": "9000"})
		}
		b, _ := json.Marshal(rows)
		give(w, string(b))
	})
}

func TestManyTasksOfANodeAreListed(t *testing.T) {
	for _, hide := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			c := s.newClient(func(cfg *Config) { cfg.Gates.Rate = 1000 })
			const many = 20
			ends := map[string]time.Time{}
			for n := range many {
				d := 20*time.Second + time.Duration(n)*500*time.Millisecond
				ends[s.ends(n, "qmclone", "9000", d, "OK")] = time.Now().Add(d)
			}
			s.lists(ends, hide)
			var wg sync.WaitGroup
			for upid, end := range ends {
				wg.Go(func() {
					if err := c.Wait(t.Context(), upid); err != nil {
						t.Error(err)
					}
					if late := time.Since(end); late < 0 || late > 8*time.Second {
						t.Errorf("%s late", late)
					}
				})
			}
			wg.Wait()
			lists, all := len(s.requests("GET /nodes/pve1/tasks"))-len(s.requests("GET /nodes/pve1/tasks/")), len(s.requests("GET"))
			t.Logf("hidden %v: %d requests, %d of them lists, for %d tasks", hide, all, lists, many)
			if !hide && all > 5*many {
				t.Errorf("%d requests for %d tasks", all, many)
			}
		})
	}
}

func TestDestroyTellsLeakedVolumes(t *testing.T) {
	const line = `Could not remove disk 'tank:9000/base-9000-disk-0.qcow2/700/vm-700-disk-0.qcow2', check manually: unlink '/x' failed - Operation not permitted`
	for _, tc := range []struct{ exit, line string }{
		{"WARNINGS: 1", "WARN: " + line}, // since qemu-server 9.1.19
		{"OK", line},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			s.ours()
			s.on("DELETE /nodes/pve1/qemu/700", func(w http.ResponseWriter, _ *http.Request) {
				upid := s.ends(1, "qmdestroy", "700", time.Second, tc.exit)
				b, _ := json.Marshal([]map[string]any{{"n": 1, "t": tc.line}, {"n": 2, "t": "TASK " + tc.exit}})
				s.says("GET /nodes/pve1/tasks/"+upid+"/log", string(b))
				give(w, `"`+upid+`"`)
			})
			leaked, err := s.newClient().Destroy(t.Context(), runner())
			if err != nil || strings.Join(leaked, " ") != "tank:9000/base-9000-disk-0.qcow2/700/vm-700-disk-0.qcow2" {
				t.Error(leaked, err)
			}
		})
	}
}
