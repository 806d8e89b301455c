package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/fleet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden holds the field names and forms of the API: a change of these files breaks clients.
func TestGolden(t *testing.T) {
	for name, path := range map[string]string{
		"status": "/api/v1/status", "plan": "/api/v1/plan", "job": "/api/v1/jobs/7001", "job_held": "/api/v1/jobs/7005",
		"job_ended": "/api/v1/jobs/6990", "events": "/api/v1/events?limit=4",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // its clock begins at the same moment each time
				now := time.Now()
				w := New(Config{Source: day(now), Instance: "m1", Version: "0.1.0"})
				for _, e := range story(now) {
					w.Hear(e)
				}
				synctest.Sleep(2500 * time.Millisecond)
				rec := ask(w.Handler(), "GET", path)
				if rec.Code != 200 || rec.Header().Get("Content-Type") != "application/json; charset=utf-8" {
					t.Fatalf("%s answers %d %v", path, rec.Code, rec.Header())
				}
				file := filepath.Join("testdata", name+".json")
				if *update {
					if err := os.WriteFile(file, rec.Body.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), rec.Body.String()); d != "" {
					t.Errorf("%s has changed (go test -update writes it anew):\n%s", path, d)
				}
			})
		})
	}
}

// Clients decode what is answered into the same structs, and lose nothing.
func TestViewsDecode(t *testing.T) {
	now := time.Now()
	w := New(Config{Source: day(now), Past: story(now)})
	for path, v := range map[string]any{
		"/api/v1/status": &Status{}, "/api/v1/plan": &PlanView{}, "/api/v1/jobs/7001": &JobWhy{}, "/api/v1/events": &Events{},
	} {
		body := ask(w.Handler(), "GET", path).Body
		dec := json.NewDecoder(bytes.NewReader(body.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(v); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		again, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		var a, b any
		if json.Unmarshal(again, &a) != nil || json.Unmarshal(body.Bytes(), &b) != nil || !cmp.Equal(a, b) {
			t.Errorf("%s loses something: %s", path, cmp.Diff(b, a))
		}
	}
}

// An answer about nothing has empty lists and no null in them.
func TestNothingIsNotNull(t *testing.T) {
	h := New(Config{Source: still{}}).Handler()
	for _, path := range []string{"/api/v1/status", "/api/v1/plan", "/api/v1/events"} {
		if body := ask(h, "GET", path).Body.String(); strings.Contains(body, "null") {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestAPIErrors(t *testing.T) {
	now := time.Now()
	broken := func(context.Context, int64) ([]fleet.Event, error) { return nil, errors.New("disk I/O error") }
	for _, c := range []struct {
		path    string
		history func(context.Context, int64) ([]fleet.Event, error)
		want    int
	}{
		{"/api/v1/jobs/999", nil, 404},
		{"/api/v1/jobs/abc", nil, 400},
		{"/api/v1/jobs/-1", nil, 400},
		{"/api/v1/jobs/99999999999999999999", nil, 400},
		{"/api/v1/jobs/7001", broken, 500},
		{"/api/v1/events?limit=0", nil, 400},
		{"/api/v1/events?limit=x", nil, 400},
		{"/api/v2/status", nil, 404},
		{"/api/v1/jobs/", nil, 404},
	} {
		rec := ask(New(Config{Source: day(now), History: c.history}).Handler(), "GET", c.path)
		var p Problem
		if err := json.Unmarshal(rec.Body.Bytes(), &p); rec.Code != c.want || err != nil || p.Error == "" {
			t.Errorf("%s answers %d %s, want %d and an error", c.path, rec.Code, rec.Body, c.want)
		}
	}
}

// What the store remembers of a job comes first; a job that has left the ledger still has its story.
func TestHistoryFromTheStore(t *testing.T) {
	now := time.Now()
	stored := func(_ context.Context, job int64) ([]fleet.Event, error) {
		if job != 42 {
			return nil, nil
		}
		return []fleet.Event{
			{At: now.Add(-3 * time.Hour), Kind: fleet.JobQueued, Job: job},
			{At: now.Add(-2 * time.Hour), Kind: fleet.JobEnded, Job: job, Class: "success", Runner: "m1-win-4d5e6f70"},
		}, nil
	}
	h := New(Config{Source: day(now), History: stored, Past: story(now)}).Handler()
	var why JobWhy
	if err := json.Unmarshal(ask(h, "GET", "/api/v1/jobs/42").Body.Bytes(), &why); err != nil {
		t.Fatal(err)
	}
	if why.Job != nil || why.Reason == "" || len(why.History) < 3 || why.History[0].Kind != "job_queued" {
		t.Errorf("why: %+v", why)
	}
	for i := 1; i < len(why.History); i++ {
		if why.History[i].At.Before(why.History[i-1].At) {
			t.Error("its history is not in order")
		}
	}
}

func TestHealth(t *testing.T) {
	sick := New(Config{Source: still{err: errNotYet}, Token: token}).Handler()
	if rec := ask(sick, "GET", "/healthz"); rec.Code != 200 {
		t.Errorf("healthz of a Mayfly that is not ready: %d", rec.Code)
	}
	if rec := ask(sick, "GET", "/readyz"); rec.Code != 503 || !strings.Contains(rec.Body.String(), errNotYet.Error()) {
		t.Errorf("readyz: %d %s", rec.Code, rec.Body)
	}
	well := New(Config{Source: still{}, Token: token}).Handler()
	if rec := ask(well, "GET", "/readyz"); rec.Code != 200 || rec.Body.String() != "ok\n" {
		t.Errorf("readyz: %d %s", rec.Code, rec.Body)
	}
}

// Everything at once, for the race detector.
func TestTogether(t *testing.T) {
	now := time.Now()
	source := &moving{}
	w := New(Config{Source: source})
	h := w.Handler()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 30 {
				source.set(day(now).world)
				for _, e := range story(now) {
					w.Hear(e)
				}
				w.ObserveCall("proxmox", "clone", "ok", time.Millisecond)
			}
		})
		wg.Go(func() {
			for range 10 {
				for _, path := range guardedPaths {
					if rec := ask(h, "GET", path); rec.Code >= 500 {
						t.Errorf("%s: %d %s", path, rec.Code, rec.Body)
					}
				}
			}
		})
	}
	wg.Wait()
}
