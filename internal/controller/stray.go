package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

func strayKey(vmid int) string { return fmt.Sprintf("VM %d", vmid) }

// inspect finds out whose a VM without a row is. Ours is adopted: it gets a row, and its guest decides what it is.
func (c *Controller) inspect(ctx context.Context, vm fleet.VM) error {
	proof, err := c.Cluster.Prove(ctx, fleet.Runner{VMID: vm.ID, Node: vm.Node})
	if err != nil {
		return fmt.Errorf("find out whose VM %d is: %w", vm.ID, err)
	}
	told := c.inspected(vm)
	e := fleet.Event{At: time.Now(), VMID: vm.ID, Node: vm.Node, Note: proof.Reason}
	switch proof.Whose {
	case fleet.Ours:
		return c.adopt(ctx, vm, proof)
	case fleet.Foreign, fleet.Other:
		e.Kind = fleet.ForeignSeen
	case fleet.Hidden:
		e.Kind = fleet.HiddenSeen
	default:
		return nil
	}
	if told {
		return nil
	}
	return c.Store.Observe(ctx, nil, e)
}

// inspected notes the inspection; true if the VM was inspected before.
func (c *Controller) inspected(vm fleet.VM) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, known := c.looked[vm.ID]
	c.looked[vm.ID] = inspection{vm.Name, time.Now()}
	return known && was.name == vm.Name
}

func (c *Controller) adopt(ctx context.Context, vm fleet.VM, proof fleet.Proof) error {
	now := time.Now()
	r := fleet.Runner{
		Name: proof.Mark.Name, Pool: fleet.PoolOf(c.cfg.Instance, proof.Mark.Name), Node: proof.Node, VMID: vm.ID,
		Phase: fleet.Joining, Since: now, Born: proof.Mark.Born, AskedAt: proof.Mark.Born, ClonedAt: now, Adopted: true,
		Registration: proof.Mark.Name,
	}
	err := c.Store.Create(ctx, []fleet.Runner{r}, c.event(r, fleet.Adopted, "it bears our mark and had no row"))
	if errors.Is(err, fleet.ErrTaken) {
		return nil // a row has that name or id: then this VM is a copy, or the row is younger than the look
	}
	if err != nil {
		return fmt.Errorf("adopt VM %d: %w", vm.ID, err)
	}
	return nil
}

// sweep lets an adopted VM go: only when GitHub has none of its registrations in a job, and the VM is stopped, or so
// old that it would have been ready long ago while its guest says that no runner runs.
func (c *Controller) sweep(ctx context.Context, r fleet.Runner) error {
	fact, err := c.powerFact(ctx, r)
	if err != nil {
		return err
	}
	if fact == gone {
		return c.leave(ctx, r, giveUp{cause: fact}, true)
	}
	if fact != stopped {
		if age := time.Since(r.Born); fact != runs || age < c.bootTimeout(r.Pool) {
			return fmt.Errorf("adopted %s is left alone: %s", r.Name, strings.TrimSpace(fact+fmt.Sprintf(", born %v ago", age.Round(time.Second))))
		}
		g, err := c.Guests.Status(ctx, fleet.Address{IP: r.Address, HostKey: r.HostKey})
		if err != nil && !errors.Is(err, fleet.ErrNotReady) {
			return fmt.Errorf("adopted %s: its guest cannot be asked, so it is left alone: %w", r.Name, err)
		}
		if g.Phase != fleet.GuestNone && g.Phase != fleet.GuestEnded && err == nil {
			return nil // settle will see it
		}
	}
	roster, err := c.Hub.Roster(ctx)
	if err != nil {
		return fmt.Errorf("adopted %s: list its registrations: %w", r.Name, err)
	}
	for _, g := range roster.Runners {
		if g.Name != r.Name && fleet.OwnerOf(g.Name) != r.Name {
			continue
		}
		was, err := c.Hub.Remove(ctx, g.ID, g.Name)
		if err != nil {
			return fmt.Errorf("adopted %s: take registration %s back: %w", r.Name, g.Name, err)
		}
		if was == fleet.Working {
			return fmt.Errorf("adopted %s is left alone: GitHub says that %s is in a job", r.Name, g.Name)
		}
	}
	return c.leave(ctx, r, giveUp{cause: "a stray: it bears our mark, had no row, and no runner runs in it"}, true)
}

func (c *Controller) bootTimeout(pool string) time.Duration {
	for _, p := range c.cfg.Pools {
		if p.Name == pool {
			return p.BootTimeout
		}
	}
	return 5 * time.Minute
}

// forget takes a registration back that has neither row nor VM.
func (c *Controller) forget(ctx context.Context, g fleet.Registration) error {
	defer func() {
		c.mu.Lock()
		c.haunting[g.ID] = time.Now() // only a younger list can show it again
		c.mu.Unlock()
	}()
	was, err := c.Hub.Remove(ctx, g.ID, g.Name)
	if err != nil {
		return fmt.Errorf("take ghost registration %s back: %w", g.Name, err)
	}
	if was == fleet.Working {
		return nil
	}
	return c.Store.Observe(ctx, nil, fleet.Event{
		At: time.Now(), Kind: fleet.GhostRemoved, Runner: g.Name, Pool: fleet.PoolOf(c.cfg.Instance, fleet.OwnerOf(g.Name)),
	})
}

// lookUp asks GitHub singly about jobs of which nothing was heard for long. A 404 proves nothing.
func (c *Controller) lookUp(ctx context.Context, jobs []fleet.Job) error {
	var lost error
	for _, j := range jobs {
		now, err := c.Hub.Job(ctx, j)
		if err != nil && !errors.Is(err, fleet.ErrGone) {
			lost = fmt.Errorf("look up job %d of %s: %w", j.ID, j.Repo, err)
			continue
		}
		if err != nil {
			now = j
		}
		now.Checked = time.Now()
		if err := c.Store.Observe(ctx, []fleet.Job{now}, jobEvents(j, now)...); err != nil {
			return fmt.Errorf("store what GitHub says of job %d: %w", j.ID, err)
		}
	}
	return lost
}

// jobEvents tells what a look-up has found out that no webhook had told.
func jobEvents(was, now fleet.Job) []fleet.Event {
	if now.Status.Rank() <= was.Status.Rank() {
		return nil
	}
	e := fleet.Event{At: now.Checked, Job: now.ID, Runner: now.Runner, Note: "looked up: no event had told it"}
	switch now.Status {
	case fleet.StatusInProgress:
		e.Kind = fleet.JobStarted
	case fleet.StatusCompleted:
		e.Kind, e.Class = fleet.JobEnded, now.Conclusion
	default:
		return nil
	}
	return []fleet.Event{e}
}
