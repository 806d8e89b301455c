package proxmox

import (
	"context"
	"sync"
)

// shared lets callers that ask at the same time share one fetch. Each gets the outcome of a
// fetch that began after it had asked, so that it proves as much as one of its own.
type shared[T any] struct {
	mu      sync.Mutex
	current *round[T] // being fetched
	next    *round[T] // will be, when current has ended
}

type round[T any] struct {
	done    chan struct{}
	value   T
	err     error
	dropped bool // its leader's context ended: it says nothing to the others
}

func (s *shared[T]) get(ctx context.Context, fetch func(context.Context) (T, error)) (T, error) {
	for {
		s.mu.Lock()
		r, lead := s.next, false
		if r == nil {
			r, lead = &round[T]{done: make(chan struct{})}, true
			s.next = r
		}
		before := s.current
		s.mu.Unlock()
		if lead {
			s.lead(ctx, r, before, fetch)
			return r.value, r.err
		}
		select {
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		case <-r.done:
		}
		if !r.dropped {
			return r.value, r.err
		}
	}
}

func (s *shared[T]) lead(ctx context.Context, r, before *round[T], fetch func(context.Context) (T, error)) {
	defer close(r.done)
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	s.next = nil
	if ctx.Err() == nil {
		s.current = r
	}
	s.mu.Unlock()
	if r.err = ctx.Err(); r.err != nil {
		r.dropped = true
		return
	}
	r.value, r.err = fetch(ctx)
	r.dropped = r.err != nil && ctx.Err() != nil
	s.mu.Lock()
	if s.current == r {
		s.current = nil
	}
	s.mu.Unlock()
}
