package github_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/fleet"
)

// ledger is a store in memory that keeps the furthest of each job, and counts deliveries.
type ledger struct {
	mu    sync.Mutex
	jobs  map[int64]fleet.Job
	guids map[string]int
	order []string // status of each delivery
}

func newLedger() *ledger { return &ledger{jobs: map[int64]fleet.Job{}, guids: map[string]int{}} }

func (l *ledger) Record(_ context.Context, guid string, job fleet.Job, _ ...fleet.Event) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guids[guid]++
	l.order = append(l.order, string(job.Status))
	known, ok := l.jobs[job.ID]
	if ok && known.Status.Rank() >= job.Status.Rank() {
		return false, nil
	}
	l.jobs[job.ID] = job
	return true, nil
}

func (l *ledger) count() (jobs, deliveries, doubled int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.guids {
		deliveries += n
		doubled += n - 1
	}
	return len(l.jobs), deliveries, doubled
}

// want compares status, conclusion and runner of what was told of a job.
func (l *ledger) want(t *testing.T, id int64, want fleet.Job) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.jobs[id]
	got = fleet.Job{Status: got.Status, Conclusion: got.Conclusion, Runner: got.Runner, RunnerID: got.RunnerID}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ledger of job %d (-want +got):\n%s", id, d)
	}
}

// timeout is the test's context with a deadline, on the bubble's clock.
func timeout(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
