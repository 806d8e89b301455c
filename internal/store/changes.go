package store

import (
	"maps"
	"sync"

	"mayfly/internal/fleet"
)

// An edition is the books as the database held them after so many batches, or later. It is never changed.
type edition struct {
	batches uint64
	books   fleet.Books
}

// changes is the edition read last, and what the writer has touched since: the rows to read for the next.
type changes struct {
	mu      sync.Mutex
	last    *edition // nil until the first
	batches uint64   // committed, or tried
	touched touched
}

// touched has the batch that touched each row last. It is noted before the commit, so that whoever sees
// what a batch wrote finds its rows here; for a write that fails it is too much, and does no harm.
type touched struct {
	runners map[string]uint64
	jobs    map[int64]uint64
	meta    uint64
	all     uint64 // too much to tell
}

func (t touched) nothing() bool {
	return len(t.runners) == 0 && len(t.jobs) == 0 && t.meta == 0 && t.all == 0
}

// A row read alone takes about four times as long as one among all.
const fewRows, rowsForOne = 32, 5

// The writer calls touch before it commits, with what its present batch writes.
func (c *changes) touch(note func(t *touched, batch uint64)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.touched.runners == nil {
		c.touched.runners, c.touched.jobs = map[string]uint64{}, map[int64]uint64{}
	}
	note(&c.touched, c.batches+1)
	most := fewRows
	if c.last != nil {
		most += (len(c.last.books.Runners) + len(c.last.books.Jobs)) / rowsForOne
	}
	if len(c.touched.runners)+len(c.touched.jobs) > most {
		c.touched = touched{meta: c.touched.meta, all: c.batches + 1}
	}
}

// committed ends the present batch.
func (c *changes) committed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches++
}

// now returns how many batches there were, and the last edition, nil if anything was touched since.
func (c *changes) now() (batches uint64, current *edition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.touched.nothing() {
		current = c.last
	}
	return c.batches, current
}

// since returns the last edition and a copy of what was touched since.
func (c *changes) since() (*edition, touched) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.touched
	t.runners, t.jobs = maps.Clone(t.runners), maps.Clone(t.jobs)
	return c.last, t
}

// publish makes e the last edition, unless there is a later one, and forgets what e contains.
func (c *changes) publish(e *edition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && c.last.batches > e.batches {
		return
	}
	c.last = e
	maps.DeleteFunc(c.touched.runners, func(_ string, batch uint64) bool { return batch <= e.batches })
	maps.DeleteFunc(c.touched.jobs, func(_ int64, batch uint64) bool { return batch <= e.batches })
	if c.touched.meta <= e.batches {
		c.touched.meta = 0
	}
	if c.touched.all <= e.batches {
		c.touched.all = 0
	}
}

func (t *tx) touchRunner(name string) {
	t.changes.touch(func(at *touched, batch uint64) { at.runners[name] = batch })
}

func (t *tx) touchJob(id int64) {
	t.changes.touch(func(at *touched, batch uint64) { at.jobs[id] = batch })
}

func (t *tx) touchMeta() {
	t.changes.touch(func(at *touched, batch uint64) { at.meta = batch })
}
