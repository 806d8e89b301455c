package pve

import (
	"maps"
	"slices"
	"strings"
)

// A VMState is a VM as it really is, not as the API tells it.
type VMState struct {
	ID                      int
	Node, Name, Description string
	Pool, Tags, Lock        string
	Status                  string // running or stopped
	MAC                     string // of net0, upper case
	Foreign                 bool
}

// VMs are all VMs but templates, by id.
func (c *Cluster) VMs() []VMState {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []VMState
	for _, id := range slices.Sorted(maps.Keys(c.vms)) {
		v := c.vms[id]
		if v.template {
			continue
		}
		list = append(list, VMState{
			ID: id, Node: v.node, Name: v.name(), Description: v.conf["description"], Pool: c.pools[id],
			Tags: v.conf["tags"], Lock: v.lock(), Status: v.status(), MAC: v.mac(), Foreign: v.foreign,
		})
	}
	return list
}

// Volumes are the volids of all images but those of templates.
func (c *Cluster) Volumes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.volids(func(v *volume) bool {
		owner := c.vms[v.vmid]
		return owner == nil || !owner.template
	})
}

// Leaked are the volids of images that no config names and that no task is working on.
func (c *Cluster) Leaked() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	named := map[string]bool{}
	for _, v := range c.vms {
		for _, key := range v.drives() {
			named[c.volumeKey(v.node, volidOf(v.conf[key]))] = true
		}
	}
	busy := map[int]bool{}
	for _, t := range c.tasks {
		if t.exit == "" && (t.kind == "qmclone" || t.kind == "qmdestroy") {
			busy[t.vmid] = true
		}
	}
	return c.volids(func(v *volume) bool { return !named[v.node+"/"+v.volid] && !busy[v.vmid] })
}

func (c *Cluster) volids(keep func(*volume) bool) []string {
	var list []string
	for _, v := range c.volumes {
		if keep(v) {
			list = append(list, v.volid)
		}
	}
	slices.SortFunc(list, strings.Compare)
	return list
}

// Requests counts the requests that arrived, by call: version, nodes, node_status, cluster_status,
// resources, nextid, permissions, pools, pool, storage, storage_status, storage_content, tasks,
// task_status, task_log, task_stop, list, clone, config, config_put, feature, status, start, stop,
// shutdown, delete, agent_ping, agent_interfaces, agent_file_read, agent_exec, agent_exec_status,
// unknown.
func (c *Cluster) Requests() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.requests)
}

// Touched are the ids of foreign VMs (AddVM) that somebody asked to change: start, stop, shutdown,
// delete, exec or PUT config, whether it was allowed or not.
func (c *Cluster) Touched() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.touched))
}

// markTouched must be called with c.mu held.
func (c *Cluster) markTouched(r *request, route *route) {
	if !route.writes {
		return
	}
	if v := c.vms[r.vmid]; v != nil && v.foreign {
		c.touched[r.vmid] = true
	}
}
