package main

import (
	"slices"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

// tally counts what a demo or a benchmark reports. It hears events and calls.
type tally struct {
	mu          sync.Mutex
	runners     int
	clones      int
	failures    int
	proxmox     int // requests, looks not counted
	github      int // requests, looks not counted
	looks       int
	queueClone  []time.Duration
	gateWait    []time.Duration
	readyJoin   []time.Duration
	listening   []time.Duration // from the row to a listening runner
	lastListen  time.Time
	leaked      int
	quarantined int
}

func (t *tally) hear(e fleet.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case fleet.Planned:
		t.runners++
	case fleet.CloneAsked:
		t.clones++
		t.gateWait = append(t.gateWait, e.Waited)
		if e.Took > 0 {
			t.queueClone = append(t.queueClone, e.Took)
		}
	case fleet.Registered:
		if e.Took > 0 {
			t.readyJoin = append(t.readyJoin, e.Took)
		}
	case fleet.Listening:
		t.listening = append(t.listening, e.Took)
		t.lastListen = e.At
	case fleet.Failed:
		t.failures++
	case fleet.VolumeLeaked:
		t.leaked++
	case fleet.Quarantined:
		t.quarantined++
	}
}

// count hears every request. Looks are on their own ticks, so they are counted apart.
func (t *tally) count(system, call, _ string, _ time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case call == "look" || call == "roster":
		t.looks++
	case system == "proxmox":
		t.proxmox++
	case system == "github":
		t.github++
	}
}

// quantiles are the two that are reported.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func millis(ds []time.Duration) *quantiles {
	if len(ds) == 0 {
		return nil
	}
	return &quantiles{ms(quantile(ds, 0.50)), ms(quantile(ds, 0.99))}
}

func ms(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

// quantile is the smallest value that at least q of all do not exceed.
func quantile[T int | float64 | time.Duration](vs []T, q float64) T {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	i := int(q*float64(len(vs))+0.9999999) - 1
	return vs[min(max(i, 0), len(vs)-1)]
}
