package github

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	maxCallers = 4096
	// A caller may fail ten times at once, then once in six seconds.
	failBurst = 10
	failEvery = 6 * time.Second
)

// callers remembers who failed to sign. Whoever signs rightly never comes up here.
type callers struct {
	mu sync.Mutex
	by map[string]*rate.Limiter
}

func newCallers() *callers { return &callers{by: map[string]*rate.Limiter{}} }

// failed notes a failure; false: this caller fails too often.
func (c *callers) failed(caller string) bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.by[caller]
	if l == nil {
		if len(c.by) >= maxCallers {
			c.forget(now)
		}
		l = rate.NewLimiter(rate.Every(failEvery), failBurst)
		c.by[caller] = l
	}
	return l.AllowN(now, 1)
}

// failing tells whether this caller has failed too often just now.
func (c *callers) failing(caller string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.by[caller]
	return l != nil && l.TokensAt(time.Now()) < 1
}

// forget makes room: by those who have long not failed, else by anybody.
func (c *callers) forget(now time.Time) {
	for caller, l := range c.by {
		if l.TokensAt(now) >= failBurst {
			delete(c.by, caller)
		}
	}
	for caller := range c.by {
		if len(c.by) < maxCallers*3/4 {
			return
		}
		delete(c.by, caller)
	}
}

// callerOf is who a request comes from: an IPv4 address, or the /64 of an IPv6 one, which
// one customer has to himself.
func callerOf(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return "unknown"
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return "unknown"
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return "unknown"
	}
	return p.String()
}
