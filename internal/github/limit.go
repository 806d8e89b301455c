package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// errLater: our own gates, or GitHub, let this request through only after its context's deadline.
var errLater = errors.New("not before its deadline")

// Bounds of a wait that GitHub asks for. Its docs: without retry-after and reset wait at
// least a minute, longer each time; a limit's window is never longer than an hour.
const (
	leastLimitWait = time.Minute
	mostGuessed    = 15 * time.Minute
	mostLimitWait  = time.Hour + time.Minute
)

// A gate holds all requests of a client back while GitHub asks us to wait. One gate,
// because a limit counts for the token, and going on during one may get us banned.
type gate struct {
	mu    sync.Mutex
	until time.Time
	shut  time.Time // when until was set last
	again int       // limits in a row without a retry-after or reset
}

// waiting is when requests may be sent again; zero: now.
func (g *gate) waiting(now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.until.After(now) {
		return time.Time{}
	}
	return g.until
}

// pass waits until the gate is open.
func (g *gate) pass(ctx context.Context) error {
	for {
		until := g.waiting(time.Now())
		if until.IsZero() {
			return nil
		}
		if err := sleepUntil(ctx, until); err != nil {
			return fmt.Errorf("GitHub's rate limit asks us to wait until %s: %w", until.UTC().Format(time.RFC3339), err)
		}
	}
}

// limited shuts the gate after a request, sent at the time given, met a limit. told is
// how long GitHub asks to wait; 0: it did not say.
func (g *gate) limited(sent time.Time, told time.Duration) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if told <= 0 {
		if !sent.After(g.shut) { // one of several that met the same limit
			return g.until
		}
		told = min(leastLimitWait<<min(g.again, 10), mostGuessed)
		g.again++
	}
	if until := now.Add(min(told, mostLimitWait)); until.After(g.until) {
		g.until = until
	}
	g.shut = now
	return g.until
}

// passed notes that a request sent at the time given met no limit.
func (g *gate) passed(sent time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if sent.After(g.shut) {
		g.again = 0
	}
}

// sleepUntil returns at the time given; at once with an error when ctx ends before it.
func sleepUntil(ctx context.Context, until time.Time) error {
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		return errLater
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// limitOf tells whether an answer is a rate limit, and how long GitHub asks to wait; 0: it
// does not say. 403 is also the answer to a missing permission: that has none of these signs.
func limitOf(status int, h http.Header, message string) (told time.Duration, limited bool) {
	if status != http.StatusForbidden && status != http.StatusTooManyRequests {
		return 0, false
	}
	now := time.Now()
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // the reset is by GitHub's clock, not by ours
	}
	if v := h.Get("Retry-After"); v != "" {
		if seconds, err := strconv.ParseInt(v, 10, 32); err == nil && seconds >= 0 {
			return time.Duration(max(seconds, 1)) * time.Second, true
		}
		if date, err := http.ParseTime(v); err == nil {
			return max(date.Sub(now), time.Second), true
		}
		return 0, true
	}
	if h.Get("X-RateLimit-Remaining") == "0" {
		if reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			return max(time.Unix(reset, 0).Sub(now), 0) + time.Second, true
		}
		return 0, true
	}
	message = strings.ToLower(message)
	return 0, status == http.StatusTooManyRequests || strings.Contains(message, "rate limit") || strings.Contains(message, "abuse detection")
}

// A bucket paces registrations.
type bucket struct{ limiter *rate.Limiter }

func newBucket(burst int, perSecond float64) *bucket {
	return &bucket{rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// draw waits for a token.
func (b *bucket) draw(ctx context.Context) error {
	now := time.Now()
	r := b.limiter.ReserveN(now, 1)
	if err := sleepUntil(ctx, now.Add(r.DelayFrom(now))); err != nil {
		r.Cancel()
		return fmt.Errorf("our own pace of registrations: %w", err)
	}
	return nil
}

// waiting is when a token drawn now would come; zero: at once.
func (b *bucket) waiting(now time.Time) time.Time {
	missing := 1 - b.limiter.TokensAt(now)
	if missing <= 0 {
		return time.Time{}
	}
	return now.Add(time.Duration(missing / float64(b.limiter.Limit()) * float64(time.Second)))
}

// Throttled is when a registration asked for now would be sent; zero: at once. It is the
// later of our own pace and of what GitHub's rate limit asked for.
func (c *Client) Throttled() (until time.Time) {
	now := time.Now()
	until = c.bucket.waiting(now)
	if limited := c.gate.waiting(now); limited.After(until) {
		until = limited
	}
	return until
}

// A Budget is what GitHub last said of the primary rate limit.
type Budget struct {
	Limit     int // requests an hour; 0: not known yet
	Remaining int
	Reset     time.Time
}

type budget struct {
	mu   sync.Mutex
	last Budget
}

// Budget returns what the last answer said of the primary rate limit.
func (c *Client) Budget() Budget {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.budget.last
}

func (b *budget) note(h http.Header) {
	limit, err := strconv.Atoi(h.Get("X-RateLimit-Limit"))
	if err != nil {
		return // GHES may have its limits off
	}
	remaining, err := strconv.Atoi(h.Get("X-RateLimit-Remaining"))
	if err != nil {
		return
	}
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = Budget{Limit: limit, Remaining: remaining, Reset: time.Unix(reset, 0)}
}
