package pve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rig is a cluster behind an in-memory network, inside of a synctest bubble.
type rig struct {
	t      *testing.T
	c      *Cluster
	server *httptest.Server
	mu     sync.Mutex
	guests map[int]*testGuest
	upid   string // of the last task that a capture started
}

const (
	orch    = "orch@pve!runner=secret-orch"
	root    = "root@pam!rig=secret-root"
	nobody  = "nobody@pve!t=secret-nobody"
	narrow  = "narrow@pve!t2=secret-narrow"
	privsep = "orch@pve!empty=secret-empty"
)

func newRig(t *testing.T, cfg Config) *rig {
	r := &rig{t: t, guests: map[int]*testGuest{}}
	if len(cfg.Nodes) == 0 {
		cfg.Nodes = []NodeSpec{{Name: "pve", Memory: 64 << 30, Cores: 16}}
	}
	cfg.Token, cfg.Secret, _ = strings.Cut(orch, "=")
	cfg.Pool = "runners"
	for s, rights := range map[string]Rights{root: Root, nobody: Nothing, narrow: Narrow, privsep: Nothing} {
		id, secret, _ := strings.Cut(s, "=")
		cfg.Tokens = append(cfg.Tokens, TokenSpec{ID: id, Secret: secret, Rights: rights})
	}
	if cfg.Boot == nil {
		cfg.Boot = r.boot
	}
	if cfg.Seed == 0 {
		cfg.Seed = 7
	}
	t.Logf("seed %d", cfg.Seed)
	r.c = New(cfg)
	r.server = httptest.NewTestServer(t, r.c.Handler())
	t.Cleanup(func() {
		r.c.Close()
		r.server.Close()
	})
	return r
}

// testGuest is a guest whose agent a test switches on and off.
type testGuest struct {
	m       Machine
	mu      sync.Mutex
	up      bool
	changed chan struct{}
	files   map[string]string
	off     int
	ran     string
}

func (r *rig) boot(m Machine) Guest {
	g := &testGuest{m: m, changed: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guests[m.ID] = g
	return g
}

func (r *rig) guest(id int) *testGuest {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.guests[id]
	if g == nil {
		r.t.Fatalf("VM %d never booted", id)
	}
	return g
}

func (g *testGuest) AgentUp() (bool, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.up, g.changed
}

func (g *testGuest) agent(up bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.up = up
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *testGuest) Interfaces() []NIC {
	return []NIC{
		{Name: "lo", MAC: "00:00:00:00:00:00", IPs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}},
		{Name: "eth0", MAC: strings.ToLower(g.m.MAC), IPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.243/24")}},
	}
}

func (g *testGuest) ReadFile(path string) (string, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.files[path]
	return s, ok
}

func (g *testGuest) Exec(argv []string, _ string) (int, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if strings.Contains(argv[0], " ") || strings.HasPrefix(argv[0], "/no/") {
		return 0, false
	}
	g.ran = argv[0]
	return 2001, true
}

func (g *testGuest) ExecStatus(pid int) (Execution, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case pid != 2001:
		return Execution{}, false
	case g.ran == "/bin/sleep":
		return Execution{}, true
	case g.ran == "/bin/true":
		return Execution{Exited: true}, true
	}
	return Execution{Exited: true, Code: 3, Out: "out\n", Err: "err\n"}, true
}

func (g *testGuest) Off() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.off++
}

// A reply as it came over the wire.
type wire struct {
	code       int
	reason     string
	connection []string
	kind       string
	hasLength  bool
	body       string
	data       any
}

func (w wire) message() string {
	var m struct{ Message string }
	json.Unmarshal([]byte(w.body), &m)
	return strings.TrimSuffix(m.Message, "\n")
}

func (w wire) text() string { s, _ := w.data.(string); return s }

func (w wire) object() map[string]any { m, _ := w.data.(map[string]any); return m }

func (w wire) rows() []map[string]any {
	var out []map[string]any
	list, _ := w.data.([]any)
	for _, x := range list {
		out = append(out, x.(map[string]any))
	}
	return out
}

func form(params ...string) url.Values {
	v := url.Values{}
	for _, p := range params {
		k, s, _ := strings.Cut(p, "=")
		v.Add(k, s)
	}
	return v
}

// do sends one request over a connection of its own and reads the raw answer.
func (r *rig) do(token, method, path string, params ...string) wire {
	r.t.Helper()
	w, err := r.try(token, method, path, params...)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return w
}

func (r *rig) try(token, method, path string, params ...string) (wire, error) {
	body := form(params...).Encode()
	target := "/api2/json/" + strings.TrimPrefix(path, "/")
	var lines []string
	if token != "" {
		lines = append(lines, "Authorization: PVEAPIToken="+token)
	}
	switch {
	case body == "":
	case method == "GET" || method == "DELETE":
		target += "?" + body
		body = ""
	default:
		lines = append(lines, "Content-Type: application/x-www-form-urlencoded")
	}
	if method == "POST" || method == "PUT" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return r.raw(method+" "+target+" HTTP/1.1", lines, body)
}

func (r *rig) raw(first string, headers []string, body string) (wire, error) {
	dial := r.server.Client().Transport.(*http.Transport).DialContext
	conn, err := dial(context.Background(), "tcp", "example.com:80")
	if err != nil {
		return wire{}, err
	}
	defer conn.Close()
	head := first + "\r\nHost: pve\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
	go io.WriteString(conn, head+body) // the server may answer before it has read all
	return readWire(conn, strings.HasPrefix(first, "HEAD"))
}

func readWire(conn net.Conn, head bool) (wire, error) {
	in := bufio.NewReader(conn)
	status, err := in.ReadString('\n')
	if err != nil {
		return wire{}, err
	}
	var w wire
	parts := strings.SplitN(strings.TrimSpace(status), " ", 3)
	fmt.Sscan(parts[1], &w.code)
	if len(parts) > 2 {
		w.reason = parts[2]
	}
	length := -1
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return w, err
		}
		line = strings.TrimSpace(line)
		if line == "" {
			break
		}
		k, v, _ := strings.Cut(line, ": ")
		switch k {
		case "Connection":
			w.connection = append(w.connection, v)
		case "Content-Type":
			w.kind = v
		case "Content-Length":
			w.hasLength = true
			fmt.Sscan(v, &length)
		}
	}
	if length < 0 {
		length = 0
	}
	if head {
		return w, nil
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return w, err
	}
	w.body = string(body)
	var m struct{ Data any }
	if json.Unmarshal(body, &m) == nil {
		w.data = m.Data
	}
	return w, nil
}

// wait polls a task until it has ended and returns its exit status.
func (r *rig) wait(upid string) string {
	r.t.Helper()
	if !strings.HasPrefix(upid, "UPID:") {
		r.t.Fatalf("no UPID: %q", upid)
	}
	node := strings.Split(upid, ":")[1]
	for {
		w := r.do(root, "GET", "nodes/"+node+"/tasks/"+upid+"/status")
		if m := w.object(); m["status"] == "stopped" {
			return m["exitstatus"].(string)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func (r *rig) mustTask(token, method, path string, params ...string) {
	r.t.Helper()
	w := r.do(token, method, path, params...)
	if exit := r.wait(w.text()); exit != "OK" && !strings.HasPrefix(exit, "WARNINGS") {
		r.t.Fatalf("%s %s: %s", method, path, exit)
	}
}

func (r *rig) clone(id int, more ...string) {
	r.t.Helper()
	r.mustTask(orch, "POST", "nodes/pve/qemu/9000/clone", append([]string{fmt.Sprintf("newid=%d", id), "pool=runners"}, more...)...)
}

func (r *rig) start(id int) {
	r.t.Helper()
	r.mustTask(orch, "POST", fmt.Sprintf("nodes/pve/qemu/%d/status/start", id))
}

func (r *rig) stop(id int) {
	r.t.Helper()
	r.mustTask(orch, "POST", fmt.Sprintf("nodes/pve/qemu/%d/status/stop", id))
}
