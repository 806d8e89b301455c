package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mayfly/internal/fleet"
)

// prepare takes r from its row to Ready. Each step is skipped where it was done before, so after a
// crash it is simply called again; only the clone POST is never repeated.
func (c *Controller) prepare(ctx context.Context, r fleet.Runner, p fleet.Pool, of launchOf) error {
	err := c.makeReady(ctx, &r, p, of)
	if err == nil {
		return nil
	}
	// What follows must be stored even if we are being stopped.
	out, cancel := outlive(ctx, c.cfg.StopGrace)
	defer cancel()
	var why giveUp
	told := errors.As(context.Cause(ctx), &why)
	switch {
	case r.AskedAt.IsZero(): // nothing was asked of Proxmox, or it was refused: there is nothing to clean up
		if !told && ctx.Err() == nil {
			c.failed(out, r, fleet.Class(err), err.Error())
		}
		return c.end(out, r, err.Error())
	case told:
		return c.depart(out, &r, why, false)
	case ctx.Err() != nil:
		return err // the row says how far it came
	case r.ClonedAt.IsZero() && errors.Is(err, fleet.ErrTaken):
		// The id is somebody's, perhaps our own lost POST: touch nothing. If it was ours, its mark makes it a stray.
		c.failed(out, r, "taken", err.Error())
		return c.end(out, r, err.Error())
	case r.UPID == "":
		return c.depart(out, &r, giveUp{"clone outcome unknown: " + err.Error(), fleet.Class(err)}, false)
	case r.ClonedAt.IsZero(), errors.Is(err, fleet.ErrConfig), errors.Is(err, fleet.ErrGone), errors.Is(err, fleet.ErrForeign):
		return c.depart(out, &r, giveUp{err.Error(), fleet.Class(err)}, false)
	}
	return err // it is taken up again, until its time is over
}

func (c *Controller) makeReady(ctx context.Context, r *fleet.Runner, p fleet.Pool, of launchOf) error {
	if r.ClonedAt.IsZero() {
		if err := c.clone(ctx, r, p, of); err != nil {
			return err
		}
	}
	if r.MAC == "" {
		mac, err := c.Maker.Fit(ctx, *r, p)
		if err != nil {
			return fmt.Errorf("set up VM %d: %w", r.VMID, err)
		}
		r.MAC = mac
		if err := c.store(ctx, *r); err != nil {
			return err
		}
	}
	if r.StartedAt.IsZero() {
		began := time.Now()
		if err := c.Maker.Start(ctx, *r); err != nil {
			return fmt.Errorf("start VM %d: %w", r.VMID, err)
		}
		r.StartedAt = time.Now()
		if err := c.store(ctx, *r, took(c.event(*r, fleet.Started, ""), r.StartedAt.Sub(began))); err != nil {
			return err
		}
	}
	if err := c.untilReady(ctx, r); err != nil {
		return err
	}
	r.Phase, r.Since = fleet.Ready, time.Now()
	if err := c.store(ctx, *r, took(c.event(*r, fleet.RunnerReady, ""), r.Since.Sub(r.Born))); err != nil {
		return err
	}
	c.cleared(ctx, *r, false)
	return nil
}

// clone asks for the clone, if nobody did, and waits for its end.
func (c *Controller) clone(ctx context.Context, r *fleet.Runner, p fleet.Pool, of launchOf) error {
	if r.UPID == "" {
		began := time.Now()
		free, err := c.Maker.Admit(ctx, r.Node)
		if err != nil {
			return fmt.Errorf("wait for a clone's turn on %s: %w", r.Node, err)
		}
		defer free()
		waited := time.Since(began)
		c.setStage(r.Name, fleet.AtWork)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.ask(ctx, r, p, of, waited); err != nil {
			return err
		}
	}
	if err := c.Maker.Wait(ctx, r.UPID); err != nil {
		return fmt.Errorf("clone template %d to VM %d: %w", r.Template, r.VMID, err)
	}
	r.ClonedAt = time.Now()
	return c.store(ctx, *r, took(c.event(*r, fleet.Cloned, ""), r.ClonedAt.Sub(r.AskedAt)))
}

// ask stores that the clone is being asked for, sends the POST and stores its task. Being told to stop does not cut it: an answer lost by
// ourselves would be a clone whose end nobody can ask for.
func (c *Controller) ask(ctx context.Context, r *fleet.Runner, p fleet.Pool, of launchOf, waited time.Duration) error {
	out, cancel := outlive(ctx, c.cfg.StopGrace)
	defer cancel()
	r.AskedAt = time.Now()
	if err := c.store(out, *r); err != nil {
		return err
	}
	done, err := c.Maker.Clone(out, *r, p)
	if err != nil {
		if !errors.Is(err, fleet.ErrUnknown) {
			r.AskedAt = time.Time{} // it was refused: nothing is there
		}
		return fmt.Errorf("ask %s for a clone of template %d as VM %d: %w", r.Node, r.Template, r.VMID, err)
	}
	r.UPID, r.AskedAt = done.UPID, done.Sent
	e := c.event(*r, fleet.CloneAsked, "")
	e.Job, e.Waited = of.job, waited
	if !of.received.IsZero() {
		e.Took = max(done.Sent.Sub(of.received)-waited, 0)
	}
	return c.store(out, *r, e)
}

// untilReady finds the guest and asks it until it is ready. The agent answers between the reboots of a
// Windows that is still being set up, so an address may have to be found more than once.
func (c *Controller) untilReady(ctx context.Context, r *fleet.Runner) error {
	for {
		a, err := c.Maker.Find(ctx, *r)
		if err != nil {
			return fmt.Errorf("find the guest of VM %d: %w", r.VMID, err)
		}
		if a.IP != r.Address || a.HostKey != r.HostKey {
			first := r.Address == ""
			r.Address, r.HostKey = a.IP, a.HostKey
			var events []fleet.Event
			if first {
				events = append(events, took(c.event(*r, fleet.Found, ""), time.Since(r.StartedAt)))
			}
			if err := c.store(ctx, *r, events...); err != nil {
				return err
			}
		}
		ready, err := c.poll(ctx, a)
		if ready || err != nil {
			return err
		}
	}
}

// poll asks the guest until it is ready; false when it has not answered for so long that it should be looked for again.
func (c *Controller) poll(ctx context.Context, a fleet.Address) (bool, error) {
	heard, pause := time.Now(), c.tempo.poll
	for {
		g, err := c.Guests.Status(ctx, a)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil && g.Ready:
			return true, nil
		case errors.Is(err, fleet.ErrConfig):
			return false, fmt.Errorf("ask the guest at %s: %w", a.IP, err)
		case err == nil || errors.Is(err, fleet.ErrNotReady):
			heard = time.Now()
		case time.Since(heard) > c.tempo.settle:
			return false, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return false, err
		}
		pause = min(pause*5/4, 3*c.tempo.poll)
	}
}

// store writes the row and its events.
func (c *Controller) store(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error {
	if err := c.Store.Update(ctx, r, ev...); err != nil {
		return fmt.Errorf("store runner %s (%s): %w", r.Name, r.Phase, err)
	}
	return nil
}

func took(e fleet.Event, d time.Duration) fleet.Event {
	e.Took = d
	return e
}
