package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

// loadAnew reads everything from the database.
func (s *Store) loadAnew(t testing.TB) fleet.Books {
	t.Helper()
	tx, err := s.reads.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	b, err := loadAll(t.Context(), tx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func cloneBooks(b fleet.Books) fleet.Books {
	b.Runners, b.Jobs, b.Troubles = slices.Clone(b.Runners), slices.Clone(b.Jobs), slices.Clone(b.Troubles)
	q := map[int]string{}
	for id, why := range b.Quarantine {
		q[id] = why
	}
	b.Quarantine = q
	return b
}

func diffBooks(t testing.TB, got, want fleet.Books) {
	t.Helper()
	if !slices.Equal(got.Runners, want.Runners) {
		t.Errorf("runners: got %d %+v\nwant %d %+v", len(got.Runners), got.Runners, len(want.Runners), want.Runners)
	}
	if !slices.EqualFunc(got.Jobs, want.Jobs, func(a, b fleet.Job) bool { return reflect.DeepEqual(a, b) }) {
		t.Errorf("jobs: got %d %+v\nwant %d %+v", len(got.Jobs), got.Jobs, len(want.Jobs), want.Jobs)
	}
	if got.LastVMID != want.LastVMID || !reflect.DeepEqual(got.Quarantine, want.Quarantine) || !slices.Equal(got.Troubles, want.Troubles) {
		t.Errorf("got %d %v %+v\nwant %d %v %+v", got.LastVMID, got.Quarantine, got.Troubles, want.LastVMID, want.Quarantine, want.Troubles)
	}
}

// What Load makes of the last edition is what the database holds, whatever was written in between; and
// no edition changes after it was given out.
func TestPatchedAsReadAnew(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	path := filepath.Join(t.TempDir(), "mayfly.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), path, Options{Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		random := rand.New(rand.NewPCG(seed, 0))
		var kept, copies []fleet.Books
		same, patched, whole := 0, 0, 0
		for range 200 {
			most := []int{0, 1, 4, 4, 40, 200}[random.IntN(6)]
			for range random.IntN(most + 1) {
				s.writeAny(t, random)
			}
			switch last, touched := s.changes.since(); {
			case last == nil || touched.all > 0:
				whole++
			case touched.nothing():
				same++
			default:
				patched++
			}
			b, err := s.Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			diffBooks(t, b, s.loadAnew(t))
			kept, copies = append(kept, b), append(copies, cloneBooks(b))
			if t.Failed() {
				return
			}
		}
		for i := range kept {
			diffBooks(t, kept[i], copies[i])
		}
		t.Logf("%d the same, %d patched, %d read anew", same, patched, whole)
		if same == 0 || patched < 50 || whole < 5 {
			t.Error("not all ways were taken")
		}
	})
}

// writeAny does something to the store that may fail, as its rules want it.
func (s *Store) writeAny(t *testing.T, random *rand.Rand) {
	n := random.IntN(100)
	name := fmt.Sprintf("k3f9-win-%08x", n)
	if n < 3 {
		name = fmt.Sprintf("odd \xff'\"\x00 %d", n)
	}
	r := fleet.Runner{
		Name: name, VMID: 1000 + n, Phase: fleet.Phases()[random.IntN(3)], Born: time.Now(),
		Adopted: random.IntN(5) == 0, Cause: fmt.Sprint(random.IntN(9)),
	}
	j := fleet.Job{
		ID: 1 + random.Int64N(200), Status: []fleet.JobStatus{fleet.StatusQueued, fleet.StatusInProgress, fleet.StatusCompleted}[random.IntN(3)],
		Labels: []string{"windows"}, Created: time.Now().Add(-time.Duration(random.IntN(3)) * time.Minute),
	}
	if random.IntN(2) == 0 {
		j.Runner = name + []string{"", "-2"}[random.IntN(2)]
	}
	switch random.IntN(12) {
	case 0, 1, 2:
		_ = s.Create(t.Context(), []fleet.Runner{r})
	case 3, 4:
		_ = s.Update(t.Context(), r)
	case 5, 6:
		_ = s.End(t.Context(), name)
	case 7, 8:
		_, _ = s.Record(t.Context(), "", j)
	case 9:
		another := j
		another.ID += 200
		_ = s.Observe(t.Context(), []fleet.Job{j, another, {ID: -random.Int64N(2)}})
	case 10:
		_ = s.Note(t.Context(), []fleet.Trouble{{Pool: name, Count: random.IntN(2), Last: time.Now()}}, map[int]string{n: r.Cause[:random.IntN(2)]})
	case 11:
		if n < 20 { // long enough for tombstones to go, and those of runners that end and come again
			time.Sleep(keepTombstones)
			_ = s.Prune(t.Context(), time.Now())
		}
	}
}

// Books that are read while others write and read are one moment's: what is written together is read together,
// and whatever was stored before they were asked for is in them.
func TestLoadsAreSnapshots(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const writers, rounds, together = 4, 150, 3
	var stored [writers]atomic.Int64
	round := func(j fleet.Job) int64 { return j.Checked.Unix() }
	write := func(w int, n int64) error {
		jobs := make([]fleet.Job, together)
		for i := range jobs {
			jobs[i] = fleet.Job{ID: int64(w*together + i + 1), Status: fleet.StatusQueued, Checked: time.Unix(n, 0)}
		}
		return s.Observe(t.Context(), jobs)
	}
	done, finish := context.WithCancel(t.Context())
	var writing, reading sync.WaitGroup
	for w := range writers {
		if err := write(w, 1); err != nil {
			t.Fatal(err)
		}
		writing.Go(func() {
			name := fmt.Sprint("r", w)
			for n := int64(2); n <= rounds; n++ {
				// A row comes or goes each time, so that no Load finds only jobs.
				var err error
				if n%2 == 0 {
					err = s.Create(t.Context(), []fleet.Runner{{Name: name, VMID: w + 1, Phase: fleet.Idle}})
				} else {
					err = s.End(t.Context(), name)
				}
				if err != nil {
					t.Error(err)
				}
				if err := write(w, n); err != nil {
					t.Error(err)
				}
				stored[w].Store(n)
			}
		})
	}
	for range 4 {
		reading.Go(func() {
			for done.Err() == nil {
				var before [writers]int64
				for w := range before {
					before[w] = stored[w].Load()
				}
				b, err := s.Load(t.Context())
				if err != nil || len(b.Jobs) != writers*together {
					t.Errorf("%d jobs, %v", len(b.Jobs), err)
					return
				}
				for w := range writers {
					first := round(b.Jobs[w*together])
					for _, j := range b.Jobs[w*together : (w+1)*together] {
						if round(j) != first || first < before[w] {
							t.Errorf("job %d is of round %d, its neighbour of %d, and %d was stored before", j.ID, round(j), first, before[w])
						}
					}
				}
			}
		})
	}
	writing.Wait()
	finish()
	reading.Wait()
	b, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	diffBooks(t, b, s.loadAnew(t))
}

// The completed jobs of a row that comes, goes and comes again do so with it.
func TestCompletedComeAndGo(t *testing.T) {
	const name = "k3f9-win-0000000a"
	path := filepath.Join(t.TempDir(), "mayfly.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), path, Options{Fast: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		row := []fleet.Runner{{Name: name, VMID: 1, Phase: fleet.Busy, Adopted: true}}
		for i, step := range []struct {
			write func() error
			jobs  int
		}{
			{func() error {
				return s.Observe(t.Context(), []fleet.Job{
					{ID: 2, Status: fleet.StatusCompleted, Runner: name},
					{ID: 1, Status: fleet.StatusCompleted, Runner: name + "-2"},
					{ID: 3, Status: fleet.StatusCompleted, Runner: "k3f9-win-0000000b"},
				})
			}, 0},
			{func() error { return s.Create(t.Context(), row) }, 2},
			{func() error { return s.Update(t.Context(), row[0]) }, 2},
			{func() error { return s.End(t.Context(), name) }, 0},
			{func() error { return s.Create(t.Context(), row) }, 2},
			// All at once, so that the row is in the books before and after.
			{func() error {
				if err := s.End(t.Context(), name); err != nil {
					return err
				}
				time.Sleep(keepTombstones + time.Hour)
				if err := s.Prune(t.Context(), time.Now()); err != nil {
					return err
				}
				return s.Create(t.Context(), row)
			}, 0},
		} {
			if err := step.write(); err != nil {
				t.Fatal(err)
			}
			if last, touched := s.changes.since(); i > 0 && (last == nil || touched.all > 0) {
				t.Errorf("step %d is not patched", i+1)
			}
			b, err := s.Load(t.Context())
			if err != nil || len(b.Jobs) != step.jobs {
				t.Errorf("step %d: %+v, %v", i+1, b.Jobs, err)
			}
			diffBooks(t, b, s.loadAnew(t))
		}
	})
}

// A Load that fails forgets nothing of what it should have read.
func TestLoadAfterFailed(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ended, end := context.WithCancel(t.Context())
	end()
	for i, write := range []func() error{
		func() error { return nil },
		func() error { return s.Create(t.Context(), []fleet.Runner{{Name: "a", VMID: 1, Phase: fleet.Idle}}) },
		func() error { return s.Note(t.Context(), nil, map[int]string{7: "seen"}) },
		func() error { return s.End(t.Context(), "a") },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(ended); err == nil {
			t.Errorf("step %d: a Load whose context had ended found something", i+1)
		}
		b, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		diffBooks(t, b, s.loadAnew(t))
	}
}

// A Load that began before another and comes after it may have an older snapshot: it takes the later edition.
func TestLateLoad(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	late, _ := s.changes.now()
	old := &edition{batches: late}
	for vmid := range 2 {
		if err := s.Create(t.Context(), []fleet.Runner{{Name: fmt.Sprint(vmid), VMID: vmid + 1, Phase: fleet.Idle}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last, _ := s.changes.since()
	if e, err := s.load(t.Context(), late); err != nil || e != last {
		t.Errorf("the late Load made an edition of its own: %+v, %v", e, err)
	}
	s.changes.publish(old)
	if e, _ := s.changes.since(); e != last {
		t.Errorf("an older edition was published: %+v", e)
	}
}

// What a Load finds touched and not yet committed, the next one reads again.
func TestLoadAmidWrite(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), Options{Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for what, write := range map[string]func(*tx) error{
		"a job":  func(t *tx) error { _, err := t.mergeJob(fleet.Job{ID: 1, Status: fleet.StatusQueued}); return err },
		"a note": func(t *tx) error { return t.note(nil, map[int]string{7: "seen"}) },
		"much": func(t *tx) error {
			for id := range int64(2 * fewRows) {
				if _, err := t.mergeJob(fleet.Job{ID: 10 + id, Status: fleet.StatusQueued}); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		before, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var amid fleet.Books
		if err := s.do(t.Context(), func(tx *tx) (err error) {
			if err := write(tx); err != nil {
				return err
			}
			amid, err = s.Load(t.Context())
			return err
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		diffBooks(t, amid, before)
		after, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		diffBooks(t, after, s.loadAnew(t))
		if t.Failed() {
			t.Fatal(what)
		}
	}
}
