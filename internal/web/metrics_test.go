package web

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"mayfly/internal/fleet"
)

// scrape returns what /metrics says.
func scrape(t *testing.T, w *Web) string {
	t.Helper()
	rec := ask(w.Handler(), "GET", "/metrics")
	if rec.Code != 200 {
		t.Fatalf("metrics: %d %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		w := New(Config{Source: day(now), Instance: "m1", Version: "0.1.0", Past: story(now)})
		for _, e := range story(now) {
			w.Hear(e)
		}
		w.ObserveCall("proxmox", "clone", "ok", 20*time.Millisecond)
		w.ObserveCall("github", "register", "taken", time.Second)
		w.ObserveCall("github", "roster", "304", time.Second)
		w.ObserveDelivery("recorded")
		// As GitHub's webhook tells it: no pool, the registration's name, perhaps of a later try.
		for _, runner := range []string{"m1-win-4d5e6f70-2", "m1-strange-4d5e6f70", "x9-win-4d5e6f70", ""} {
			w.Hear(fleet.Event{Kind: fleet.JobEnded, Runner: runner, Class: "failure", Took: time.Minute})
		}
		text := scrape(t, w)
		for _, want := range []string{
			`mayfly_vm_creation_seconds_sum{node="pve1",pool="win"} 19`,
			`mayfly_vm_creation_seconds_count{node="pve1",pool="win"} 1`,
			`mayfly_boot_seconds_sum{node="pve1",pool="win"} 38`,
			`mayfly_runner_ready_seconds_sum{node="pve1",pool="win"} 72`,
			`mayfly_runner_listening_seconds_sum{node="pve1",pool="win"} 80`,
			`mayfly_queue_to_clone_seconds_sum{pool="win"} 0.006`,
			`mayfly_gate_wait_seconds_sum{node="pve1",pool="win"} 1.5`,
			`mayfly_registration_seconds_sum{pool="win"} 0.031`,
			`mayfly_jobs_total{pool="win",result="success"} 1`,
			`mayfly_jobs_total{pool="win",result="failure"} 1`,
			`mayfly_jobs_total{pool="",result="failure"} 3`,
			`mayfly_job_seconds_sum{pool="win"} 1380`,
			`mayfly_requests_total{call="roster",outcome="304",system="github"} 1`,
			`mayfly_webhooks_total{result="recorded"} 1`,
			`mayfly_launches_total{outcome="ok",pool="win"} 1`,
			`mayfly_launches_total{outcome="full",pool="win"} 1`,
			`mayfly_events_total{kind="look_failed"} 1`,
			`mayfly_runners{phase="preparing",pool="win"} 2`,
			`mayfly_runners{phase="busy",pool="win-big"} 0`,
			`mayfly_runners{phase="idle",pool="gone"} 1`,
			`mayfly_pool_max_runners{pool="win"} 4`,
			`mayfly_troubles{pool="win"} 3`,
			`mayfly_jobs_open{status="queued"} 3`,
			`mayfly_jobs_held 3`,
			`mayfly_look_age_seconds{system="github"} 41`,
			`mayfly_look_age_seconds{system="proxmox"} 3`,
			`mayfly_quarantined_vmids 2`,
			`mayfly_ready 1`,
			`mayfly_node_online{node="pve3"} 0`,
			`mayfly_node_storage_full{node="pve2"} 1`,
			`mayfly_node_memory_bytes{node="pve1"} 1.2884901888e+11`,
			`mayfly_requests_total{call="clone",outcome="ok",system="proxmox"} 1`,
			`mayfly_requests_total{call="register",outcome="taken",system="github"} 1`,
			`mayfly_build_info{instance_id="m1",version="0.1.0"} 1`,
			"go_goroutines", "process_start_time_seconds",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "mayfly_") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	})
}

// Whatever is heard or observed, labels stay within their sets and nothing that a stranger wrote is one.
func TestMetricsAreBounded(t *testing.T) {
	now := time.Now()
	s := day(now)
	const evil = "evil\"} 1\n<img>"
	for i := range s.world.Jobs {
		j := &s.world.Jobs[i]
		j.Name, j.Repo, j.Labels, j.Status = evil, evil, []string{evil}, fleet.JobStatus(evil)
	}
	for i := range s.world.Runners {
		s.world.Runners[i].Pool = evil
	}
	for i := range s.world.Pools {
		s.world.Pools[i].Name = evil
	}
	for i := range s.world.Nodes {
		s.world.Nodes[i].Name = evil
	}
	for i := range s.world.Troubles {
		s.world.Troubles[i].Pool, s.world.Troubles[i].Class = evil, evil
	}
	w := New(Config{Source: s, Instance: "m1"})
	for i := range 1000 {
		n := fmt.Sprint(i)
		for _, k := range append(kinds, fleet.Kind("evil"+n)) {
			w.Hear(fleet.Event{Kind: k, Pool: "win", Node: "pve1", Class: "evil" + n, Note: evil, Runner: evil, Took: 1})
			w.Hear(fleet.Event{Kind: k, Pool: evil, Node: evil, Class: evil, Note: evil, Runner: evil, Took: 1})
		}
		w.ObserveDelivery("evil" + n)
		w.Hear(fleet.Event{Kind: fleet.JobEnded, Runner: fmt.Sprintf("m1-evil%d-4d5e6f70", i), Class: "success"})
		w.ObserveCall("evil"+n, "evil"+n, "evil"+n, 1)
		w.ObserveCall("proxmox", "evil/nodes/pve"+n, "ok", 1)
		w.ObserveCall("github", strings.Repeat("x", 1+i%50)+string(rune('a'+i%26)), "ok", 1)
	}
	text := scrape(t, w)
	if strings.Contains(text, "evil") || strings.Contains(text, "script") {
		for l := range strings.Lines(text) {
			if strings.Contains(l, "evil") || strings.Contains(l, "img") {
				t.Errorf("a stranger wrote %s", l)
			}
		}
	}
	if n := strings.Count(text, "\nmayfly_"); n > 1500 {
		t.Errorf("%d series", n)
	}
	if n := strings.Count(text, `mayfly_requests_total{`); n > maxCalls+10 {
		t.Errorf("%d series of requests", n)
	}
}

func TestMetricsOfNothing(t *testing.T) {
	text := scrape(t, New(Config{Source: still{err: errNotYet}}))
	if !strings.Contains(text, "mayfly_ready 0\n") || strings.Contains(text, "mayfly_look_age_seconds{") {
		t.Errorf("metrics before the first look:\n%s", text)
	}
}
