package storetest

import (
	"errors"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

func testEmpty(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	same(t, "books", load(t, s), fleet.Books{})
	same(t, "events", stored(t, s), []fleet.Event{})
}

func testCreateLoad(t *testing.T, open Open) {
	s := start(t, open)
	full := fleet.Runner{
		Name: "k3f9-win-0000000b", Pool: "win", Node: "pve2", VMID: 100002, Template: 9001, Phase: fleet.Busy,
		Since: born.Add(time.Minute), Born: born, AskedAt: born.Add(time.Second), UPID: "UPID:pve2:1", ClonedAt: born.Add(2 * time.Second),
		MAC: "BC:24:11:00:00:01", StartedAt: born.Add(3 * time.Second), Address: "10.0.0.7", HostKey: "ssh-ed25519 AAAA",
		Registration: "k3f9-win-0000000b-2", RunnerID: 77, Job: 4711, Adopted: true, Cause: "a 'cause' with \"quotes\" and ümlauts",
	}
	must(t, s.Create(t.Context(), []fleet.Runner{full, runner("k3f9-win-0000000a", 100001)}))
	want := []fleet.Runner{runner("k3f9-win-0000000a", 100001), full}
	same(t, "runners, by name", load(t, s).Runners, want)
	stop(t, s)

	s = start(t, open)
	defer stop(t, s)
	same(t, "runners after opening again", load(t, s).Runners, want)
}

func testCreateTaken(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	must(t, s.Create(t.Context(), []fleet.Runner{runner("a", 1), runner("b", 2)}))
	for name, rows := range map[string][]fleet.Runner{
		"name": {runner("c", 3), runner("a", 4)},
		"vmid": {runner("c", 3), runner("d", 2)},
		"self": {runner("c", 3), runner("d", 3)},
	} {
		if err := s.Create(t.Context(), rows, event(fleet.Planned, "c", 0)); !errors.Is(err, fleet.ErrTaken) {
			t.Errorf("%s: got %v, want taken", name, err)
		}
	}
	b := load(t, s)
	same(t, "all or none", b.Runners, []fleet.Runner{runner("a", 1), runner("b", 2)})
	same(t, "last VMID", b.LastVMID, 2)
	same(t, "events", stored(t, s), []fleet.Event{})
	must(t, s.End(t.Context(), "a"))
	must(t, s.Create(t.Context(), []fleet.Runner{runner("c", 1)})) // an ended row frees its VMID
	for _, bad := range []fleet.Runner{{}, {Name: "x", VMID: 9}, {Name: "x", Phase: fleet.Idle}} {
		if err := s.Create(t.Context(), []fleet.Runner{bad}); err == nil {
			t.Errorf("a row without name, VMID or phase was stored: %+v", bad)
		}
	}
}

func testLastVMID(t *testing.T, open Open) {
	s := start(t, open)
	must(t, s.Create(t.Context(), []fleet.Runner{runner("a", 9), runner("b", 5)}))
	same(t, "the last row's", load(t, s).LastVMID, 5)
	adopted := runner("c", 7)
	adopted.Adopted = true
	must(t, s.Create(t.Context(), []fleet.Runner{adopted}))
	must(t, s.End(t.Context(), "b"))
	same(t, "an adopted VM was given no id", load(t, s).LastVMID, 5)
	stop(t, s)

	s = start(t, open)
	defer stop(t, s)
	same(t, "after opening again", load(t, s).LastVMID, 5)
}

func testUpdate(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	r := runner("a", 1)
	if err := s.Update(t.Context(), r); !errors.Is(err, fleet.ErrGone) {
		t.Errorf("a row that never was: got %v, want gone", err)
	}
	must(t, s.Create(t.Context(), []fleet.Runner{r, runner("b", 2)}))
	r.Phase, r.UPID, r.AskedAt, r.Cause, r.Node = fleet.Joining, "UPID:pve1:2", born.Add(time.Hour), "x", "pve3"
	must(t, s.Update(t.Context(), r))
	must(t, s.Update(t.Context(), r))
	same(t, "runners", load(t, s).Runners, []fleet.Runner{r, runner("b", 2)})
	moved := r
	moved.VMID = 3
	if err := s.Update(t.Context(), moved); err == nil {
		t.Error("a row took another VMID")
	}
	must(t, s.End(t.Context(), "a"))
	if err := s.Update(t.Context(), r, event(fleet.RunnerLeaving, "a", 0)); !errors.Is(err, fleet.ErrGone) {
		t.Errorf("an ended row: got %v, want gone", err)
	}
	same(t, "events", stored(t, s), []fleet.Event{})
}

func testPhaseNeverBack(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	for i, from := range fleet.Phases() {
		for _, to := range fleet.Phases() {
			r := runner("a", i+1)
			r.Phase = from
			must(t, s.Create(t.Context(), []fleet.Runner{r}))
			r.Phase = to
			err := s.Update(t.Context(), r)
			if back := to.Before(from); back != (err != nil) {
				t.Errorf("%s → %s: %v", from, to, err)
			}
			must(t, s.End(t.Context(), "a"))
		}
	}
	r := runner("a", 1)
	must(t, s.Create(t.Context(), []fleet.Runner{r}))
	r.Phase = "dancing"
	if err := s.Update(t.Context(), r); err == nil {
		t.Error("an unknown phase was stored")
	}
}

func testEnd(t *testing.T, open Open) {
	s := start(t, open)
	defer stop(t, s)
	must(t, s.Create(t.Context(), []fleet.Runner{runner("a", 1), runner("b", 2)}, event(fleet.Planned, "a", 0)))
	must(t, s.End(t.Context(), "a", event(fleet.RunnerGone, "a", 0)))
	must(t, s.End(t.Context(), "a"))
	must(t, s.End(t.Context(), "never"))
	same(t, "runners", load(t, s).Runners, []fleet.Runner{runner("b", 2)})
	same(t, "its events stay", stored(t, s), []fleet.Event{event(fleet.Planned, "a", 0), event(fleet.RunnerGone, "a", 0)})
}
