package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

const token = fleet.Secret("correct horse battery staple")

// ask sends one request to the handler and returns its answer.
func ask(h http.Handler, method, path string, with ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = "localhost:8080"
	for _, f := range with {
		f(r)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func bearer(t fleet.Secret) func(*http.Request) { return header("Authorization", "Bearer "+t.Reveal()) }

func basic(password fleet.Secret) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth("anybody", password.Reveal()) }
}

var guardedPaths = []string{"/", "/style.css", "/api/v1/status", "/api/v1/jobs/7001", "/api/v1/plan", "/api/v1/events", "/metrics", "/nowhere"}

func TestWhoMayRead(t *testing.T) {
	const remote = "mayfly.example.net"
	for _, c := range []struct {
		name   string
		config Config
		with   []func(*http.Request)
		want   int // of paths that exist; 0: whatever they answer
	}{
		{"token, nothing given", Config{Token: token}, nil, 401},
		{"token, wrong bearer", Config{Token: token}, []func(*http.Request){bearer("wrong")}, 401},
		{"token, empty bearer", Config{Token: token}, []func(*http.Request){bearer("")}, 401},
		{"token, prefix", Config{Token: token}, []func(*http.Request){bearer(token[:10])}, 401},
		{"token, as the user of Basic", Config{Token: token}, []func(*http.Request){func(r *http.Request) { r.SetBasicAuth(token.Reveal(), "") }}, 401},
		{"token, right bearer", Config{Token: token}, []func(*http.Request){bearer(token)}, 200},
		{"token, right bearer, small letters", Config{Token: token}, []func(*http.Request){header("Authorization", "bearer "+token.Reveal())}, 200},
		{"token, right password", Config{Token: token}, []func(*http.Request){basic(token)}, 200},
		{"token, any host", Config{Token: token}, []func(*http.Request){basic(token), host(remote)}, 200},
		{"open reads, remote host", Config{Token: token, OpenReads: true}, []func(*http.Request){host(remote)}, 421},
		{"open reads, local host", Config{Token: token, OpenReads: true}, nil, 200},
		{"no token, localhost", Config{}, []func(*http.Request){host("localhost")}, 200},
		{"no token, LOCALHOST:80", Config{}, []func(*http.Request){host("LOCALHOST:80")}, 200},
		{"no token, 127.0.0.1:8080", Config{}, []func(*http.Request){host("127.0.0.1:8080")}, 200},
		{"no token, [::1]", Config{}, []func(*http.Request){host("[::1]")}, 200},
		{"no token, [::1]:8080", Config{}, []func(*http.Request){host("[::1]:8080")}, 200},
		{"no token, another name", Config{}, []func(*http.Request){host("rebound.example.com:8080")}, 421},
		{"no token, a name that begins right", Config{}, []func(*http.Request){host("localhost.example.com")}, 421},
		{"no token, an address that begins right", Config{}, []func(*http.Request){host("127.0.0.1.example.com:80")}, 421},
		{"no token, none", Config{}, []func(*http.Request){host("")}, 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.Source = day(time.Now())
			h := New(c.config).Handler()
			for _, path := range guardedPaths {
				rec := ask(h, "GET", path, c.with...)
				want := c.want
				if path == "/nowhere" && want == 200 {
					want = 404
				}
				if rec.Code != want {
					t.Errorf("%s answers %d, want %d", path, rec.Code, want)
				}
				if want == 401 && rec.Header().Get("WWW-Authenticate") == "" {
					t.Errorf("%s does not tell a browser to ask for the token", path)
				}
				if want != 200 {
					var p Problem
					if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || p.Error == "" {
						t.Errorf("%s: %d without an error: %q", path, rec.Code, rec.Body)
					}
				}
				if strings.Contains(rec.Body.String(), token.Reveal()) {
					t.Errorf("%s shows the token", path)
				}
				for name, value := range map[string]string{
					"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				} {
					if got := rec.Header().Get(name); got != value {
						t.Errorf("%s: %s is %q", path, name, got)
					}
				}
				if csp := rec.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'self';") {
					t.Errorf("%s: policy %q", path, csp)
				}
			}
			for _, path := range []string{"/healthz", "/readyz"} {
				if rec := ask(h, "GET", path, host("10.1.2.3:8080")); rec.Code != 200 {
					t.Errorf("%s answers %d to anybody, want 200", path, rec.Code)
				}
			}
		})
	}
}

// hands is Controls that write down what they were asked.
type hands struct {
	did []string
	err error
}

func (h *hands) do(format string, args ...any) error {
	if h.err == nil {
		h.did = append(h.did, fmt.Sprintf(format, args...))
	}
	return h.err
}
func (h *hands) Drain(context.Context) error              { return h.do("drain") }
func (h *hands) Resume(context.Context) error             { return h.do("resume") }
func (h *hands) Retire(_ context.Context, r string) error { return h.do("retire %s", r) }
func (h *hands) Hold(_ context.Context, r string) error   { return h.do("hold %s", r) }
func (h *hands) Cordon(_ context.Context, n string, c bool) error {
	return h.do("cordon %s %v", n, c)
}

var commandPaths = map[string]string{
	"/api/v1/drain": "drain", "/api/v1/resume": "resume", "/api/v1/runners/m1-win-1/retire": "retire m1-win-1",
	"/api/v1/runners/m1-win-1/hold": "hold m1-win-1", "/api/v1/nodes/pve1/cordon": "cordon pve1 true",
	"/api/v1/nodes/pve1/uncordon": "cordon pve1 false",
}

func TestWhoMayCommand(t *testing.T) {
	foreign := []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://evil.example")}
	for _, c := range []struct {
		name   string
		config Config
		with   []func(*http.Request)
		want   int
	}{
		{"no token configured", Config{}, []func(*http.Request){bearer("")}, 401},
		{"token, nothing given", Config{Token: token}, nil, 401},
		{"open reads, nothing given", Config{Token: token, OpenReads: true}, nil, 401},
		{"open reads, token", Config{Token: token, OpenReads: true}, []func(*http.Request){bearer(token)}, 204},
		{"token", Config{Token: token}, []func(*http.Request){bearer(token)}, 204},
		{"token, from the page itself", Config{Token: token}, []func(*http.Request){basic(token), header("Sec-Fetch-Site", "same-origin")}, 204},
		{"token, from another page", Config{Token: token}, append(foreign, basic(token)), 403},
		{"open reads, token, from another page", Config{Token: token, OpenReads: true}, append(foreign, basic(token)), 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			for path, deed := range commandPaths {
				did := &hands{}
				c.config.Source, c.config.Controls = day(time.Now()), did
				rec := ask(New(c.config).Handler(), "POST", path, c.with...)
				if rec.Code != c.want {
					t.Errorf("%s answers %d, want %d: %s", path, rec.Code, c.want, rec.Body)
				}
				want := "[]"
				if c.want == 204 {
					want = "[" + deed + "]"
				}
				if got := fmt.Sprint(did.did); got != want {
					t.Errorf("%s did %s, want %s", path, got, want)
				}
			}
		})
	}
}

func TestCommandErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("runner x: %w", fleet.ErrGone), 404},
		{fmt.Errorf("runner x: %w", fleet.ErrBusy), 409},
		{fmt.Errorf("runner x: %w", fleet.ErrForeign), 403},
		{fmt.Errorf("runner x: %w", fleet.ErrConfig), 422},
		{fmt.Errorf("not yet: %w", fleet.ErrNotReady), 503},
		{fmt.Errorf("disk"), 500},
	} {
		h := New(Config{Source: still{}, Token: token, Controls: &hands{err: c.err}}).Handler()
		rec := ask(h, "POST", "/api/v1/drain", bearer(token))
		if rec.Code != c.want || !strings.Contains(rec.Body.String(), c.err.Error()) {
			t.Errorf("%v answers %d %s, want %d", c.err, rec.Code, rec.Body, c.want)
		}
	}
	none := New(Config{Source: still{}, Token: token}).Handler()
	if rec := ask(none, "POST", "/api/v1/drain", bearer(token)); rec.Code != 501 {
		t.Errorf("without controls: %d, want 501", rec.Code)
	}
	for path, want := range map[string]int{"/api/v1/status": 405, "/": 405, "/healthz": 405} {
		if rec := ask(none, "POST", path, bearer(token)); rec.Code != want {
			t.Errorf("POST %s answers %d, want %d", path, rec.Code, want)
		}
	}
}
