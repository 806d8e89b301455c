// Package controller keeps the fleet as fleet.Decide wants it: it looks, decides and acts,
// at every wake-up. It owns every goroutine that does so.
//
// One loop decides. A launch, a leaving or a question has one goroutine while it lasts; a
// running job has none. While a goroutine holds a row, it alone writes that row; otherwise
// the loop does. A goroutine may die at any moment: what it has reached stands in the store,
// and the next decision takes it up from there.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

// Config is what the controller must be told.
type Config struct {
	Instance         string // 1–12 of a-z0-9
	FirstID, LastID  int    // our own VMID range
	Pools            []fleet.Pool
	URL              string // where runners belong: https://github.com/ORG or …/OWNER/REPO
	Speed            float64
	Log              *slog.Logger
	ProxmoxEvery     time.Duration // between looks; 0: 5 s
	GitHubEvery      time.Duration // between looks; 0: 60 s
	StopGrace        time.Duration // for deeds under way when it stops; 0: 20 s
	ForeignQuietness time.Duration // between two questions about the same VM without a row; 0: 5 min
}

// Parts are the edges that the controller works with.
type Parts struct {
	Cluster Cluster
	Maker   Maker
	Ender   Ender
	Hub     Hub
	Guests  Guests
	Store   Store
}

// A Controller keeps a fleet. Make one with New.
type Controller struct {
	cfg   Config
	Parts // the edges
	tempo tempo
	log   *slog.Logger
	wake  chan struct{}
	work  sync.WaitGroup

	// mu guards what follows; it is never held round I/O.
	mu       sync.Mutex
	held     map[string]*hold
	sight    fleet.Sight // the last look at Proxmox that worked
	roster   fleet.Roster
	blind    map[string]string // looks that fail now → what they say
	troubles map[[2]string]fleet.Trouble
	ended    map[int]time.Time    // VMIDs of rows that ended lately
	asked    map[string]time.Time // when a runner was last asked about singly: younger than any list before
	looked   map[int]inspection   // VMs without a row that were inspected
	haunting map[int64]time.Time  // registrations without a row → the list that first showed them
	surplus  map[string]time.Time // pools that have more than they need → since when
	delayed  map[int64]bool       // jobs that once waited for capacity, a back-off or a person
	rested   map[string]bool      // Ready runners that no job waited for
	tries    map[string]int       // failed attempts in a row, by what is held
	world    fleet.World          // of the last decision
	plan     fleet.Plan
}

// hold is a goroutine's claim on a row, or on anything else that one goroutine works on at a time.
type hold struct {
	stage  fleet.Hold
	cancel context.CancelCauseFunc
}

// tempo is the pace of the acting side. Graces and polls, so a demo divides them; time-outs do not stand here.
type tempo struct {
	proxmox, github time.Duration // looks
	apart           time.Duration // between two single questions that make a fact
	afterPost       time.Duration // before a lost clone POST may be called never done
	settle          time.Duration // patience with a guest that does not answer
	poll            time.Duration // of a guest, at first
	rest            time.Duration // after a failed attempt, at first
	restMax         time.Duration
	quiet           time.Duration
}

// hiddenFor is how long an id may be taken and unreadable before a person must look.
const hiddenFor = 15 * time.Minute

// New returns a controller that does nothing until Run.
func New(cfg Config, parts Parts) *Controller {
	if cfg.Speed <= 0 {
		cfg.Speed = 1
	}
	quick := func(d, standard time.Duration) time.Duration {
		if d == 0 {
			d = standard
		}
		return time.Duration(float64(d) / cfg.Speed)
	}
	if cfg.StopGrace == 0 {
		cfg.StopGrace = 20 * time.Second
	}
	return &Controller{
		cfg: cfg, Parts: parts, log: cfg.Log, wake: make(chan struct{}, 1),
		tempo: tempo{
			proxmox: quick(cfg.ProxmoxEvery, 5*time.Second), github: quick(cfg.GitHubEvery, time.Minute),
			apart: quick(0, 10*time.Second), afterPost: quick(0, time.Minute), settle: quick(0, time.Minute),
			poll: quick(0, 500*time.Millisecond), rest: quick(0, 5*time.Second), restMax: quick(0, time.Minute),
			quiet: quick(cfg.ForeignQuietness, 5*time.Minute),
		},
		held: map[string]*hold{}, blind: map[string]string{}, troubles: map[[2]string]fleet.Trouble{},
		ended: map[int]time.Time{}, looked: map[int]inspection{}, asked: map[string]time.Time{}, haunting: map[int64]time.Time{},
		surplus: map[string]time.Time{}, delayed: map[int64]bool{}, rested: map[string]bool{}, tries: map[string]int{},
	}
}

// Poke wakes the loop. Pokes coalesce; it never blocks.
func (c *Controller) Poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run decides and acts until ctx ends, then lets deeds under way reach their next stored step and returns.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.work.Wait()
	defer cancel()
	if err := c.Pardon(ctx); err != nil {
		return err
	}
	c.work.Go(func() { c.watch(ctx, c.tempo.proxmox, c.lookAtProxmox) })
	c.work.Go(func() { c.watch(ctx, c.tempo.github, c.lookAtGitHub) })
	for {
		thought, err := c.turn(ctx)
		if err != nil && ctx.Err() == nil {
			c.log.Error("decide", "err", err)
		}
		// Many wake-ups, one decision: to think about a large fleet takes at most half of a core.
		if sleep(ctx, thought) != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		}
	}
}

// Pardon clears the troubles that only a person can mend, and decides anew. A start does so too: it means that a
// person was here. Again: nothing is left to clear.
func (c *Controller) Pardon(ctx context.Context) error {
	books, err := c.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("read the store: %w", err)
	}
	var mended []fleet.Trouble
	for _, t := range books.Troubles {
		if t.Class == "config" {
			mended = append(mended, fleet.Trouble{Pool: t.Pool, Node: t.Node})
		}
	}
	if len(mended) == 0 {
		return nil
	}
	if err := c.Store.Note(ctx, mended, nil); err != nil {
		return fmt.Errorf("clear old troubles: %w", err)
	}
	c.Poke()
	return nil
}

// turn looks at what is known, decides, and starts what was decided. thought is what it took until the decision
// stood; what follows mostly waits for the disk.
func (c *Controller) turn(ctx context.Context) (thought time.Duration, err error) {
	began := time.Now()
	// Holds before rows: a row that nobody held when we asked cannot have changed since.
	holds := c.holds()
	books, err := c.Store.Load(ctx)
	if err != nil {
		return time.Since(began), fmt.Errorf("read the store: %w", err)
	}
	w := c.behold(time.Now(), books, holds)
	plan := fleet.Decide(w)
	c.remember(w, plan)
	thought = time.Since(began)
	return thought, c.act(ctx, w, plan, books)
}

// Last returns the world of the last decision and what was decided.
func (c *Controller) Last() (fleet.World, fleet.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.world, c.plan
}

// Ready returns nil when both sides have been seen, else why nothing can be done yet.
func (c *Controller) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for who, why := range maps.All(c.blind) {
		return fmt.Errorf("%s cannot be seen: %s", who, why)
	}
	if c.sight.AsOf.IsZero() || c.roster.AsOf.IsZero() {
		return errors.New("starting: Proxmox and GitHub have not both been seen yet")
	}
	return nil
}

// watch looks at once, then on every tick.
func (c *Controller) watch(ctx context.Context, every time.Duration, look func(context.Context)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *Controller) lookAtProxmox(ctx context.Context) {
	s, err := c.Cluster.Look(ctx)
	if c.seen(ctx, "Proxmox", err) {
		c.mu.Lock()
		c.sight = s
		c.mu.Unlock()
		c.Poke()
	}
}

func (c *Controller) lookAtGitHub(ctx context.Context) {
	s, err := c.Hub.Roster(ctx)
	if c.seen(ctx, "GitHub", err) {
		c.mu.Lock()
		c.roster = s
		for _, g := range s.Runners {
			if _, known := c.haunting[g.ID]; !known {
				c.haunting[g.ID] = s.AsOf
			}
		}
		listed := map[int64]bool{}
		for _, g := range s.Runners {
			listed[g.ID] = true
		}
		maps.DeleteFunc(c.haunting, func(id int64, _ time.Time) bool { return !listed[id] })
		c.mu.Unlock()
		c.Poke()
	}
}

// seen notes whether a look worked, and tells when that changes.
func (c *Controller) seen(ctx context.Context, who string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	c.mu.Lock()
	was, blind := c.blind[who]
	if err != nil {
		c.blind[who] = err.Error()
	} else {
		delete(c.blind, who)
	}
	c.mu.Unlock()
	switch {
	case err != nil && (!blind || was != err.Error()):
		c.tell(ctx, fleet.Event{Kind: fleet.LookFailed, Class: fleet.Class(err), Note: fmt.Sprintf("%s: %v", who, err)})
	case err == nil && blind:
		c.tell(ctx, fleet.Event{Kind: fleet.LookHealed, Note: who})
	}
	if err != nil {
		c.Poke() // what needs the look must say that it is missing
	}
	return err == nil
}

// tell stores an event that belongs to no row.
func (c *Controller) tell(ctx context.Context, e fleet.Event) {
	e.At = time.Now()
	if err := c.Store.Observe(ctx, nil, e); err != nil && ctx.Err() == nil {
		c.log.Error("store an event", "kind", e.Kind, "note", e.Note, "err", err)
	}
}

// own runs f as the only one that works on key. It is told why when it shall give up (context.Cause).
// If f fails, the key rests before it is free again, longer each time.
func (c *Controller) own(ctx context.Context, key string, stage fleet.Hold, f func(context.Context) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	if _, taken := c.held[key]; taken {
		c.mu.Unlock()
		cancel(nil)
		return
	}
	c.held[key] = &hold{stage, cancel}
	c.mu.Unlock()
	c.work.Go(func() {
		defer cancel(nil)
		err := f(ctx)
		c.mu.Lock()
		if err == nil {
			delete(c.tries, key)
		} else {
			c.tries[key]++
		}
		rest := min(c.tempo.rest<<min(max(c.tries[key]-1, 0), 10), c.tempo.restMax)
		c.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			c.log.Warn("will try again", "what", key, "in", rest, "err", err)
			_ = sleep(ctx, rest) // the end of ctx is seen by all
		}
		c.mu.Lock()
		delete(c.held, key)
		c.mu.Unlock()
		c.Poke()
	})
}

// setStage tells how far the holder of key is.
func (c *Controller) setStage(key string, s fleet.Hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[key]; h != nil {
		h.stage = s
	}
}

// giveUp is the cause with which a launch is told to give up.
type giveUp struct{ cause, class string }

func (g giveUp) Error() string { return g.cause }

// dismiss tells the holder of key to give up, if somebody holds it.
func (c *Controller) dismiss(key string, g giveUp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[key]; h != nil {
		h.cancel(g)
	}
}

func (c *Controller) holds() map[string]fleet.Hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]fleet.Hold, len(c.held))
	for k, h := range c.held {
		m[k] = h.stage
	}
	return m
}

// outlive returns a context that goes on for a grace after ctx has ended: for what must not be cut
// between being sent and being stored.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		_ = sleep(out, grace)
		cancel()
	})
	return out, func() { stop(); cancel() }
}

// sleep waits for d; it returns early, with the context's error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
