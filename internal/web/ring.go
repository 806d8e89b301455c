package web

import (
	"sync"

	"mayfly/internal/fleet"
)

// ringSize is how many events the page and the API remember.
const ringSize = 500

// A ring keeps the last events in the order in which they were heard.
type ring struct {
	mu   sync.Mutex
	kept []fleet.Event // a circle once it is full
	next int           // where the next one goes then
}

func (r *ring) add(e fleet.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < ringSize {
		r.kept = append(r.kept, e)
		return
	}
	r.kept[r.next] = e
	r.next = (r.next + 1) % ringSize
}

// all returns a copy of the events, oldest first.
func (r *ring) all() []fleet.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]fleet.Event, 0, len(r.kept))
	out = append(out, r.kept[r.next:]...)
	return append(out, r.kept[:r.next]...)
}
