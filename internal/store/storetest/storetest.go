// Package storetest is the suite that every database of Mayfly must pass.
package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mayfly/internal/fleet"
)

// Store is what Mayfly asks of a database.
type Store interface {
	Load(ctx context.Context) (fleet.Books, error)
	Create(ctx context.Context, rows []fleet.Runner, ev ...fleet.Event) error
	Update(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error
	End(ctx context.Context, name string, ev ...fleet.Event) error
	Observe(ctx context.Context, jobs []fleet.Job, ev ...fleet.Event) error
	Note(ctx context.Context, troubles []fleet.Trouble, quarantine map[int]string, ev ...fleet.Event) error
	Record(ctx context.Context, guid string, job fleet.Job, ev ...fleet.Event) (changed bool, err error)
	Events(ctx context.Context, limit int) ([]fleet.Event, error)
	Job(ctx context.Context, id int64) (fleet.Job, bool, error)
	JobCounts(ctx context.Context) (map[fleet.JobStatus]int, error)
	Prune(ctx context.Context, before time.Time) error
	Close() error
}

// Open opens one database, the same each time; it is closed before it is opened again.
type Open func(ctx context.Context, hear ...fleet.Hearer) (Store, error)

// Run runs the suite; fresh makes a new, empty database.
func Run(t *testing.T, fresh func(t testing.TB) Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"Empty":              testEmpty,
		"CreateLoad":         testCreateLoad,
		"CreateTaken":        testCreateTaken,
		"LastVMID":           testLastVMID,
		"Update":             testUpdate,
		"PhaseNeverBack":     testPhaseNeverBack,
		"End":                testEnd,
		"JobSteps":           testJobSteps,
		"Tombstone":          testTombstone,
		"Delivery":           testDelivery,
		"Checked":            testChecked,
		"ObserveEvents":      testObserveEvents,
		"CompletedOfOurs":    testCompletedOfOurs,
		"CompletedOfAdopted": testCompletedOfAdopted,
		"Note":               testNote,
		"NoteBetween":        testNoteBetween,
		"EventsInOrder":      testEventsInOrder,
		"FailedIsAlone":      testFailedIsAlone,
		"EndedContext":       testEndedContext,
		"Closed":             testClosed,
		"Together":           testTogether,
		"CreateRace":         testCreateRace,
		"Prune":              testPrune,
	} {
		t.Run(name, func(t *testing.T) { test(t, fresh(t)) })
	}
	t.Run("Model", func(t *testing.T) { testModel(t, fresh) })
}

// born is a moment that every database can keep: databases may cut what is finer than a microsecond.
var born = time.Date(2026, 10, 3, 8, 15, 0, 123456000, time.UTC)

func runner(name string, vmid int) fleet.Runner {
	return fleet.Runner{Name: name, Pool: "win", Node: "pve1", VMID: vmid, Template: 9000, Phase: fleet.Preparing, Since: born, Born: born}
}

func job(id int64, status fleet.JobStatus) fleet.Job {
	return fleet.Job{
		ID: id, Repo: "acme/app", Name: "build", Labels: []string{"self-hosted", "windows"}, Status: status,
		Created: born.Add(time.Duration(id) * time.Second),
	}
}

func event(kind fleet.Kind, runner string, job int64) fleet.Event {
	return fleet.Event{At: born, Kind: kind, Runner: runner, Job: job}
}

func start(t testing.TB, open Open, hear ...fleet.Hearer) Store {
	t.Helper()
	s, err := open(t.Context(), hear...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(t testing.TB, s Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, s Store) fleet.Books {
	t.Helper()
	b, err := s.Load(t.Context())
	must(t, err)
	return b
}

func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0)); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

// stored are the events of the trail, oldest first.
func stored(t testing.TB, s Store) []fleet.Event {
	t.Helper()
	ev, err := s.Events(t.Context(), 1<<20)
	must(t, err)
	slices.Reverse(ev)
	return ev
}

// An ear keeps what it hears.
type ear struct {
	mu    sync.Mutex
	heard []fleet.Event
}

func (e *ear) hear(ev fleet.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, ev)
}

func (e *ear) all() []fleet.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}
