package proxmox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

// pveServer answers by "METHOD path" and keeps what it was asked.
type pveServer struct {
	t      *testing.T
	mu     sync.Mutex
	routes map[string]http.HandlerFunc
	asked  []asked
	log    bytes.Buffer
	url    string
	client *http.Client
}

type asked struct {
	at     time.Time
	method string
	path   string
	query  string
	body   string
	header http.Header
	length int64
	chunks bool
}

func (a asked) String() string { return a.method + " " + a.path }

const secret = "0b0c6a1e-aaaa-bbbb-cccc-5ecce75ecce7"

func newServer(t *testing.T) *pveServer {
	s := &pveServer{t: t, routes: map[string]http.HandlerFunc{}}
	srv := httptest.NewTestServer(t, s)
	s.url, s.client = srv.URL, srv.Client()
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if strings.Contains(s.log.String(), secret) {
			t.Error("the secret stands in the log")
		}
	})
	return s
}

// Write takes the client's log.
func (s *pveServer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

func (s *pveServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a := asked{at: time.Now(), method: r.Method, path: strings.TrimPrefix(r.URL.Path, "/api2/json"), query: r.URL.RawQuery, body: string(body), header: r.Header, length: r.ContentLength, chunks: len(r.TransferEncoding) > 0}
	s.mu.Lock()
	s.asked = append(s.asked, a)
	h := s.routes[a.String()]
	s.mu.Unlock()
	if h == nil {
		fail(w, 501, fmt.Sprintf("Method '%s' not implemented", a))
		return
	}
	h(w, r)
}

func (s *pveServer) on(route string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[route] = h
}

// says answers the route with data, in JSON.
func (s *pveServer) says(route, data string) {
	s.on(route, func(w http.ResponseWriter, _ *http.Request) { give(w, data) })
}

func (s *pveServer) fails(route string, status int, message string) {
	s.on(route, func(w http.ResponseWriter, _ *http.Request) { fail(w, status, message) })
}

// requests are those whose "METHOD path" begins with the prefix.
func (s *pveServer) requests(prefix string) (all []asked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a.String(), prefix) {
			all = append(all, a)
		}
	}
	return all
}

// writes are the requests that could change something.
func (s *pveServer) writes() (all []asked) {
	for _, a := range s.requests("") {
		if a.method != "GET" {
			all = append(all, a)
		}
	}
	return all
}

func give(w http.ResponseWriter, data string) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	fmt.Fprintf(w, `{"data":%s}`, data)
}

func fail(w http.ResponseWriter, status int, message string) {
	b, _ := json.Marshal(map[string]any{"data": nil, "message": message + "\n"})
	w.WriteHeader(status)
	if status < 595 && status != 401 {
		w.Write(b)
	}
}

// cut ends the connection without an answer.
func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// newClient makes a client of the server, with change applied to its config.
func (s *pveServer) newClient(change ...func(*Config)) *Client {
	s.t.Helper()
	cfg := Config{
		Endpoints: []string{s.url}, Token: "mayfly@pve!orch", Secret: secret,
		Instance: "k3f9", Pool: "runners", IDs: Range{600, 799}, Templates: []int{9000},
		HTTP: s.client, Log: slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

var born = time.Date(2026, 11, 23, 21, 55, 0, 0, time.UTC)

func runner() fleet.Runner {
	return fleet.Runner{Name: "k3f9-win-7a2b9c01", Pool: "win", Node: "pve1", VMID: 700, Template: 9000, Born: born, MAC: "BC:24:11:D1:F2:12"}
}

const (
	ourMark   = `mayfly k3f9 k3f9-win-7a2b9c01 born=2026-11-23T21:55:00Z`
	ourConfig = `{"name":"k3f9-win-7a2b9c01","description":"` + ourMark + `","memory":"4096","net0":"virtio=bc:24:11:d1:f2:12,bridge=vmbr0"}`
	ourRow    = `[{"type":"qemu","id":"qemu/700","vmid":700,"node":"pve1","status":"unknown","pool":"runners"}]`
)

// ours makes VM 700 ours on that server, stopped.
func (s *pveServer) ours() {
	s.says("GET /cluster/resources", ourRow)
	s.says("GET /nodes/pve1/qemu/700/config", ourConfig)
	s.says("GET /nodes/pve1/qemu/700/status/current", `{"status":"stopped","qmpstatus":"stopped"}`)
}

// upidOf names a task; n keeps them apart.
func upidOf(n int, kind, id string) string {
	return fmt.Sprintf("UPID:pve1:%08X:0012D6C4:386D4380:%s:%s:mayfly@pve!orch:", n, kind, id)
}

// ends lets a task end after d, from the call on, and returns its UPID.
func (s *pveServer) ends(n int, kind, id string, d time.Duration, exit string) string {
	upid := upidOf(n, kind, id)
	due := time.Now().Add(d)
	s.on("GET /nodes/pve1/tasks/"+upid+"/status", func(w http.ResponseWriter, _ *http.Request) {
		if time.Now().Before(due) {
			give(w, `{"status":"running","upid":"`+upid+`"}`)
			return
		}
		e, _ := json.Marshal(exit)
		give(w, `{"status":"stopped","exitstatus":`+string(e)+`}`)
	})
	s.says("GET /nodes/pve1/tasks/"+upid+"/log", `[{"n":1,"t":"TASK OK"}]`)
	return upid
}

// starts lets a request begin a task that lasts d.
func (s *pveServer) starts(route string, n int, kind, id string, d time.Duration, exit string) {
	s.on(route, func(w http.ResponseWriter, _ *http.Request) {
		give(w, `"`+s.ends(n, kind, id, d, exit)+`"`)
	})
}
