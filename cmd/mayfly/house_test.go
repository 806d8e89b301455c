package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/config"
	"mayfly/internal/controller"
	"mayfly/internal/fleet"
	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
)

// A house is a simulated world with a Mayfly in it, in one synctest bubble: the production wiring over in-memory
// networks, a real database, and fake time.
type house struct {
	t       *testing.T
	world   *sim.World
	cfg     *config.Config
	out     outside
	tally   *tally
	restart func(life int) func(controller.Parts) controller.Parts // what wraps each life's edges; nil: nothing

	mu   sync.Mutex
	live *life // nil: no Mayfly runs
	ran  int   // lives so far
}

// A life is one run of Mayfly, from its start to its stop or crash.
type life struct {
	app   *app
	stop  context.CancelFunc
	ended chan struct{}
	dead  chan struct{} // closed at a crash: nothing goes out or is written from then on
	once  sync.Once
}

type houseOptions struct {
	sim        sim.Config
	max, ready int
	pools      string // replaces the config's pools
}

// newHouse must be called inside a bubble.
func newHouse(t *testing.T, o houseOptions) *house {
	t.Helper()
	h := &house{t: t, tally: &tally{}}
	dir := t.TempDir()
	place := simPlace{
		Speed: 1, Instance: "test", Listen: "127.0.0.1:8080", WebhookListen: "127.0.0.1:8081", Proxmox: "http://127.0.0.1:8006", GitHub: "http://127.0.0.1:7001",
		Template: sim.Template, Labels: "self-hosted, windows, x64", Max: o.max, Ready: o.ready, Store: "mayfly.db",
	}
	if err := place.secrets(dir); err != nil {
		t.Fatal(err)
	}
	o.sim.AuthorizedKey, o.sim.WebhookURL, o.sim.WebhookSecret, o.sim.Deliver = place.AuthorizedKey, "http://mayfly/webhook", place.WebhookSecret, h.deliver
	h.world = sim.New(o.sim)
	place.Nodes = h.world.Nodes
	path, err := place.write()
	if err != nil {
		t.Fatal(err)
	}
	if o.pools != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(string(text), "pools:\n")
		if err := os.WriteFile(path, []byte(head+"pools:\n"+o.pools), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if h.cfg, err = config.Load(path, os.Getenv); err != nil {
		t.Fatal(err)
	}
	h.out = outside{
		proxmox: inMemory(t, h.world.PVE.Handler()), github: inMemory(t, h.world.GitHub.Handler()), dial: h.world.Guests.Dial,
		hear: []fleet.Hearer{h.tally.hear}, count: h.tally.count, fast: true,
	}
	return h
}

func inMemory(t *testing.T, handler http.Handler) *http.Client {
	srv := httptest.NewTestServer(t, handler)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	c := srv.Client()
	if tr, ok := c.Transport.(*http.Transport); ok {
		tr.MaxIdleConnsPerHost = 64
	}
	c.Timeout = 60 * time.Second
	return c
}

// deliver brings a webhook to the Mayfly that runs. A job's first event waits for one: GitHub never sends it again, and
// finding unknown jobs by listing is not part of this ring.
func (h *house) deliver(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	queued := bytes.Contains(body, []byte(`"action":"queued"`)) || bytes.Contains(body, []byte(`"action": "queued"`))
	for {
		h.mu.Lock()
		l := h.live
		h.mu.Unlock()
		if l != nil {
			again := req.Clone(req.Context())
			again.Body = io.NopCloser(bytes.NewReader(body))
			again.RemoteAddr = "192.0.2.1:1234"
			rec := httptest.NewRecorder()
			l.app.hook.ServeHTTP(rec, again)
			if resp := rec.Result(); resp.StatusCode < 500 || !queued {
				return resp, nil
			}
		} else if !queued {
			return nil, errors.New("connection refused")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
}

// start begins a life.
func (h *house) start() *life {
	h.t.Helper()
	l := &life{ended: make(chan struct{}), dead: make(chan struct{})}
	out, n := h.out, h.ran
	out.proxmox, out.github = mortal(h.out.proxmox, l), mortal(h.out.github, l)
	out.wrap = func(p controller.Parts) controller.Parts {
		p.Store = mortalStore{p.Store, l}
		if h.restart != nil {
			if wrap := h.restart(n); wrap != nil {
				p = wrap(p)
			}
		}
		return p
	}
	h.ran++
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("MAYFLY_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	var err error
	if l.app, err = build(h.t.Context(), h.cfg, out, log); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	go func() {
		defer close(l.ended)
		if err := l.app.control.Run(ctx); err != nil && !errors.Is(err, errDead) {
			h.t.Errorf("run: %v", err)
		}
	}()
	h.mu.Lock()
	h.live = l
	h.mu.Unlock()
	return l
}

// end stops a life as SIGTERM does and waits for it. After a crash it just waits.
func (h *house) end(l *life) {
	h.t.Helper()
	h.mu.Lock()
	h.live = nil
	h.mu.Unlock()
	l.stop()
	<-l.ended
	if err := l.app.close(); err != nil {
		h.t.Error(err)
	}
}

// crash ends a life at once: all is cancelled, nothing goes out, nothing is written any more. It does not wait.
func (l *life) crash() {
	l.once.Do(func() {
		close(l.dead)
		l.stop()
	})
}

var errDead = errors.New("the process is dead")

// mortal is a client whose requests end when the life does.
func mortal(c *http.Client, l *life) *http.Client {
	d := *c
	d.Transport = mortalTransport{c.Transport, l}
	return &d
}

type mortalTransport struct {
	http.RoundTripper
	l *life
}

func (m mortalTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	select {
	case <-m.l.dead:
		cancel(errDead)
		return nil, errDead
	default:
	}
	quiet := make(chan struct{})
	go func() {
		select {
		case <-m.l.dead:
			cancel(errDead)
		case <-quiet:
		}
	}()
	resp, err := m.RoundTripper.RoundTrip(r.WithContext(ctx))
	if err != nil {
		close(quiet)
		cancel(nil)
		return nil, err
	}
	resp.Body = &closing{resp.Body, sync.OnceFunc(func() { close(quiet); cancel(nil) })}
	return resp, nil
}

type closing struct {
	io.ReadCloser
	done func()
}

func (c *closing) Close() error {
	defer c.done()
	return c.ReadCloser.Close()
}

// mortalStore is a store that writes nothing after the life has ended.
type mortalStore struct {
	controller.Store
	l *life
}

func (m mortalStore) alive() error {
	select {
	case <-m.l.dead:
		return errDead
	default:
		return nil
	}
}

func (m mortalStore) Create(ctx context.Context, rows []fleet.Runner, ev ...fleet.Event) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Create(ctx, rows, ev...)
}

func (m mortalStore) Update(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Update(ctx, r, ev...)
}

func (m mortalStore) End(ctx context.Context, name string, ev ...fleet.Event) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.End(ctx, name, ev...)
}

func (m mortalStore) Observe(ctx context.Context, jobs []fleet.Job, ev ...fleet.Event) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Observe(ctx, jobs, ev...)
}

func (m mortalStore) Note(ctx context.Context, t []fleet.Trouble, q map[int]string, ev ...fleet.Event) error {
	if err := m.alive(); err != nil {
		return err
	}
	return m.Store.Note(ctx, t, q, ev...)
}

// submit queues n jobs of the given lengths' range.
func (h *house) submit(n int, length func(i int) time.Duration) {
	for i := range n {
		h.world.GitHub.Submit(github.JobSpec{
			Repo: "octo-org/app", Name: fmt.Sprintf("build %d", i+1), Labels: []string{"self-hosted", "Windows", "X64"}, Length: length(i),
		})
	}
}

func minutes(n int) func(int) time.Duration {
	return func(i int) time.Duration { return time.Minute + time.Duration(i*7919%(n*60))*time.Second }
}

// rows are the runners that the store has now.
func (h *house) rows() int {
	h.mu.Lock()
	l := h.live
	h.mu.Unlock()
	if l == nil {
		return -1
	}
	books, err := l.app.store.Load(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return len(books.Runners)
}

// empty tells whether every job has ended and nothing is left.
func (h *house) empty() bool {
	st := h.world.GitHub.Stats()
	return st.Queued == 0 && st.Running == 0 && h.rows() == 0
}

// untilEmpty lets time pass until nothing is left.
func (h *house) untilEmpty(limit time.Duration) {
	h.t.Helper()
	for began := time.Now(); !h.empty(); {
		synctest.Sleep(5 * time.Second)
		if time.Since(began) > limit {
			h.fatalState("not done after " + limit.String())
		}
	}
}

// fatalState ends the test with all that is known.
func (h *house) fatalState(why string) {
	h.t.Helper()
	st := h.world.GitHub.Stats()
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d queued, %d running, %d VMs, %d rows\n", why, st.Queued, st.Running, len(h.world.PVE.VMs()), h.rows())
	if h.live != nil {
		w, plan := h.live.app.control.Last()
		for _, r := range w.Runners {
			fmt.Fprintf(&b, "  %s %s for %v upid=%q reg=%q/%d vm=%s hub=%s held=%q job=%d ended=%v adopted=%v cause=%q\n", r.Name, r.Phase, time.Since(r.Since), r.UPID, r.Registration, r.RunnerID, r.VM, r.Hub, r.Held, r.JobID, r.JobEnded, r.Adopted, r.Cause)
		}
		for _, wait := range plan.Waits {
			fmt.Fprintf(&b, "  job %d: %s\n", wait.Job, wait.Reason)
		}
		for _, tr := range w.Troubles {
			fmt.Fprintf(&b, "  trouble %+v\n", tr)
		}
		ev, _ := h.live.app.store.Events(context.Background(), 40)
		for i := len(ev) - 1; i >= 0; i-- {
			fmt.Fprintf(&b, "  %s %s %s vm=%d job=%d %s %s\n", ev[i].At.Format("15:04:05"), ev[i].Kind, ev[i].Runner, ev[i].VMID, ev[i].Job, ev[i].Class, ev[i].Note)
		}
	}
	h.t.Fatal(b.String())
}

// check asserts what must hold at the end of every story.
func (h *house) check(jobs int) {
	h.t.Helper()
	st := h.world.GitHub.Stats()
	if st.Killed != 0 {
		h.t.Errorf("%d jobs were killed", st.Killed)
	}
	if st.Succeeded != jobs {
		h.t.Errorf("%d of %d jobs succeeded: %+v", st.Succeeded, jobs, st)
	}
	for _, vm := range h.world.PVE.VMs() {
		if !vm.Foreign {
			h.t.Errorf("VM left: %+v", vm)
		}
	}
	if left := h.world.PVE.Touched(); len(left) != 0 {
		h.t.Errorf("foreign VMs touched: %v", left)
	}
}

// close ends the world, and the life that a failed test has left.
func (h *house) close() {
	h.mu.Lock()
	l := h.live
	h.mu.Unlock()
	if l != nil {
		h.end(l)
	}
	h.world.Close()
}

// seeds are the random seeds that a test tries: from MAYFLY_SEED, or n of them (MAYFLY_SEEDS overrides n).
func seeds(t *testing.T, n int) []uint64 {
	t.Helper()
	if s := os.Getenv("MAYFLY_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("MAYFLY_SEED: %v", err)
		}
		return []uint64{v}
	}
	n = fromEnv(t, "MAYFLY_SEEDS", n)
	all := make([]uint64, n)
	for i := range all {
		all[i] = uint64(i + 1)
	}
	return all
}

func fromEnv(t *testing.T, key string, otherwise int) int {
	t.Helper()
	s := os.Getenv(key)
	if s == "" {
		return otherwise
	}
	v, err := strconv.Atoi(s)
	if err != nil || v < 1 {
		t.Fatalf("%s=%q is no number from 1 up", key, s)
	}
	return v
}
