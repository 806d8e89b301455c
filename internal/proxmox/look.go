package proxmox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// Look lists nodes, templates and the VMs of our range in one request. Rows are hints: status
// and name are up to 10 s old, and a VM that pvestatd has not seen has neither. A list without
// one node is an error: somebody who sees no node sees nothing.
func (c *Client) Look(ctx context.Context) (fleet.Sight, error) {
	s := fleet.Sight{AsOf: time.Now(), Templates: map[int]fleet.Bytes{}}
	var rows []resource
	if _, err := c.do(ctx, request{call: callLook, method: http.MethodGet, path: "/cluster/resources"}, &rows); err != nil {
		return fleet.Sight{}, fmt.Errorf("proxmox: %w", err)
	}
	nodes := map[string]*fleet.Node{}
	for _, r := range rows {
		if r.Type == "node" && r.Node != "" {
			n := c.node(r)
			nodes[n.Name] = &n
		}
	}
	if len(nodes) == 0 {
		return fleet.Sight{}, fmt.Errorf("proxmox: look: %w", errors.New("the list shows no node"))
	}
	for _, r := range rows {
		n := nodes[string(r.Node)]
		switch {
		case r.guest():
			c.addGuest(&s, n, r)
		case r.Type == "storage" && n != nil:
			c.addStorage(n, r)
		}
	}
	for _, n := range nodes {
		s.Nodes = append(s.Nodes, *n)
	}
	slices.SortFunc(s.Nodes, func(a, b fleet.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.VMs, func(a, b fleet.VM) int { return cmp.Compare(a.ID, b.ID) })
	c.approveAhead(ctx, rows)
	return s, nil
}

// approveAhead has the templates approved before a clone of them is wished for, so that no clone waits
// for it. What is wrong with one is said by the clone.
func (c *Client) approveAhead(ctx context.Context, rows []resource) {
	for _, r := range rows {
		if id := r.VMID.whole(); r.guest() && slices.Contains(c.cfg.Templates, id) {
			_ = c.approve(ctx, string(r.Node), id, approvalLasts/2)
		}
	}
}

// node reads a node's row. Its numbers are there only with Sys.Audit on the node.
func (c *Client) node(r resource) fleet.Node {
	name := string(r.Node)
	n := fleet.Node{
		Name:       name,
		Online:     r.Status == "online",
		Cordoned:   slices.Contains(c.cfg.Cordoned, name),
		Used:       fleet.Bytes(r.Mem.amount()),
		MaxRunners: c.cfg.NodeMaxRunners[name],
	}
	if total := fleet.Bytes(r.MaxMem.amount()); total > 0 {
		n.Memory = max(total-c.cfg.Reserve, 1) // 0 would say that it is not known
	}
	if told := c.cfg.NodeMemory[name]; told > 0 && (n.Memory == 0 || told < n.Memory) {
		n.Memory = told
	}
	if n.Memory == 0 && n.MaxRunners == 0 {
		n.MaxRunners = defaultMaxRunners
	}
	return n
}

func (c *Client) addGuest(s *fleet.Sight, n *fleet.Node, r resource) {
	id := r.VMID.whole()
	if id <= 0 {
		return
	}
	memory := fleet.Bytes(r.MaxMem.amount())
	if n != nil && r.Status == "running" {
		n.Configured += memory
	}
	if memory > 0 && r.Type == "qemu" && slices.Contains(c.cfg.Templates, id) {
		s.Templates[id] = memory
	}
	if c.cfg.IDs.Has(id) {
		s.VMs = append(s.VMs, fleet.VM{ID: id, Node: string(r.Node), Name: string(r.Name), Pool: string(r.Pool), Status: string(r.Status), Lock: string(r.Lock)})
	}
}

// addStorage adds a storage that our VMs' images may be on.
func (c *Client) addStorage(n *fleet.Node, r resource) {
	counts := len(c.cfg.Storages) == 0 || slices.Contains(c.cfg.Storages, string(r.Storage))
	if r.MaxDisk <= 0 || !counts || !slices.Contains(strings.Split(string(r.Content), ","), "images") {
		return
	}
	n.Storages = append(n.Storages, fleet.Storage{Name: printable(string(r.Storage)), Used: fleet.Bytes(r.Disk.amount()), Total: fleet.Bytes(r.MaxDisk.amount())})
	if full := c.storageFull(r); full != "" && n.Full == "" {
		n.Full = full
	}
}

// storageFull says why a storage takes no new runner; "" if it does, or if nothing is known.
func (c *Client) storageFull(r resource) string {
	if c.cfg.StorageWatermark <= 0 {
		return ""
	}
	used := float64(r.Disk / r.MaxDisk)
	if used < c.cfg.StorageWatermark {
		return ""
	}
	return fmt.Sprintf("storage %s is %.0f %% full, over the mark of %.0f %%", printable(string(r.Storage)), used*100, c.cfg.StorageWatermark*100)
}
