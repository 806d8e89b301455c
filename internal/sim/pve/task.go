package pve

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	errKilled     = errors.New("unexpected status")     // SIGKILL: no cleanup, no last line in the log
	errTerminated = errors.New("interrupted by signal") // SIGTERM
)

// A task is a forked worker. Its fields up to log are fixed; the others are guarded by the cluster's
// mutex.
type task struct {
	c              *Cluster
	upid           string
	node, kind, id string
	user, tokenid  string
	pid, pstart    int
	start          time.Time
	vmid           int // the VM it works on: for a clone the new one
	stop           chan struct{}
	killed         chan struct{}
	done           chan struct{}
	sabotage       *Action // a TaskFails that an injected fault laid on it

	log      []string
	warnings int
	cause    error // why stop is closed
	exit     string
	ended    time.Time
	slept    time.Duration // simulated work, without waiting for locks
}

// fork starts a worker and returns at once; c.mu must be held.
func (c *Cluster) fork(r *request, kind, id string, vmid int, work func(*task) error) *task {
	n := c.nodes[r.node]
	n.pid += 20 + c.rng.IntN(60) // other processes of the node take numbers, too
	if n.pid > 4194303 {
		n.pid = 300 + n.pid%1000
	}
	now := time.Now()
	t := &task{
		c: c, node: r.node, kind: kind, id: id, vmid: vmid, pid: n.pid,
		pstart: int(now.Sub(c.born)/(10*time.Millisecond)) + 228740, // jiffies since a boot some time ago
		start:  now, stop: make(chan struct{}), killed: make(chan struct{}), done: make(chan struct{}),
		sabotage: r.sabotage,
	}
	t.user, t.tokenid = r.token.user()
	// pve-common 9.2: PVE::UPID, hex in upper case, the token's full name as user.
	t.upid = fmt.Sprintf("UPID:%s:%08X:%08X:%08X:%s:%s:%s:", r.node, t.pid, t.pstart, now.Unix(), kind, id, r.token.id)
	c.tasks[t.upid] = t
	if !c.spawn(func() { t.run(work) }) {
		t.exit, t.ended = errKilled.Error(), now
		close(t.done)
	}
	return t
}

func (t *task) run(work func(*task) error) {
	err := work(t)
	c := t.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, errKilled):
		t.exit = errKilled.Error()
	case err != nil:
		if errors.Is(err, errTerminated) && err == errTerminated {
			err = errors.New("received interrupt")
		}
		t.exit = strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " ")
		t.log = append(t.log, "TASK ERROR: "+t.exit)
	case t.warnings > 0:
		t.exit = fmt.Sprintf("WARNINGS: %d", t.warnings)
		t.log = append(t.log, "TASK "+t.exit)
	default:
		t.exit = "OK"
		t.log = append(t.log, "TASK OK")
	}
	t.ended = time.Now()
	n := c.nodes[t.node]
	n.history = append(n.history, t)
	// PVE keeps a few days (index and index.1); here a number bounds the memory.
	if over := len(n.history) - taskHistory; over > 0 {
		for _, old := range n.history[:over] {
			delete(c.tasks, old.upid)
		}
		n.history = slices.Clone(n.history[over:])
	}
	close(t.done)
}

const taskHistory = 4000 // ended tasks kept for each node

// end sends the worker a signal; c.mu must be held. KILL after TERM counts.
func (t *task) end(cause error) {
	if t.cause == nil {
		t.cause = cause
		close(t.stop)
	}
	if cause == errKilled {
		t.cause = cause
		select {
		case <-t.killed:
		default:
			close(t.killed)
		}
	}
}

func (t *task) why() error {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.cause
}

// work lets d of simulated work pass; an error is the signal that ended it.
func (t *task) work(d time.Duration) error {
	if !pause(t.stop, d) {
		return t.why()
	}
	t.c.mu.Lock()
	t.slept += d
	t.c.mu.Unlock()
	return nil
}

func (t *task) say(format string, a ...any) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.log = append(t.log, fmt.Sprintf(format, a...))
}

func (t *task) warn(format string, a ...any) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.warnings++
	t.log = append(t.log, "WARN: "+fmt.Sprintf(format, a...))
}

// record remembers the simulated time of a VM's use; kept until the id is cloned again.
func (t *task) record(use string) {
	c := t.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.delays[t.vmid] == nil {
		c.delays[t.vmid] = map[string]time.Duration{}
	}
	c.delays[t.vmid][use] += t.slept
}

const flockWait = 10 * time.Second // guest-common 6.0: PVE::AbstractConfig::lock_config

func flockKey(node string, vmid int) string { return "flock/" + node + "/" + strconv.Itoa(vmid) }

// flock takes the lock of a VM's config file on the task's node.
func (t *task) flock(vmid int, exclusive bool, wait time.Duration) (release func(), err error) {
	release, waited, how := t.c.acquire(t.stop, flockKey(t.node, vmid), exclusive, wait)
	if waited {
		t.say("trying to acquire lock...")
	}
	switch how {
	case lockTimeout:
		return nil, fmt.Errorf("can't lock file '/var/lock/qemu-server/lock-%d.conf' - got timeout", vmid)
	case lockEnded:
		return nil, t.why()
	}
	if waited {
		t.say(" OK")
	}
	return release, nil
}

const storageWait = 10 * time.Second // pve-storage 9.1: PVE::Storage::Plugin::cluster_lock_storage

// lockStorage takes the lock round volume work: a file of the node, or for shared storages a
// directory of the cluster.
func (c *Cluster) lockStorage(stop <-chan struct{}, node string, s StorageSpec) (release func(), waited bool, how lockResult) {
	if s.Shared {
		release, how = c.poll(stop, "storage-"+s.Name, storageWait)
		return release, false, how
	}
	return c.acquire(stop, "storage/"+node+"/"+s.Name, true, storageWait)
}

// onStorage does work on volumes that takes d, under the storage's lock. Both functions are called
// with c.mu held.
func (t *task) onStorage(stop <-chan struct{}, s StorageSpec, d time.Duration, before, after func()) error {
	c := t.c
	release, waited, how := c.lockStorage(stop, t.node, s)
	if waited {
		t.say("trying to acquire lock...")
	}
	switch how {
	case lockTimeout:
		if s.Shared {
			return fmt.Errorf("cfs-lock 'storage-%s' error: got lock request timeout", s.Name)
		}
		return fmt.Errorf("can't lock file '/var/lock/pve-manager/pve-storage-%s' - got timeout", s.Name)
	case lockEnded:
		return t.why()
	}
	defer release()
	if waited {
		t.say(" OK")
	}
	c.mu.Lock()
	before()
	d = time.Duration(float64(d) * c.slow)
	c.mu.Unlock()
	if !pause(stop, d) {
		return t.why()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t.slept += d
	after()
	return nil
}

// userCfg changes pool membership under the cluster's lock of user.cfg (access-control 9.1:
// add_vm_to_pool, remove_vm_access; pve-cluster 9.1: cfs_lock_file, 10 s).
func (t *task) userCfg(do func()) error {
	release, how := t.c.poll(t.stop, "file-user_cfg", storageWait)
	switch how {
	case lockTimeout:
		return errors.New("cfs-lock 'file-user_cfg' error: got lock request timeout")
	case lockEnded:
		return t.why()
	}
	defer release()
	// Reading, changing and writing one small file through corosync; our estimate.
	t.c.mu.Lock()
	d := t.c.draw(t.vmid, "user.cfg"+t.kind, Range{10 * time.Millisecond, 30 * time.Millisecond})
	t.c.mu.Unlock()
	if err := t.work(t.c.scale(d)); err != nil {
		return err
	}
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	do()
	return nil
}

// KillClone sends SIGKILL to the worker that clones to vmid, as an operator or the OOM killer would:
// the half VM stays with lock: clone and without pool. False if no such clone runs.
func (c *Cluster) KillClone(vmid int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.tasks {
		if t.kind == "qmclone" && t.vmid == vmid && t.exit == "" {
			t.end(errKilled)
			return true
		}
	}
	return false
}

var upidPattern = regexp.MustCompile(`^UPID:([a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s/]+):([^:\s/]*):([^:\s/]+):$`)

// findTask is the task that a request names, with the errors and the order of pve-manager's Tasks.pm.
func (c *Cluster) findTask(r *request, priv string) (*task, *apiError) {
	m := upidPattern.FindStringSubmatch(r.upid)
	if m == nil {
		return nil, badParam("upid", "unable to parse worker upid")
	}
	t := c.tasks[r.upid]
	// Its owner may see it; a token sees the token's own.
	if owner := m[7]; owner != r.token.id && !r.can("/nodes/"+r.node, priv) {
		return nil, denied("/nodes/"+r.node, priv)
	}
	if t == nil || t.node != r.node {
		return nil, badParam("upid", "no such task")
	}
	return t, nil
}

func (c *Cluster) taskStatus(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, e := c.findTask(r, "Sys.Audit")
	if e != nil {
		return nil, e
	}
	m := t.row()
	m["status"] = "running"
	if t.exit != "" {
		m["status"], m["exitstatus"] = "stopped", t.exit
	}
	return m, nil
}

func (t *task) row() map[string]any {
	m := map[string]any{
		"upid": t.upid, "node": t.node, "pid": t.pid, "pstart": t.pstart, "starttime": t.start.Unix(),
		"type": t.kind, "id": t.id, "user": t.user,
	}
	if t.tokenid != "" {
		m["tokenid"] = t.tokenid
	}
	return m
}

func (c *Cluster) taskLog(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, e := c.findTask(r, "Sys.Audit")
	var lines []string
	switch {
	case e != nil && e.errors["upid"] == "no such task":
		lines = []string{"unable to open file - No such file or directory"}
	case e != nil:
		return nil, e
	case len(t.log) == 0:
		lines = []string{"no content"}
	default:
		lines = t.log
	}
	total := len(lines)
	start, limit := min(max(r.num("start", 0), 0), total), r.num("limit", 50)
	end := total
	if limit > 0 {
		end = min(total, start+limit)
	}
	rows := []map[string]any{}
	for i := start; i < end; i++ {
		rows = append(rows, map[string]any{"n": i + 1, "t": lines[i]})
	}
	return paged{rows, total}, nil
}

// taskStop is DELETE of a task: TERM, up to five seconds, KILL; the call waits for it.
func (c *Cluster) taskStop(r *request) (any, *apiError) {
	c.mu.Lock()
	t, e := c.findTask(r, "Sys.Modify")
	if e != nil {
		c.mu.Unlock()
		return nil, e
	}
	if t.exit == "" {
		t.end(errTerminated)
	}
	c.mu.Unlock()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-t.done:
		return nil, nil
	case <-timer.C:
	}
	c.mu.Lock()
	t.end(errKilled)
	c.mu.Unlock()
	<-t.done
	return nil, nil
}

// taskList is GET nodes/{node}/tasks: own tasks without Sys.Audit. A clone stands under its
// template's id.
func (c *Cluster) taskList(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	source := r.str("source", "archive")
	all := r.can("/nodes/"+r.node, "Sys.Audit")
	var found []*task
	if source != "active" {
		found = append(found, c.nodes[r.node].history...)
	}
	if source != "archive" {
		for _, t := range c.tasks {
			if t.node == r.node && t.exit == "" {
				found = append(found, t)
			}
		}
	}
	found = slices.DeleteFunc(found, func(t *task) bool {
		full := t.user
		if t.tokenid != "" {
			full += "!" + t.tokenid
		}
		switch {
		case !all && full != r.token.id,
			r.has("vmid") && t.id != r.str("vmid", ""),
			r.has("typefilter") && !strings.Contains(t.kind, r.str("typefilter", "")),
			r.has("userfilter") && !strings.Contains(full, r.str("userfilter", "")),
			r.has("since") && t.start.Unix() < int64(r.num("since", 0)),
			r.has("until") && t.start.Unix() > int64(r.num("until", 0)),
			// WARNINGS count as errors here (pve-manager 9.2: API2/Tasks.pm).
			r.num("errors", 0) == 1 && (t.exit == "OK" || t.exit == ""):
			return true
		}
		return false
	})
	// By pid where the second is the same: the newest first, as in the index file read backwards.
	slices.SortStableFunc(found, func(a, b *task) int { return b.start.Compare(a.start) })
	total := len(found)
	start := min(max(r.num("start", 0), 0), total)
	found = found[start:min(total, start+max(r.num("limit", 50), 0))]
	rows := []map[string]any{}
	for _, t := range found {
		m := t.row()
		if t.exit == "" {
			m["status"] = "RUNNING"
		} else {
			m["status"], m["endtime"] = t.exit, t.ended.Unix()
		}
		rows = append(rows, m)
	}
	if source == "active" {
		return rows, nil
	}
	return paged{rows, total}, nil
}

// Delays are the simulated delays that a VM really got, without waiting for locks, by use: "clone",
// "start", "stop", "destroy". Uses that came more than once are summed up since its last clone.
func (c *Cluster) Delays(vmid int) map[string]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.delays[vmid])
}
