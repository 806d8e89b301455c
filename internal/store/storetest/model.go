package storetest

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

// A model is what a database must hold, in maps.
type model struct {
	runners    map[string]fleet.Runner
	jobs       map[int64]fleet.Job
	deliveries map[string]bool
	events     []fleet.Event
	troubles   map[string]fleet.Trouble
	quarantine map[int]string
	last       int
	crowds     int64 // how many jobs of crowds there are

	read, copied fleet.Books // the books read last, and what was in them then
}

// testModel does random things to the database and to the model, opening it anew now and then.
func testModel(t *testing.T, fresh func(t testing.TB) Open) {
	rapid.Check(t, func(rt *rapid.T) {
		open := fresh(t)
		var e ear
		s := start(t, open, e.hear)
		defer func() { stop(t, s) }()
		m := &model{
			runners: map[string]fleet.Runner{}, jobs: map[int64]fleet.Job{}, deliveries: map[string]bool{},
			troubles: map[string]fleet.Trouble{}, quarantine: map[int]string{},
		}
		rt.Repeat(map[string]func(*rapid.T){
			"create":  func(rt *rapid.T) { m.create(rt, s) },
			"update":  func(rt *rapid.T) { m.update(rt, s) },
			"end":     func(rt *rapid.T) { m.end(rt, s) },
			"record":  func(rt *rapid.T) { m.record(rt, s) },
			"observe": func(rt *rapid.T) { m.observe(rt, s) },
			"note":    func(rt *rapid.T) { m.note(rt, s) },
			"crowd":   func(rt *rapid.T) { m.crowd(rt, s) },
			"reopen": func(rt *rapid.T) {
				stop(t, s)
				s = start(t, open, e.hear)
			},
			// A database may read again only what was written since: so sometimes that is much.
			"": func(rt *rapid.T) {
				if rapid.Bool().Draw(rt, "look") {
					m.check(rt, s, &e)
				}
			},
		})
		m.check(rt, s, &e)
	})
}

var (
	names    = rapid.SampledFrom([]string{"k3f9-win-0000000a", "k3f9-win-0000000b", "k3f9-win-0000000c"})
	vmids    = rapid.IntRange(1, 4)
	phases   = rapid.SampledFrom(fleet.Phases())
	jobIDs   = rapid.Int64Range(1, 5)
	statuses = rapid.SampledFrom([]fleet.JobStatus{fleet.StatusWaiting, fleet.StatusQueued, fleet.StatusInProgress, fleet.StatusCompleted, "new"})
	moments  = rapid.Custom(func(t *rapid.T) time.Time {
		if n := rapid.Int64Range(0, 5).Draw(t, "minute"); n > 0 {
			return born.Add(time.Duration(n) * time.Minute)
		}
		return time.Time{}
	})
	drawRunner = rapid.Custom(func(t *rapid.T) fleet.Runner {
		return fleet.Runner{
			Name: names.Draw(t, "name"), Pool: "win", Node: "pve1", VMID: vmids.Draw(t, "vmid"), Phase: phases.Draw(t, "phase"),
			Since: moments.Draw(t, "since"), Born: born, UPID: rapid.String().Draw(t, "upid"), AskedAt: moments.Draw(t, "asked"),
			Adopted: rapid.Bool().Draw(t, "adopted"), RunnerID: rapid.Int64().Draw(t, "id"), Cause: rapid.String().Draw(t, "cause"),
		}
	})
	drawJob = rapid.Custom(func(t *rapid.T) fleet.Job {
		j := fleet.Job{
			ID: jobIDs.Draw(t, "id"), Status: statuses.Draw(t, "status"), Received: moments.Draw(t, "received"),
			Repo: rapid.SampledFrom([]string{"", "acme/app"}).Draw(t, "repo"), Labels: rapid.SliceOfN(rapid.String(), 0, 2).Draw(t, "labels"),
			Conclusion: rapid.SampledFrom([]string{"", "success", "failure"}).Draw(t, "conclusion"), Created: moments.Draw(t, "created"),
		}
		if rapid.Bool().Draw(t, "ran") {
			j.RunnerID = rapid.Int64Range(1, 3).Draw(t, "runner id")
			j.Runner = names.Draw(t, "runner") + rapid.SampledFrom([]string{"", "-2"}).Draw(t, "try")
		}
		return j
	})
)

// crowd has many jobs queued at once, or ends those that are.
func (m *model) crowd(rt *rapid.T, s Store) {
	news := fleet.Job{Status: fleet.StatusCompleted}
	if m.crowds == 0 || rapid.Bool().Draw(rt, "more") {
		news = fleet.Job{Status: fleet.StatusQueued, Created: moments.Draw(rt, "created")}
		m.crowds = max(m.crowds, rapid.Int64Range(1, 60).Draw(rt, "jobs"))
	}
	var jobs []fleet.Job
	for id := range m.crowds {
		news.ID = 1000 + id
		m.learn(news)
		jobs = append(jobs, news)
	}
	if err := s.Observe(rt.Context(), jobs); err != nil {
		rt.Fatal(err)
	}
}

func (m *model) create(rt *rapid.T, s Store) {
	rows := rapid.SliceOfN(drawRunner, 1, 3).Draw(rt, "rows")
	after, last, taken := maps.Clone(m.runners), m.last, false
	for _, r := range rows {
		for _, o := range after {
			taken = taken || o.Name == r.Name || o.VMID == r.VMID
		}
		after[r.Name] = r
		if !r.Adopted {
			last = r.VMID
		}
	}
	ev := event(fleet.Planned, rows[0].Name, 0)
	err := s.Create(rt.Context(), rows, ev)
	if taken != errors.Is(err, fleet.ErrTaken) || !taken && err != nil {
		rt.Fatalf("taken %t: %v", taken, err)
	}
	if err == nil {
		m.runners, m.last, m.events = after, last, append(m.events, ev)
	}
}

func (m *model) update(rt *rapid.T, s Store) {
	r := drawRunner.Draw(rt, "row")
	old, ok := m.runners[r.Name]
	ev := event(fleet.Cloned, r.Name, 0)
	err := s.Update(rt.Context(), r, ev)
	switch {
	case !ok:
		if !errors.Is(err, fleet.ErrGone) {
			rt.Fatalf("got %v, want gone", err)
		}
	case slices.Index(fleet.Phases(), r.Phase) < slices.Index(fleet.Phases(), old.Phase) || r.VMID != old.VMID:
		if err == nil || errors.Is(err, fleet.ErrGone) {
			rt.Fatalf("%s → %s: %v", old.Phase, r.Phase, err)
		}
	case err != nil:
		rt.Fatal(err)
	default:
		m.runners[r.Name] = r
		m.events = append(m.events, ev)
	}
}

func (m *model) end(rt *rapid.T, s Store) {
	name := names.Draw(rt, "name")
	ev := event(fleet.RunnerGone, name, 0)
	if err := s.End(rt.Context(), name, ev); err != nil {
		rt.Fatal(err)
	}
	delete(m.runners, name)
	m.events = append(m.events, ev)
}

func (m *model) record(rt *rapid.T, s Store) {
	j := drawJob.Draw(rt, "job")
	guid := fmt.Sprint("guid ", rapid.IntRange(0, 20).Draw(rt, "guid"))
	ev := event(fleet.JobQueued, "", j.ID)
	want := !m.deliveries[guid] && m.learn(j)
	m.deliveries[guid] = true
	got, err := s.Record(rt.Context(), guid, j, ev)
	if err != nil || got != want {
		rt.Fatalf("changed %t, want %t; %v", got, want, err)
	}
	if want {
		m.events = append(m.events, ev)
	}
}

func (m *model) observe(rt *rapid.T, s Store) {
	jobs := rapid.SliceOfN(drawJob, 1, 3).Draw(rt, "jobs")
	for i := range jobs {
		jobs[i].Checked = moments.Draw(rt, "checked")
		m.learn(jobs[i])
		if k, ok := m.jobs[jobs[i].ID]; ok && jobs[i].Checked.After(k.Checked) {
			k.Checked = jobs[i].Checked
			m.jobs[k.ID] = k
		}
	}
	if err := s.Observe(rt.Context(), jobs); err != nil {
		rt.Fatal(err)
	}
}

// learn is the merging of jobs, said once more in its own way; Checked is left out.
func (m *model) learn(n fleet.Job) bool {
	rank := map[fleet.JobStatus]int{fleet.StatusWaiting: 1, fleet.StatusQueued: 1, fleet.StatusInProgress: 2, fleet.StatusCompleted: 3}
	k, ok := m.jobs[n.ID]
	if !ok && rank[n.Status] == 0 {
		return false
	}
	before := k
	k.ID = n.ID
	if rank[n.Status] != 0 && rank[n.Status] >= rank[k.Status] {
		k.Status = n.Status
		if n.Runner != "" {
			k.Runner = n.Runner
		}
		if n.RunnerID != 0 {
			k.RunnerID = n.RunnerID
		}
	}
	if k.Runner == "" {
		k.Runner = n.Runner
	}
	if k.RunnerID == 0 {
		k.RunnerID = n.RunnerID
	}
	if k.Conclusion == "" && n.Status == fleet.StatusCompleted {
		k.Conclusion = n.Conclusion
	}
	if k.Repo == "" {
		k.Repo = n.Repo
	}
	if len(k.Labels) == 0 {
		k.Labels = n.Labels
	}
	if k.Created.IsZero() {
		k.Created = n.Created
	}
	changed := !cmp.Equal(before, k, cmpopts.EquateEmpty())
	if k.Received.IsZero() || !n.Received.IsZero() && n.Received.Before(k.Received) {
		k.Received = n.Received
	}
	m.jobs[n.ID] = k
	return changed
}

func (m *model) note(rt *rapid.T, s Store) {
	t := fleet.Trouble{
		Pool: names.Draw(rt, "pool"), Node: rapid.SampledFrom([]string{"", "pve1"}).Draw(rt, "node"),
		Count: rapid.IntRange(0, 2).Draw(rt, "count"), Last: moments.Draw(rt, "last"), Text: rapid.String().Draw(rt, "text"),
	}
	q := rapid.MapOfN(vmids, rapid.SampledFrom([]string{"", "seen"}), 0, 2).Draw(rt, "quarantine")
	if err := s.Note(rt.Context(), []fleet.Trouble{t}, q); err != nil {
		rt.Fatal(err)
	}
	key := t.Pool + " " + t.Node
	if m.troubles[key] = t; t.Count == 0 {
		delete(m.troubles, key)
	}
	for id, why := range q {
		if m.quarantine[id] = why; why == "" {
			delete(m.quarantine, id)
		}
	}
}

func (m *model) check(rt *rapid.T, s Store, e *ear) {
	want := fleet.Books{Quarantine: m.quarantine, LastVMID: m.last}
	for _, name := range slices.Sorted(maps.Keys(m.runners)) {
		want.Runners = append(want.Runners, m.runners[name])
	}
	for _, id := range slices.Sorted(maps.Keys(m.jobs)) {
		j := m.jobs[id]
		if _, ours := m.runners[fleet.OwnerOf(j.Runner)]; j.Status != fleet.StatusCompleted || ours {
			want.Jobs = append(want.Jobs, j)
		}
	}
	slices.SortStableFunc(want.Jobs, func(a, b fleet.Job) int { return a.Created.Compare(b.Created) })
	for _, key := range slices.Sorted(maps.Keys(m.troubles)) {
		want.Troubles = append(want.Troubles, m.troubles[key])
	}
	got, err := s.Load(rt.Context())
	if err != nil {
		rt.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(fleet.Job{}, "Changed")); d != "" {
		rt.Fatalf("books (-want +got):\n%s", d)
	}
	if !reflect.DeepEqual(m.copied, m.read) {
		rt.Fatalf("books changed after they were read (-then +now):\n%s", cmp.Diff(m.copied, m.read))
	}
	m.read, m.copied = got, fleet.Books{
		Runners: slices.Clone(got.Runners), Jobs: slices.Clone(got.Jobs), Troubles: slices.Clone(got.Troubles),
		Quarantine: maps.Clone(got.Quarantine), LastVMID: got.LastVMID,
	}
	for _, j := range got.Jobs {
		if j.Changed.IsZero() {
			rt.Fatalf("job %d never changed", j.ID)
		}
	}
	if d := cmp.Diff(m.events, e.all(), cmpopts.EquateEmpty()); d != "" {
		rt.Fatalf("events heard (-want +got):\n%s", d)
	}
}
