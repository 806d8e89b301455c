package github

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// book is a ledger that keeps what it is given.
type book struct {
	jobs   []fleet.Job
	guids  []string
	events []fleet.Event
	record func(context.Context) (bool, error) // nil: changed
}

func (b *book) Record(ctx context.Context, guid string, job fleet.Job, ev ...fleet.Event) (bool, error) {
	if b.record != nil {
		if changed, err := b.record(ctx); err != nil || !changed {
			return changed, err
		}
	}
	b.jobs, b.guids, b.events = append(b.jobs, job), append(b.guids, guid), append(b.events, ev...)
	return true, nil
}

// hook is a webhook before a book.
type hook struct {
	http.Handler
	book    *book
	pokes   int
	results []string
}

func newHook(secrets ...fleet.Secret) *hook {
	h := &hook{book: &book{}}
	h.Handler = NewWebhook(secrets, h.book, func() { h.pokes++ }, WebhookOptions{Observe: func(r string) { h.results = append(h.results, r) }})
	return h
}

func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// delivery is a request as GitHub sends it, signed with secret.
func delivery(secret, event string, body []byte) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/webhook", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Event", event)
	r.Header.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
	r.Header.Set("X-Hub-Signature-256", sign(secret, body))
	return r
}

func (h *hook) send(r *http.Request) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Body.Len() != 0 {
		return -1 // no answer of ours has a body
	}
	return w.Code
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// contract is the folder of recorded payloads that lies beside the checkout.
func contract(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		found := filepath.Join(dir, "shared", "contract", "github")
		if _, err := os.Stat(found); err == nil {
			return found
		}
		if filepath.Dir(dir) == dir {
			t.Skip("no folder shared/contract/github in any folder above: its payloads are not tested")
		}
		dir = filepath.Dir(dir)
	}
}

func TestRecordedPayloads(t *testing.T) {
	dir := contract(t)
	var files []string
	for _, pattern := range []string{"payloads/*.json", "payloads-derived/*.json"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	var got strings.Builder
	for _, f := range files {
		if filepath.Base(f) == "index.json" {
			continue
		}
		body := read(t, f)
		event, _, _ := strings.Cut(filepath.Base(f), ".")
		if strings.Contains(f, "payloads-derived") {
			event = "workflow_job"
		}
		h := newHook("s")
		status := h.send(delivery("s", event, body))
		fmt.Fprintf(&got, "%s/%s: %d %s\n", filepath.Base(filepath.Dir(f)), filepath.Base(f), status, strings.Join(h.results, " "))
		for _, j := range h.book.jobs {
			if j.Received.IsZero() {
				t.Errorf("%s: no time of receipt", f)
			}
			j.Received, j.Changed = time.Time{}, time.Time{}
			fmt.Fprintf(&got, "\t%s\n", line(t, j))
		}
		for _, e := range h.book.events {
			e.At = time.Time{}
			fmt.Fprintf(&got, "\t%s\n", line(t, e))
		}
	}
	golden := filepath.Join("testdata", "payloads.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(string(read(t, golden)), got.String()); d != "" {
		t.Errorf("(-want +got); -update writes it anew:\n%s", d)
	}
}

func line(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestADeliveryIsStoredBeforeItIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHook("s")
		if got := h.send(delivery("s", "workflow_job", read(t, "testdata/completed.json"))); got != http.StatusAccepted {
			t.Fatalf("status %d", got)
		}
		want := fleet.Job{
			ID: 51000000001, Repo: "octo-org/app", Name: "build (windows)", Labels: []string{"self-hosted", "Windows"}, Status: fleet.StatusCompleted,
			Conclusion: "success", RunnerID: 4711, Runner: "m1-win-0a1b2c3d",
			Created: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Received: time.Now(), Changed: time.Now(),
		}
		if d := cmp.Diff([]fleet.Job{want}, h.book.jobs); d != "" {
			t.Errorf("job (-want +got):\n%s", d)
		}
		event := fleet.Event{
			At: time.Now(), Kind: fleet.JobEnded, Runner: "m1-win-0a1b2c3d", Job: 51000000001, Took: 6 * time.Minute,
			Class: "success", Note: "octo-org/app: build (windows)",
		}
		if d := cmp.Diff([]fleet.Event{event}, h.book.events); d != "" {
			t.Errorf("event (-want +got):\n%s", d)
		}
		if h.pokes != 1 || h.book.guids[0] != "72d3162e-cc78-11e3-81ab-4c9367dc0958" || !slices.Equal(h.results, []string{recorded}) {
			t.Errorf("%d pokes, guids %q, results %q", h.pokes, h.book.guids, h.results)
		}
		h.book.record = func(context.Context) (bool, error) { return false, nil }
		if got := h.send(delivery("s", "workflow_job", read(t, "testdata/completed.json"))); got != http.StatusAccepted || h.pokes != 1 {
			t.Errorf("a duplicate: status %d, %d pokes; want 202 and no poke", got, h.pokes)
		}
	})
}

func TestTheSignatureOfGitHubsDocs(t *testing.T) {
	mac, ok := signature("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
	if !ok || !signedBy([]fleet.Secret{"It's a Secret to Everybody"}, []byte("Hello, World!"), mac) {
		t.Error("GitHub's own example is not signed rightly")
	}
}

func TestUnsignedDeliveriesStoreNothing(t *testing.T) {
	body := read(t, "testdata/queued.json")
	for name, c := range map[string]struct {
		secrets []fleet.Secret
		change  func(*http.Request)
		want    int
	}{
		"signed":              {[]fleet.Secret{"s"}, func(*http.Request) {}, 202},
		"second secret":       {[]fleet.Secret{"new", "s"}, func(*http.Request) {}, 202},
		"first secret":        {[]fleet.Secret{"s", "new"}, func(*http.Request) {}, 202},
		"another secret":      {[]fleet.Secret{"new"}, func(*http.Request) {}, 401},
		"no secret set":       {nil, func(*http.Request) {}, 401},
		"empty secret set":    {[]fleet.Secret{""}, func(r *http.Request) { r.Header.Set("X-Hub-Signature-256", sign("", body)) }, 401},
		"no signature":        {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Del("X-Hub-Signature-256") }, 401},
		"only SHA-1":          {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Del("X-Hub-Signature-256"); r.Header.Set("X-Hub-Signature", "sha1=00") }, 401},
		"cut signature":       {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("X-Hub-Signature-256", sign("s", body)[:40]) }, 401},
		"signature not hex":   {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("X-Hub-Signature-256", "sha256="+strings.Repeat("zz", 32)) }, 401},
		"body changed":        {[]fleet.Secret{"s"}, func(r *http.Request) { r.Body = io.NopCloser(bytes.NewReader(append([]byte(" "), body...))) }, 401},
		"too large":           {[]fleet.Secret{"s"}, func(r *http.Request) { r.ContentLength = maxBody + 1 }, 413},
		"too large, unstated": {[]fleet.Secret{"s"}, func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(endless{}) }, 413},
		"malformed guid":      {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("X-GitHub-Delivery", "a\nb") }, 400},
		"no guid":             {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Del("X-GitHub-Delivery") }, 400},
		"text":                {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415},
		"get":                 {[]fleet.Secret{"s"}, func(r *http.Request) { r.Method = http.MethodGet }, 405},
		"another path":        {[]fleet.Secret{"s"}, func(r *http.Request) { r.URL.Path = "/webhook/" }, 404},
		"the root":            {[]fleet.Secret{"s"}, func(r *http.Request) { r.URL.Path = "/" }, 404},
		"push":                {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("X-GitHub-Event", "push") }, 202},
		"ping":                {[]fleet.Secret{"s"}, func(r *http.Request) { r.Header.Set("X-GitHub-Event", "ping") }, 202},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook(c.secrets...)
			r := delivery("s", "workflow_job", body)
			c.change(r)
			if got := h.send(r); got != c.want {
				t.Errorf("status %d, want %d", got, c.want)
			}
			stored := strings.Contains(name, "sign") && c.want == 202 || strings.HasSuffix(name, " secret") && c.want == 202
			if (len(h.book.jobs) == 1) != stored || (h.pokes == 1) != stored {
				t.Errorf("%d jobs stored, %d pokes", len(h.book.jobs), h.pokes)
			}
		})
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestAFormIsSignedAsItStands(t *testing.T) {
	body := []byte("x=1&payload=" + url.QueryEscape(string(read(t, "testdata/queued.json"))))
	h := newHook("s")
	r := delivery("s", "workflow_job", body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if got := h.send(r); got != http.StatusAccepted || len(h.book.jobs) != 1 || h.book.jobs[0].Status != fleet.StatusQueued {
		t.Errorf("status %d, jobs %+v", got, h.book.jobs)
	}
	for _, bad := range []string{"", "x=1", "payload=%zz", "payload="} {
		r := delivery("s", "workflow_job", []byte(bad))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if got := h.send(r); got != http.StatusBadRequest {
			t.Errorf("form %q: status %d, want 400", bad, got)
		}
	}
}

func TestALargeBodyThatIsSignedIsTaken(t *testing.T) {
	body := slices.Concat(read(t, "testdata/queued.json"), bytes.Repeat([]byte(" "), 3*smallBody))
	h := newHook("s")
	if got := h.send(delivery("s", "workflow_job", body)); got != http.StatusAccepted || len(h.book.jobs) != 1 {
		t.Errorf("status %d, %d jobs", got, len(h.book.jobs))
	}
}

func TestBodiesThatAreNoJob(t *testing.T) {
	label := strings.Repeat("x", maxLabelLen+1)
	many := strings.TrimSuffix(strings.Repeat(`"a",`, maxLabels+1), ",")
	for body, want := range map[string]int{
		``:                      400,
		`{`:                     400,
		`[]`:                    400,
		`null`:                  400,
		`{"action":"queued"}`:   400,
		`{"workflow_job":null}`: 400,
		`{"action":"queued","workflow_job":{"id":0,"status":"queued"},"repository":{"full_name":"a/b"}}`:                              400,
		`{"action":"queued","workflow_job":{"id":1.5,"status":"queued"},"repository":{"full_name":"a/b"}}`:                            400,
		`{"action":"queued","workflow_job":{"id":1,"status":"queued"}}`:                                                               400,
		`{"action":"queued","workflow_job":{"id":1,"status":"queued"},"repository":{"full_name":"a/../b"}}`:                           400,
		`{"action":"queued","workflow_job":{"id":1,"status":"queued"},"repository":{"full_name":"a/.."}}`:                             400,
		`{"action":"queued","workflow_job":{"id":1,"status":"queued"},"repository":{"full_name":"a/b?x"}}`:                            400,
		`{"action":"odd","workflow_job":{"id":1,"status":"odd"},"repository":{"full_name":"a/b"}}`:                                    400,
		`{"action":"queued","workflow_job":{"id":1,"labels":["` + label + `"]},"repository":{"full_name":"a/b"}}`:                     202,
		`{"action":"queued","workflow_job":{"id":1,"labels":[` + many + `]},"repository":{"full_name":"a/b"}}`:                        202,
		`{"action":"odd","workflow_job":{"id":1,"status":"odd","labels":["` + label + `"]},"repository":{"full_name":"a/b"}}`:         202,
		`{"action":"queued","workflow_job":{"id":1,"created_at":"yesterday","labels":null},"repository":{"full_name":"a/b"},"x":{}}`:  -202,
		`{"action":"queued","workflow_job":{"id":1,"created_at":7,"runner_id":5,"runner_name":"x"},"repository":{"full_name":"a/b"}}`: -202,
	} {
		h := newHook("s")
		got := h.send(delivery("s", "workflow_job", []byte(body)))
		stored := want < 0
		if got != max(want, -want) || (len(h.book.jobs) == 1) != stored {
			t.Errorf("%.120s: status %d, %d jobs stored; want %d", body, got, len(h.book.jobs), want)
		}
		if stored && h.book.jobs[0].Runner != "" {
			t.Errorf("%.120s: a queued job has runner %q", body, h.book.jobs[0].Runner)
		}
	}
}

func TestTheFurthestOfActionAndStatus(t *testing.T) {
	for _, c := range []struct{ action, status, want string }{
		{"queued", "queued", "queued"},
		{"queued", "waiting", "waiting"},
		{"waiting", "queued", "queued"},
		{"queued", "in_progress", "in_progress"},
		{"in_progress", "queued", "in_progress"},
		{"in_progress", "completed", "completed"},
		{"completed", "in_progress", "completed"},
		{"new", "queued", "queued"},
		{"queued", "new", "queued"},
		{"", "pending", "waiting"},
	} {
		j, err := workflowJob{ID: 1, Status: c.status}.job("a/b", c.action)
		if err != nil || string(j.Status) != c.want {
			t.Errorf("action %q, status %q: %q, %v; want %q", c.action, c.status, j.Status, err, c.want)
		}
	}
}

func TestAStoreThatFailsMakes503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHook("s")
		body := read(t, "testdata/queued.json")
		h.book.record = func(context.Context) (bool, error) { return false, errors.New("disk full") }
		if got := h.send(delivery("s", "workflow_job", body)); got != http.StatusServiceUnavailable || h.pokes != 0 {
			t.Errorf("status %d, %d pokes", got, h.pokes)
		}
		h.book.record = func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }
		start := time.Now()
		if got := h.send(delivery("s", "workflow_job", body)); got != http.StatusServiceUnavailable || time.Since(start) >= 10*time.Second {
			t.Errorf("status %d after %v; want 503 before GitHub's 10 s", got, time.Since(start))
		}
		// GitHub hangs up, and what it told is stored all the same.
		h.book.record = func(ctx context.Context) (bool, error) { return true, ctx.Err() }
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := h.send(delivery("s", "workflow_job", body).WithContext(ctx)); got != http.StatusAccepted || len(h.book.jobs) != 1 {
			t.Errorf("status %d, %d jobs", got, len(h.book.jobs))
		}
	})
}

func TestTooManyAtOnceGet503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{record: func(ctx context.Context) (bool, error) { <-ctx.Done(); return false, ctx.Err() }}
		h := &hook{book: b, Handler: NewWebhook([]fleet.Secret{"s"}, b, func() {}, WebhookOptions{InFlight: 3})}
		body := read(t, "testdata/queued.json")
		for range 3 {
			go h.send(delivery("s", "workflow_job", body))
		}
		synctest.Wait()
		start := time.Now()
		if got := h.send(delivery("s", "workflow_job", body)); got != http.StatusServiceUnavailable || time.Since(start) != 0 {
			t.Errorf("status %d after %v; want 503 at once", got, time.Since(start))
		}
		synctest.Sleep(time.Minute)
		b.record = nil
		if got := h.send(delivery("s", "workflow_job", body)); got != http.StatusAccepted {
			t.Errorf("status %d when there is room again", got)
		}
	})
}

func TestOnlyFailingCallersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHook("s")
		body := read(t, "testdata/queued.json")
		from := func(addr, secret string) int {
			r := delivery(secret, "workflow_job", body)
			r.RemoteAddr = addr
			return h.send(r)
		}
		for range failBurst {
			if got := from("192.0.2.1:1000", "guess"); got != http.StatusUnauthorized {
				t.Fatalf("status %d, want 401", got)
			}
		}
		if got := from("192.0.2.1:1001", "guess"); got != http.StatusTooManyRequests {
			t.Errorf("one too many: status %d, want 429", got)
		}
		if got := from("192.0.2.1:1002", "s"); got != http.StatusAccepted {
			t.Errorf("rightly signed from the same address: status %d, want 202", got)
		}
		if got := from("192.0.2.2:1000", "guess"); got != http.StatusUnauthorized {
			t.Errorf("another address: status %d, want 401", got)
		}
		synctest.Sleep(failEvery)
		if got := from("192.0.2.1:1003", "guess"); got != http.StatusUnauthorized {
			t.Errorf("a while later: status %d, want 401", got)
		}
	})
}

func TestSlowBodiesOfFailingCallersHoldNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHook("s")
		h.Handler = NewWebhook([]fleet.Secret{"s"}, h.book, nil, WebhookOptions{InFlight: 2 * suspectsAtOnce})
		body := read(t, "testdata/queued.json")
		from := func(addr string, r *http.Request) int {
			r.RemoteAddr = addr
			return h.send(r)
		}
		for range failBurst {
			from("192.0.2.1:1", delivery("guess", "workflow_job", body))
		}
		// As many bodies that never come as there is room for all.
		slow, end := io.Pipe()
		results := make(chan int, 2*suspectsAtOnce)
		for range 2 * suspectsAtOnce {
			go func() {
				r := delivery("guess", "workflow_job", body)
				r.Body = slow
				results <- from("192.0.2.1:2", r)
			}()
		}
		synctest.Wait()
		for range suspectsAtOnce {
			if got := <-results; got != http.StatusServiceUnavailable {
				t.Errorf("over the failing callers' bound: status %d, want 503", got)
			}
		}
		if got := from("192.0.2.2:1", delivery("s", "workflow_job", body)); got != http.StatusAccepted {
			t.Errorf("GitHub meanwhile: status %d, want 202", got)
		}
		if err := end.CloseWithError(io.ErrUnexpectedEOF); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
}

func TestTheMemoryOfCallersIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCallers()
		for i := range 3 * maxCallers {
			c.failed(callerOf(fmt.Sprintf("[2001:db8:%x:%x::1]:80", i/65536, i%65536)))
		}
		if len(c.by) > maxCallers {
			t.Errorf("%d callers remembered", len(c.by))
		}
		for remote, want := range map[string]string{
			"192.0.2.7:80": "192.0.2.7", "[::ffff:192.0.2.7]:80": "192.0.2.7", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
			"[fe80::1%eth0]:80": "fe80::/64", "@": "unknown", "": "unknown",
		} {
			if got := callerOf(remote); got != want {
				t.Errorf("callerOf(%q) = %q, want %q", remote, got, want)
			}
		}
	})
}

func FuzzWebhookBody(f *testing.F) {
	for _, path := range []string{"testdata/queued.json", "testdata/completed.json"} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add([]byte("payload="+url.QueryEscape(string(b))), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, form bool) {
		h := newHook("s")
		r := delivery("s", "workflow_job", body)
		if form {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		got := h.send(r)
		if got != http.StatusAccepted && got != http.StatusBadRequest {
			t.Errorf("status %d", got)
		}
		for _, j := range h.book.jobs {
			checkBounds(t, j)
		}
	})
}

func FuzzJob(f *testing.F) {
	f.Add(int64(1), "build", "queued", "queued", "success", "self-hosted", int64(7), "m1-win-0a1b2c3d", "octo-org/app")
	f.Add(int64(-1), "\x1b[31m", "completed", "in_progress", "\n", "", int64(0), "", "a/..")
	f.Fuzz(func(t *testing.T, id int64, name, action, status, conclusion, label string, runnerID int64, runner, repo string) {
		w := workflowJob{ID: id, Name: name, Status: status, Conclusion: conclusion, Labels: []string{label}, RunnerID: runnerID, Runner: runner}
		j, err := w.job(repo, action)
		if err != nil {
			return
		}
		checkBounds(t, j)
		for _, e := range w.event(j, time.Unix(0, 0)) {
			if e.Class != "" && e.Class != outcome(e.Class) && e.Class != "other" {
				t.Errorf("class %q", e.Class)
			}
		}
	})
}

func checkBounds(t *testing.T, j fleet.Job) {
	t.Helper()
	texts := []string{j.Name, j.Runner, j.Conclusion}
	for _, s := range texts {
		if len([]rune(s)) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
			t.Errorf("%q is not bounded", s)
		}
	}
	if j.ID <= 0 || !goodRepo(j.Repo) || strings.Count(j.Repo, "/") != 1 || len(j.Labels) > maxLabels || j.Status.Rank() == 0 {
		t.Errorf("%+v", j)
	}
	if (j.Runner == "") != (j.RunnerID == 0) {
		t.Errorf("runner %q with id %d", j.Runner, j.RunnerID)
	}
	if j.Status.Rank() < 2 && j.Runner != "" || j.Status.Rank() < 3 && j.Conclusion != "" {
		t.Errorf("a %s job has runner %q and conclusion %q", j.Status, j.Runner, j.Conclusion)
	}
}

// BenchmarkWebhook is what a delivery costs without the store.
func BenchmarkWebhook(b *testing.B) {
	body, err := os.ReadFile("testdata/queued.json")
	if err != nil {
		b.Fatal(err)
	}
	body = slices.Concat(body, bytes.Repeat([]byte(" "), 10<<10)) // as long as GitHub's
	h := NewWebhook([]fleet.Secret{"s"}, &book{record: func(context.Context) (bool, error) { return false, nil }}, nil, WebhookOptions{})
	r := delivery("s", "workflow_job", nil)
	r.Header.Set("X-Hub-Signature-256", sign("s", body))
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusAccepted {
			b.Fatal(w.Code)
		}
	}
}
