// Package github is a small GitHub to run against: the REST calls about runners and jobs,
// the webhooks, and the side that a runner talks to.
//
// It keeps what makes the real one awkward: names are unique, a busy runner is not
// deleted, a job goes to any matching idle runner and never to a certain one, an idle
// runner that does not pick its job up loses it after a minute, a dead one is noticed
// after ten, and deliveries get lost, doubled, late and out of order when told so.
// Randomness comes from one seed; time comes from package time, so that all of it runs
// in a testing/synctest bubble.
package github

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Config says what kind of GitHub it is. Durations are the real GitHub's; Speed divides them.
type Config struct {
	Seed  uint64  // of everything random
	Scope string  // where runners are registered: "octo-org" or "owner/repo"
	Token string  // the one token that may do everything; "" lets anybody in
	Speed float64 // divides every delay of this package but the time-out of a delivery; 0 means 1

	WebhookURL    string // where deliveries go; "" sends none
	WebhookSecret string
	// Deliver sends one delivery; nil means a plain HTTP client.
	Deliver func(*http.Request) (*http.Response, error)
	// Senders is how many deliveries may be under way at once; those of one job always
	// follow each other. 0 means 8; 1 makes the order of all of them the same for a seed.
	Senders      int
	WebhookDelay Range // from the event to its delivery
	// Chances, 0 to 1, by action (queued, in_progress, completed, waiting), or under "" for those not named.
	Lose    map[string]float64 // never sent
	Double  map[string]float64 // sent twice, with the same GUID
	Reorder map[string]float64 // sent up to 30 s later, and passed by later ones
	Late    map[string]float64 // sent LateBy later
	LateBy  Range              // zero means 1 to 5 minutes

	RequeueAfter time.Duration // an assigned job not picked up is queued again; 0 means 60 s
	LostAfter    time.Duration // the job of a dead runner fails; 0 means 10 min
	IdleDrop     time.Duration // a listening runner without a job is removed; 0 means never

	// Hourly is the primary rate limit in requests an hour; 0 reports 5,000 and enforces nothing.
	Hourly int
}

// Range is a random duration: at least From, below To, or always From when To is not above it.
type Range struct{ From, To time.Duration }

func (r Range) pick(rng *rand.Rand) time.Duration {
	if r.To <= r.From {
		return r.From
	}
	return r.From + time.Duration(rng.Int64N(int64(r.To-r.From)))
}

// GitHub is the simulated service. Its methods may be called from several goroutines.
type GitHub struct {
	cfg     Config
	deliver func(*http.Request) (*http.Response, error)
	mux     http.Handler
	quit    chan struct{} // closed by Close

	work sync.WaitGroup // every goroutine and armed timer of ours

	mu     sync.Mutex // guards everything below; held for moments, never over I/O or a wait
	closed bool
	rng    *rand.Rand
	timers map[*time.Timer]struct{}

	runners []*registration // by id
	byName  map[string]*registration
	idle    []*registration // online, without a job: a job may be given to them
	ids     int64           // the registration id given out last

	jobs      []*job // as they came
	jobByID   map[int64]*job
	queue     []*job // queued, not given to a runner
	runIDs    int64
	checkRuns int64 // sent by CheckRun
	labelIDs  map[string]int64

	lanes    []*lane
	sequence int64 // of deliveries
	log      []*sending

	faults   []*armed
	requests map[string]int
	killed   int
	window   time.Time // when the rate limit's hour began
	used     int
}

// Errors of the runner's side.
var (
	// ErrRemoved: the registration does not exist any more.
	ErrRemoved = errors.New("the runner registration has been deleted from the server")
	// ErrConflict: another process listens with the same registration.
	ErrConflict = errors.New("a session for this runner already exists")
	// ErrBadConfig: this is no JIT configuration of ours.
	ErrBadConfig = errors.New("not a JIT configuration")
)

const (
	firstJob    = 51000000000
	firstRun    = 17000000000
	firstRunner = 4710
)

// New returns a running GitHub; Close ends it.
func New(cfg Config) *GitHub {
	if cfg.Speed <= 0 {
		cfg.Speed = 1
	}
	if cfg.RequeueAfter == 0 {
		cfg.RequeueAfter = time.Minute
	}
	if cfg.LostAfter == 0 {
		cfg.LostAfter = 10 * time.Minute
	}
	if cfg.LateBy == (Range{}) {
		cfg.LateBy = Range{time.Minute, 5 * time.Minute}
	}
	if cfg.Senders <= 0 {
		cfg.Senders = 8
	}
	g := &GitHub{
		cfg:      cfg,
		deliver:  cfg.Deliver,
		quit:     make(chan struct{}),
		rng:      rand.New(rand.NewPCG(cfg.Seed, 0x6769746875620000)),
		timers:   map[*time.Timer]struct{}{},
		byName:   map[string]*registration{},
		jobByID:  map[int64]*job{},
		ids:      firstRunner,
		runIDs:   firstRun,
		labelIDs: map[string]int64{},
		requests: map[string]int{},
		window:   time.Now(),
	}
	if g.deliver == nil {
		g.deliver = http.DefaultClient.Do
	}
	g.mux = g.routes()
	if cfg.WebhookURL != "" {
		for range cfg.Senders {
			l := &lane{wake: make(chan struct{}, 1)}
			g.lanes = append(g.lanes, l)
			g.work.Go(func() { g.send(l) })
		}
	}
	return g
}

// Handler serves the REST API, at / as api.github.com does and at /api/v3 as GHES does.
func (g *GitHub) Handler() http.Handler { return g.mux }

// Close stops timers and deliveries and returns when nothing of this GitHub runs any more.
// Sessions that wait for a job get ErrRemoved.
func (g *GitHub) Close() {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		close(g.quit)
		for t := range g.timers {
			if t.Stop() {
				g.work.Done()
			}
		}
		clear(g.timers)
		for _, r := range slices.Clone(g.runners) {
			g.remove(r)
		}
	}
	g.mu.Unlock()
	g.work.Wait()
}

// later runs f once d of the simulated world has passed, with g.mu held, as it is now.
// The returned function, called with g.mu held, calls it off.
func (g *GitHub) later(d time.Duration, f func()) (off func()) {
	if g.closed {
		return func() {}
	}
	g.work.Add(1)
	var t *time.Timer
	t = time.AfterFunc(g.scaled(d), func() {
		defer g.work.Done()
		g.mu.Lock()
		defer g.mu.Unlock()
		if _, armed := g.timers[t]; !armed {
			return
		}
		delete(g.timers, t)
		f()
	})
	g.timers[t] = struct{}{}
	return func() {
		if _, armed := g.timers[t]; !armed {
			return
		}
		delete(g.timers, t)
		if t.Stop() {
			g.work.Done()
		}
	}
}

func (g *GitHub) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / g.cfg.Speed)
}

// chance tells whether something with the chances given happens to an event of that action.
func (g *GitHub) chance(by map[string]float64, action string) bool {
	p, named := by[action]
	if !named {
		p = by[""]
	}
	return p > 0 && g.rng.Float64() < p
}
