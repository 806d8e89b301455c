package pve

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

func (c *Cluster) version(*request) (any, *apiError) {
	if c.cfg.Version == "8.4" {
		return map[string]any{"release": "8.4", "version": "8.4.21", "repoid": "2606ac850d46da29"}, nil
	}
	return map[string]any{"release": "9.2", "version": "9.2.11", "repoid": "14a22df35955d97d"}, nil
}

func (n *node) status() string {
	if n.offline.IsZero() {
		return "online"
	}
	return "offline"
}

// nodeRow is a node's row; numbers only with Sys.Audit on it. c.mu must be held.
func (c *Cluster) nodeRow(r *request, name string) map[string]any {
	n := c.nodes[name]
	m := map[string]any{"id": "node/" + name, "node": name, "type": "node", "level": "", "status": n.status()}
	if r.can("/nodes/"+name, "Sys.Audit") && n.offline.IsZero() {
		m["maxcpu"], m["maxmem"], m["mem"], m["cpu"] = n.spec.Cores, n.spec.Memory, c.memoryUsed(name), 0.05
		m["uptime"], m["maxdisk"], m["disk"] = int(time.Since(c.born).Seconds())+86400, 100<<30, 12<<30
	}
	return m
}

// memoryUsed is what the node's own system and the running VMs take: a guest about 70 % of its memory.
func (c *Cluster) memoryUsed(name string) int64 {
	var used int64 = 2 << 30
	for _, v := range c.vms {
		if v.node == name && v.run != nil {
			used += v.memory() / 10 * 7
		}
	}
	return min(used, c.nodes[name].spec.Memory)
}

func (c *Cluster) nodeList(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := []map[string]any{}
	for _, name := range c.order {
		m := c.nodeRow(r, name)
		sum := sha256.Sum256([]byte(name))
		m["ssl_fingerprint"] = strings.ReplaceAll(strings.ToUpper(fmt.Sprintf("% x", sum[:])), " ", ":")
		rows = append(rows, m)
	}
	return rows, nil
}

func (c *Cluster) nodeStatus(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[r.node]
	used := c.memoryUsed(r.node)
	free := n.spec.Memory - used
	return map[string]any{
		"uptime": int(time.Since(c.born).Seconds()) + 86400, "loadavg": []string{"0.50", "0.40", "0.30"}, "cpu": 0.05,
		"memory":     map[string]any{"total": n.spec.Memory, "used": used, "free": free, "available": free},
		"cpuinfo":    map[string]any{"cpus": n.spec.Cores, "cores": n.spec.Cores, "sockets": 1, "model": "simulated"},
		"rootfs":     map[string]any{"total": 100 << 30, "used": 12 << 30, "free": 88 << 30, "avail": 88 << 30},
		"pveversion": "pve-manager/9.2.11/14a22df35955d97d", "kversion": "Linux 6.14.0-pve", "wait": 0, "idle": 0,
	}, nil
}

func (c *Cluster) clusterStatus(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := []map[string]any{}
	if len(c.order) > 1 { // a single node has no cluster entry
		rows = append(rows, map[string]any{"type": "cluster", "id": "cluster", "name": "sim", "quorate": 1, "nodes": len(c.order), "version": len(c.order)})
	}
	for i, name := range c.order {
		n := c.nodes[name]
		id := i + 1
		if len(c.order) == 1 {
			id = 0
		}
		rows = append(rows, map[string]any{
			"type": "node", "id": "node/" + name, "name": name, "nodeid": id, "ip": fmt.Sprintf("10.99.0.%d", i+1),
			"local": bit(i == 0), "online": bit(n.offline.IsZero()), "level": "",
		})
	}
	return rows, nil
}

// resources is the whole cluster in one list. Existence, node, lock, tags and pool of a VM are live;
// status, name, template and uptime are as old as its node's last pvestatd run (pve-manager 9.2:
// API2/Cluster.pm, PVE/API2Tools.pm).
func (c *Cluster) resources(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := r.str("type", "")
	rows := []map[string]any{}
	if kind == "" {
		for _, p := range c.poolNames() {
			if r.can("/pool/"+p, "Pool.Audit") {
				rows = append(rows, map[string]any{"id": "/pool/" + p, "pool": p, "type": "pool"})
			}
		}
	}
	if kind == "" || kind == "vm" {
		for _, id := range slices.Sorted(maps.Keys(c.vms)) {
			if r.can(vmPath(id), "VM.Audit") {
				rows = append(rows, c.resource(r, c.vms[id]))
			}
		}
	}
	if kind == "" || kind == "node" {
		for _, name := range c.order {
			m := c.nodeRow(r, name)
			m["cgroup-mode"] = 2
			rows = append(rows, m)
		}
	}
	for _, name := range c.order {
		if kind == "" || kind == "storage" {
			rows = append(rows, c.storageResources(r, name)...)
		}
		if (kind == "" || kind == "sdn") && c.cfg.Version != "8.4" && r.can("/sdn/zones/localnetwork", "SDN.Audit") {
			rows = append(rows, map[string]any{
				"type": "network", "network-type": "zone", "id": "network/" + name + "/zone/localnetwork",
				"network": "localnetwork", "node": name, "status": "ok",
			})
		}
	}
	return rows, nil
}

func (c *Cluster) resource(r *request, v *vm) map[string]any {
	c.settle(v)
	m := map[string]any{"id": "qemu/" + strconv.Itoa(v.id), "type": "qemu", "vmid": v.id, "node": v.node, "status": "unknown"}
	for key, s := range map[string]string{"lock": v.lock(), "tags": v.conf["tags"]} {
		if s != "" {
			m[key] = s
		}
	}
	if p := c.pools[v.id]; p != "" && r.can("/pool/"+p, "Pool.Audit") {
		m["pool"] = p
	}
	w, seen := c.views[v.id]
	if !seen || time.Since(w.at) > viewLife {
		return m
	}
	m["status"], m["name"], m["template"], m["uptime"] = w.status, w.name, bit(w.template), int(w.uptime.Seconds())
	m["maxcpu"], m["maxmem"], m["maxdisk"] = w.cores, w.memory, w.disk
	c.usage(m, w.memory, w.running)
	m["diskread"], m["diskwrite"] = 0, 0
	return m
}

// usage are the numbers that PVE measures.
func (c *Cluster) usage(m map[string]any, memory int64, running bool) {
	m["cpu"], m["mem"], m["disk"], m["netin"], m["netout"] = 0, 0, 0, 0, 0
	if c.cfg.Version != "8.4" {
		m["memhost"] = 0
	}
	if running {
		m["cpu"], m["mem"], m["netin"], m["netout"] = 0.02, memory/10*7, 2160, 2448
	}
}

func (c *Cluster) storageResources(r *request, node string) []map[string]any {
	rows := []map[string]any{}
	for _, s := range c.sortedStorages() {
		if !r.can("/storage/"+s.Name, "Datastore.Audit") {
			continue
		}
		m := map[string]any{
			"id": "storage/" + node + "/" + s.Name, "type": "storage", "storage": s.Name, "node": node, "plugintype": s.Type,
			"content": s.content(), "shared": bit(s.Shared), "status": "available", "maxdisk": s.Total, "disk": c.used(s, node),
		}
		if !c.nodes[node].offline.IsZero() {
			m["status"] = "unknown"
		}
		rows = append(rows, m)
	}
	return rows
}

// vmList is live, and costs pvedaemon a look at every VM.
func (c *Cluster) vmList(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := []map[string]any{}
	for _, id := range slices.Sorted(maps.Keys(c.vms)) {
		v := c.vms[id]
		if v.node != r.node || !r.can(vmPath(id), "VM.Audit") {
			continue
		}
		m := c.live(v)
		if r.num("full", 0) == 1 {
			m["qmpstatus"] = v.status()
		}
		rows = append(rows, m)
	}
	return rows, nil
}

// live is what list and status/current have in common. c.mu must be held.
func (c *Cluster) live(v *vm) map[string]any {
	m := map[string]any{
		"vmid": v.id, "name": v.name(), "status": v.status(), "uptime": 0, "cpus": v.cores(),
		"maxmem": v.memory(), "maxdisk": v.bootDisk(),
	}
	c.usage(m, v.memory(), v.run != nil)
	for key, s := range map[string]string{"lock": v.lock(), "tags": v.conf["tags"]} {
		if s != "" {
			m[key] = s
		}
	}
	if v.template {
		m["template"] = 1
	}
	for key := range v.conf {
		if strings.HasPrefix(key, "serial") {
			m["serial"] = 1
		}
	}
	if v.run != nil {
		m["pid"], m["uptime"] = v.run.pid, int(time.Since(v.run.started).Seconds())
		if c.cfg.Version != "8.4" {
			for _, p := range []string{"cpusome", "cpufull", "iosome", "iofull", "memorysome", "memoryfull"} {
				m["pressure"+p] = 0
			}
		}
	}
	return m
}

// vmStatus is the truth about one VM.
func (c *Cluster) vmStatus(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	m := c.live(v)
	m["ha"] = map[string]any{"managed": 0}
	m["qmpstatus"] = v.status()
	if v.run != nil {
		if v.run.paused {
			m["qmpstatus"] = "paused"
		}
		m["nics"] = map[string]any{fmt.Sprintf("tap%di0", v.id): map[string]any{"netin": 2160, "netout": 2448}}
	}
	if _, enabled := v.agent(); enabled {
		m["agent"] = 1
	}
	if v.conf["vga"] != "" {
		m["clipboard"] = nil
	}
	return m, nil
}

func (c *Cluster) poolNames() []string { return append([]string{c.cfg.Pool}, c.cfg.Pools...) }

func (c *Cluster) hasPool(name string) bool { return slices.Contains(c.poolNames(), name) }

func (c *Cluster) poolList(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := []map[string]any{}
	for _, p := range c.poolNames() {
		if r.can("/pool/"+p, "Pool.Audit") {
			rows = append(rows, map[string]any{"poolid": p})
		}
	}
	return rows, nil
}

func (c *Cluster) pool(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasPool(r.poolid) {
		return nil, failed("pool '%s' does not exist", r.poolid)
	}
	if p := "/pool/" + r.poolid; !r.can(p, "Pool.Audit") {
		return nil, denied(p, "Pool.Audit")
	}
	members := []map[string]any{}
	for _, id := range slices.Sorted(maps.Keys(c.vms)) {
		if c.pools[id] == r.poolid {
			m := c.resource(r, c.vms[id])
			delete(m, "pool")
			members = append(members, m)
		}
	}
	return map[string]any{"poolid": r.poolid, "members": members}, nil
}
