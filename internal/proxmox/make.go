package proxmox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

// Clone sends the one clone POST of r: a linked clone of r.Template on r.Node, with r's mark in
// its description. It must be admitted first. Sent is when its last byte had been written, also
// beside an error, zero if it never was.
//
// ErrTaken: the id is somebody's, nothing may be done to it. ErrUnknown: it may have been done.
// ErrFull, ErrConfig and errors of no class: it was not done.
func (c *Client) Clone(ctx context.Context, r fleet.Runner, p fleet.Pool) (fleet.Clone, error) {
	clone, err := c.clone(ctx, r)
	if err != nil {
		return clone, fmt.Errorf("proxmox: clone template %d to VM %d on node %s for pool %s: %w", r.Template, r.VMID, r.Node, p.Name, err)
	}
	return clone, nil
}

func (c *Client) clone(ctx context.Context, r fleet.Runner) (fleet.Clone, error) {
	mark := fleet.Mark{Instance: c.cfg.Instance, Name: r.Name, Born: r.Born}
	if _, ok := fleet.ParseMark(mark.String()); !ok || !c.cfg.IDs.Has(r.VMID) {
		return fleet.Clone{}, fmt.Errorf("%w: VM name %q or VMID is not ours to give", fleet.ErrConfig, printable(r.Name))
	}
	if err := c.approve(ctx, r.Node, r.Template, 0); err != nil {
		return fleet.Clone{}, err
	}
	var upid string
	sent, err := c.do(ctx, request{call: callClone, method: http.MethodPost, path: vmPath(r.Node, r.Template, "/clone"), subject: strconv.Itoa(r.Template), admitted: true, params: url.Values{
		"newid":       {strconv.Itoa(r.VMID)},
		"name":        {r.Name},
		"description": {mark.String()},
		"pool":        {c.cfg.Pool},
		"full":        {"0"},
	}}, &upid)
	if err != nil {
		return fleet.Clone{Sent: sent}, err
	}
	t, err := parseUPID(upid)
	if err == nil && t.kind != "qmclone" {
		err = fmt.Errorf("a task %s", t.kind)
	}
	if err != nil {
		return fleet.Clone{Sent: sent}, fmt.Errorf("%w: the answer is %w", fleet.ErrUnknown, err)
	}
	return fleet.Clone{UPID: upid, Sent: sent}, nil
}

const approvalLasts = 10 * time.Minute

// approvals remember which templates were found fit.
type approvals struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// holds tells whether the approval lasts for so long yet.
func (a *approvals) holds(key string, still time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Add(still).Before(a.until[key])
}

func (a *approvals) give(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil {
		a.until = map[string]time.Time{}
	}
	a.until[key] = time.Now().Add(approvalLasts)
}

// approve refuses what is no template, whose clone would be a full one, and a protected
// template, whose clones would inherit the protection and could not be deleted. An approval that lasts
// for still yet is not asked for again.
func (c *Client) approve(ctx context.Context, node string, template int, still time.Duration) error {
	key := node + " " + strconv.Itoa(template)
	if c.templates.holds(key, still) {
		return nil
	}
	var cfg vmConfig
	_, err := c.do(ctx, request{call: callTemplate, method: http.MethodGet, path: vmPath(node, template, "/config"), subject: strconv.Itoa(template)}, &cfg)
	switch {
	case err != nil:
		return fmt.Errorf("read the template: %w", err)
	case !bool(cfg.Template):
		return fmt.Errorf("%w: VM %d is no template (qm template %d)", fleet.ErrConfig, template, template)
	case bool(cfg.Protection):
		return fmt.Errorf("%w: template %d is protected, and its clones would be too (qm set %d --protection 0)", fleet.ErrConfig, template, template)
	}
	c.templates.give(key)
	return nil
}

// Fit proves that r's VM is ours, sets its tags and hardware in one request, and returns the MAC
// of net0 in upper case. ErrBusy: the VM is locked. ErrGone, ErrHidden, ErrForeign: it is not
// proved ours, and nothing was changed.
func (c *Client) Fit(ctx context.Context, r fleet.Runner, p fleet.Pool) (mac string, err error) {
	mac, err = c.fit(ctx, r, p)
	if err != nil {
		return "", fmt.Errorf("proxmox: fit VM %d on node %s for pool %s: %w", r.VMID, r.Node, p.Name, err)
	}
	return mac, nil
}

func (c *Client) fit(ctx context.Context, r fleet.Runner, p fleet.Pool) (string, error) {
	proof, cfg, err := c.prove(ctx, r)
	if err != nil {
		return "", err
	}
	if err := refusal(proof); err != nil {
		return "", err
	}
	if cfg.Lock != "" {
		return "", fmt.Errorf("%w: it is locked (%s)", fleet.ErrBusy, printable(string(cfg.Lock)))
	}
	mac := macOf(string(cfg.Net0))
	if mac == "" {
		return "", fmt.Errorf("%w: the template has no net0", fleet.ErrConfig)
	}
	params := url.Values{
		"tags":       {"mayfly;" + c.cfg.Instance},
		"protection": {"0"},
		"onboot":     {"0"},
	}
	if p.Cores > 0 {
		params.Set("cores", strconv.Itoa(p.Cores))
	}
	if p.Memory > 0 {
		params.Set("memory", strconv.FormatInt(int64(p.Memory/fleet.MiB), 10))
		params.Set("balloon", "0")
	}
	_, err = c.do(ctx, request{call: callConfigPut, method: http.MethodPut, path: vmPath(proof.Node, r.VMID, "/config"), subject: strconv.Itoa(r.VMID), params: params}, nil)
	return mac, c.privilege(ctx, proof.Node, r.VMID, err)
}

// An operation that holds a VM's config lock makes the next one fail after 10 s; qm cleanup,
// which follows every stop, holds it up to 30 s (qemu-server since 9.1.13).
const (
	lockBudget = 60 * time.Second
	lockPause  = 2 * time.Second
	// A lost answer to a start or stop is asked for again, which does no harm.
	sendsWhenLost = 3
)

// Start starts the VM and returns when its start task has ended; one that runs already is no
// error, nor are warnings, which 9.2 gives for each EFI disk without the 2023 certificate.
func (c *Client) Start(ctx context.Context, r fleet.Runner) error {
	if err := c.repeat(ctx, callStart, "/status/start", r.Node, r.VMID); err != nil && causeOf(err) != alreadyRuns {
		return fmt.Errorf("proxmox: start VM %d on node %s: %w", r.VMID, r.Node, err)
	}
	return nil
}

// repeat sends a POST that may be sent twice and waits for its task, again while another
// operation holds the VM's lock, within lockBudget, and if an answer is lost.
func (c *Client) repeat(ctx context.Context, k call, path, node string, vmid int) error {
	began := time.Now()
	for sends := 1; ; sends++ {
		err := c.operate(ctx, k, path, node, vmid)
		why := causeOf(err)
		again := why == configLock && time.Since(began) < lockBudget || why == lost && sends < sendsWhenLost
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		if pause(ctx, c.scaled(lockPause)) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

func (c *Client) operate(ctx context.Context, k call, path, node string, vmid int) error {
	var upid string
	_, err := c.do(ctx, request{call: k, method: http.MethodPost, path: vmPath(node, vmid, path), subject: strconv.Itoa(vmid)}, &upid)
	if err != nil {
		return c.privilege(ctx, node, vmid, err)
	}
	return c.Wait(ctx, upid)
}
