package proxmox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"mayfly/internal/fleet"
)

const (
	// A proof older than this is made anew before the DELETE: a stop and our gates take time.
	proofLasts = 5 * time.Second
	// How often one Destroy begins again with a proof, after what it met on its way.
	maxRounds = 8
	// Clocks of ours and of the node may differ when we look for a task of ours there.
	clockSlack = 2 * time.Minute
)

// Destroy proves that the VM is r's and ours, stops it if it runs, deletes it, and returns when
// the delete task has ended well, with the volumes that Proxmox could not remove. Neither purge
// nor destroy-unreferenced-disks is asked for: the one takes locks that we do not need, the
// other frees volumes by name on storages that another cluster may share.
//
// ErrGone, ErrHidden, ErrForeign: nothing was done. ErrBusy: it is locked. ErrUnknown and errors
// of no class: call again, it finishes what is left.
func (c *Client) Destroy(ctx context.Context, r fleet.Runner) (leaked []string, err error) {
	d := destroyer{client: c, r: r}
	if err := d.run(ctx); err != nil {
		return d.leaked, fmt.Errorf("proxmox: destroy VM %d on node %s: %w", r.VMID, r.Node, err)
	}
	return d.leaked, nil
}

// A destroyer is one Destroy under way.
type destroyer struct {
	client *Client
	r      fleet.Runner
	leaked []string
	acted  bool      // something was sent that may have changed the VM
	runs   bool      // Proxmox said that it does
	held   time.Time // since when another operation was seen to hold the VM's config
}

// An again ends a round that a new one may see differently, and says why.
type again struct{ why error }

func (a again) Error() string { return a.why.Error() }

// run goes round: prove, stop, delete. Each round begins with a proof of its own, since what
// was met may be somebody else's doing.
func (d *destroyer) run(ctx context.Context) error {
	var last error
	for range maxRounds {
		err := d.round(ctx)
		var a again
		if !errors.As(err, &a) {
			return err
		}
		last = a.why
		if err := pause(ctx, d.client.scaled(lockPause)); err != nil {
			return gaveUp(ctx, last)
		}
	}
	if d.acted && errors.Is(last, fleet.ErrHidden) {
		return fmt.Errorf("%w: it was being destroyed: %v", fleet.ErrUnknown, last)
	}
	return last
}

func (d *destroyer) round(ctx context.Context) error {
	c := d.client
	proved := time.Now()
	proof, cfg, err := c.prove(ctx, d.r)
	switch {
	case err != nil:
		return err
	case proof.Whose == fleet.Nobody && d.acted:
		return nil
	}
	if err := refusal(proof); err != nil {
		if d.acted && proof.Whose == fleet.Hidden {
			return again{err} // half destroyed, by the DELETE that we sent
		}
		return err
	}
	if cfg.Lock != "" {
		return fmt.Errorf("%w: it is locked (%s)", fleet.ErrBusy, printable(string(cfg.Lock)))
	}
	if d.runs {
		// Guests power themselves off, so most VMs are stopped, and Proxmox refuses the DELETE of one that
		// runs: only then is it stopped first.
		d.acted = true
		if err := c.repeat(ctx, callStop, "/status/stop", proof.Node, d.r.VMID); err != nil {
			return d.met(ctx, err)
		}
		d.runs = false
	}
	leave, err := d.admit(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if time.Since(proved) > proofLasts {
		proof, _, err = c.prove(ctx, d.r)
		if err != nil {
			return err
		}
		if err := refusal(proof); err != nil {
			return d.met(ctx, err)
		}
	}
	return d.delete(ctx, proof.Node)
}

// admit passes the gate of the storage, then the cluster's: in this order a busy storage keeps
// no place from the others. Losing the user.cfg lock that each destroy takes leaves a VM that
// no token can remove.
func (d *destroyer) admit(ctx context.Context) (leave func(), err error) {
	c := d.client
	leaveStorage, err := c.storages.enter(ctx, c.storageGate(d.r.Node))
	if err != nil {
		return nil, err
	}
	if err := c.destroys.Acquire(ctx, 1); err != nil {
		leaveStorage()
		return nil, err
	}
	return func() {
		c.destroys.Release(1)
		leaveStorage()
	}, nil
}

// delete sends the DELETE, which Proxmox itself refuses for a running VM, and waits for it.
func (d *destroyer) delete(ctx context.Context, node string) error {
	c := d.client
	var upid string
	d.acted = true
	sent := time.Now()
	_, err := c.do(ctx, request{call: callDelete, method: http.MethodDelete, path: vmPath(node, d.r.VMID, ""), subject: strconv.Itoa(d.r.VMID)}, &upid)
	if err != nil && isLost(err) {
		// Never sent again blindly: its task is looked for, and then the next proof tells,
		// also when the task was an earlier one's.
		if upid = d.find(ctx, node, sent); upid != "" {
			if werr := d.finish(ctx, upid); werr != nil {
				err = werr
			}
		}
		return again{err}
	}
	if err == nil {
		err = d.finish(ctx, upid)
	}
	if err != nil {
		return d.met(ctx, c.privilege(ctx, node, d.r.VMID, err))
	}
	return nil
}

// finish waits for a delete task and collects the volumes that it left.
func (d *destroyer) finish(ctx context.Context, upid string) error {
	c := d.client
	end, err := c.wait(ctx, upid)
	if err != nil {
		return err
	}
	t, err := parseUPID(upid)
	if err != nil {
		return err
	}
	volumes, err := c.leaked(ctx, t)
	if err != nil {
		volumes, err = c.leaked(ctx, t)
	}
	if err != nil {
		// The VM is gone, which must not be told as a failure; a later look at the storage
		// is the only other way to these volumes.
		c.log.WarnContext(ctx, "volumes may be left: a destroy task's log cannot be read", "vmid", d.r.VMID, "node", t.node, "warned", end.warned(), "error", err)
	}
	d.leaked = append(d.leaked, volumes...)
	return nil
}

// find looks for the task of a DELETE whose answer was lost; "" if the node lists none.
func (d *destroyer) find(ctx context.Context, node string, sent time.Time) string {
	rows, err := d.client.taskRows(ctx, node, url.Values{
		"source":     {"all"},
		"vmid":       {strconv.Itoa(d.r.VMID)},
		"typefilter": {"qmdestroy"},
		"since":      {strconv.FormatInt(max(sent.Add(-clockSlack).Unix(), 0), 10)},
		"limit":      {"10"},
	})
	if err != nil {
		return ""
	}
	for _, r := range rows {
		t, err := parseUPID(string(r.UPID))
		if err == nil && t.kind == "qmdestroy" && t.id == strconv.Itoa(d.r.VMID) {
			return t.raw
		}
	}
	return ""
}

// met decides about what a step met: a new round with a new proof where the VM may have
// changed under us, else it is the caller's.
func (d *destroyer) met(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, fleet.ErrConfig) {
		return err
	}
	switch why := causeOf(err); {
	case why == configLock:
		if d.held.IsZero() {
			d.held = time.Now()
		}
		if time.Since(d.held) > lockBudget {
			return err
		}
	case why == stillRunning:
		d.runs = true
	case why == missing, why == denied, why == lost, errors.Is(err, fleet.ErrGone):
	default:
		return err
	}
	return again{err}
}
