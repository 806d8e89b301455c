package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKill9 kills the real serve five times with SIGKILL while jobs come and run, starts it again at once, and wants what is
// promised: every job done, none killed, nothing left, nothing of others touched.
func TestKill9(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("MAYFLY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAYFLY_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 9))
	const kills, jobs = 5, 12

	w := newTown(t, "--speed", "40", "--nodes", "2", "--seed", fmt.Sprint(seed%1000))
	for id, name := range map[int]string{100001: "fileserver", 100004: "sim-win-00000001"} { // in our range, the second named like ours
		w.tell("/vms", fmt.Sprintf(`{"id":%d,"node":"pve1","name":%q}`, id, name))
	}
	var ids []int64
	submit := func(n int) {
		var made struct{ Jobs []int64 }
		answer := w.tell("/jobs", fmt.Sprintf(`{"labels":["self-hosted","windows"],"count":%d,"length":"%ds"}`, n, 30+rng.IntN(120)))
		if err := json.Unmarshal([]byte(answer), &made); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, made.Jobs...)
	}
	// Webhooks that came while nobody listened are lost: GitHub sends none again by itself. A person who sees a job wait
	// forever presses "Redeliver".
	redeliver := func() {
		for _, id := range ids {
			if w.truth().job(id).Status == "queued" && !w.knows(id) {
				w.tell("/redeliver", fmt.Sprintf(`{"job":%d,"action":"queued"}`, id))
			}
		}
	}

	w.open()
	for range kills {
		submit(2)
		pause(t.Context(), time.Duration(rng.Int64N(int64(4*time.Second))))
		_ = w.serve.stop(syscall.SIGKILL, patience)
		w.open()
		redeliver()
	}
	submit(jobs - len(ids))

	until(t, "all jobs are done and nothing is left", func() bool {
		select {
		case <-w.serve.ended:
			t.Fatalf("serve has ended (%v)", w.serve.cmd.ProcessState)
		default:
		}
		redeliver()
		s := w.truth()
		return s.GitHub.Queued == 0 && s.GitHub.Running == 0 && len(s.VMs) == 0 && len(s.Volumes) == 0 && len(w.status().Runners) == 0
	})
	s := w.truth()
	if s.GitHub.Succeeded != jobs || s.GitHub.Killed != 0 || s.GitHub.Runners != 0 {
		t.Errorf("%d of %d jobs succeeded, %d killed, %d registrations left", s.GitHub.Succeeded, jobs, s.GitHub.Killed, s.GitHub.Runners)
	}
	if len(s.Touched) != 0 {
		t.Errorf("VMs of others were touched: %v", s.Touched)
	}
	if q := w.status().Quarantine; len(q) > 2 {
		t.Errorf("ids in quarantine: %v, want at most those of the two others", q)
	}
	if code := w.serve.stop(syscall.SIGTERM, 25*time.Second); code != 0 {
		t.Errorf("SIGTERM: exit code %d", code)
	}
	if after := w.truth(); after.writes() != s.writes() {
		t.Errorf("SIGTERM changed something in Proxmox: %v, then %v", s.Requests, after.Requests)
	}
	t.Logf("%d clones for %d jobs and %d kills", s.Requests["clone"], jobs, kills)
}

// TestDemoUntilCtrlC is the first thing that a newcomer types.
func TestDemoUntilCtrlC(t *testing.T) {
	t.Parallel()
	p := start(t, "demo", "--speed", "60", "--seed", "7", "--listen", "127.0.0.1:0")
	w := &town{t: t, page: p.says(`The page: (http://127\.0\.0\.1:\d+)\n`)}
	p.says(`Ctrl-C ends it with a summary`)
	p.says(`\n +\d+s  Job \d+ is queued: octo-org/app: build 1\n`)
	job := p.says(`  Job (\d+) has started on demo-win-[0-9a-f]{8}: `)
	if _, page := w.ask("GET", w.page+"/", "", nil); !strings.Contains(page, "demo-win-") || !strings.Contains(page, job) {
		t.Errorf("the page shows no runner or not job %s:\n%s", job, tail(page, 4000))
	}
	if s := w.status(); !s.Ready || len(s.Pools) != 1 || len(s.Nodes) != 2 {
		t.Errorf("status: %+v", s)
	}
	p.says(`  demo-win-[0-9a-f]{8} is gone`)
	if code := p.stop(os.Interrupt, 25*time.Second); code != 0 {
		t.Errorf("Ctrl-C: exit code %d", code)
	}
	for _, want := range []string{"\n\n", " jobs: ", " succeeded, ", " 0 killed. ", "From queued to started"} {
		if !strings.Contains(p.said(), want) {
			t.Errorf("the summary does not say %q:\n%s", want, tail(p.said(), 800))
		}
	}
	if strings.Contains(p.said(), "mayfly: ") || strings.Contains(p.said(), "level=") {
		t.Errorf("a person has to read an error or a log:\n%s", tail(p.said(), 2000))
	}
}
