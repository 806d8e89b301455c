package storetest

import (
	"fmt"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

// known is a job in one line: what a step must leave behind.
func known(j fleet.Job) string {
	s := fmt.Sprintf("%s %s %d", j.Status, j.Runner, j.RunnerID)
	if j.Conclusion != "" {
		s += " " + j.Conclusion
	}
	if !j.Received.IsZero() {
		s += fmt.Sprintf(" +%s", j.Received.Sub(born))
	}
	return s
}

// The steps of one job as they may come, and what must be known after each.
func testJobSteps(t *testing.T, open Open) {
	type step struct {
		news    fleet.Job
		want    string
		changed bool
	}
	waiting, queued := fleet.Job{Status: fleet.StatusWaiting}, fleet.Job{Status: fleet.StatusQueued}
	runs := fleet.Job{Status: fleet.StatusInProgress, RunnerID: 7, Runner: "a"}
	done := fleet.Job{Status: fleet.StatusCompleted, RunnerID: 7, Runner: "a", Conclusion: "success"}
	at := func(minutes int) fleet.Job {
		return fleet.Job{Status: fleet.StatusQueued, Received: born.Add(time.Duration(minutes) * time.Minute)}
	}
	s := start(t, open)
	defer stop(t, s)
	id := int64(0)
	for name, steps := range map[string][]step{
		"forward": {
			{queued, "queued  0", true},
			{runs, "in_progress a 7", true},
			{done, "completed a 7 success", true},
		},
		"twice": {
			{queued, "queued  0", true},
			{queued, "queued  0", false},
			{done, "completed a 7 success", true},
			{done, "completed a 7 success", false},
		},
		"waiting and queued alternate": {
			{waiting, "waiting  0", true},
			{queued, "queued  0", true},
			{waiting, "waiting  0", true},
		},
		"backward": {
			{runs, "in_progress a 7", true},
			{queued, "in_progress a 7", false},
			{waiting, "in_progress a 7", false},
		},
		"late, and it alone knows the runner": {
			{fleet.Job{Status: fleet.StatusCompleted, Conclusion: "failure"}, "completed  0 failure", true},
			{runs, "completed a 7 failure", true},
			{fleet.Job{Status: fleet.StatusInProgress, RunnerID: 8, Runner: "b"}, "completed a 7 failure", false},
		},
		"another runner took it": {
			{runs, "in_progress a 7", true},
			{fleet.Job{Status: fleet.StatusInProgress, RunnerID: 8, Runner: "b"}, "in_progress b 8", true},
		},
		"never blanked": {
			{runs, "in_progress a 7", true},
			{fleet.Job{Status: fleet.StatusInProgress}, "in_progress a 7", false},
			{fleet.Job{Status: fleet.StatusCompleted, Conclusion: "success"}, "completed a 7 success", true},
			{fleet.Job{Status: fleet.StatusCompleted}, "completed a 7 success", false},
		},
		"the first conclusion stays": {
			{fleet.Job{Status: fleet.StatusInProgress, Conclusion: "success"}, "in_progress  0", true},
			{fleet.Job{Status: fleet.StatusCompleted}, "completed  0", true},
			{fleet.Job{Status: fleet.StatusCompleted, Conclusion: "cancelled"}, "completed  0 cancelled", true},
			{fleet.Job{Status: fleet.StatusCompleted, Conclusion: "failure"}, "completed  0 cancelled", false},
		},
		"received is the earliest": {
			{queued, "queued  0", true},
			{at(5), "queued  0 +5m0s", false},
			{at(3), "queued  0 +3m0s", false},
			{at(9), "queued  0 +3m0s", false},
			{runs, "in_progress a 7 +3m0s", true},
			{at(2), "in_progress a 7 +2m0s", false},
		},
		"an invented status": {
			{fleet.Job{Status: "requested"}, " ", false},
			{queued, "queued  0", true},
			{fleet.Job{Status: "requested"}, "queued  0", false},
		},
	} {
		id++
		for i, step := range steps {
			news := step.news
			news.ID = id
			changed, err := s.Record(t.Context(), fmt.Sprintf("guid %d %d", id, i), news)
			must(t, err)
			got, ok, err := s.Job(t.Context(), id)
			must(t, err)
			if !ok {
				if step.want != " " {
					t.Errorf("%s, step %d: the job is not known", name, i+1)
				}
				continue
			}
			if known(got) != step.want || changed != step.changed {
				t.Errorf("%s, step %d: got %q, changed %t; want %q, %t", name, i+1, known(got), changed, step.want, step.changed)
			}
		}
	}
}

func testTombstone(t *testing.T, open Open) {
	s := start(t, open)
	_, err := s.Record(t.Context(), "1", job(1, fleet.StatusCompleted))
	must(t, err)
	must(t, s.Observe(t.Context(), []fleet.Job{job(2, fleet.StatusInProgress)}))
	stop(t, s)
	s = start(t, open)
	defer stop(t, s)
	must(t, s.Observe(t.Context(), []fleet.Job{job(1, fleet.StatusQueued), job(2, fleet.StatusQueued), job(3, fleet.StatusQueued)}))
	b := load(t, s)
	if len(b.Jobs) != 2 || b.Jobs[0].Status != fleet.StatusInProgress || b.Jobs[1].ID != 3 {
		t.Errorf("a late queued revived a job: %+v", b.Jobs)
	}
	counts, err := s.JobCounts(t.Context())
	must(t, err)
	same(t, "counts", counts, map[fleet.JobStatus]int{fleet.StatusQueued: 1, fleet.StatusInProgress: 1, fleet.StatusCompleted: 1})
}

func testDelivery(t *testing.T, open Open) {
	var e ear
	s := start(t, open, e.hear)
	if changed, err := s.Record(t.Context(), "guid", fleet.Job{ID: 0, Status: fleet.StatusQueued}, event(fleet.JobQueued, "", 0)); err == nil || changed {
		t.Errorf("a job without an id: changed %t, %v", changed, err)
	}
	// Its redelivery has the same GUID, and nothing of the failed one is stored.
	changed, err := s.Record(t.Context(), "guid", job(1, fleet.StatusQueued), event(fleet.JobQueued, "", 1))
	if must(t, err); !changed {
		t.Error("the redelivery of a failed delivery changed nothing")
	}
	stop(t, s)
	s = start(t, open, e.hear)
	defer stop(t, s)
	changed, err = s.Record(t.Context(), "guid", job(1, fleet.StatusCompleted), event(fleet.JobEnded, "", 1))
	if must(t, err); changed {
		t.Error("the same delivery again changed something")
	}
	changed, err = s.Record(t.Context(), "another hook's guid", job(1, fleet.StatusQueued), event(fleet.JobQueued, "", 1))
	if must(t, err); changed {
		t.Error("the same event by another hook changed something")
	}
	for range 2 {
		if _, err = s.Record(t.Context(), "", job(2, fleet.StatusQueued)); err != nil {
			t.Error(err)
		}
	}
	want := []fleet.Event{event(fleet.JobQueued, "", 1)}
	same(t, "events stored", stored(t, s), want)
	same(t, "events heard", e.all(), want)
}

func testChecked(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	j := job(1, fleet.StatusQueued)
	must(t, s.Observe(t.Context(), []fleet.Job{j}))
	first, _, err := s.Job(t.Context(), 1)
	must(t, err)
	j.Checked = born.Add(time.Hour)
	must(t, s.Observe(t.Context(), []fleet.Job{j}, event(fleet.JobQueued, "", 1)))
	second, _, err := s.Job(t.Context(), 1)
	must(t, err)
	want := first
	want.Checked = j.Checked
	same(t, "only Checked is new", second, want)
	same(t, "and that is no event", stored(t, s), []fleet.Event{})
	j.Checked = born
	must(t, s.Observe(t.Context(), []fleet.Job{j}))
	third, _, err := s.Job(t.Context(), 1)
	must(t, err)
	same(t, "Checked never goes back", third, want)
}

func testObserveEvents(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	must(t, s.Observe(t.Context(), []fleet.Job{job(1, fleet.StatusInProgress)}, event(fleet.JobStarted, "", 1)))
	must(t, s.Observe(t.Context(), []fleet.Job{job(1, fleet.StatusInProgress), job(2, fleet.StatusQueued)},
		event(fleet.JobStarted, "", 1), event(fleet.JobQueued, "", 2), event(fleet.LookHealed, "", 0), event(fleet.RunnerBusy, "a", 1)))
	same(t, "a step that is known already is not told again", stored(t, s), []fleet.Event{
		event(fleet.JobStarted, "", 1), event(fleet.JobQueued, "", 2), event(fleet.LookHealed, "", 0), event(fleet.RunnerBusy, "a", 1),
	})
}

func testCompletedOfOurs(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	must(t, s.Create(t.Context(), []fleet.Runner{runner("k3f9-win-0000000a", 1), runner("k3f9-win-0000000b", 2)}))
	ran := func(id int64, by string) fleet.Job {
		j := job(id, fleet.StatusCompleted)
		j.Runner = by
		return j
	}
	must(t, s.Observe(t.Context(), []fleet.Job{
		ran(5, "k3f9-win-0000000a"), ran(4, "k3f9-win-0000000b-2"), ran(3, "k3f9-win-0000000c"), ran(2, ""),
		job(1, fleet.StatusQueued),
	}))
	ids := func() (ids []int64) {
		for _, j := range load(t, s).Jobs {
			ids = append(ids, j.ID)
		}
		return ids
	}
	same(t, "jobs, by creation", ids(), []int64{1, 4, 5})
	must(t, s.End(t.Context(), "k3f9-win-0000000b"))
	same(t, "jobs after one runner's end", ids(), []int64{1, 5})
}

// An adopted VM may have run jobs before its row was made.
func testCompletedOfAdopted(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	ran := job(1, fleet.StatusCompleted)
	ran.Runner = "k3f9-win-0000000a-2"
	must(t, s.Observe(t.Context(), []fleet.Job{ran, job(2, fleet.StatusQueued)}))
	adopted := runner("k3f9-win-0000000a", 1)
	adopted.Adopted = true
	before := load(t, s)
	for range 2 {
		same(t, "jobs without the row", len(load(t, s).Jobs), 1)
		must(t, s.Create(t.Context(), []fleet.Runner{adopted}))
		got := load(t, s).Jobs
		if len(got) != 2 || got[0].ID != 1 {
			t.Errorf("its completed job is not there: %+v", got)
		}
		must(t, s.End(t.Context(), adopted.Name))
	}
	same(t, "books in the end", load(t, s), before)
}
