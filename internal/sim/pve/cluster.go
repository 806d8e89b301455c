package pve

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// A Cluster is a simulated Proxmox VE cluster. Close it to end its guests and goroutines.
type Cluster struct {
	cfg    Config
	tokens map[string]token
	born   time.Time
	done   chan struct{} // closed by Close
	wg     sync.WaitGroup

	// mu guards everything below, and is never held while waiting, sleeping or calling a guest.
	mu       sync.Mutex
	closed   bool
	nodes    map[string]*node
	order    []string // node names as configured
	vms      map[int]*vm
	pools    map[int]string // VMID → pool: user.cfg
	volumes  map[string]*volume
	storages map[string]StorageSpec
	views    map[int]view
	tasks    map[string]*task
	locks    map[string]*lock
	dirs     map[string]struct{} // cluster-wide locks that are held
	rng      *rand.Rand
	births   map[int]int // how often a VMID was cloned: makes every draw independent of the order of others
	delays   map[int]map[string]time.Duration
	requests map[string]int
	touched  map[int]bool
	faults   []*fault
	slow     float64 // factor on storage work
	macs     int
}

// A node is one machine. Guarded by the cluster's mutex but for its channels.
type node struct {
	spec    NodeSpec
	workers chan struct{} // a token in it is a free pvedaemon worker
	phase   time.Time     // a moment when its pvestatd ran
	offline time.Time     // since when nobody hears of it; zero if online
	pid     int
	history []*task // ended tasks, oldest first
}

// New makes a cluster and everything that cfg names.
func New(cfg Config) *Cluster {
	cfg = cfg.withDefaults()
	c := &Cluster{
		cfg: cfg, born: time.Now(), done: make(chan struct{}),
		nodes: map[string]*node{}, vms: map[int]*vm{}, pools: map[int]string{},
		volumes: map[string]*volume{}, storages: map[string]StorageSpec{}, views: map[int]view{},
		tasks: map[string]*task{}, locks: map[string]*lock{}, dirs: map[string]struct{}{},
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)), births: map[int]int{},
		delays: map[int]map[string]time.Duration{}, requests: map[string]int{}, touched: map[int]bool{},
		slow: 1,
	}
	c.tokens = tokensOf(cfg)
	for _, s := range cfg.Nodes {
		c.order = append(c.order, s.Name)
		workers := make(chan struct{}, cfg.Workers)
		for range cfg.Workers {
			workers <- struct{}{}
		}
		interval := int64(c.scale(statInterval)) + 1
		c.nodes[s.Name] = &node{
			spec: s, workers: workers, pid: 1000 + c.rng.IntN(4000),
			phase: c.born.Add(-time.Duration(c.rng.Int64N(interval))),
		}
	}
	for _, s := range cfg.Storages {
		c.storages[s.Name] = s.withDefaults()
	}
	for _, t := range cfg.Templates {
		c.addTemplate(t)
	}
	return c
}

func (s StorageSpec) withDefaults() StorageSpec {
	if s.Type == "" {
		s.Type = "lvmthin"
	}
	if s.Total == 0 {
		s.Total = 4 << 40
	}
	return s
}

// Close ends all tasks and guests and waits for every goroutine of the cluster. Requests that are
// still waiting lose their connection. A second call waits as well and does nothing else.
func (c *Cluster) Close() {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.done)
		for _, t := range c.tasks {
			t.end(errKilled)
		}
		for _, v := range c.vms {
			c.cutPower(v)
		}
	}
	c.mu.Unlock()
	c.wg.Wait()
}

// spawn runs f in a goroutine that Close waits for. It must be called with c.mu held; false after
// Close: then f is not run.
func (c *Cluster) spawn(f func()) bool {
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// scale is a simulated delay as it really takes.
func (c *Cluster) scale(d time.Duration) time.Duration {
	return time.Duration(float64(d) / c.cfg.Speed)
}

// draw picks a delay for a VM: the same for the same seed, VMID, birth and use, whatever else happens.
// It must be called with c.mu held.
func (c *Cluster) draw(vmid int, use string, r Range) time.Duration {
	return time.Duration(float64(r.Min) + c.chance(vmid, use)*float64(max(0, r.Max-r.Min)))
}

// chance is an even number in [0,1) that belongs to a VM and a use. c.mu must be held.
func (c *Cluster) chance(vmid int, use string) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%d/%s", vmid, c.births[vmid], use)
	return rand.New(rand.NewPCG(c.cfg.Seed, h.Sum64())).Float64()
}

// lastTick is when pvestatd of n last ran; zero if never.
func (n *node) lastTick(interval time.Duration) time.Time {
	now := time.Now()
	if !n.offline.IsZero() {
		now = n.offline
	}
	if interval <= 0 {
		return now
	}
	if now.Before(n.phase) {
		return time.Time{}
	}
	return n.phase.Add(now.Sub(n.phase) / interval * interval)
}

// newMAC makes a MAC with PVE's default prefix (datacenter mac_prefix BC:24:11). c.mu must be held.
func (c *Cluster) newMAC() string {
	c.macs++
	// 7919 is odd and thus a permutation of the 24 bits: no MAC comes twice within 16 million.
	n := (uint32(c.macs)*7919 + uint32(c.cfg.Seed)) & 0xffffff
	return fmt.Sprintf("BC:24:11:%02X:%02X:%02X", byte(n>>16), byte(n>>8), byte(n))
}

func (c *Cluster) newUUID() string {
	a, b := c.rng.Uint64(), c.rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
}

// cutPower ends v's QEMU, if there is one. c.mu must be held. The guest hears of it in a goroutine of
// its own, because it may be the guest itself who asked.
func (c *Cluster) cutPower(v *vm) {
	r := v.run
	if r == nil {
		return
	}
	if !c.closed {
		c.touch(v)
	}
	v.run = nil
	close(r.ended)
	c.wg.Go(r.guest.Off)
}

// SetNode makes a node unreachable, or reachable again: calls that name it answer 595, its pvestatd is
// not heard of. Its VMs and tasks go on; calls that name no node are still served. An unknown name does
// nothing.
func (c *Cluster) SetNode(name string, online bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[name]
	if n == nil {
		return
	}
	for _, v := range c.vms {
		if v.node == name {
			c.settle(v)
		}
	}
	switch {
	case online:
		n.offline = time.Time{}
	case n.offline.IsZero():
		n.offline = time.Now()
	}
}

// Crash is a power failure of a node: its tasks die ("unexpected status", a clone leaves its config
// with lock: clone), its VMs stop, and it is unreachable until SetNode(name, true).
func (c *Cluster) Crash(name string) {
	c.SetNode(name, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tasks {
		if t.node == name {
			t.end(errKilled)
		}
	}
	for _, v := range c.vms {
		if v.node == name {
			c.cutPower(v)
		}
	}
}

// Pause stops a running VM's CPUs, as an operator's suspend does, or lets them go on. Its QEMU runs on
// and its agent is silent. False if the VM does not run.
func (c *Cluster) Pause(vmid int, paused bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.vms[vmid]
	if v == nil || v.run == nil {
		return false
	}
	c.touch(v)
	v.run.paused = paused
	return true
}

// Kill ends a VM's QEMU as a crash of it would. False if the VM does not run.
func (c *Cluster) Kill(vmid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.vms[vmid]
	if v == nil || v.run == nil {
		return false
	}
	c.cutPower(v)
	c.qmCleanup(v.node, v.id)
	return true
}

// Unlock takes the config lock off a VM, as `qm unlock` on its host does; no API token can. False if
// there is no such VM.
func (c *Cluster) Unlock(vmid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.vms[vmid]
	if v == nil {
		return false
	}
	c.touch(v)
	delete(v.conf, "lock")
	return true
}

// SlowStorage multiplies the time of all work on volumes from now on; 1 is normal.
func (c *Cluster) SlowStorage(factor float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = factor
}

// HoldStorage takes a storage's lock as another tool would, until release is called. It waits for the
// lock itself, without end; after Close it returns at once.
func (c *Cluster) HoldStorage(node, storage string) (release func()) {
	c.mu.Lock()
	s := c.storages[storage]
	c.mu.Unlock()
	return c.hold(func() (func(), lockResult) {
		r, _, how := c.lockStorage(c.done, node, s)
		return r, how
	})
}

// HoldUserCfg takes the cluster-wide lock of user.cfg until release is called. Like HoldStorage.
func (c *Cluster) HoldUserCfg() (release func()) {
	return c.hold(func() (func(), lockResult) { return c.poll(c.done, "file-user_cfg", storageWait) })
}

// HoldVM takes the flock of a VM's config file on its node, as `qm` on the host would. Like HoldStorage.
func (c *Cluster) HoldVM(node string, vmid int) (release func()) {
	return c.hold(func() (func(), lockResult) {
		r, _, how := c.acquire(c.done, flockKey(node, vmid), true, flockWait)
		return r, how
	})
}

func (c *Cluster) hold(try func() (func(), lockResult)) func() {
	for {
		release, how := try()
		switch how {
		case lockTaken:
			return release
		case lockEnded:
			return func() {}
		}
	}
}
