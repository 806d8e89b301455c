package store

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"

	"mayfly/internal/fleet"
)

// A killed process shows nothing of what a power cut loses, so durability is asked for: SQLite
// waits for the disk at each commit in WAL mode only with synchronous=FULL (https://www.sqlite.org/wal.html).
func TestDurable(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "mayfly.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var synchronous int
	var journal string
	err = s.do(t.Context(), func(t *tx) error {
		_, err1 := t.scan("PRAGMA synchronous", nil, []any{&synchronous})
		_, err2 := t.scan("PRAGMA journal_mode", nil, []any{&journal})
		return errors.Join(err1, err2)
	})
	if err != nil || synchronous != 2 || journal != "wal" {
		t.Errorf("synchronous %d, journal %s, %v", synchronous, journal, err)
	}
}

// A context that ends before the writer has begun undoes the write; after that it changes nothing.
func TestContextEndsWhileWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mayfly.db")
	synctest.Test(t, func(t *testing.T) {
		heard, goOn := make(chan struct{}), make(chan struct{})
		s, err := Open(t.Context(), path, Options{Fast: true, Hear: []fleet.Hearer{func(fleet.Event) { close(heard); <-goOn }}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		begun, waiting := make(chan error, 1), make(chan error, 1)
		go func() {
			begun <- s.Create(ctx, []fleet.Runner{{Name: "begun", VMID: 1, Phase: fleet.Idle}}, fleet.Event{Kind: fleet.Planned})
		}()
		<-heard // it is committed, and its caller not yet told
		go func() { waiting <- s.Create(ctx, []fleet.Runner{{Name: "waiting", VMID: 2, Phase: fleet.Idle}}) }()
		synctest.Wait()
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("the waiting write said %v", err)
		}
		close(goOn)
		if err := <-begun; err != nil {
			t.Errorf("the begun write said %v", err)
		}
		b, err := s.Load(t.Context())
		if err != nil || len(b.Runners) != 1 || b.Runners[0].Name != "begun" {
			t.Errorf("stored: %+v, %v", b.Runners, err)
		}
	})
}

// Writes that wait while another is being committed share the next commit; the one among them that fails
// leaves no event, even if some of its events were stored before it failed.
func TestFailedAmongOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mayfly.db")
	synctest.Test(t, func(t *testing.T) {
		var heard []fleet.Kind
		held, goOn := make(chan struct{}), make(chan struct{})
		s, err := Open(t.Context(), path, Options{Fast: true, Hear: []fleet.Hearer{func(e fleet.Event) {
			if e.Kind == "hold" {
				close(held)
				<-goOn
			}
			heard = append(heard, e.Kind)
		}}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		failed := errors.New("failed")
		results := make(chan error, 4)
		write := func(kind fleet.Kind, err error) {
			go func() {
				results <- s.do(t.Context(), func(t *tx) error { return errors.Join(t.tell([]fleet.Event{{Kind: kind}}), err) })
			}()
			synctest.Wait()
		}
		write("hold", nil)
		<-held
		write("first", nil)
		write("bad", failed)
		write("last", nil)
		close(goOn)
		bad := 0
		for range 4 {
			if err := <-results; errors.Is(err, failed) {
				bad++
			} else if err != nil {
				t.Error(err)
			}
		}
		events, err := s.Events(t.Context(), 10)
		if err != nil || bad != 1 || len(events) != 3 || len(heard) != 3 || heard[1] != "first" || heard[2] != "last" {
			t.Errorf("%d failed, heard %v, stored %v, %v", bad, heard, events, err)
		}
	})
}
