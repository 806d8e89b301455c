package proxmox

import (
	"slices"
	"sync"
	"time"
)

const remembered = 24

// history remembers how long things of a kind last took, so that we ask when the answer may be
// there. It holds hints only, and forgets the oldest.
type history struct {
	mu   sync.Mutex
	took map[string][]time.Duration
}

// add remembers one that went well.
func (h *history) add(kind string, took time.Duration) {
	if took <= 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.took == nil {
		h.took = map[string][]time.Duration{}
	}
	last := append(h.took[kind], took)
	if len(last) > remembered {
		last = slices.Delete(last, 0, 1)
	}
	h.took[kind] = last
}

// slowest is the longest of the last few, 0 when there is none.
func (h *history) slowest(kind string) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.took[kind]) == 0 {
		return 0
	}
	return slices.Max(h.took[kind])
}

// fastest is the shortest of the last few; ok is false when there is none.
func (h *history) fastest(kind string) (d time.Duration, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.took[kind]) == 0 {
		return 0, false
	}
	return slices.Min(h.took[kind]), true
}
