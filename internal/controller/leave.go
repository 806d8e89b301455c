package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/fleet"
)

// depart writes Leaving, once there is a fact that allows it. jobOver says that the runner's job has ended, so that
// GitHub has taken its registration back by itself. The next decision carries the leaving through.
func (c *Controller) depart(ctx context.Context, r *fleet.Runner, why giveUp, jobOver bool) error {
	if why.class != "" {
		c.failed(ctx, *r, why.class, why.cause)
	}
	if jobOver {
		r.Registration, r.RunnerID = "", 0
	}
	r.Phase, r.Since, r.Cause = fleet.Leaving, time.Now(), why.cause
	if err := c.store(ctx, *r, c.event(*r, fleet.RunnerLeaving, why.cause)); err != nil {
		return err
	}
	c.Poke() // its place may be wanted
	return nil
}

// leave has a runner depart, if it has not yet, and carries the leaving through until its row ends.
func (c *Controller) leave(ctx context.Context, r fleet.Runner, why giveUp, jobOver bool) error {
	if r.Phase != fleet.Leaving {
		if err := c.depart(ctx, &r, why, jobOver); err != nil {
			return err
		}
	}
	if err := c.deregister(ctx, &r); err != nil {
		c.log.Info("its registration is left to the next looks", "runner", r.Name, "err", err)
	}
	if r.ClonedAt.IsZero() && r.UPID != "" {
		// Nothing can be destroyed while its clone is being made; how that ended does not matter now.
		if err := c.Maker.Wait(ctx, r.UPID); ctx.Err() != nil {
			return err
		}
	}
	return c.destroy(ctx, r)
}

// deregister takes the registration of a leaving runner back, once. What is left of it is found as a ghost.
func (c *Controller) deregister(ctx context.Context, r *fleet.Runner) error {
	if r.Registration == "" {
		return nil
	}
	_, err := c.Hub.Remove(ctx, r.RunnerID, r.Registration)
	if err != nil {
		return fmt.Errorf("take registration %s back: %w", r.Registration, err)
	}
	r.Registration, r.RunnerID = "", 0
	return c.store(ctx, *r)
}

// destroy ends the VM and then the row; or the row alone, when it is a fact that there is no VM of ours.
func (c *Controller) destroy(ctx context.Context, r fleet.Runner) error {
	for {
		leaked, err := c.Ender.Destroy(ctx, r)
		switch {
		case err == nil:
			return c.endWith(ctx, r, leaked)
		case errors.Is(err, fleet.ErrGone):
			gone, err := c.isGone(ctx, r)
			if err != nil {
				return err
			}
			if gone {
				return c.end(ctx, r, "no VM has its id")
			}
		case errors.Is(err, fleet.ErrForeign):
			// Twice, or a row would end on one garbled answer.
			if err := sleep(ctx, c.tempo.apart); err != nil {
				return err
			}
			proof, err := c.Cluster.Prove(ctx, r)
			if err != nil {
				return fmt.Errorf("prove again whose VM %d is: %w", r.VMID, err)
			}
			if proof.Whose == fleet.Foreign || proof.Whose == fleet.Other {
				return c.end(ctx, r, "its id belongs to another VM, which was not touched: "+proof.Reason)
			}
		case errors.Is(err, fleet.ErrHidden) && time.Since(r.Since) >= hiddenFor:
			return c.quarantine(ctx, r, err)
		default:
			return fmt.Errorf("destroy VM %d of %s: %w", r.VMID, r.Name, err)
		}
	}
}

// isGone asks twice whether the id is free, and not before a lost clone POST can no longer come true.
func (c *Controller) isGone(ctx context.Context, r fleet.Runner) (bool, error) {
	if r.UPID == "" {
		asked := r.AskedAt
		if asked.IsZero() {
			asked = r.Since
		}
		if err := sleep(ctx, time.Until(asked.Add(c.tempo.afterPost))); err != nil {
			return false, err
		}
	}
	for i := range 2 {
		if i > 0 {
			if err := sleep(ctx, c.tempo.apart); err != nil {
				return false, err
			}
		}
		free, err := c.Cluster.Free(ctx, r.VMID)
		if err != nil {
			return false, fmt.Errorf("ask whether VMID %d is free: %w", r.VMID, err)
		}
		if !free {
			return false, nil
		}
	}
	return true, nil
}

func (c *Controller) quarantine(ctx context.Context, r fleet.Runner, because error) error {
	note := fmt.Sprintf("VM %d on %s was cloned for %s and cannot be read since %s: look at it with `qm config %d` on %s (%v)",
		r.VMID, r.Node, r.Name, r.Since.UTC().Format(time.RFC3339), r.VMID, r.Node, because)
	if err := c.Store.Note(ctx, nil, map[int]string{r.VMID: note}, c.event(r, fleet.Quarantined, note)); err != nil {
		return fmt.Errorf("quarantine VMID %d: %w", r.VMID, err)
	}
	return c.end(ctx, r, note)
}

func (c *Controller) end(ctx context.Context, r fleet.Runner, note string) error {
	return c.endRow(ctx, r, took(c.event(r, fleet.RunnerGone, note), time.Since(r.Born)))
}

func (c *Controller) endWith(ctx context.Context, r fleet.Runner, leaked []string) error {
	events := []fleet.Event{took(c.event(r, fleet.RunnerGone, r.Cause), time.Since(r.Born))}
	for _, volid := range leaked {
		events = append(events, c.event(r, fleet.VolumeLeaked, volid))
	}
	return c.endRow(ctx, r, events...)
}

func (c *Controller) endRow(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error {
	if err := c.Store.End(ctx, r.Name, ev...); err != nil {
		return fmt.Errorf("end the row of %s: %w", r.Name, err)
	}
	c.mu.Lock()
	c.ended[r.VMID] = time.Now()
	c.mu.Unlock()
	return nil
}

// retire lets a runner go if GitHub agrees that it is in no job: 204, or a proved 404. 422 makes it Busy.
func (c *Controller) retire(ctx context.Context, r fleet.Runner, why giveUp) error {
	if done, err := c.takeBack(ctx, r); err != nil || done {
		return err
	}
	return c.leave(ctx, r, why, true)
}

// examine asks singly about a runner that a list made doubtful. Only what is true twice, or what the guest
// itself says, ends it.
func (c *Controller) examine(ctx context.Context, x fleet.Examine, jobOver bool) error {
	r := x.Runner
	defer func() {
		c.mu.Lock()
		c.asked[r.Name] = time.Now()
		c.mu.Unlock()
	}()
	fact, err := c.powerFact(ctx, r)
	if err != nil {
		return err
	}
	switch fact {
	case "":
		return nil // nothing is known: the next looks ask again
	case runs:
		if x.About == fleet.AboutVM {
			return nil // the list was old
		}
		return c.examineGuest(ctx, r, x.Cause)
	}
	why := giveUp{cause: fact}
	if r.Phase != fleet.Busy && !jobOver {
		why.class = noJob
	}
	if r.Adopted {
		return c.sweep(ctx, r)
	}
	return c.leave(ctx, r, why, jobOver)
}

// Facts about a VM, in the words that people will read.
const (
	runs    = "its VM runs"
	stopped = "its VM has stopped"
	gone    = "its VM is gone"
)

// powerFact asks twice, apart, what the VM does; "" when the answers prove nothing.
func (c *Controller) powerFact(ctx context.Context, r fleet.Runner) (string, error) {
	for i := range 2 {
		if i > 0 {
			if err := sleep(ctx, c.tempo.apart); err != nil {
				return "", err
			}
		}
		power, err := c.Cluster.Power(ctx, r.Node, r.VMID)
		switch {
		case errors.Is(err, fleet.ErrGone), errors.Is(err, fleet.ErrHidden):
			if free, err := c.isGone(ctx, r); err != nil || !free {
				return "", err
			}
			return gone, nil
		case err != nil:
			return "", fmt.Errorf("ask whether VM %d runs: %w", r.VMID, err)
		case power == fleet.PowerOn:
			return runs, nil
		case power != fleet.PowerOff:
			return "", nil
		}
	}
	return stopped, nil
}

// examineGuest asks the guest of a running VM what its runner does.
func (c *Controller) examineGuest(ctx context.Context, r fleet.Runner, doubt string) error {
	if r.Phase != fleet.Idle && r.Phase != fleet.Busy {
		return nil
	}
	g, err := c.Guests.Status(ctx, fleet.Address{IP: r.Address, HostKey: r.HostKey})
	if err != nil {
		return fmt.Errorf("%s; ask its guest: %w", doubt, err)
	}
	switch {
	case g.Phase == fleet.GuestEnded:
		return c.leave(ctx, r, giveUp{endOf(g), classOf(g)}, g.Result != "")
	case r.Phase == fleet.Idle && g.Phase == fleet.GuestBusy:
		return c.busy(ctx, r, "its guest says so")
	case r.Phase == fleet.Idle:
		// It listens for a registration that GitHub no longer has: it will never get a job.
		return c.retire(ctx, r, giveUp{doubt, noJob})
	}
	return nil
}
