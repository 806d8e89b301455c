// Package proxmox speaks to Proxmox VE as it really behaves: text is what tells its errors
// apart, tasks fail after their call succeeded, and whoever asks a booting guest holds one of
// three workers. It was written from the sources and captured answers of Proxmox VE 9.2
// (pve-manager 9.2.11, qemu-server 9.2.6) and 8.4.
//
// A Client only ever stops, changes or deletes a VM that it has just proved to be ours.
package proxmox

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"mayfly/internal/fleet"
)

// A Client is our side of one Proxmox cluster. It is safe for use by many goroutines, starts
// none of its own, and keeps in memory only what may be lost: how long things took, and where
// calls wait.
type Client struct {
	cfg  Config
	http *http.Client
	auth string
	log  *slog.Logger

	preferred atomic.Int64 // index of the endpoint that answered last
	rate      *rate.Limiter

	storages gates // clones and destroys
	agents   gates // guest-agent calls
	destroys *semaphore.Weighted

	inventory shared[map[int]resource]
	taskTimes history
	bootTimes history
	watches   watches
	templates approvals
}

// New makes a client. It asks nothing of Proxmox yet. Errors: ErrConfig.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.checked()
	if err != nil {
		return nil, err
	}
	hc, err := httpClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("proxmox: %w: %w", fleet.ErrConfig, err)
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	burst := max(1, int(2*cfg.Gates.Rate))
	return &Client{
		cfg:      cfg,
		http:     hc,
		auth:     "PVEAPIToken=" + cfg.Token + "=" + cfg.Secret.Reveal(),
		log:      log,
		rate:     rate.NewLimiter(rate.Limit(cfg.Gates.Rate*cfg.Speed), burst),
		storages: gates{size: int64(cfg.Gates.Clone)},
		agents:   gates{size: int64(cfg.Gates.Agent)},
		destroys: semaphore.NewWeighted(int64(cfg.Gates.Destroy)),
	}, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// scaled is a pause of ours at the configured speed.
func (c *Client) scaled(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.cfg.Speed)
}

// pause waits for d as it is, or until the context ends, whose error it returns.
func pause(ctx context.Context, d time.Duration) error {
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

// gates are semaphores by key, all of one size.
type gates struct {
	size int64
	mu   sync.Mutex
	by   map[string]*semaphore.Weighted
}

// enter waits for a place; leave gives it back and may be called more than once.
func (g *gates) enter(ctx context.Context, key string) (leave func(), err error) {
	g.mu.Lock()
	s := g.by[key]
	if s == nil {
		if g.by == nil {
			g.by = map[string]*semaphore.Weighted{}
		}
		s = semaphore.NewWeighted(g.size)
		g.by[key] = s
	}
	g.mu.Unlock()
	if err := s.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	var once sync.Once
	return func() { once.Do(func() { s.Release(1) }) }, nil
}

// storageGate is the gate that clones to a node and destroys on it share: Proxmox takes a
// storage's lock around every volume made or freed, and whoever waits 10 s for it fails, with
// volumes leaked.
func (c *Client) storageGate(node string) string {
	if s := c.cfg.SharedStorage; s != "" {
		return "storage " + s
	}
	return "node " + node
}

// Admit waits until a clone to node may be asked for: for a place at its storage, and for the turn of the
// clone POST at the rate limit. leave must be called when its task has ended; calling it again does
// nothing. The only error is the context's.
func (c *Client) Admit(ctx context.Context, node string) (leave func(), err error) {
	leave, err = c.storages.enter(ctx, c.storageGate(node))
	if err != nil {
		return nil, err
	}
	if err := c.rate.Wait(ctx); err != nil {
		leave()
		return nil, cmpErr(ctx.Err(), err)
	}
	return leave, nil
}
