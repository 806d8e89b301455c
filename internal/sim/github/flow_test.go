package github_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	gogithub "github.com/google/go-github/v92/github"

	"mayfly/internal/fleet"
	mayfly "mayfly/internal/github"
	"mayfly/internal/sim/github"
)

var pool = fleet.Pool{Name: "win", Labels: []string{"self-hosted", "Windows", "X64", "win-2022"}}

// world is a simulated GitHub with our client and go-github before it, and the jobs that
// its webhooks told of. It must be made in a bubble.
type world struct {
	*github.GitHub
	t      *testing.T
	ours   *mayfly.Client
	theirs *gogithub.Client
	ledger *ledger
}

func newWorld(t *testing.T, cfg github.Config) *world {
	t.Helper()
	w := &world{t: t, ledger: newLedger()}
	hooks := httptest.NewTestServer(t, mayfly.NewWebhook([]fleet.Secret{"hook secret"}, w.ledger, func() {}, mayfly.WebhookOptions{}))
	if cfg.Scope == "" {
		cfg.Scope = "octo-org"
	}
	cfg.Token, cfg.WebhookSecret, cfg.WebhookURL = "ghp_token", "hook secret", "http://127.0.0.1/webhook"
	client := hooks.Client()
	cfg.Deliver = client.Do
	w.GitHub = github.New(cfg)
	t.Cleanup(w.Close)
	rest := httptest.NewTestServer(t, w.Handler())
	var err error
	w.ours, err = mayfly.New(mayfly.Config{URL: "https://ghes.example/" + cfg.Scope, Token: "ghp_token", HTTP: rest.Client()})
	if err != nil {
		t.Fatal(err)
	}
	w.theirs, err = gogithub.NewClient(gogithub.WithHTTPClient(rest.Client()), gogithub.WithAuthToken("ghp_token"),
		gogithub.WithEnterpriseURLs("https://ghes.example/", "https://ghes.example/"), gogithub.WithDisableRateLimitCheck())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) register(name string) fleet.Permit {
	w.t.Helper()
	p, err := w.ours.Register(w.t.Context(), name, pool)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// run connects a runner and takes one job; it ends as the job wants.
func (w *world) run(p fleet.Permit) {
	s, err := w.Connect(p.Secret.Reveal())
	if err != nil {
		w.t.Error(err)
		return
	}
	j, err := s.Next(w.t.Context())
	if err != nil {
		w.t.Error(err)
		return
	}
	select {
	case <-time.After(j.Length):
		err = s.Done(j.ID, j.Conclusion)
	case <-j.Cancelled:
		err = s.Done(j.ID, "cancelled")
	}
	if err != nil {
		w.t.Error(err)
	}
}

func TestAJobFromQueuedToCompleted(t *testing.T) {
	for _, scope := range []string{"octo-org", "octo-org/app"} {
		t.Run(scope, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, github.Config{Scope: scope, WebhookDelay: github.Range{From: time.Second, To: 2 * time.Second}})
				id := w.Submit(github.JobSpec{Labels: []string{"self-hosted", "WINDOWS"}, Length: 5 * time.Minute})
				synctest.Sleep(3 * time.Second)
				w.ledger.want(t, id, fleet.Job{Status: fleet.StatusQueued})

				permit := w.register("m1-win-00000001")
				if permit.Sent.IsZero() || permit.ID == 0 || len(permit.Secret.Reveal()) < 500 {
					t.Errorf("permit: id %d, sent %v, %d bytes of secret", permit.ID, permit.Sent, len(permit.Secret.Reveal()))
				}
				roster, err := w.ours.Roster(t.Context())
				if err != nil || len(roster.Runners) != 1 || roster.Runners[0] != (fleet.Registration{ID: permit.ID, Name: permit.Name}) {
					t.Fatalf("Roster() = %+v, %v", roster, err)
				}
				go w.run(permit)
				synctest.Sleep(time.Minute)
				w.ledger.want(t, id, fleet.Job{Status: fleet.StatusInProgress, Runner: permit.Name, RunnerID: permit.ID})
				if r, err := w.ours.Remove(t.Context(), permit.ID, permit.Name); r != fleet.Working {
					t.Errorf("Remove() of a busy runner = %q, %v; want working", r, err)
				}
				roster, err = w.ours.Roster(t.Context())
				if err != nil || len(roster.Runners) != 1 || !roster.Runners[0].Busy || !roster.Runners[0].Online {
					t.Errorf("Roster() = %+v, %v; want one busy runner online", roster, err)
				}
				looked, err := w.ours.Job(t.Context(), fleet.Job{ID: id, Repo: "octo-org/app"})
				if err != nil || looked.Status != fleet.StatusInProgress || looked.Runner != permit.Name {
					t.Errorf("Job() = %+v, %v", looked, err)
				}
				synctest.Sleep(5 * time.Minute)
				w.ledger.want(t, id, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "success", Runner: permit.Name, RunnerID: permit.ID})
				if r, err := w.ours.Remove(t.Context(), permit.ID, permit.Name); r != fleet.Absent {
					t.Errorf("Remove() after the job = %q, %v; want absent: it was ephemeral", r, err)
				}
				if s := w.Stats(); s.Succeeded != 1 || s.Runners != 0 || s.Killed != 0 || s.Deliveries != 3 {
					t.Errorf("Stats() = %+v", s)
				}
			})
		})
	}
}

func TestGoGithubUnderstandsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		ctx, actions := t.Context(), w.theirs.Actions
		id := w.Submit(github.JobSpec{Repo: "octo-org/app", Name: "build", Labels: []string{"windows"}})
		job, _, err := actions.GetWorkflowJobByID(ctx, "octo-org", "app", id)
		if err != nil || job.GetStatus() != "queued" || job.GetName() != "build" || job.GetRunnerID() != 0 {
			t.Errorf("GetWorkflowJobByID() = %v, %v", job, err)
		}
		for i := range 250 {
			body := gogithub.CreateJITConfigRequest{Name: "r" + time.Duration(i).String(), RunnerGroupID: 1, Labels: []string{"windows"}}
			made, answer, err := actions.CreateOrgJITConfig(ctx, "octo-org", body)
			if err != nil || answer.StatusCode != http.StatusCreated || made.GetEncodedJITConfig() == "" || made.GetRunner().GetStatus() != "offline" {
				t.Fatalf("CreateOrgJITConfig() = %v, %v", made, err)
			}
		}
		seen := map[int64]bool{}
		opt := &gogithub.ListRunnersOptions{ListOptions: gogithub.ListOptions{PerPage: 100}}
		for {
			list, answer, err := actions.ListOrganizationRunners(ctx, "octo-org", opt)
			if err != nil || list.TotalCount != 250 {
				t.Fatalf("ListOrganizationRunners() = %v, %v", list, err)
			}
			for _, r := range list.Runners {
				seen[r.GetID()] = true
			}
			if answer.NextPage == 0 {
				break
			}
			opt.Page = answer.NextPage
		}
		if len(seen) != 250 {
			t.Errorf("%d runners listed, want 250", len(seen))
		}
		roster, err := w.ours.Roster(ctx)
		if err != nil || len(roster.Runners) != 250 {
			t.Errorf("our Roster() has %d runners, %v", len(roster.Runners), err)
		}
		one := "r5ns"
		named, _, err := actions.ListOrganizationRunners(ctx, "octo-org", &gogithub.ListRunnersOptions{Name: &one})
		if err != nil || named.TotalCount != 1 || named.Runners[0].GetName() != one {
			t.Fatalf("ListOrganizationRunners(name) = %v, %v", named, err)
		}
		if _, err := actions.RemoveOrganizationRunner(ctx, "octo-org", named.Runners[0].GetID()); err != nil {
			t.Error(err)
		}
		if tok, _, err := actions.CreateOrganizationRegistrationToken(ctx, "octo-org"); err != nil || tok.GetToken() == "" || tok.GetExpiresAt().IsZero() {
			t.Errorf("CreateOrganizationRegistrationToken() = %v, %v", tok, err)
		}
		status := func(body gogithub.CreateJITConfigRequest) int {
			_, answer, _ := actions.CreateOrgJITConfig(ctx, "octo-org", body)
			return answer.StatusCode
		}
		for name, c := range map[string]struct {
			body gogithub.CreateJITConfigRequest
			want int
		}{
			"name taken":  {gogithub.CreateJITConfigRequest{Name: "r6ns", RunnerGroupID: 1, Labels: []string{"a"}}, 409},
			"no labels":   {gogithub.CreateJITConfigRequest{Name: "x", RunnerGroupID: 1, Labels: []string{}}, 422},
			"101 labels":  {gogithub.CreateJITConfigRequest{Name: "x", RunnerGroupID: 1, Labels: make([]string, 101)}, 422},
			"long name":   {gogithub.CreateJITConfigRequest{Name: string(make([]byte, 65)), RunnerGroupID: 1, Labels: []string{"a"}}, 422},
			"other group": {gogithub.CreateJITConfigRequest{Name: "x", RunnerGroupID: 9, Labels: []string{"a"}}, 422},
		} {
			if got := status(c.body); got != c.want {
				t.Errorf("%s: status %d, want %d", name, got, c.want)
			}
		}
		if _, answer, _ := actions.ListOrganizationRunners(ctx, "elsewhere", nil); answer.StatusCode != http.StatusNotFound {
			t.Errorf("another scope: status %d, want 404", answer.StatusCode)
		}
	})
}

func TestAJobGoesToAnyMatchingRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{Seed: 7})
		t.Log("seed 7")
		other := pool
		other.Labels = []string{"self-hosted", "linux"}
		linux, err := w.ours.Register(t.Context(), "m1-linux-00000000", other)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			s, err := w.Connect(linux.Secret.Reveal())
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Next(t.Context()); !errors.Is(err, github.ErrRemoved) {
				t.Errorf("the runner without the label got %v, want ErrRemoved", err)
			}
		}()
		for i := range 10 {
			go w.run(w.register("m1-win-0000000" + string(rune('0'+i))))
		}
		synctest.Wait()
		first, inOrder := "", true
		for i := range 10 {
			w.Submit(github.JobSpec{Labels: []string{"win-2022", "Windows", "windows"}, Length: time.Hour})
			if j := w.Jobs()[i]; j.Runner != "m1-win-0000000"+string(rune('0'+i)) {
				inOrder = false
			} else if first == "" {
				first = j.Runner
			}
		}
		if inOrder {
			t.Error("every job went to the runner that registered with it; want random ones")
		}
		synctest.Wait()
		if s := w.Stats(); s.Running != 10 || s.Busy != 10 || s.Queued != 0 {
			t.Errorf("Stats() = %+v, want 10 running", s)
		}
		if r, err := w.ours.Remove(t.Context(), linux.ID, ""); r != fleet.Removed {
			t.Errorf("Remove() of the idle runner = %q, %v", r, err)
		}
		synctest.Sleep(time.Hour)
	})
}

func TestALostMachineFailsItsJobAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		permit := w.register("m1-win-00000001")
		id := w.Submit(github.JobSpec{Labels: []string{"windows"}})
		s, err := w.Connect(permit.Secret.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Connect(permit.Secret.Reveal()); !errors.Is(err, github.ErrConflict) {
			t.Errorf("a second Connect: %v, want ErrConflict", err)
		}
		s.Lost()
		s.Lost() // again: nothing
		synctest.Sleep(9 * time.Minute)
		if r, err := w.ours.Remove(t.Context(), permit.ID, permit.Name); r != fleet.Working {
			t.Errorf("Remove() before the lock ran out = %q, %v; want working", r, err)
		}
		w.ledger.want(t, id, fleet.Job{Status: fleet.StatusInProgress, Runner: permit.Name, RunnerID: permit.ID})
		synctest.Sleep(2 * time.Minute)
		w.ledger.want(t, id, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "failure", Runner: permit.Name, RunnerID: permit.ID})
		if s := w.Stats(); s.Killed != 1 || s.Failed != 1 || s.Runners != 1 || s.Online != 0 {
			t.Errorf("Stats() = %+v, want one killed, and its ghost", s)
		}
		if r, err := w.ours.Remove(t.Context(), permit.ID, permit.Name); r != fleet.Removed {
			t.Errorf("Remove() of the ghost = %q, %v; want removed", r, err)
		}
		if err := s.Done(id, "success"); err == nil {
			t.Error("Done() after Lost: no error")
		}
	})
}

func TestAJobNotPickedUpIsQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		dead := w.register("m1-win-00000001")
		s, err := w.Connect(dead.Secret.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Next() = %v", err)
		}
		s.Lost() // GitHub still believes that it listens
		id := w.Submit(github.JobSpec{Labels: []string{"windows"}, Length: time.Minute})
		go w.run(w.register("m1-win-00000002"))
		synctest.Sleep(59 * time.Second)
		w.ledger.want(t, id, fleet.Job{Status: fleet.StatusQueued})
		if r, err := w.ours.Remove(t.Context(), dead.ID, dead.Name); r != fleet.Working {
			t.Errorf("Remove() of a runner that was given a job = %q, %v; want working", r, err)
		}
		synctest.Sleep(time.Second)
		w.ledger.want(t, id, fleet.Job{Status: fleet.StatusInProgress, Runner: "m1-win-00000002", RunnerID: dead.ID + 1})
		synctest.Sleep(time.Minute)
		if s := w.Stats(); s.Succeeded != 1 || s.Killed != 0 {
			t.Errorf("Stats() = %+v", s)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		queued := w.Submit(github.JobSpec{Labels: []string{"windows"}})
		w.Cancel(queued)
		synctest.Wait()
		w.ledger.want(t, queued, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "cancelled"})

		permit := w.register("m1-win-00000001")
		go w.run(permit)
		synctest.Wait()
		running := w.Submit(github.JobSpec{Labels: []string{"windows"}, Length: time.Hour})
		synctest.Wait()
		w.Cancel(running)
		w.Cancel(running)
		synctest.Wait()
		w.ledger.want(t, running, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "cancelled", Runner: permit.Name, RunnerID: permit.ID})

		deaf := w.register("m1-win-00000002")
		s, err := w.Connect(deaf.Secret.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		stuck := w.Submit(github.JobSpec{Labels: []string{"windows"}})
		if _, err := s.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.Cancel(stuck)
		synctest.Sleep(4 * time.Minute)
		w.ledger.want(t, stuck, fleet.Job{Status: fleet.StatusInProgress, Runner: deaf.Name, RunnerID: deaf.ID})
		synctest.Sleep(2 * time.Minute)
		w.ledger.want(t, stuck, fleet.Job{Status: fleet.StatusCompleted, Conclusion: "cancelled", Runner: deaf.Name, RunnerID: deaf.ID})
		if s := w.Stats(); s.Cancelled != 3 || s.Killed != 0 {
			t.Errorf("Stats() = %+v", s)
		}
	})
}

func TestIdleAndUnusedRunnersAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{IdleDrop: 5 * time.Minute})
		s, err := w.Connect(w.register("m1-win-00000001").Secret.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Next(t.Context()); !errors.Is(err, github.ErrRemoved) || time.Since(start) != 5*time.Minute {
			t.Errorf("Next() = %v after %v, want ErrRemoved after 5 min", err, time.Since(start))
		}
		unused := w.register("m1-win-00000002")
		synctest.Sleep(25 * time.Hour)
		if r, err := w.ours.Remove(t.Context(), unused.ID, unused.Name); r != fleet.Absent {
			t.Errorf("Remove() after a day = %q, %v; want absent", r, err)
		}
		if _, err := w.Connect(unused.Secret.Reveal()); !errors.Is(err, github.ErrRemoved) {
			t.Errorf("Connect() = %v, want ErrRemoved", err)
		}
		for _, bad := range []string{"", "x", "e30=", "bm90IGpzb24="} {
			if _, err := w.Connect(bad); !errors.Is(err, github.ErrBadConfig) {
				t.Errorf("Connect(%q) = %v, want ErrBadConfig", bad, err)
			}
		}
	})
}
