package github

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/fleet"
)

// canary is a secret that must never be seen.
const canary = "ghp_c4n4ry"

var winPool = fleet.Pool{Name: "win", Labels: []string{"self-hosted", "windows"}}

// script answers requests one after the other, and notes when they came.
type script struct {
	mu      sync.Mutex
	steps   []func(w http.ResponseWriter, r *http.Request)
	came    []time.Time
	request []*http.Request
	bodies  []string
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.came, s.request, s.bodies = append(s.came, time.Now()), append(s.request, r), append(s.bodies, string(body))
	step := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) }
	if len(s.steps) > 0 {
		step, s.steps = s.steps[0], s.steps[1:]
	}
	s.mu.Unlock()
	step(w, r)
}

func says(status int, body string, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

const (
	minted    = `{"runner":{"id":23,"name":"m1-win-0a1b2c3d"},"encoded_jit_config":"` + canary + `"}`
	emptyList = `{"total_count":0,"runners":[]}`
)

// newClient is a client of the script's answers; it must be made in a bubble.
func newClient(t *testing.T, s *script, change ...func(*Config)) *Client {
	t.Helper()
	server := httptest.NewTestServer(t, s)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that a test leaves half open
	cfg := Config{URL: "https://github.com/octo-org", Token: canary, HTTP: server.Client()}
	for _, c := range change {
		c(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRegisterSendsWhatGitHubWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []func(http.ResponseWriter, *http.Request){says(201, minted)}}
		var calls []string
		c := newClient(t, s, func(c *Config) {
			c.Group = 4
			c.Observe = func(call, outcome string, _ time.Duration) { calls = append(calls, call+" "+outcome) }
		})
		synctest.Sleep(time.Second)
		got, err := c.Register(t.Context(), "m1-win-0a1b2c3d", winPool)
		want := fleet.Permit{ID: 23, Name: "m1-win-0a1b2c3d", Secret: canary, Sent: time.Now()}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("Register() error %v (-want +got):\n%s", err, d)
		}
		r := s.request[0]
		if r.Method != "POST" || r.Host != "api.github.com" || r.URL.Path != "/orgs/octo-org/actions/runners/generate-jitconfig" {
			t.Errorf("%s %s%s", r.Method, r.Host, r.URL.Path)
		}
		if want := `{"name":"m1-win-0a1b2c3d","runner_group_id":4,"labels":["self-hosted","windows"],"work_folder":"_work"}`; s.bodies[0] != want {
			t.Errorf("body %s", s.bodies[0])
		}
		for name, want := range map[string]string{
			"User-Agent": "mayfly", "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28",
			"Authorization": "Bearer " + canary, "Content-Type": "application/json",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if d := cmp.Diff([]string{"register 201"}, calls); d != "" {
			t.Errorf("observed (-want +got):\n%s", d)
		}
	})
}

func TestAnswersToRegister(t *testing.T) {
	for name, c := range map[string]struct {
		step func(http.ResponseWriter, *http.Request)
		want error
	}{
		"no JIT":       {says(201, `{"runner":{"id":23,"name":"m1-win-0a1b2c3d"}}`), fleet.ErrUnknown},
		"no id":        {says(201, `{"encoded_jit_config":"x"}`), fleet.ErrUnknown},
		"another name": {says(201, strings.Replace(minted, "m1-win", "m2-win", 1)), fleet.ErrUnknown},
		"no JSON":      {says(201, "\ufeff<html>"), fleet.ErrUnknown},
		"200":          {says(200, minted), fleet.ErrUnknown},
		"cut short":    {says(201, minted, "Content-Length", "5000"), fleet.ErrUnknown},
		"302":          {says(302, "", "Location", "/elsewhere"), fleet.ErrConfig},
		"503":          {says(503, "{}"), fleet.ErrUnknown},
		"401":          {says(401, `{"message":"Bad credentials"}`), fleet.ErrConfig},
		"403":          {says(403, `{"message":"Resource not accessible by integration"}`, "X-Accepted-GitHub-Permissions", "administration=write"), fleet.ErrConfig},
		"409":          {says(409, `{"message":"Already exists"}`), fleet.ErrTaken},
		"422":          {says(422, `{"message":"Invalid request"}`), fleet.ErrConfig},
		"400":          {says(400, `{"message":"Problems parsing JSON"}`), fleet.ErrConfig},
		"too long body": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			_, _ = io.Copy(w, io.LimitReader(endless{}, maxAnswer+2))
		}, fleet.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logged bytes.Buffer
				s := &script{steps: []func(http.ResponseWriter, *http.Request){c.step}}
				client := newClient(t, s, func(c *Config) {
					c.Log = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				p, err := client.Register(t.Context(), "m1-win-0a1b2c3d", winPool)
				if !errors.Is(err, c.want) || p != (fleet.Permit{}) {
					t.Errorf("Register() = %v, want %v", err, c.want)
				}
				if !strings.Contains(err.Error(), "m1-win-0a1b2c3d") || strings.Contains(err.Error()+logged.String(), canary) {
					t.Errorf("error %q, log %q", err, logged.String())
				}
				if len(s.request) != 1 {
					t.Errorf("%d requests: a POST is never sent twice", len(s.request))
				}
			})
		})
	}
}

func TestARefusedPermissionIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for url, want := range map[string]string{"https://github.com/octo-org": "Self-hosted runners", "https://github.com/octo-org/app": "Administration"} {
			s := &script{steps: []func(http.ResponseWriter, *http.Request){says(404, `{"message":"Not Found"}`), says(404, "")}}
			c := newClient(t, s, func(c *Config) { c.URL = url })
			_, err := c.Register(t.Context(), "n", winPool)
			if !errors.Is(err, fleet.ErrConfig) || !strings.Contains(err.Error(), want) {
				t.Errorf("Register() = %v, want the permission %s", err, want)
			}
			if _, err = c.Roster(t.Context()); !errors.Is(err, fleet.ErrConfig) || !strings.Contains(err.Error(), want) {
				t.Errorf("Roster() = %v, want the permission %s", err, want)
			}
		}
	})
}

func TestNothingSentIsNothingUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })}
		c := newClient(t, &script{}, func(c *Config) { c.HTTP = refused })
		if _, err := c.Register(t.Context(), "n", winPool); err == nil || fleet.Class(err) != "other" {
			t.Errorf("Register() without a connection = %v, want no class", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newClient(t, &script{}).Register(ctx, "n", winPool); !errors.Is(err, context.Canceled) || errors.Is(err, fleet.ErrUnknown) {
			t.Errorf("Register() of a cancelled context = %v", err)
		}
		broken := newClient(t, &script{}, func(c *Config) {
			c.TokenFrom = func(context.Context) (fleet.Secret, error) { return "", errors.New("no file") }
		})
		if _, err := broken.Register(t.Context(), "n", winPool); err == nil || errors.Is(err, fleet.ErrUnknown) {
			t.Errorf("Register() without a token = %v", err)
		}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRateLimits(t *testing.T) {
	reset := fmt.Sprint(time.Date(2000, 1, 1, 0, 7, 0, 0, time.UTC).Unix()) // a bubble begins at midnight
	for name, c := range map[string]struct {
		limits []func(http.ResponseWriter, *http.Request)
		want   time.Duration
	}{
		"retry-after":      {[]func(http.ResponseWriter, *http.Request){says(429, "", "Retry-After", "90")}, 90 * time.Second},
		"retry-after, 403": {[]func(http.ResponseWriter, *http.Request){says(403, "", "Retry-After", "90")}, 90 * time.Second},
		"reset":            {[]func(http.ResponseWriter, *http.Request){says(403, "", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset)}, 7*time.Minute + time.Second},
		"reset, our clock is wrong": {[]func(http.ResponseWriter, *http.Request){
			says(403, "", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset, "Date", "Sat, 01 Jan 2000 00:05:00 GMT"),
		}, 2*time.Minute + time.Second},
		"not said":             {[]func(http.ResponseWriter, *http.Request){says(403, `{"message":"You have exceeded a secondary rate limit."}`)}, time.Minute},
		"not said, again":      {[]func(http.ResponseWriter, *http.Request){says(429, ""), says(429, ""), says(429, "")}, 7 * time.Minute},
		"longer than any hour": {[]func(http.ResponseWriter, *http.Request){says(429, "", "Retry-After", "2000000000")}, mostLimitWait},
		"nonsense":             {[]func(http.ResponseWriter, *http.Request){says(429, "", "Retry-After", "soon")}, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: append(c.limits, says(201, minted), says(200, emptyList))}
				client := newClient(t, s)
				start := time.Now()
				done := make(chan error)
				go func() {
					_, err := client.Register(t.Context(), "m1-win-0a1b2c3d", winPool)
					done <- err
				}()
				synctest.Wait()
				if until := client.Throttled(); len(c.limits) == 1 && !until.Equal(start.Add(c.want)) {
					t.Errorf("Throttled() = %v, want %v", until, start.Add(c.want))
				}
				// Every other call waits at the same gate.
				if _, err := client.Roster(deadline(t, 30*time.Second)); !errors.Is(err, errLater) {
					t.Errorf("Roster() during the limit = %v, want it refused at once", err)
				}
				if err := <-done; err != nil || time.Since(start) != c.want {
					t.Errorf("Register() = %v after %v, want %v", err, time.Since(start), c.want)
				}
				if _, err := client.Roster(t.Context()); err != nil || !client.Throttled().IsZero() {
					t.Errorf("Roster() after it = %v; Throttled() = %v", err, client.Throttled())
				}
			})
		})
	}
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAnAnswerEndsTheGrowthOfWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, &script{steps: []func(http.ResponseWriter, *http.Request){
			says(429, ""), says(429, ""), says(200, emptyList), says(429, ""), says(200, emptyList),
		}})
		for _, want := range []time.Duration{3 * time.Minute, time.Minute} {
			start := time.Now()
			if _, err := c.Roster(t.Context()); err != nil || time.Since(start) != want {
				t.Errorf("Roster() = %v after %v, want %v", err, time.Since(start), want)
			}
		}
	})
}

func TestOneLimitIsWaitedOutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := time.Now().Add(time.Second)
		s := &script{}
		for range 40 {
			s.steps = append(s.steps, func(w http.ResponseWriter, r *http.Request) {
				if time.Now().Before(open) {
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				says(200, `{"id":1,"status":"queued"}`)(w, r)
			})
		}
		c := newClient(t, s)
		start := time.Now()
		var work sync.WaitGroup
		for range 20 {
			work.Go(func() {
				if _, err := c.Job(t.Context(), fleet.Job{ID: 1, Repo: "a/b"}); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("20 requests that met one limit took %v, want a minute", took)
		}
	})
}

func TestRegistrationsArePaced(t *testing.T) {
	for _, speed := range []float64{1, 10} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{}
			for range 30 {
				s.steps = append(s.steps, says(201, minted))
			}
			c := newClient(t, s, func(c *Config) { c.Speed = speed })
			start := time.Now()
			var work sync.WaitGroup
			for range 30 {
				work.Go(func() {
					if _, err := c.Register(t.Context(), "m1-win-0a1b2c3d", winPool); err != nil {
						t.Error(err)
					}
				})
			}
			synctest.Wait()
			if n := len(s.came); n != 20 {
				t.Errorf("%d at once, want 20", n)
			}
			second := time.Duration(float64(time.Second) / speed)
			if until := c.Throttled(); until.Sub(start).Round(time.Millisecond) != 11*second {
				t.Errorf("Throttled() in %v, want in %v: ten wait before", until.Sub(start), 11*second)
			}
			if _, err := c.Register(deadline(t, 5*second), "n", winPool); !errors.Is(err, errLater) || time.Since(start) != 0 {
				t.Errorf("Register() with a deadline too near = %v after %v", err, time.Since(start))
			}
			work.Wait()
			if took := time.Since(start).Round(time.Millisecond); took != 10*second {
				t.Errorf("30 took %v, want %v", took, 10*second)
			}
		})
	}
}

func TestPagesOfTheRoster(t *testing.T) {
	const one = `{"total_count":2,"runners":[{"id":1,"name":"a","status":"online","busy":true}]}`
	const two = `{"total_count":2,"runners":[{"id":2,"name":"b","status":"offline","busy":false}]}`
	next := func(target string) []string { return []string{"Link", `<` + target + `>; rel="next", <x>; rel="last"`} }
	for name, c := range map[string]struct {
		steps []func(http.ResponseWriter, *http.Request)
		want  []fleet.Registration // nil: an error
	}{
		"two pages":        {[]func(http.ResponseWriter, *http.Request){says(200, one, next("https://api.github.com/p?page=2")...), says(200, two)}, []fleet.Registration{{ID: 1, Name: "a", Online: true, Busy: true}, {ID: 2, Name: "b"}}},
		"none":             {[]func(http.ResponseWriter, *http.Request){says(200, emptyList)}, []fleet.Registration{}},
		"another host":     {[]func(http.ResponseWriter, *http.Request){says(200, one, next("https://evil.example/p?page=2")...)}, nil},
		"not TLS":          {[]func(http.ResponseWriter, *http.Request){says(200, one, next("http://api.github.com/p?page=2")...)}, nil},
		"one missing":      {[]func(http.ResponseWriter, *http.Request){says(200, one), says(200, one)}, nil},
		"missing at first": {[]func(http.ResponseWriter, *http.Request){says(200, one), says(200, one, next("/p")...), says(200, two)}, []fleet.Registration{{ID: 1, Name: "a", Online: true, Busy: true}, {ID: 2, Name: "b"}}},
		"second page 500":  {[]func(http.ResponseWriter, *http.Request){says(200, one, next("/p")...), says(500, "")}, nil},
		"no count":         {[]func(http.ResponseWriter, *http.Request){says(200, `{"runners":[]}`)}, nil},
		"no runners":       {[]func(http.ResponseWriter, *http.Request){says(200, `{"total_count":0}`)}, nil},
		"null":             {[]func(http.ResponseWriter, *http.Request){says(200, `null`)}, nil},
		"empty body":       {[]func(http.ResponseWriter, *http.Request){says(200, ``)}, nil},
		"204":              {[]func(http.ResponseWriter, *http.Request){says(204, ``)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: c.steps}
				client := newClient(t, s)
				start := time.Now()
				got, err := client.Roster(t.Context())
				for _, r := range s.request {
					if r.Host != "api.github.com" || r.TLS == nil {
						t.Errorf("the token went to %s, TLS %v", r.Host, r.TLS != nil)
					}
				}
				if (err != nil) != (c.want == nil) {
					t.Fatalf("Roster() = %+v, %v", got, err)
				}
				if err == nil && (len(c.want)+len(got.Runners) > 0 && cmp.Diff(c.want, got.Runners) != "" || !got.AsOf.Equal(start)) {
					t.Errorf("Roster() = %+v, want %+v", got, c.want)
				}
			})
		})
	}
}

func TestAListWithoutAnEndIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		endless := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			says(200, `{"total_count":9,"runners":[]}`, "Link", `<`+r.URL.Path+`?again>; rel="next"`)(w, r)
		})
		c, err := New(Config{URL: "https://ghes.example/octo-org", Token: canary, HTTP: httptest.NewTestServer(t, endless).Client()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Roster(t.Context()); err == nil {
			t.Error("no error")
		}
	})
}

func TestAnswersToRemove(t *testing.T) {
	const mine = `{"total_count":1,"runners":[{"id":23,"name":"m1-win-0a1b2c3d"}]}`
	const namesake = `{"total_count":1,"runners":[{"id":24,"name":"m1-win-0a1b2c3d"}]}`
	steps := func(s ...func(http.ResponseWriter, *http.Request)) []func(http.ResponseWriter, *http.Request) {
		return s
	}
	for name, c := range map[string]struct {
		id    int64
		steps []func(http.ResponseWriter, *http.Request)
		want  fleet.Removal
		err   error // nil with want "": any
	}{
		"204":                {23, steps(says(204, "")), fleet.Removed, nil},
		"422":                {23, steps(says(422, `{"message":"Bad request - Runner \"x\" is still running a job"}`)), fleet.Working, nil},
		"404, proved":        {23, steps(says(404, ""), says(200, emptyList), says(200, emptyList)), fleet.Absent, nil},
		"404, yet listed":    {23, steps(says(404, ""), says(200, mine)), "", fleet.ErrConfig},
		"404, list empty":    {23, steps(says(404, ""), says(200, emptyList), says(200, mine)), "", nil},
		"404, a namesake":    {23, steps(says(404, ""), says(200, namesake)), "", nil},
		"404, list 404":      {23, steps(says(404, ""), says(404, "")), "", fleet.ErrConfig},
		"404, list 500":      {23, steps(says(404, ""), says(500, "")), "", nil},
		"404, lookup 500":    {23, steps(says(404, ""), says(200, emptyList), says(500, "")), "", nil},
		"500":                {23, steps(says(500, "")), "", nil},
		"401":                {23, steps(says(401, "")), "", fleet.ErrConfig},
		"by name":            {0, steps(says(200, mine), says(204, "")), fleet.Removed, nil},
		"by name, none":      {0, steps(says(200, emptyList), says(200, emptyList), says(200, emptyList)), fleet.Absent, nil},
		"by name, unproved":  {0, steps(says(200, emptyList), says(500, "")), "", nil},
		"by name, not shown": {0, steps(says(200, `{"total_count":1,"runners":[]}`)), "", nil},
		"by name, 500":       {0, steps(says(500, "")), "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &script{steps: c.steps}
				got, err := newClient(t, s).Remove(t.Context(), c.id, "m1-win-0a1b2c3d")
				if got != c.want || (err == nil) != (c.want != "") || (c.err != nil && !errors.Is(err, c.err)) {
					t.Errorf("Remove() = %q, %v; want %q, %v", got, err, c.want, c.err)
				}
				if len(s.steps) != 0 {
					t.Errorf("%d answers were not asked for", len(s.steps))
				}
			})
		})
	}
	if _, err := newPlain(t).Remove(t.Context(), 0, ""); err == nil {
		t.Error("neither id nor name: no error")
	}
}

func newPlain(t *testing.T) *Client {
	t.Helper()
	c, err := New(Config{URL: "https://github.com/octo-org", Token: canary})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersToJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("n", 2*maxText)
		s := &script{steps: []func(http.ResponseWriter, *http.Request){
			says(200, `{"id":7,"status":"in_progress","name":"`+long+`","labels":["a"],"runner_id":5,"runner_name":"r","created_at":"2026-11-23T10:00:00Z"}`),
			says(404, ""), says(500, ""), says(200, `{"id":8,"status":"queued"}`), says(200, `{"id":7}`), says(403, ""), says(200, `[`),
		}}
		c := newClient(t, s)
		before := fleet.Job{ID: 7, Repo: "octo-org/app", Received: time.Unix(5, 0), Changed: time.Unix(6, 0)}
		got, err := c.Job(t.Context(), before)
		want := fleet.Job{
			ID: 7, Repo: "octo-org/app", Name: long[:maxText], Labels: []string{"a"}, Status: fleet.StatusInProgress, RunnerID: 5, Runner: "r",
			Created: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Received: time.Unix(5, 0), Changed: time.Unix(6, 0), Checked: time.Now(),
		}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("Job() error %v (-want +got):\n%s", err, d)
		}
		for _, class := range []string{"gone", "other", "other", "other", "config", "other"} {
			if got, err := c.Job(t.Context(), before); fleet.Class(err) != class {
				t.Errorf("Job() = %+v, %v; want class %s", got, err, class)
			}
		}
		n := len(s.request)
		for _, repo := range []string{"", "a", "a/b/c", "../b", "a/..", "a/b?c", "a/b#c", "a b/c", "a/b%2f"} {
			if _, err := c.Job(t.Context(), fleet.Job{ID: 7, Repo: repo}); !errors.Is(err, fleet.ErrConfig) {
				t.Errorf("Job() of repository %q = %v", repo, err)
			}
		}
		if len(s.request) != n {
			t.Error("a repository that is none was asked for")
		}
	})
}

func TestARenamedRepositoryIsFollowedForReadsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{steps: []func(http.ResponseWriter, *http.Request){
			says(301, "", "Location", "https://api.github.com/repositories/1/actions/runners"), says(200, emptyList),
			says(307, "", "Location", "https://api.github.com/repositories/1/actions/runners/generate-jitconfig"), says(201, minted),
			says(301, "", "Location", "https://api.github.com/repositories/1/actions/runners/23"),
			says(301, "", "Location", "http://api.github.com/"),
		}}
		c := newClient(t, s)
		if _, err := c.Roster(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := c.Register(t.Context(), "m1-win-0a1b2c3d", winPool); err != nil || s.request[3].Method != "POST" || s.bodies[3] != s.bodies[2] {
			t.Errorf("307: %v", err)
		}
		if r, err := c.Remove(t.Context(), 23, "x"); err == nil {
			t.Errorf("301 to a DELETE: %q and no error: it may have become a GET", r)
		}
		if _, err := c.Roster(t.Context()); err == nil {
			t.Error("a redirect away from TLS was followed")
		}
	})
}

func TestNewWhere(t *testing.T) {
	for page, want := range map[string]string{
		"https://github.com/octo-org":                "https://api.github.com/orgs/octo-org/actions/runners",
		"https://github.com/octo-org/":               "https://api.github.com/orgs/octo-org/actions/runners",
		"https://github.com/octo-org/my.app_1":       "https://api.github.com/repos/octo-org/my.app_1/actions/runners",
		"https://ghes.example:8443/octo-org":         "https://ghes.example:8443/api/v3/orgs/octo-org/actions/runners",
		"https://octo.ghe.com/octo-org":              "https://api.octo.ghe.com/orgs/octo-org/actions/runners",
		"http://127.0.0.1:8081/octo-org":             "http://127.0.0.1:8081/api/v3/orgs/octo-org/actions/runners",
		"http://github.com/octo-org":                 "",
		"https://github.com":                         "",
		"https://github.com/a/b/c":                   "",
		"https://github.com/a b":                     "",
		"https://github.com/a/..":                    "",
		"https://github.com/enterprises/e":           "",
		"https://user:" + canary + "@github.com/org": "",
		"https://github.com/org?x=" + canary:         "",
		"octo-org":                                   "",
		"":                                           "",
		"https://github.com/%zz":                     "",
	} {
		c, err := New(Config{URL: page, Token: "t"})
		if want == "" {
			if !errors.Is(err, fleet.ErrConfig) {
				t.Errorf("New(%q) = %v, want a configuration error", page, err)
			}
			continue
		}
		if err != nil || c.scope.api.String()+c.scope.runners != want {
			t.Errorf("New(%q): %v, want %s", page, err, want)
		}
	}
	if c, err := New(Config{URL: "https://github.com/o", API: "http://localhost:9/x/", Token: "t"}); err != nil || c.scope.api.String() != "http://localhost:9/x" || c.URL() != "https://github.com/o" {
		t.Errorf("API override: %v", err)
	}
	for _, bad := range []Config{
		{URL: "https://github.com/o"},
		{URL: "https://github.com/o", Token: canary + "\n"},
		{URL: "https://github.com/o", Token: "t", API: "http://api.example/"},
		{URL: "https://github.com/o", Token: "t", API: "nowhere"},
		{URL: "https://github.com/o", Token: "t", API: "https://api.example/?" + canary},
	} {
		if _, err := New(bad); !errors.Is(err, fleet.ErrConfig) || strings.Contains(err.Error(), canary) {
			t.Errorf("New(%+v) = %v, want a configuration error without secrets", bad, err)
		}
	}
}
