package controller

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

// What the controller does as a whole is tested against the simulated world, in cmd/mayfly.

func TestNextRegistration(t *testing.T) {
	for _, c := range []struct {
		now, next string
		ok        bool
	}{
		{"", "k-win-12345678", true},
		{"k-win-12345678", "k-win-12345678-2", true},
		{"k-win-12345678-2", "k-win-12345678-3", true},
		{"k-win-12345678-4", "k-win-12345678-5", true},
		{"k-win-12345678-5", "k-win-12345678-6", false}, // five are enough
		{"somebody-else", "k-win-12345678-2", true},
	} {
		next, ok := nextRegistration(fleet.Runner{Name: "k-win-12345678", Registration: c.now})
		if next != c.next || ok != c.ok {
			t.Errorf("after %q: %q %v, want %q %v", c.now, next, ok, c.next, c.ok)
		}
	}
}

func TestFreeIDs(t *testing.T) {
	c := New(Config{FirstID: 100, LastID: 105}, Parts{})
	c.sight.VMs = []fleet.VM{{ID: 103}}
	books := fleet.Books{Runners: []fleet.Runner{{VMID: 101}}, Quarantine: map[int]string{105: "look"}}
	for _, s := range []struct {
		last, n int
		want    []int
	}{
		{0, 2, []int{100, 102}},
		{100, 2, []int{102, 104}},
		{104, 9, []int{100, 102, 104}}, // round the range, and no more than there are
		{105, 1, []int{100}},
		{7, 1, []int{100}}, // of an earlier range
		{9999, 1, nil},
	} {
		books.LastVMID = s.last
		got := c.freeIDs(books, s.n)
		if s.want == nil && len(got) == 1 {
			continue // any will do
		}
		if !slices.Equal(got, s.want) {
			t.Errorf("%d after %d: %v, want %v", s.n, s.last, got, s.want)
		}
	}
}

func TestJobsByRunner(t *testing.T) {
	jobs := []fleet.Job{
		{ID: 1, Status: fleet.StatusCompleted, Runner: "k-win-12345678-2"},
		{ID: 2, Status: fleet.StatusInProgress, Runner: "k-win-12345678"},
		{ID: 3, Status: fleet.StatusQueued, Runner: "k-win-aaaaaaaa"},
		{ID: 4, Status: fleet.StatusCompleted},
	}
	for range 2 {
		got := jobsByRunner(jobs)
		if got["k-win-12345678"].ID != 2 || got["k-win-12345678-2"].ID != 1 || len(got) != 2 {
			t.Errorf("%+v", got)
		}
		slices.Reverse(jobs)
	}
}

func TestOutlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		out, done := outlive(ctx, 20*time.Second)
		defer done()
		time.Sleep(time.Hour)
		if out.Err() != nil {
			t.Error("it ended by itself")
		}
		stop()
		time.Sleep(19 * time.Second)
		if out.Err() != nil {
			t.Error("it ended before its grace")
		}
		time.Sleep(2 * time.Second)
		if out.Err() == nil {
			t.Error("it outlived its grace")
		}
	})
}
