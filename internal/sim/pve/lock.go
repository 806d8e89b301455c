package pve

import (
	"slices"
	"time"
)

// A lock is a shared or exclusive lock that is granted in the order of asking, like flock(2) as
// PVE::Tools::lock_file uses it. All its fields are guarded by the cluster's mutex.
type lock struct {
	exclusive bool
	shared    int
	queue     []*waiter
}

type waiter struct {
	exclusive bool
	granted   chan struct{}
	ok        bool
}

func (l *lock) free(exclusive bool) bool {
	return !l.exclusive && (!exclusive || l.shared == 0)
}

func (l *lock) take(exclusive bool) {
	if exclusive {
		l.exclusive = true
	} else {
		l.shared++
	}
}

// grant hands the lock to as many waiters as may have it now.
func (l *lock) grant() {
	for len(l.queue) > 0 && l.free(l.queue[0].exclusive) {
		w := l.queue[0]
		l.queue = l.queue[1:]
		l.take(w.exclusive)
		w.ok = true
		close(w.granted)
	}
}

type lockResult int

const (
	lockTaken lockResult = iota
	lockTimeout
	lockEnded // stop was closed first
)

// acquire takes the lock named key, waiting at most timeout; waited says that it was not free at once.
// release may be called more than once.
func (c *Cluster) acquire(stop <-chan struct{}, key string, exclusive bool, timeout time.Duration) (release func(), waited bool, r lockResult) {
	c.mu.Lock()
	l := c.locks[key]
	if l == nil {
		l = &lock{}
		c.locks[key] = l
	}
	released := false
	release = func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if released {
			return
		}
		released = true
		if exclusive {
			l.exclusive = false
		} else {
			l.shared--
		}
		l.grant()
		if !l.exclusive && l.shared == 0 && len(l.queue) == 0 {
			delete(c.locks, key)
		}
	}
	if len(l.queue) == 0 && l.free(exclusive) {
		l.take(exclusive)
		c.mu.Unlock()
		return release, false, lockTaken
	}
	w := &waiter{exclusive: exclusive, granted: make(chan struct{})}
	l.queue = append(l.queue, w)
	c.mu.Unlock()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	r = lockTimeout
	select {
	case <-w.granted:
		return release, true, lockTaken
	case <-stop:
		r = lockEnded
	case <-timer.C:
	}
	c.mu.Lock()
	if w.ok { // granted in the same moment
		c.mu.Unlock()
		release()
		return nil, true, r
	}
	l.queue = slices.DeleteFunc(l.queue, func(o *waiter) bool { return o == w })
	l.grant() // a shared waiter may have stood behind an exclusive one
	c.mu.Unlock()
	return nil, true, r
}

// poll takes a cluster-wide lock. It is a directory in pmxcfs that is tried once a second, without
// order, for at most timeout (pve-cluster 9.1: PVE::Cluster::cfs_lock).
func (c *Cluster) poll(stop <-chan struct{}, key string, timeout time.Duration) (release func(), r lockResult) {
	deadline := time.Now().Add(timeout)
	for {
		c.mu.Lock()
		_, held := c.dirs[key]
		if !held {
			c.dirs[key] = struct{}{}
		}
		c.mu.Unlock()
		if !held {
			return func() {
				c.mu.Lock()
				delete(c.dirs, key)
				c.mu.Unlock()
			}, lockTaken
		}
		if !time.Now().Before(deadline) {
			return nil, lockTimeout
		}
		if !pause(stop, time.Second) {
			return nil, lockEnded
		}
	}
}

// pause waits for d; false if stop was closed first.
func pause(stop <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-stop:
		return false
	case <-t.C:
		return true
	}
}
