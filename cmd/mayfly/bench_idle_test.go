package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/store"
)

// A rest is what the real serve costs while nothing changes.
type rest struct {
	cores float64 // of processor, in the mean
	rss   fleet.Bytes
}

// content is a world of running VMs in which every runner is in its job: prebuilt answers, so that what is measured
// is not the world's cost. It has what serve asks for while it is content, and nothing else.
func content(rows []fleet.Runner, nodes int) http.Handler {
	var list []map[string]any
	for i := range nodes {
		node := fmt.Sprintf("pve%d", i+1)
		list = append(list,
			map[string]any{"type": "node", "id": "node/" + node, "node": node, "status": "online", "maxmem": 2 << 40, "mem": 1 << 40, "maxcpu": 128},
			map[string]any{"type": "qemu", "id": fmt.Sprintf("qemu/%d", 9000+i), "vmid": 9000 + i, "node": node, "status": "stopped", "name": "win11", "template": 1, "maxmem": 8 << 30})
	}
	const page = 100
	var pages [][]byte
	var runners []map[string]any
	for i, r := range rows {
		list = append(list, map[string]any{
			"type": "qemu", "id": fmt.Sprintf("qemu/%d", r.VMID), "vmid": r.VMID, "node": r.Node, "status": "running", "name": r.Name, "pool": "mayfly",
			"tags": "mayfly;idle", "template": 0, "maxmem": 8 << 30, "mem": 4 << 30, "maxcpu": 4, "cpu": 0.1, "uptime": 100, "disk": 0, "maxdisk": 64 << 30,
		})
		runners = append(runners, map[string]any{
			"id": r.RunnerID, "name": r.Registration, "os": "Windows", "status": "online", "busy": true,
			"labels": []map[string]any{{"id": 1, "name": "self-hosted", "type": "read-only"}, {"id": 2, "name": "windows", "type": "custom"}, {"id": 3, "name": "x64", "type": "custom"}},
		})
		if len(runners) == page || i == len(rows)-1 {
			pages = append(pages, asJSON(map[string]any{"total_count": len(rows), "runners": runners}))
			runners = nil
		}
	}
	resources, template := asJSON(map[string]any{"data": list}), asJSON(map[string]any{"data": map[string]any{"template": 1, "name": "win11", "memory": "8192", "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0"}})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/api2/json/cluster/resources":
			_, _ = w.Write(resources)
		case strings.HasSuffix(r.URL.Path, "/config"):
			_, _ = w.Write(template)
		case strings.HasSuffix(r.URL.Path, "/actions/runners"):
			n, _ := strconv.Atoi(r.URL.Query().Get("page")) // none: the first
			n = max(n, 1)
			if n < len(pages) {
				w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?per_page=%d&page=%d>; rel="next"`, r.Host, r.URL.Path, page, n+1))
			}
			_, _ = w.Write(pages[min(n, len(pages))-1])
		default:
			w.WriteHeader(http.StatusNotImplemented)
		}
	})
}

func asJSON(v any) []byte {
	var b bytes.Buffer
	_ = json.NewEncoder(&b).Encode(v) // maps and numbers: it cannot fail
	return b.Bytes()
}

// idle runs the real serve as a process of its own beside n runners in their jobs, and measures it for so long.
func idle(t *testing.T, n, nodes int, long time.Duration) rest {
	dir := t.TempDir()
	now := time.Now()
	var rows []fleet.Runner
	var jobs []fleet.Job
	for i := range n {
		r := fleet.Runner{
			Name: fmt.Sprintf("idle-win-%08x", i), Pool: "win", Node: fmt.Sprintf("pve%d", i%nodes+1), VMID: 100000 + i, Template: 9000 + i%nodes,
			Phase: fleet.Busy, Since: now, Born: now.Add(-5 * time.Minute), AskedAt: now.Add(-5 * time.Minute), ClonedAt: now.Add(-4 * time.Minute), StartedAt: now.Add(-4 * time.Minute),
			UPID: fmt.Sprintf("UPID:pve%d:0000C350:0012D6C4:%08X:qmclone:%d:mayfly@pve!mayfly:", i%nodes+1, now.Unix(), 9000+i%nodes),
			MAC:  "BC:24:11:00:00:01", Address: "10.1.2.3", HostKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHTGvcZVTxRWBjnEQx9fpFxkMmPrmsXHcNRHkYMbPRsv",
			RunnerID: int64(1000 + i), Job: int64(1 + i),
		}
		r.Registration = r.Name
		rows = append(rows, r)
		jobs = append(jobs, fleet.Job{
			ID: r.Job, Repo: "octo-org/app", Name: "build", Labels: []string{"self-hosted", "windows"}, Status: fleet.StatusInProgress,
			RunnerID: r.RunnerID, Runner: r.Name, Created: now, Received: now, Changed: now,
		})
	}
	srv := httptest.NewServer(content(rows, nodes))
	defer srv.Close()
	page, err1 := freeAddress()
	hook, err2 := freeAddress()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	place := simPlace{
		Speed: 1, Instance: "idle", Listen: page, WebhookListen: hook, Proxmox: srv.URL, GitHub: srv.URL,
		Template: 9000, Labels: "self-hosted, windows, x64", Max: n, Store: "mayfly.db",
	}
	for i := range nodes {
		place.Nodes = append(place.Nodes, fmt.Sprintf("pve%d", i+1))
	}
	if err := place.secrets(dir); err != nil {
		t.Fatal(err)
	}
	path, err := place.write()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), filepath.Join(dir, "mayfly.db"), store.Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	if err := s.Observe(t.Context(), jobs); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", "-c", path)
	client := &http.Client{Timeout: 10 * time.Second}
	until(t, "serve is ready", func() bool {
		resp, err := client.Get("http://" + page + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	began, before := time.Now(), processorTime(t, p.cmd.Process.Pid)
	pause(t.Context(), long)
	used, took := processorTime(t, p.cmd.Process.Pid)-before, time.Since(began)
	r := rest{cores: float64(used) / float64(took), rss: residentMost(t, p.cmd.Process.Pid)}
	if code := p.stop(syscall.SIGTERM, 30*time.Second); code != 0 {
		t.Errorf("serve ended with %d", code)
	}
	after, err := store.Open(t.Context(), filepath.Join(dir, "mayfly.db"), store.Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	books, err := after.Load(t.Context())
	if err != nil || len(books.Runners) != n {
		t.Errorf("%d of %d runners after it: %v", len(books.Runners), n, err)
	}
	for _, r := range books.Runners {
		if r.Phase != fleet.Busy {
			t.Fatalf("nothing was to change, and %s is %s: %s", r.Name, r.Phase, r.Cause)
		}
	}
	return r
}

// processorTime is what a process has used so far (proc(5): utime and stime, in ticks of 10 ms).
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip("not measured: ", err)
	}
	_, after, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(after)
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// residentMost is the most memory that a process has had at once (proc(5): VmHWM).
func residentMost(t *testing.T, pid int) fleet.Bytes {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("not measured: ", err)
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return fleet.Bytes(kib) << 10
}
