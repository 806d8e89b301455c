package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/sim/github"
	"mayfly/internal/sim/pve"
	"mayfly/internal/web"
)

// binary builds the program that people run, once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "mayfly-test-")
	if err != nil {
		return "", err
	}
	built = dir
	path := filepath.Join(dir, "mayfly")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// built is the folder of the binary; "" when no test wanted it. TestMain removes it.
var built string

// A process is the real program at work.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	out   string // file of what it says
	ended chan struct{}
}

// start starts the program; the test's end kills it.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(t.TempDir(), args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p := &process{t: t, name: args[0], cmd: exec.Command(path, args...), out: out.Name(), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir(), "MAYFLY_TOKEN=")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState has it
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.ended
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, tail(p.said(), 12000))
		}
	})
	return p
}

func (p *process) said() string {
	text, err := os.ReadFile(p.out)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// says waits until the process has said what matches, and returns the first group.
func (p *process) says(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	until(p.t, p.name+" says "+pattern, func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("%s has ended (%v)", p.name, p.cmd.ProcessState)
		default:
		}
		found = re.FindStringSubmatch(p.said())
		return found != nil
	})
	return found[len(found)-1]
}

// stop signals the process, waits for its end, and returns its exit code; -1 when a signal ended it.
func (p *process) stop(s os.Signal, limit time.Duration) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		<-p.ended
		p.t.Fatalf("%s has ended before %v (%v)", p.name, s, p.cmd.ProcessState)
	}
	if err := poll(p.t.Context(), limit, func() bool {
		select {
		case <-p.ended:
			return true
		default:
			return false
		}
	}); err != nil {
		p.t.Fatalf("%s ends after %v: %v", p.name, s, err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func tail(s string, n int) string { return s[max(len(s)-n, 0):] }

// until fails the test when done does not come true.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	if err := poll(t.Context(), patience, done); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// A town is a simulated world in one process, and a Mayfly in another.
type town struct {
	t                   *testing.T
	dir                 string
	control, page, hook string // base URLs
	secret              string
	sim, serve          *process
}

func newTown(t *testing.T, flags ...string) *town {
	t.Helper()
	page, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	hook, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	w := &town{t: t, dir: t.TempDir(), page: "http://" + page, hook: "http://" + hook}
	w.sim = start(t, append([]string{"sim", "--dir", w.dir, "--page", page, "--webhook", hook}, flags...)...)
	w.control = w.sim.says(`Control: (http://\S+)\n`)
	w.sim.says(`Now run: .*\n`)
	secret, err := os.ReadFile(filepath.Join(w.dir, "webhook-secret"))
	if err != nil {
		t.Fatal(err)
	}
	w.secret = strings.TrimSpace(string(secret))
	return w
}

func (w *town) config() string { return filepath.Join(w.dir, "mayfly.yaml") }

// open starts a serve and waits until it works.
func (w *town) open() {
	w.t.Helper()
	w.serve = start(w.t, "serve", "-c", w.config())
	until(w.t, "serve is ready", func() bool {
		select {
		case <-w.serve.ended:
			w.t.Fatalf("serve has ended (%v)", w.serve.cmd.ProcessState)
		default:
		}
		resp, err := http.Get(w.page + "/readyz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// ask sends a request and returns the answer's status and body.
func (w *town) ask(method, url, body string, header map[string]string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// get reads JSON.
func (w *town) get(url string, v any) {
	w.t.Helper()
	status, text := w.ask(http.MethodGet, url, "", nil)
	if status != http.StatusOK {
		w.t.Fatalf("GET %s: %d %s", url, status, text)
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		w.t.Fatalf("GET %s: %v", url, err)
	}
}

func (w *town) status() (s web.Status) {
	w.t.Helper()
	w.get(w.page+"/api/v1/status", &s)
	return s
}

// A truth is what the world really holds.
type truth struct {
	VMs      []pve.VMState
	Volumes  []string
	Jobs     []github.JobState
	GitHub   github.Stats
	Requests map[string]int `json:"proxmox_requests"`
	Touched  []int
}

func (w *town) truth() (s truth) {
	w.t.Helper()
	w.get(w.control+"/state", &s)
	s.VMs = slices.DeleteFunc(s.VMs, func(v pve.VMState) bool { return v.Foreign })
	return s
}

// writes are the requests that change something in Proxmox.
func (s truth) writes() (n int) {
	for _, call := range []string{"clone", "config_put", "start", "stop", "shutdown", "delete", "agent_exec", "task_stop"} {
		n += s.Requests[call]
	}
	return n
}

func (s truth) job(id int64) github.JobState {
	for _, j := range s.Jobs {
		if j.ID == id {
			return j
		}
	}
	return github.JobState{}
}

// tell posts to the world's control.
func (w *town) tell(path, body string) string {
	w.t.Helper()
	status, text := w.ask(http.MethodPost, w.control+path, body, nil)
	if status != http.StatusOK {
		w.t.Fatalf("POST %s: %d %s", path, status, text)
	}
	return text
}

// knows tells whether Mayfly knows the job.
func (w *town) knows(id int64) bool {
	w.t.Helper()
	status, text := w.ask(http.MethodGet, fmt.Sprintf("%s/api/v1/jobs/%d", w.page, id), "", nil)
	if status != http.StatusOK && status != http.StatusNotFound {
		w.t.Fatalf("job %d: %d %s", id, status, text)
	}
	return status == http.StatusOK
}

// deliver sends a webhook with a signature by the secret, and returns the status; an answer has no body.
func (w *town) deliver(payload, secret, guid string) int {
	w.t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(payload))
	status, body := w.ask(http.MethodPost, w.hook+"/webhook", payload, map[string]string{
		"Accept": "*/*", "Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/044aadd", "X-GitHub-Delivery": guid,
		"X-GitHub-Event": "workflow_job", "X-GitHub-Hook-ID": "292430182", "X-GitHub-Hook-Installation-Target-ID": "79929171",
		"X-GitHub-Hook-Installation-Target-Type": "repository", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil)),
	})
	if body != "" {
		w.t.Errorf("a webhook is answered with a body: %q", body)
	}
	return status
}

// decided waits until Mayfly has decided twice on what is later than now.
func (w *town) decided() {
	w.t.Helper()
	for range 2 {
		was := w.status().AsOf
		until(w.t, "a decision", func() bool { return w.status().AsOf.After(was) })
	}
}
