package github_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim/github"
)

const (
	posts   = "POST */actions/runners/generate-jitconfig"
	deletes = "DELETE */actions/runners/*"
	lists   = "GET */actions/runners"
)

func TestRegisterWhenAnswersGoWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    github.Effect
		want  error
		ghost bool // the registration exists nevertheless
	}{
		{"connection lost before", github.DropBefore(), fleet.ErrUnknown, false},
		{"connection lost after", github.DropAfter(), fleet.ErrUnknown, true},
		{"502, and done", github.StatusAfter(502, "Server Error"), fleet.ErrUnknown, true},
		{"500", github.Status(500, "Server Error"), fleet.ErrUnknown, false},
		{"200 with something else", github.Empty(), fleet.ErrUnknown, false},
		{"slower than the client waits", github.Delay(time.Hour), fleet.ErrUnknown, false},
		{"401", github.Status(401, "Bad credentials"), fleet.ErrConfig, false},
		{"403", github.Status(403, "Resource not accessible by personal access token"), fleet.ErrConfig, false},
		{"404", github.NotFound(), fleet.ErrConfig, false},
		{"422", github.Status(422, "Invalid request."), fleet.ErrConfig, false},
		{"409", github.Status(409, "Already exists"), fleet.ErrTaken, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, github.Config{})
				w.Inject(github.Fault{Match: posts, Count: 1, Do: c.do})
				_, err := w.ours.Register(timeout(t, time.Minute), "m1-win-00000001", pool)
				if !errors.Is(err, c.want) {
					t.Errorf("Register() = %v, want %v", err, c.want)
				}
				if n := len(w.Runners()); (n == 1) != c.ghost {
					t.Errorf("%d registrations after it, ghost wanted: %v", n, c.ghost)
				}
				_, err = w.ours.Register(t.Context(), "m1-win-00000001", pool)
				if c.ghost != errors.Is(err, fleet.ErrTaken) {
					t.Errorf("Register() again = %v", err)
				}
				// By name, because the id was never told.
				if r, err := w.ours.Remove(t.Context(), 0, "m1-win-00000001"); r != fleet.Removed {
					t.Errorf("Remove() by name = %q, %v", r, err)
				}
				if r, err := w.ours.Remove(t.Context(), 0, "m1-win-00000001"); r != fleet.Absent {
					t.Errorf("Remove() by name again = %q, %v", r, err)
				}
			})
		})
	}
}

func TestRemoveProvesA404(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		permit := w.register("m1-win-00000001")
		remove := func() (fleet.Removal, error) { return w.ours.Remove(t.Context(), permit.ID, permit.Name) }

		w.Inject(github.Fault{Match: deletes, Count: 1, Do: github.NotFound()})
		if r, err := remove(); r != "" || !errors.Is(err, fleet.ErrConfig) {
			t.Errorf("404 and yet listed: %q, %v; want a permission fault", r, err)
		}
		for name, lie := range map[string]github.Effect{
			"list 500": github.Status(500, "x"), "list 404": github.NotFound(), "list 403": github.Status(403, "no"),
			"list short": github.Short(), "list lost": github.DropAfter(), "list delayed": github.Delay(time.Hour),
		} {
			a := w.Inject(github.Fault{Match: deletes, Do: github.NotFound()})
			b := w.Inject(github.Fault{Match: lists, Do: lie})
			if r, err := w.ours.Remove(timeout(t, time.Minute), permit.ID, permit.Name); r != "" || err == nil {
				t.Errorf("404 and %s: %q, %v; want an error", name, r, err)
			}
			a()
			b()
		}
		// An empty list that lies, and the name lookup that does not.
		a := w.Inject(github.Fault{Match: deletes, Do: github.NotFound()})
		w.Inject(github.Fault{Match: lists, Count: 1, Do: github.Empty()})
		if r, err := remove(); r != "" || err == nil {
			t.Errorf("404, an empty list, and yet found by name: %q, %v; want an error", r, err)
		}
		a()
		w.Inject(github.Fault{Match: deletes, Count: 1, Do: github.DropAfter()})
		if r, err := remove(); r != "" || err == nil {
			t.Errorf("answer lost: %q, %v; want an error", r, err)
		}
		if r, err := remove(); r != fleet.Absent || err != nil {
			t.Errorf("again: %q, %v; want absent", r, err)
		}
	})
}

func TestARosterIsCompleteOrAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{})
		for i := range 120 {
			w.register(fmt.Sprintf("m1-win-%08x", i))
		}
		if r, err := w.ours.Roster(t.Context()); err != nil || len(r.Runners) != 120 || r.AsOf.IsZero() {
			t.Fatalf("Roster() has %d runners, %v", len(r.Runners), err)
		}
		off := w.Inject(github.Fault{Match: lists, Do: github.Short()})
		if r, err := w.ours.Roster(t.Context()); err == nil {
			t.Errorf("short pages: %d runners and no error", len(r.Runners))
		}
		off()
		// A runner goes between the first page and the second: the second is read late.
		off = w.Inject(github.Fault{Match: lists, Do: github.Delay(time.Second)})
		gone := w.Runners()[3]
		go func() {
			time.Sleep(1500 * time.Millisecond)
			if _, err := w.ours.Remove(t.Context(), gone.ID, gone.Name); err != nil {
				t.Error(err)
			}
		}()
		r, err := w.ours.Roster(t.Context())
		off()
		if err != nil {
			t.Fatal(err)
		}
		listed := map[int64]bool{}
		for _, reg := range r.Runners {
			listed[reg.ID] = true
		}
		for _, still := range w.Runners() {
			if !listed[still.ID] {
				t.Errorf("%s was there all the time and is not listed", still.Name)
			}
		}
	})
}

func TestBothWaitOutARateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, github.Config{Hourly: 5})
		start := time.Now()
		for range 7 {
			if _, err := w.ours.Roster(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < time.Hour || took > time.Hour+2*time.Second {
			t.Errorf("7 requests with 5 an hour took %v", took)
		}
		if b := w.ours.Budget(); b.Limit != 5 || b.Remaining != 3 {
			t.Errorf("Budget() = %+v", b)
		}
	})
}
