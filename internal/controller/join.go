package controller

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// maxRegistrations bounds how often one VM is registered anew before it is given up.
const maxRegistrations = 5

// startTimeout is how long a guest has to get its runner listening; the guest's own limit is 5 min.
const startTimeout = 5*time.Minute + 30*time.Second

// join takes a Ready runner to Idle: it is registered and its runner is started.
func (c *Controller) join(ctx context.Context, r fleet.Runner, p fleet.Pool) error {
	readyAt := r.Since
	c.mu.Lock()
	if c.rested[r.Name] {
		readyAt = time.Time{}
	}
	c.mu.Unlock()
	return c.register(ctx, r, p, readyAt)
}

// register makes r's next registration and starts the runner with it. Each name is stored before GitHub is
// asked, each id before its secret is used; so whatever is lost can be found by name.
func (c *Controller) register(ctx context.Context, r fleet.Runner, p fleet.Pool, readyAt time.Time) error {
	for {
		next, ok := nextRegistration(r)
		if !ok {
			return c.retire(ctx, r, giveUp{fmt.Sprintf("not started after %d registrations", maxRegistrations), "other"})
		}
		if r.Phase != fleet.Joining {
			r.Phase, r.Since = fleet.Joining, time.Now()
		}
		r.Registration, r.RunnerID = next, 0
		if err := c.store(ctx, r); err != nil {
			return err
		}
		permit, err := c.permit(ctx, &r, p, readyAt)
		switch {
		case errors.Is(err, fleet.ErrTaken), errors.Is(err, fleet.ErrUnknown):
			// Perhaps an earlier call of ours registered it: whatever has the name is ours to take back.
			if done, err := c.takeBack(ctx, r); err != nil || done {
				return err
			}
			readyAt = time.Time{}
			continue
		case errors.Is(err, fleet.ErrConfig):
			c.failed(ctx, r, "config", err.Error())
			return err
		case err != nil:
			return err
		}
		return c.begin(ctx, r, p, permit)
	}
}

// permit asks GitHub for the registration and stores its id.
func (c *Controller) permit(ctx context.Context, r *fleet.Runner, p fleet.Pool, readyAt time.Time) (fleet.Permit, error) {
	out, cancel := outlive(ctx, c.cfg.StopGrace)
	defer cancel()
	permit, err := c.Hub.Register(out, r.Registration, p)
	if err != nil {
		return permit, fmt.Errorf("register %s: %w", r.Registration, err)
	}
	r.RunnerID = permit.ID
	e := c.event(*r, fleet.Registered, "")
	if !readyAt.IsZero() {
		e.Took = permit.Sent.Sub(readyAt)
	}
	return permit, c.store(out, *r, e)
}

// begin has the guest start its runner.
func (c *Controller) begin(ctx context.Context, r fleet.Runner, p fleet.Pool, permit fleet.Permit) error {
	sub, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	g, err := c.Guests.Start(sub, fleet.Address{IP: r.Address, HostKey: r.HostKey}, fleet.Order{
		ID: r.Registration, Secret: permit.Secret, URL: c.cfg.URL, Labels: p.Labels, Deadline: p.JobTimeout,
	})
	if errors.Is(err, fleet.ErrConfig) {
		return c.retire(ctx, r, giveUp{err.Error(), "config"})
	}
	if err != nil {
		return fmt.Errorf("start the runner of %s: %w", r.Name, err) // settle finds out what is
	}
	return c.arrived(ctx, r, g)
}

// arrived writes down where the guest says that its runner is.
func (c *Controller) arrived(ctx context.Context, r fleet.Runner, g fleet.Guest) error {
	switch g.Phase {
	case fleet.GuestListening:
		r.Phase, r.Since = fleet.Idle, time.Now()
		if err := c.store(ctx, r, took(c.event(r, fleet.Listening, ""), r.Since.Sub(r.Born))); err != nil {
			return err
		}
		c.cleared(ctx, r, false)
		return nil
	case fleet.GuestBusy:
		// Its job was waiting for it: it has listened all the same, for a moment.
		return c.busy(ctx, r, "its guest says so", took(c.event(r, fleet.Listening, ""), time.Since(r.Born)))
	case fleet.GuestEnded:
		return c.retire(ctx, r, giveUp{endOf(g), classOf(g)})
	}
	return fmt.Errorf("the guest of %s says %s after start", r.Name, g.Phase)
}

func (c *Controller) busy(ctx context.Context, r fleet.Runner, cause string, before ...fleet.Event) error {
	r.Phase, r.Since = fleet.Busy, time.Now()
	if err := c.store(ctx, r, append(before, c.event(r, fleet.RunnerBusy, cause))...); err != nil {
		return err
	}
	c.cleared(ctx, r, true)
	return nil
}

// settle finds out what became of a runner that was being started when its launcher went away.
func (c *Controller) settle(ctx context.Context, r fleet.Runner, p fleet.Pool) error {
	if r.Address == "" {
		find, cancel := context.WithTimeout(ctx, c.tempo.settle)
		a, err := c.Maker.Find(find, r)
		cancel()
		if err != nil {
			return c.unreachable(ctx, r, fmt.Errorf("find the guest of VM %d: %w", r.VMID, err))
		}
		r.Address, r.HostKey = a.IP, a.HostKey
		if err := c.store(ctx, r); err != nil {
			return err
		}
	}
	deadline, pause := time.Now().Add(c.tempo.settle), c.tempo.poll
	for {
		g, err := c.Guests.Status(ctx, fleet.Address{IP: r.Address, HostKey: r.HostKey})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && (g.Phase == fleet.GuestListening || g.Phase == fleet.GuestBusy || g.Phase == fleet.GuestEnded):
			if r.Adopted && g.ID != "" && fleet.OwnerOf(g.ID) == r.Name {
				r.Registration = g.ID
			}
			return c.arrived(ctx, r, g)
		case err == nil && g.Phase == fleet.GuestNone, errors.Is(err, fleet.ErrNotReady):
			if r.Adopted {
				return c.sweep(ctx, r)
			}
			if p.Name == "" {
				return c.retire(ctx, r, giveUp{cause: "pool " + r.Pool + " was removed from the config"})
			}
			if done, err := c.takeBack(ctx, r); err != nil || done {
				return err
			}
			return c.register(ctx, r, p, time.Time{})
		case time.Now().After(deadline):
			return c.unreachable(ctx, r, err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, 10*c.tempo.poll)
	}
}

// unreachable ends a runner whose guest does not answer, if GitHub says that it is in no job.
func (c *Controller) unreachable(ctx context.Context, r fleet.Runner, err error) error {
	if r.Adopted {
		return fmt.Errorf("adopted %s: its guest cannot be asked, so it is left alone: %w", r.Name, err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return c.retire(ctx, r, giveUp{fmt.Sprintf("its guest does not answer: %v", err), "other"})
}

// takeBack removes r's registration. done says that this settled the runner: it is in a job.
func (c *Controller) takeBack(ctx context.Context, r fleet.Runner) (done bool, err error) {
	if r.Registration == "" {
		return false, nil
	}
	was, err := c.Hub.Remove(ctx, r.RunnerID, r.Registration)
	if err != nil {
		return false, fmt.Errorf("take registration %s back: %w", r.Registration, err)
	}
	if was == fleet.Working {
		return true, c.busy(ctx, r, "GitHub says that it is in a job")
	}
	return false, nil
}

// nextRegistration is the name after r's current one: the VM's name, then -2, -3, ….
func nextRegistration(r fleet.Runner) (string, bool) {
	if r.Registration == "" {
		return r.Name, true
	}
	n := 1
	if suffix, ok := strings.CutPrefix(r.Registration, r.Name+"-"); ok {
		n, _ = strconv.Atoi(suffix) // our own text; anything else starts at 2
	}
	return fmt.Sprintf("%s-%d", r.Name, max(n, 1)+1), n < maxRegistrations
}

// endOf says for people how a guest's runner ended.
func endOf(g fleet.Guest) string {
	if g.Result != "" {
		return "its runner has ended its job: " + g.Result
	}
	return fmt.Sprintf("its runner ended without a job (exit code %d)", g.Exit)
}

// classOf is the class of failure that the end is; "" when it had a job.
func classOf(g fleet.Guest) string {
	if g.Result != "" {
		return ""
	}
	return noJob
}
