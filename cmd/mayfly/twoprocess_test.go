package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownPayload is a queued job as GitHub tells it, with the least that counts.
const ownPayload = `{"action":"queued","workflow_job":{"id":51999000001,"run_id":17000000001,"run_attempt":1,"status":"queued","conclusion":null,` +
	`"created_at":"2026-01-02T03:04:05Z","started_at":"2026-01-02T03:04:05Z","completed_at":null,"name":"test","steps":[],"labels":["ubuntu-latest"],` +
	`"runner_id":null,"runner_name":null,"runner_group_id":null,"runner_group_name":null,"workflow_name":"CI","head_branch":"main"},` +
	`"repository":{"id":1,"name":"app","full_name":"octo-org/app","private":true,"owner":{"login":"octo-org","id":2}},"sender":{"login":"octocat","id":3}}`

// recorded is a payload that GitHub has published; the test is skipped where it is not there.
func recorded(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
		text, err := os.ReadFile(filepath.Join(dir, "shared", "contract", "github", "payloads", name))
		if err == nil {
			return string(text)
		}
	}
	t.Skipf("shared/contract/github/payloads/%s is not above this folder", name)
	return ""
}

// TestTwoProcesses runs the real program against a world in another process, and brings a job to it as GitHub would: the
// webhook's raw bytes, signed.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	w := newTown(t, "--speed", "50", "--labels", "ubuntu-latest")
	w.open()
	t.Run("the webhook's port serves nothing else", w.servesOnlyTheWebhook)
	clones := 0
	for _, c := range []struct {
		name    string
		payload func(*testing.T) string
	}{
		{"recorded payload", func(t *testing.T) string { return recorded(t, "workflow_job.queued.repo+app.json") }},
		{"own payload", func(*testing.T) string { return ownPayload }},
	} {
		t.Run(c.name, func(t *testing.T) {
			payload := c.payload(t)
			clones++
			w.within(t).runs(payload, clones)
		})
	}
	t.Run("SIGTERM in mid-job", func(t *testing.T) { w.within(t).handsOver() })
}

// within is the town as a subtest sees it.
func (w *town) within(t *testing.T) *town {
	sub := *w
	sub.t = t
	return &sub
}

func (w *town) servesOnlyTheWebhook(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 404},
		{"GET", "/webhook", 405},
		{"PUT", "/webhook", 405},
		{"DELETE", "/webhook", 405},
		{"POST", "/", 404},
		{"POST", "/webhook/", 404},
		{"POST", "/webhook/x", 404},
		{"POST", "//webhook", 404},
		{"GET", "/metrics", 404},
		{"GET", "/healthz", 404},
		{"GET", "/readyz", 404},
		{"GET", "/style.css", 404},
		{"GET", "/api/v1/status", 404},
		{"POST", "/api/v1/drain", 404},
		{"POST", "/webhook", 401},
	} {
		if status, body := w.within(t).ask(c.method, w.hook+c.path, "", nil); status != c.status || body != "" {
			t.Errorf("%s %s: %d %q, want %d without a body", c.method, c.path, status, body, c.status)
		}
	}
}

// runs brings one job in by its payload and follows it to its end. clones is how many the world has seen then.
func (w *town) runs(payload string, clones int) {
	t := w.t
	t.Helper()
	var in struct {
		Job struct {
			ID     int64
			Labels []string
		} `json:"workflow_job"`
	}
	if err := json.Unmarshal([]byte(payload), &in); err != nil {
		t.Fatal(err)
	}
	id, guid := in.Job.ID, fmt.Sprintf("c0ffee00-0000-4000-8000-%012x", in.Job.ID)

	if status := w.deliver(payload, "not the secret that was agreed on", guid); status != http.StatusUnauthorized {
		t.Errorf("a wrong signature: %d, want 401", status)
	}
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"why", fmt.Sprint(id), "-c", w.config()}, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "is not known") {
		t.Errorf("why, after a wrong signature: exit code %d, %s%s", code, &stdout, &stderr)
	}

	// The world has the job, and says nothing: the webhook is ours.
	labels, err := json.Marshal(in.Job.Labels)
	if err != nil {
		t.Fatal(err)
	}
	w.tell("/jobs", fmt.Sprintf(`{"id":%d,"labels":%s,"silent":true,"length":"2m"}`, id, labels))
	for range 2 {
		if status := w.deliver(payload, w.secret, guid); status != http.StatusAccepted {
			t.Fatalf("a good signature: %d, want 202", status)
		}
	}

	var runner string
	until(t, "a runner", func() bool {
		for _, r := range w.status().Runners {
			runner = r.Name
		}
		return runner != ""
	})
	until(t, "the runner is busy with the job", func() bool {
		s := w.status()
		if len(s.Jobs) > 1 || len(s.Runners) > 1 {
			t.Fatalf("one job came, and there are %d jobs and %d runners", len(s.Jobs), len(s.Runners))
		}
		return len(s.Runners) == 1 && s.Runners[0].Phase == "busy" && s.Runners[0].Job == id
	})
	if status, page := w.ask(http.MethodGet, w.page+"/", "", nil); status != http.StatusOK || !strings.Contains(page, runner) {
		t.Errorf("the page: %d, without %s:\n%s", status, runner, tail(page, 4000))
	}
	if status, text := w.ask(http.MethodGet, w.page+"/metrics", "", nil); status != http.StatusOK || !strings.Contains(text, `mayfly_`) {
		t.Errorf("the metrics: %d", status)
	}
	until(t, "job and VM are gone", func() bool {
		s := w.truth()
		return s.job(id).Status == "completed" && len(s.VMs) == 0 && len(w.status().Runners) == 0
	})

	// GitHub sends it once more: a person presses "Redeliver".
	if status := w.deliver(payload, w.secret, guid); status != http.StatusAccepted {
		t.Errorf("again, after its end: %d, want 202", status)
	}
	w.decided()
	s := w.truth()
	if j := s.job(id); j.Conclusion != "success" || j.Runner != runner {
		t.Errorf("the job: %+v, want success on %s", j, runner)
	}
	if n := s.Requests["clone"]; n != clones || len(s.VMs) != 0 || len(s.Volumes) != 0 || s.GitHub.Killed != 0 || s.GitHub.Runners != 0 {
		t.Errorf("%d clones, want %d; left: VMs %v, volumes %v; %+v", n, clones, s.VMs, s.Volumes, s.GitHub)
	}
	stdout.Reset()
	if code := run(t.Context(), []string{"why", fmt.Sprint(id), "-c", w.config()}, &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), runner) {
		t.Errorf("why, after its end: exit code %d, %s%s", code, &stdout, &stderr)
	}
}

// handsOver stops serve in the middle of a job, and starts another.
func (w *town) handsOver() {
	t := w.t
	const id = 51999000002
	w.tell("/jobs", fmt.Sprintf(`{"id":%d,"labels":["ubuntu-latest"],"length":"6m"}`, id))
	busy := func() bool {
		s := w.status()
		return len(s.Runners) == 1 && s.Runners[0].Phase == "busy" && s.Runners[0].Job == id
	}
	until(t, "the job runs", busy)
	before := w.truth()
	if code := w.serve.stop(syscall.SIGTERM, 25*time.Second); code != 0 {
		t.Errorf("SIGTERM: exit code %d", code)
	}
	after := w.truth()
	if before.writes() != after.writes() || len(after.VMs) != 1 || after.VMs[0].Status != "running" || after.GitHub.Running != 1 {
		t.Errorf("SIGTERM changed something in Proxmox: %v, then %v; VMs %+v", before.Requests, after.Requests, after.VMs)
	}
	w.open()
	until(t, "the next serve has the runner", busy)
	until(t, "job and VM are gone", func() bool { s := w.truth(); return s.job(id).Status == "completed" && len(s.VMs) == 0 })
	if s := w.truth(); s.job(id).Conclusion != "success" || s.GitHub.Killed != 0 || len(s.Volumes) != 0 {
		t.Errorf("the job: %+v; %d killed; volumes %v", s.job(id), s.GitHub.Killed, s.Volumes)
	}
}
