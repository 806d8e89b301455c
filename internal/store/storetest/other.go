package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

func testNote(t *testing.T, open Open) {
	s := start(t, open)
	a := fleet.Trouble{Pool: "win", Node: "pve1", Count: 2, Last: born, Class: "full", Text: "no space"}
	b := fleet.Trouble{Pool: "win", Count: 1, Last: born, Class: "other", Text: "x"}
	c := fleet.Trouble{Pool: "arm", Node: "pve1", Count: 1, Last: born}
	must(t, s.Note(t.Context(), []fleet.Trouble{a, b}, map[int]string{100: "seen", 101: "hidden"}, event(fleet.Quarantined, "", 0)))
	must(t, s.Note(t.Context(), nil, nil))
	a.Count = 3
	must(t, s.Note(t.Context(), []fleet.Trouble{a, c}, map[int]string{101: "", 102: "x"}))
	got := load(t, s)
	same(t, "troubles, by pool and node", got.Troubles, []fleet.Trouble{c, b, a})
	same(t, "quarantine", got.Quarantine, map[int]string{100: "seen", 102: "x"})
	a.Count = 0
	for range 2 {
		must(t, s.Note(t.Context(), []fleet.Trouble{a, a}, nil))
	}
	b.Text = strings.Repeat("ü", 1<<20)
	must(t, s.Note(t.Context(), []fleet.Trouble{b}, nil))
	stop(t, s)

	s = start(t, open)
	defer stop(t, s)
	got = load(t, s)
	if n := len(got.Troubles[1].Text); n == 0 || n > 1<<16 {
		t.Errorf("a text of a stranger is kept with %d bytes", n)
	}
	got.Troubles[1].Text, b.Text = "", ""
	same(t, "troubles", got.Troubles, []fleet.Trouble{c, b})
	same(t, "quarantine after opening again", got.Quarantine, map[int]string{100: "seen", 102: "x"})
	same(t, "events", stored(t, s), []fleet.Event{event(fleet.Quarantined, "", 0)})
}

// What is noted changes the books of the next reading, and neither those read before nor their rows.
func testNoteBetween(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	must(t, s.Create(t.Context(), []fleet.Runner{runner("a", 9)}))
	must(t, s.Observe(t.Context(), []fleet.Job{job(1, fleet.StatusQueued)}))
	trouble := fleet.Trouble{Pool: "win", Node: "pve1", Count: 1, Last: born, Text: "x"}
	first := load(t, s)
	must(t, s.Note(t.Context(), []fleet.Trouble{trouble}, map[int]string{100: "seen"}))
	second := load(t, s)
	must(t, s.Note(t.Context(), nil, map[int]string{101: "hidden"}))
	third := load(t, s)
	trouble.Count = 0
	must(t, s.Note(t.Context(), []fleet.Trouble{trouble}, map[int]string{100: "", 101: ""}))
	same(t, "all healed", load(t, s), first)
	trouble.Count = 1
	want := first
	want.Troubles, want.Quarantine = []fleet.Trouble{trouble}, map[int]string{100: "seen"}
	same(t, "noted", second, want)
	want.Quarantine = map[int]string{100: "seen", 101: "hidden"}
	same(t, "noted more", third, want)
	same(t, "nothing was noted at first", len(first.Troubles)+len(first.Quarantine), 0)
}

func testEventsInOrder(t *testing.T, open Open) {
	var e ear
	s := start(t, open, e.hear)
	defer stop(t, s)
	full := fleet.Event{
		At: born, Kind: fleet.Failed, Runner: "a", Pool: "win", Node: "pve1", VMID: 100, Job: 7,
		Took: 1500 * time.Millisecond, Waited: time.Nanosecond, Class: "full", Note: "why",
	}
	must(t, s.Create(t.Context(), []fleet.Runner{runner("a", 1)}, full, event(fleet.Planned, "a", 0)))
	must(t, s.End(t.Context(), "a", event(fleet.RunnerGone, "a", 0)))
	want := []fleet.Event{full, event(fleet.Planned, "a", 0), event(fleet.RunnerGone, "a", 0)}
	same(t, "stored", stored(t, s), want)
	same(t, "heard", e.all(), want)
	last, err := s.Events(t.Context(), 1)
	must(t, err)
	same(t, "newest first", last, want[2:])
	none, err := s.Events(t.Context(), 0)
	must(t, err)
	same(t, "none asked for", none, []fleet.Event{})
}

func testFailedIsAlone(t *testing.T, open Open) {
	var e ear
	s := start(t, open, e.hear)
	defer stop(t, s)
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { // half of them have the same name: all but one of these fail
			name := fmt.Sprintf("r%d", i)
			if i%2 == 1 {
				name = "same"
			}
			err := s.Create(t.Context(), []fleet.Runner{runner(name, i+1)}, event(fleet.Planned, name, int64(i)))
			if err != nil && (i%2 == 0 || !errors.Is(err, fleet.ErrTaken)) {
				t.Errorf("row %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if got := len(load(t, s).Runners); got != n/2+1 {
		t.Errorf("%d rows, want %d", got, n/2+1)
	}
	if got := len(stored(t, s)); got != n/2+1 {
		t.Errorf("%d events, want %d", got, n/2+1)
	}
	same(t, "heard as stored", e.all(), stored(t, s))
}

func testEndedContext(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Create(ctx, []fleet.Runner{runner("a", 1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if _, err := s.Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	same(t, "runners", load(t, s).Runners, []fleet.Runner{})

	// Whatever moment a context ends at: an error of the context's means that nothing was stored.
	var wg sync.WaitGroup
	for i := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(cancel)
		wg.Go(func() {
			name := fmt.Sprintf("r%d", i)
			err := s.Create(ctx, []fleet.Runner{runner(name, i+1)})
			again := s.Create(t.Context(), []fleet.Runner{runner(name, i+1)})
			if (err == nil) != errors.Is(again, fleet.ErrTaken) {
				t.Errorf("the first said %v, the second %v", err, again)
			}
		})
	}
	wg.Wait()
}

func testClosed(t *testing.T, open Open) {
	s := start(t, open)
	var wg sync.WaitGroup
	results := make([]error, 100)
	for i := range results {
		wg.Go(func() { results[i] = s.Create(t.Context(), []fleet.Runner{runner(fmt.Sprintf("r%d", i), i+1)}) })
	}
	stop(t, s)
	stop(t, s)
	wg.Wait()
	if err := s.Create(t.Context(), []fleet.Runner{runner("late", 1000)}); err == nil {
		t.Error("a closed store stored a row")
	}
	if _, err := s.Load(t.Context()); err == nil {
		t.Error("a closed store was read")
	}
	s = start(t, open)
	defer stop(t, s)
	rows := map[string]bool{}
	for _, r := range load(t, s).Runners {
		rows[r.Name] = true
	}
	for i, err := range results {
		if rows[fmt.Sprintf("r%d", i)] != (err == nil) {
			t.Errorf("row %d: stored %t, said %v", i, !(err == nil), err)
		}
	}
}

// Many callers at once: none loses a write, everybody sees what was stored before they ask.
func testTogether(t *testing.T, open Open) {
	var e ear
	s := start(t, open, e.hear)
	defer stop(t, s)
	const callers, each = 16, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				id := int64(c*each + i + 1)
				if changed, err := s.Record(t.Context(), fmt.Sprint(id), job(id, fleet.StatusQueued), event(fleet.JobQueued, "", id)); err != nil || !changed {
					t.Errorf("job %d: changed %t, %v", id, changed, err)
				}
				if _, ok, err := s.Job(t.Context(), id); err != nil || !ok {
					t.Errorf("job %d is not seen after it was stored: %v", id, err)
				}
				// All callers tell of this one, and only one of them brings news.
				if _, err := s.Record(t.Context(), fmt.Sprint("shared ", i), job(int64(callers*each+i+1), fleet.StatusQueued),
					event(fleet.JobQueued, "", int64(callers*each+i+1))); err != nil {
					t.Error(err)
				}
				if i%5 == 0 {
					if _, err := s.Load(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if got, want := len(load(t, s).Jobs), callers*each+each; got != want {
		t.Errorf("%d jobs, want %d", got, want)
	}
	told := map[int64]int{}
	for _, ev := range stored(t, s) {
		told[ev.Job]++
	}
	for id, n := range told {
		if n != 1 {
			t.Errorf("job %d was told %d times", id, n)
		}
	}
	same(t, "heard in the order of the trail", e.all(), stored(t, s))
}

func testCreateRace(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	var wg sync.WaitGroup
	won := make([]bool, 30)
	for i := range won {
		wg.Go(func() { won[i] = s.Create(t.Context(), []fleet.Runner{runner(fmt.Sprintf("r%d", i), 1)}) == nil })
	}
	wg.Wait()
	winners := 0
	for _, w := range won {
		if w {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d rows have the same VMID", winners)
	}
}

func testPrune(t *testing.T, open Open) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, open)
		defer stop(t, s)
		begin := time.Now()
		must(t, s.Create(t.Context(), []fleet.Runner{runner("k3f9-win-0000000a", 1)}))
		ours := job(2, fleet.StatusCompleted)
		ours.Runner = "k3f9-win-0000000a-2"
		record := func(guid string, j fleet.Job) {
			t.Helper()
			_, err := s.Record(t.Context(), guid, j, fleet.Event{Kind: fleet.JobQueued, Job: j.ID})
			must(t, err)
		}
		record("old", job(1, fleet.StatusCompleted))
		record("old, ours", ours)
		record("old, open", job(3, fleet.StatusQueued))
		time.Sleep(5 * 24 * time.Hour)
		record("young", job(4, fleet.StatusCompleted))
		if ev := stored(t, s); !ev[0].At.Equal(begin) || !ev[3].At.Equal(time.Now()) {
			t.Errorf("events without a time have that of their storing, not %s and %s", ev[0].At, ev[3].At)
		}
		left := func() (ids []int64) {
			for id := range int64(10) {
				if _, ok, err := s.Job(t.Context(), id); err != nil {
					t.Fatal(err)
				} else if ok {
					ids = append(ids, id)
				}
			}
			return ids
		}

		must(t, s.Prune(t.Context(), time.Now()))
		same(t, "tombstones stay for eight days", left(), []int64{1, 2, 3, 4})
		if got := len(stored(t, s)); got != 1 {
			t.Errorf("%d events are left, want 1", got)
		}
		time.Sleep(4 * 24 * time.Hour)
		must(t, s.Prune(t.Context(), begin.Add(-time.Hour)))
		same(t, "nothing is that old", left(), []int64{1, 2, 3, 4})
		for range 2 {
			must(t, s.Prune(t.Context(), time.Now()))
			same(t, "what is open or ours stays", left(), []int64{2, 3, 4})
		}
		record("young", job(5, fleet.StatusQueued)) // is remembered
		record("old", job(6, fleet.StatusQueued))   // is forgotten
		same(t, "deliveries", left(), []int64{2, 3, 4, 6})
		must(t, s.End(t.Context(), "k3f9-win-0000000a"))
		must(t, s.Prune(t.Context(), time.Now()))
		same(t, "its runner has ended", left(), []int64{3, 4, 6})
	})
}
