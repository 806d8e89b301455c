package proxmox

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"mayfly/internal/fleet"
)

// A vmConfig is what we read of a VM's config.
type vmConfig struct {
	Name        text `json:"name"`
	Description text `json:"description"`
	Lock        text `json:"lock"`
	Template    flag `json:"template"`
	Protection  flag `json:"protection"`
	Net0        text `json:"net0"`
}

// A resource is a row of cluster/resources, of any type.
type resource struct {
	Type     text   `json:"type"`
	Node     text   `json:"node"`
	Status   text   `json:"status"`
	VMID     number `json:"vmid"`
	Name     text   `json:"name"`
	Pool     text   `json:"pool"`
	Lock     text   `json:"lock"`
	MaxMem   number `json:"maxmem"`
	Mem      number `json:"mem"`
	Storage  text   `json:"storage"`
	Content  text   `json:"content"`
	Disk     number `json:"disk"`
	MaxDisk  number `json:"maxdisk"`
	Template flag   `json:"template"`
}

// guest tells whether the row is a VM or a container.
func (r resource) guest() bool { return r.Type == "qemu" || r.Type == "lxc" }

// config reads a VM's config, pending changes applied.
func (c *Client) config(ctx context.Context, node string, vmid int) (cfg vmConfig, err error) {
	_, err = c.do(ctx, request{call: callConfig, method: http.MethodGet, path: vmPath(node, vmid, "/config"), subject: strconv.Itoa(vmid)}, &cfg)
	return cfg, err
}

// guests lists every VM and container that the token may see, by VMID, in a request that
// begins after the call and may be shared with others.
func (c *Client) guests(ctx context.Context) (map[int]resource, error) {
	return c.inventory.get(ctx, func(ctx context.Context) (map[int]resource, error) {
		var rows []resource
		_, err := c.do(ctx, request{call: callInventory, method: http.MethodGet, path: "/cluster/resources", params: url.Values{"type": {"vm"}}}, &rows)
		if err != nil {
			return nil, err
		}
		by := make(map[int]resource, len(rows))
		for _, r := range rows {
			if id := r.VMID.whole(); id > 0 && r.guest() {
				by[id] = r
			}
		}
		return by, nil
	})
}

// Free asks whether nobody in the cluster has the id, seen or hidden. It needs no privilege.
func (c *Client) Free(ctx context.Context, vmid int) (bool, error) {
	free, err := c.free(ctx, vmid)
	if err != nil {
		return false, fmt.Errorf("proxmox: ask whether VMID %d is free: %w", vmid, err)
	}
	return free, nil
}

func (c *Client) free(ctx context.Context, vmid int) (bool, error) {
	var id number
	_, err := c.do(ctx, request{call: callNextID, method: http.MethodGet, path: "/cluster/nextid", params: url.Values{"vmid": {strconv.Itoa(vmid)}}}, &id)
	if f, ok := err.(*failure); ok && f.status == http.StatusBadRequest && strings.Contains(f.fields["vmid"], "already exists") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if id.whole() != vmid {
		return false, fmt.Errorf("the answer names VMID %d", id.whole())
	}
	return true, nil
}

// Prove asks whose the VM with r's VMID is, by its config and by the list that shows its pool,
// both fetched after the call. With r.Name "" any mark of our instance makes it ours.
//
// The answer is Ours only if everything holds: the mark's one line with our instance, the VM's
// name as in it and as in r, our range, our pool, neither a template nor protected. Marked VMs
// that fail one of the last three are Hidden: ours perhaps, but not to be touched.
func (c *Client) Prove(ctx context.Context, r fleet.Runner) (fleet.Proof, error) {
	p, _, err := c.prove(ctx, r)
	if err != nil {
		return fleet.Proof{}, fmt.Errorf("proxmox: prove whose VM %d is: %w", r.VMID, err)
	}
	return p, nil
}

func (c *Client) prove(ctx context.Context, r fleet.Runner) (fleet.Proof, vmConfig, error) {
	rows, err := c.guests(ctx)
	if err != nil {
		// Without a class: a list that is refused says nothing about this VM, and may be had again.
		return fleet.Proof{}, vmConfig{}, fmt.Errorf("the list that shows its pool cannot be had: %v", err)
	}
	row, listed := rows[r.VMID]
	if listed && row.Type == "lxc" {
		return fleet.Proof{Whose: fleet.Foreign, Node: string(row.Node), Reason: "it is a container"}, vmConfig{}, nil
	}
	node := r.Node
	if listed && row.Node != "" {
		node = string(row.Node) // live in the list, even when it has just moved
	}
	if node == "" {
		return c.unread(ctx, r.VMID, node, "no list shows it")
	}
	cfg, err := c.config(ctx, node, r.VMID)
	switch causeOf(err) {
	case denied:
		return c.unread(ctx, r.VMID, node, "its config may not be read")
	case missing:
		return c.unread(ctx, r.VMID, node, "its config is not on the node where it should be")
	}
	if err != nil {
		return fleet.Proof{}, vmConfig{}, err
	}
	p := c.judge(r, cfg, row, listed)
	p.Node = node
	return p, cfg, nil
}

// unread is the proof for a VM whose config could not be read: a token with rights by pool
// gets the same 403 for a VM that does not exist, and for one that is not in the pool yet.
func (c *Client) unread(ctx context.Context, vmid int, node, reason string) (fleet.Proof, vmConfig, error) {
	free, err := c.free(ctx, vmid)
	if err != nil {
		return fleet.Proof{}, vmConfig{}, err
	}
	if free {
		return fleet.Proof{Whose: fleet.Nobody, Reason: "the id is free"}, vmConfig{}, nil
	}
	return fleet.Proof{Whose: fleet.Hidden, Node: node, Reason: reason + ", and the id is taken"}, vmConfig{}, nil
}

// judge decides by what was read. Whoever holds a lock may be changing the config: only a VM
// without one is said to be somebody else's.
func (c *Client) judge(r fleet.Runner, cfg vmConfig, row resource, listed bool) fleet.Proof {
	p := c.judgeMark(r, cfg)
	if p.Whose == fleet.Ours {
		p.Whose, p.Reason = c.judgePlace(r, cfg, row, listed)
	} else if lock := string(cfg.Lock); lock != "" {
		p = fleet.Proof{Whose: fleet.Hidden, Reason: p.Reason + ", and it is locked (" + printable(lock) + ")"}
	}
	if p.Whose != fleet.Ours && p.Whose != fleet.Other {
		p.Mark = fleet.Mark{}
	}
	return p
}

// judgeMark decides by the config alone.
func (c *Client) judgeMark(r fleet.Runner, cfg vmConfig) fleet.Proof {
	mark, marked := fleet.ParseMark(string(cfg.Description))
	p := fleet.Proof{Whose: fleet.Foreign, Mark: mark}
	switch {
	case !marked:
		p.Reason = "it has no mark"
	case mark.Instance != c.cfg.Instance:
		p.Reason = "its mark is of another instance, " + mark.Instance
	case string(cfg.Name) != mark.Name:
		p.Reason = fmt.Sprintf("it is called %q and its mark says %q: a copy or a restored backup", printable(string(cfg.Name)), mark.Name)
	case r.Name != "" && mark.Name != r.Name:
		p.Whose, p.Reason = fleet.Other, "its mark says "+mark.Name
	default:
		p.Whose = fleet.Ours
	}
	return p
}

// judgePlace decides whether a VM with our mark is where ours are, and left to us.
func (c *Client) judgePlace(r fleet.Runner, cfg vmConfig, row resource, listed bool) (whose fleet.Whose, reason string) {
	switch {
	case bool(cfg.Template):
		return fleet.Hidden, "it is a template"
	case bool(cfg.Protection):
		return fleet.Hidden, "it is protected"
	case !c.cfg.IDs.Has(r.VMID):
		return fleet.Hidden, fmt.Sprintf("its id is not in our range %d-%d", c.cfg.IDs.From, c.cfg.IDs.To)
	case !listed:
		return fleet.Hidden, "no list shows it, so its pool is not proved"
	case string(row.Pool) != c.cfg.Pool:
		return fleet.Hidden, fmt.Sprintf("it is in Proxmox pool %q, or its pool may not be seen", printable(string(row.Pool)))
	}
	return fleet.Ours, ""
}

// refusal is the error of a VM that is not proved ours.
func refusal(p fleet.Proof) error {
	switch p.Whose {
	case fleet.Ours:
		return nil
	case fleet.Nobody:
		return fmt.Errorf("%w: %s", fleet.ErrGone, p.Reason)
	case fleet.Hidden:
		return fmt.Errorf("%w: %s", fleet.ErrHidden, p.Reason)
	default:
		return fmt.Errorf("%w: %s", fleet.ErrForeign, p.Reason)
	}
}

// privilege tells a 403 for want of a privilege from one for a VM that is not there: if the
// VM's config can still be read, it is the privilege, and ErrConfig. Other errors stay.
func (c *Client) privilege(ctx context.Context, node string, vmid int, err error) error {
	if causeOf(err) != denied {
		return err
	}
	if _, unread := c.config(ctx, node, vmid); unread != nil {
		return err
	}
	f, ok := err.(*failure)
	if !ok {
		return err
	}
	mine := *f
	mine.class = fleet.ErrConfig
	return &mine
}

// Power asks whether the VM runs: PowerOff is stopped without a lock, PowerOn is a QEMU process,
// paused or not. ErrGone: not on that node. ErrHidden: not ours to see, or not there.
func (c *Client) Power(ctx context.Context, node string, vmid int) (fleet.Power, error) {
	p, err := c.power(ctx, node, vmid)
	if err != nil {
		return fleet.PowerUnknown, fmt.Errorf("proxmox: ask whether VM %d on node %s runs: %w", vmid, node, err)
	}
	return p, nil
}

func (c *Client) power(ctx context.Context, node string, vmid int) (fleet.Power, error) {
	var s struct {
		Status text `json:"status"`
		Lock   text `json:"lock"`
	}
	_, err := c.do(ctx, request{call: callStatus, method: http.MethodGet, path: vmPath(node, vmid, "/status/current"), subject: strconv.Itoa(vmid)}, &s)
	switch {
	case err != nil:
		return fleet.PowerUnknown, err
	case s.Status == "running":
		return fleet.PowerOn, nil
	case s.Status == "stopped" && s.Lock == "":
		return fleet.PowerOff, nil
	}
	return fleet.PowerUnknown, nil
}

var macForm = regexp.MustCompile(`(?i)(?:^|,)(?:macaddr|[a-z0-9-]+)=([0-9a-f]{2}(?::[0-9a-f]{2}){5})(?:,|$)`)

// macOf finds the MAC in a netX value such as virtio=BC:24:11:D1:F2:12,bridge=vmbr0.
func macOf(net0 string) string {
	f := macForm.FindStringSubmatch(net0)
	if f == nil {
		return ""
	}
	return strings.ToUpper(f[1])
}
