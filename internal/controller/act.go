package controller

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"mayfly/internal/fleet"
)

// act starts what was decided. What it starts, own runs; a wish whose row is held by somebody waits for the next decision.
func (c *Controller) act(ctx context.Context, w fleet.World, plan fleet.Plan, books fleet.Books) error {
	pools := make(map[string]fleet.Pool, len(w.Pools))
	for _, p := range w.Pools {
		pools[p.Name] = p
	}
	// What was held when it was decided is only told: its holder has the row as it is now. What was not held has not
	// changed since, as nobody but this loop gives holds.
	held := make(map[string]bool)
	over := make(map[string]bool) // runners whose job has ended: GitHub takes their registration back by itself
	for _, r := range w.Runners {
		held[r.Name] = r.Held != fleet.NotHeld
		if !r.JobEnded.IsZero() {
			over[r.Name] = true
		}
	}
	// First what a job waits for: the writes below wait for the disk one by one.
	for _, a := range plan.Join {
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.join(ctx, a.Runner, pools[a.Runner.Pool]) })
	}
	launched := c.launchAll(ctx, w, plan.Launch, books, pools)
	for _, a := range plan.Advance {
		r := a.Runner
		r.Phase, r.Since, r.Job = a.To, w.Now, a.Job
		if err := c.store(ctx, r, c.event(r, fleet.RunnerBusy, a.Cause)); err != nil {
			c.log.Error("what GitHub says of a runner could not be stored", "err", err) // the next decision wishes it again
			continue
		}
		c.cleared(ctx, r, true)
	}
	for _, a := range plan.Leave {
		g := giveUp{a.Cause, a.Class}
		if held[a.Runner.Name] {
			c.dismiss(a.Runner.Name, g)
			continue
		}
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error {
			return c.leave(ctx, a.Runner, g, over[a.Runner.Name])
		})
	}
	for _, a := range plan.Cancel {
		if held[a.Runner.Name] {
			c.dismiss(a.Runner.Name, giveUp{a.Cause, a.Class})
			continue
		}
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.end(ctx, a.Runner, a.Cause) })
	}
	for _, a := range plan.Resume {
		p, known := pools[a.Runner.Pool]
		if !known {
			p = fleet.Pool{Name: a.Runner.Pool}
		}
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.prepare(ctx, a.Runner, p, launchOf{}) })
	}
	for _, a := range plan.Settle {
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.settle(ctx, a.Runner, pools[a.Runner.Pool]) })
	}
	for _, a := range plan.Examine {
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.examine(ctx, a, over[a.Runner.Name]) })
	}
	for _, a := range plan.Retire {
		c.own(ctx, a.Runner.Name, fleet.AtWork, func(ctx context.Context) error { return c.retire(ctx, a.Runner, giveUp{cause: a.Cause}) })
	}
	for _, vm := range plan.Inspect {
		c.own(ctx, strayKey(vm.ID), fleet.AtWork, func(ctx context.Context) error { return c.inspect(ctx, vm) })
	}
	for _, g := range plan.Forget {
		c.own(ctx, fmt.Sprintf("registration %d", g.ID), fleet.AtWork, func(ctx context.Context) error { return c.forget(ctx, g) })
	}
	if len(plan.LookUp) > 0 {
		c.own(ctx, "open jobs", fleet.AtWork, func(ctx context.Context) error { return c.lookUp(ctx, plan.LookUp) })
	}
	return launched
}

// launchOf is what a launch was decided for.
type launchOf struct {
	received time.Time // when the job's first event came; zero when it does not count
	job      int64
}

// launchAll stores the rows of all launches in one transaction, the intent before the deed, then starts them.
func (c *Controller) launchAll(ctx context.Context, w fleet.World, launches []fleet.Launch, books fleet.Books, pools map[string]fleet.Pool) error {
	if len(launches) == 0 {
		return nil
	}
	received := make(map[int64]time.Time, len(w.Jobs))
	for _, j := range w.Jobs {
		received[j.ID] = j.Received
	}
	ids := c.freeIDs(books, len(launches))
	if len(ids) < len(launches) {
		c.log.Error("the VMID range is used up: widen proxmox.vmids", "from", c.cfg.FirstID, "to", c.cfg.LastID)
		launches = launches[:len(ids)]
	}
	var rows []fleet.Runner
	var events []fleet.Event
	var fors []launchOf
	for i, l := range launches {
		var hash [4]byte
		if _, err := rand.Read(hash[:]); err != nil {
			return fmt.Errorf("make a VM name: %w", err)
		}
		r := fleet.Runner{
			Name: fmt.Sprintf("%s-%s-%s", c.cfg.Instance, l.Pool, hex.EncodeToString(hash[:])), Pool: l.Pool, Node: l.Node,
			VMID: ids[i], Template: pools[l.Pool].Templates[l.Node], Phase: fleet.Preparing, Since: w.Now, Born: w.Now,
		}
		of := launchOf{job: l.Job}
		c.mu.Lock()
		if l.Job != 0 && !c.delayed[l.Job] {
			of.received = received[l.Job]
		}
		c.mu.Unlock()
		e := c.event(r, fleet.Planned, l.Cause)
		e.Job = l.Job
		rows, events, fors = append(rows, r), append(events, e), append(fors, of)
	}
	if len(rows) == 0 {
		return nil
	}
	if err := c.Store.Create(ctx, rows, events...); err != nil {
		return fmt.Errorf("store %d new runners: %w", len(rows), err)
	}
	for i, r := range rows {
		c.own(ctx, r.Name, fleet.AtGate, func(ctx context.Context) error { return c.prepare(ctx, r, pools[r.Pool], fors[i]) })
	}
	return nil
}

// freeIDs returns up to n VMIDs of our range that no row, no listed VM and no quarantine has. It goes round the
// range, so that an id is not soon used again: lists show the old VM's state under a re-used id for a while.
func (c *Controller) freeIDs(books fleet.Books, n int) []int {
	used := make(map[int]bool)
	for _, r := range books.Runners {
		used[r.VMID] = true
	}
	for id := range books.Quarantine {
		used[id] = true
	}
	c.mu.Lock()
	for _, vm := range c.sight.VMs {
		used[vm.ID] = true
	}
	c.mu.Unlock()
	var ids []int
	size := c.cfg.LastID - c.cfg.FirstID + 1
	next := max(books.LastVMID+1, c.cfg.FirstID)
	for i := range size {
		id := c.cfg.FirstID + (next-c.cfg.FirstID+i)%size
		if len(ids) == n {
			break
		}
		if !used[id] {
			ids = append(ids, id)
		}
	}
	return ids
}

// event is the start of an event about r.
func (c *Controller) event(r fleet.Runner, k fleet.Kind, note string) fleet.Event {
	return fleet.Event{At: time.Now(), Kind: k, Runner: r.Name, Pool: r.Pool, Node: r.Node, VMID: r.VMID, Job: r.Job, Note: note}
}

// failed writes one more failure of r's pool, and of the pool on r's node, into the world.
func (c *Controller) failed(ctx context.Context, r fleet.Runner, class, text string) {
	now := time.Now()
	c.mu.Lock()
	var changed []fleet.Trouble
	for _, key := range [][2]string{{r.Pool, ""}, {r.Pool, r.Node}} {
		t := c.troubles[key]
		t = fleet.Trouble{Pool: key[0], Node: key[1], Count: t.Count + 1, Last: now, Class: class, Text: text}
		c.troubles[key] = t
		changed = append(changed, t)
	}
	c.mu.Unlock()
	e := c.event(r, fleet.Failed, text)
	e.Class = class
	if err := c.Store.Note(ctx, changed, nil, e); err != nil && ctx.Err() == nil {
		c.log.Error("store a failure", "runner", r.Name, "err", err)
	}
}

// noJob is the class of a runner that ended without a job. It looks healthy until then, so only a job clears it.
const noJob = "no_job"

// cleared ends the troubles of r's pool and of the pool on r's node: one has succeeded.
func (c *Controller) cleared(ctx context.Context, r fleet.Runner, hasJob bool) {
	c.mu.Lock()
	var changed []fleet.Trouble
	for _, key := range [][2]string{{r.Pool, ""}, {r.Pool, r.Node}} {
		if t, ok := c.troubles[key]; ok && t.Count > 0 && (hasJob || t.Class != noJob) {
			delete(c.troubles, key)
			changed = append(changed, fleet.Trouble{Pool: key[0], Node: key[1]})
		}
	}
	c.mu.Unlock()
	if len(changed) == 0 {
		return
	}
	if err := c.Store.Note(ctx, changed, nil); err != nil && ctx.Err() == nil {
		c.log.Error("store the end of a trouble", "pool", r.Pool, "err", err)
	}
}
