package github_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gogithub "github.com/google/go-github/v92/github"

	"mayfly/internal/fleet"
	"mayfly/internal/sim/github"
)

func TestDeliveriesAreSignedAndShapedAsGitHubs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []*gogithub.WorkflowJobEvent
		g := github.New(github.Config{
			Scope: "octo-org", WebhookURL: "http://127.0.0.1/webhook", WebhookSecret: "s3cret", Senders: 1,
			Deliver: func(r *http.Request) (*http.Response, error) {
				body, err := gogithub.ValidatePayload(r, []byte("s3cret"))
				if err != nil {
					t.Error(err)
				}
				event, err := gogithub.ParseWebHook(gogithub.WebHookType(r), body)
				if err != nil {
					t.Error(err)
				}
				if gogithub.DeliveryID(r) == "" {
					t.Error("no delivery id")
				}
				if e, ok := event.(*gogithub.WorkflowJobEvent); ok {
					mu.Lock()
					got = append(got, e)
					mu.Unlock()
				}
				return &http.Response{StatusCode: http.StatusAccepted, Body: io.NopCloser(http.NoBody)}, nil
			},
		})
		defer g.Close()
		g.Ping()
		id := g.Submit(github.JobSpec{Repo: "octo-org/app", Name: "build", Labels: []string{"windows"}})
		g.Cancel(id)
		synctest.Wait()
		if len(got) != 2 {
			t.Fatalf("%d events, want 2", len(got))
		}
		q, c := got[0], got[1]
		if q.GetAction() != "queued" || q.GetWorkflowJob().GetID() != id || q.GetRepo().GetFullName() != "octo-org/app" || q.GetOrg().GetLogin() != "octo-org" {
			t.Errorf("queued: %v", q)
		}
		if j := c.GetWorkflowJob(); c.GetAction() != "completed" || j.GetConclusion() != "cancelled" || j.RunnerID == nil || j.GetRunnerName() != "" {
			t.Errorf("completed: %v", c)
		}
		log := g.Deliveries()
		if len(log) != 3 || log[0].Event != "ping" || log[1].Code != http.StatusAccepted {
			t.Errorf("Deliveries() = %+v", log)
		}
	})
}

func TestLostDoubledAndLateDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seed, jobs = 11, 200
		t.Logf("seed %d", seed)
		w := newWorld(t, github.Config{
			Seed: seed, WebhookDelay: github.Range{To: time.Second},
			Lose: map[string]float64{"queued": 0.2}, Double: map[string]float64{"": 0.2},
			Reorder: map[string]float64{"": 0.3}, Late: map[string]float64{"completed": 0.3},
		})
		for i := range jobs {
			go w.run(w.register(fmt.Sprintf("m1-win-%08x", i)))
			w.Submit(github.JobSpec{Labels: []string{"windows"}, Length: 10 * time.Second})
		}
		synctest.Sleep(time.Hour)
		s := w.Stats()
		if s.Succeeded != jobs || s.Lost == 0 || s.Refused != 0 {
			t.Errorf("Stats() = %+v", s)
		}
		known, deliveries, doubled := w.ledger.count()
		if known != jobs || doubled == 0 || deliveries != s.Deliveries {
			t.Errorf("ledger has %d jobs of %d deliveries, %d of them doubled; want %d jobs, %d deliveries", known, deliveries, doubled, jobs, s.Deliveries)
		}
		for _, j := range w.Jobs() {
			w.ledger.want(t, j.ID, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "success", Runner: j.Runner, RunnerID: idOf(t, w, j.ID)})
		}
		if !slices.Contains(w.ledger.order[slices.Index(w.ledger.order, "completed"):], "queued") {
			t.Error("no delivery passed another")
		}
		lost := w.Deliveries()[slices.IndexFunc(w.Deliveries(), func(d github.Delivery) bool { return d.Lost })]
		if !w.Redeliver(lost.GUID) || w.Redeliver("no such") {
			t.Error("Redeliver()")
		}
		synctest.Wait()
		if n := w.ledger.guids[lost.GUID]; n != 1 {
			t.Errorf("the redelivery came %d times", n)
		}
	})
}

// idOf is the runner id that the ledger has, which must be one that this job's runner could have.
func idOf(t *testing.T, w *world, id int64) int64 {
	t.Helper()
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	return w.ledger.jobs[id].RunnerID
}

func TestTheSameSeedDeliversInTheSameOrder(t *testing.T) {
	order := func() (out []string) {
		synctest.Test(t, func(t *testing.T) {
			g := github.New(github.Config{
				Seed: 3, Scope: "octo-org", WebhookURL: "http://127.0.0.1/webhook", Senders: 1,
				WebhookDelay: github.Range{To: time.Minute}, Lose: map[string]float64{"": 0.1}, Double: map[string]float64{"": 0.1},
				Deliver: func(r *http.Request) (*http.Response, error) {
					out = append(out, r.Header.Get("X-GitHub-Delivery"))
					return &http.Response{StatusCode: http.StatusAccepted, Body: io.NopCloser(http.NoBody)}, nil
				},
			})
			for range 50 {
				g.Submit(github.JobSpec{Labels: []string{"windows"}})
			}
			synctest.Sleep(5 * time.Minute)
			g.Close()
		})
		return out
	}
	if a, b := order(), order(); !slices.Equal(a, b) || len(a) < 40 {
		t.Errorf("%d and %d deliveries, not in the same order", len(a), len(b))
	}
}

func TestADeliveryWithoutAnAnswerEndsAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := github.New(github.Config{
			Scope: "octo-org", WebhookURL: "http://127.0.0.1/webhook",
			Deliver: func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			},
		})
		g.Submit(github.JobSpec{Labels: []string{"windows"}})
		synctest.Sleep(11 * time.Second)
		if d := g.Deliveries()[0]; d.Took != 10*time.Second || d.Code != 0 || d.Err == "" {
			t.Errorf("%+v, want no answer after 10 s", d)
		}
		g.Submit(github.JobSpec{Labels: []string{"windows"}})
		synctest.Wait()
		g.Close() // with one under way
	})
}

func TestManyJobsAndRunners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{Seed: 5, Senders: 1})
		jobs, runners := 2000, 1000
		if testing.Short() {
			jobs, runners = 200, 100
		}
		for range jobs {
			w.Submit(github.JobSpec{Labels: []string{"self-hosted", "windows", "x64"}, Length: 10 * time.Minute})
		}
		var work sync.WaitGroup
		for i := range runners {
			work.Go(func() {
				for life := range jobs / runners {
					w.run(w.register(fmt.Sprintf("m1-win-%04x%04x", i, life)))
				}
			})
		}
		work.Wait()
		synctest.Wait()
		if s := w.Stats(); s.Succeeded != jobs || s.Runners != 0 || s.Deliveries != 3*jobs {
			t.Errorf("Stats() = %+v", s)
		}
	})
}
