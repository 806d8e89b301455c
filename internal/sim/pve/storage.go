package pve

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (c *Cluster) volumeKey(node, volid string) string {
	storage, _, _ := strings.Cut(volid, ":")
	if c.storages[storage].Shared {
		node = ""
	}
	return node + "/" + volid
}

// addVolume makes an image; c.mu must be held.
func (c *Cluster) addVolume(node, volid, base string, vmid int, size int64) {
	storage, _, _ := strings.Cut(volid, ":")
	if c.storages[storage].Shared {
		node = ""
	}
	c.volumes[node+"/"+volid] = &volume{volid: volid, storage: storage, node: node, vmid: vmid, size: size, base: base, made: time.Now()}
}

// baseID is the volid by which linked clones name their base: without the storage.
func baseID(volid string) string {
	_, id, _ := strings.Cut(volid, ":")
	return id
}

// freeVolid is a volid for a new disk of vmid: the lowest number that is free, so what an earlier VM
// of that id left behind stays. base is the volid of the linked clone's base, "" for a whole image.
func (c *Cluster) freeVolid(node string, s StorageSpec, vmid int, base string, raw bool) string {
	for n := 0; ; n++ {
		name := fmt.Sprintf("vm-%d-disk-%d", vmid, n)
		if s.Type == "dir" {
			format := ".qcow2"
			if raw {
				format = ".raw"
			}
			name += format
		}
		if c.volumeTaken(node, s, vmid, fmt.Sprintf("vm-%d-disk-%d", vmid, n)) {
			continue
		}
		switch {
		case s.Type == "dir" && base != "": // tank:9000/base-9000-disk-0.qcow2/101/vm-101-disk-0.qcow2
			return fmt.Sprintf("%s:%s/%d/%s", s.Name, baseID(base), vmid, name)
		case s.Type == "dir":
			return fmt.Sprintf("%s:%d/%s", s.Name, vmid, name)
		case (s.Type == "zfspool" || s.Type == "rbd") && base != "":
			return fmt.Sprintf("%s:%s/%s", s.Name, baseID(base), name)
		}
		return s.Name + ":" + name // lvmthin records no base
	}
}

func (c *Cluster) volumeTaken(node string, s StorageSpec, vmid int, name string) bool {
	for _, v := range c.volumes {
		if v.vmid == vmid && v.storage == s.Name && (v.node == "" || v.node == node) && strings.Contains(v.volid, name) {
			return true
		}
	}
	return false
}

// storageOf is the storage that a volid stands on. c.mu must be held.
func (c *Cluster) storageOf(volid string) StorageSpec {
	name, _, _ := strings.Cut(volid, ":")
	return c.storages[name]
}

// inUse says whether another VM's disk is recorded as a linked clone of the base. lvmthin records
// nothing, so its templates can be deleted under their clones (pve-storage 9.1).
func (c *Cluster) inUse(base string) bool {
	for _, v := range c.volumes {
		if v.base == base && c.storages[v.storage].Type != "lvmthin" {
			return true
		}
	}
	return false
}

func (c *Cluster) addTemplate(t TemplateSpec) {
	if t.Storage == "" {
		t.Storage = "local-lvm"
	}
	if c.nodes[t.Node] == nil {
		t.Node = c.order[0]
	}
	if t.Memory == 0 {
		t.Memory = 8 << 30
	}
	if t.Cores == 0 {
		t.Cores = 4
	}
	if len(t.Disks) == 0 {
		t.Disks = []string{"efidisk0", "scsi0", "tpmstate0"}
	}
	if _, ok := c.storages[t.Storage]; !ok {
		c.storages[t.Storage] = StorageSpec{Name: t.Storage}.withDefaults()
	}
	// A Windows 11 template as Packer leaves it. The EFI disk has no ms-cert=2023k, so a start on 9.2
	// ends with "WARNINGS: 1" (qemu-server 9.1.10 and later).
	conf := map[string]string{
		"agent": "1", "bios": "ovmf", "boot": "order=" + t.Disks[min(1, len(t.Disks)-1)], "cpu": "host",
		"cores": fmt.Sprint(t.Cores), "sockets": "1", "memory": fmt.Sprint(t.Memory >> 20), "balloon": "0",
		"machine": "pc-q35-10.1", "ostype": "win11", "scsihw": "virtio-scsi-single", "name": t.Name,
		"net0": "virtio=" + c.newMAC() + ",bridge=vmbr0,firewall=1", "template": "1",
		"smbios1": "uuid=" + c.newUUID(), "vmgenid": c.newUUID(), "meta": "creation-qemu=10.1.2,ctime=1795466046",
	}
	s := c.storages[t.Storage]
	for i, key := range t.Disks {
		volid := fmt.Sprintf("%s:base-%d-disk-%d", t.Storage, t.ID, i)
		if s.Type == "dir" {
			volid = fmt.Sprintf("%s:%d/base-%d-disk-%d.qcow2", t.Storage, t.ID, t.ID, i)
		}
		options := ",discard=on,size=64G"
		size := int64(64 << 30)
		switch {
		case strings.HasPrefix(key, "efidisk"):
			options, size = ",efitype=4m,pre-enrolled-keys=1,size=4M", 4<<20
		case strings.HasPrefix(key, "tpmstate"):
			options, size = ",size=4M,version=v2.0", 4<<20
		}
		conf[key] = volid + options
		c.addVolume(t.Node, volid, "", t.ID, size)
	}
	override(conf, t.Config)
	c.vms[t.ID] = &vm{id: t.ID, node: t.Node, conf: conf, template: true}
}

func override(conf, with map[string]string) {
	for k, s := range with {
		if s == "" {
			delete(conf, k)
		} else {
			conf[k] = s
		}
	}
}

// AddVM puts a VM into the cluster that no API call made, as an administrator's. An id that is taken
// is replaced, an unknown node is the first.
func (c *Cluster) AddVM(s VMSpec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[s.Node] == nil {
		s.Node = c.order[0]
	}
	if old := c.vms[s.ID]; old != nil {
		c.cutPower(old)
	}
	if s.Memory == 0 {
		s.Memory = 2 << 30
	}
	conf := map[string]string{
		"name": s.Name, "memory": fmt.Sprint(s.Memory >> 20), "cores": fmt.Sprint(max(1, s.Cores)), "agent": "1",
		"ostype": "l26", "net0": "virtio=" + c.newMAC() + ",bridge=vmbr0", "smbios1": "uuid=" + c.newUUID(),
	}
	set := map[string]string{"description": s.Description, "tags": s.Tags, "lock": s.Lock}
	if s.Protection {
		set["protection"] = "1"
	}
	for k, v := range set {
		if v != "" {
			conf[k] = v
		}
	}
	if s.Storage != "" {
		if _, ok := c.storages[s.Storage]; !ok {
			c.storages[s.Storage] = StorageSpec{Name: s.Storage}.withDefaults()
		}
		volid := c.freeVolid(s.Node, c.storages[s.Storage], s.ID, "", false)
		c.addVolume(s.Node, volid, "", s.ID, 32<<30)
		conf["scsi0"] = volid + ",size=32G"
	}
	override(conf, s.Config)
	v := &vm{id: s.ID, node: s.Node, conf: conf, foreign: s.Foreign}
	if s.Pool != "" {
		c.pools[s.ID] = s.Pool
	}
	c.vms[s.ID] = v
	if s.Running {
		g := s.Guest
		if g == nil {
			g = silent{}
		}
		c.nodes[s.Node].pid += 7
		v.run = &run{pid: c.nodes[s.Node].pid, started: time.Now(), guest: g, ended: make(chan struct{})}
	}
}

func (c *Cluster) storageRows(r *request, node string) []map[string]any {
	rows := []map[string]any{}
	for _, s := range c.sortedStorages() {
		if !r.can("/storage/"+s.Name, "Datastore.Audit") {
			continue
		}
		rows = append(rows, c.storageRow(s, node))
	}
	return rows
}

func (c *Cluster) sortedStorages() []StorageSpec {
	list := make([]StorageSpec, 0, len(c.storages))
	for _, s := range c.storages {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b StorageSpec) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func (s StorageSpec) content() string {
	switch {
	case s.NoImages:
		return "iso,vztmpl"
	case s.Type == "dir":
		return "iso,vztmpl,snippets,import,images,rootdir"
	}
	return "rootdir,images"
}

func (c *Cluster) used(s StorageSpec, node string) int64 {
	var n int64 = 20 << 30
	for _, v := range c.volumes {
		if v.storage == s.Name && (v.node == "" || v.node == node) {
			n += v.size / 16 // thin: a linked clone has written about that much
		}
	}
	return min(n, s.Total)
}

func (c *Cluster) storageRow(s StorageSpec, node string) map[string]any {
	used := c.used(s, node)
	return map[string]any{
		"storage": s.Name, "type": s.Type, "content": s.content(), "enabled": 1, "active": 1, "shared": bit(s.Shared),
		"total": s.Total, "used": used, "avail": s.Total - used, "used_fraction": float64(used) / float64(s.Total),
	}
}

func (c *Cluster) storageList(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rows := c.storageRows(r, r.node)
	return slices.DeleteFunc(rows, func(m map[string]any) bool {
		return r.has("storage") && m["storage"] != r.str("storage", "") ||
			r.has("content") && !slices.Contains(strings.Split(m["content"].(string), ","), r.str("content", ""))
	}), nil
}

func (c *Cluster) storageStatus(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.storages[r.storage]
	if !ok {
		return nil, failed("storage '%s' does not exist", r.storage)
	}
	m := c.storageRow(s, r.node)
	delete(m, "storage")
	delete(m, "used_fraction")
	return m, nil
}

// storageContent lists images. A token that lacks Datastore.Allocate sees only those of VMs whose disks
// it may configure (pve-storage 9.1: API2/Storage/Content.pm).
func (c *Cluster) storageContent(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.storages[r.storage]
	if !ok {
		return nil, failed("storage '%s' does not exist", r.storage)
	}
	rows := []map[string]any{}
	for _, v := range c.volumes {
		if v.storage != s.Name || v.node != "" && v.node != r.node || r.has("vmid") && r.num("vmid", 0) != v.vmid {
			continue
		}
		if !r.can("/storage/"+s.Name, "Datastore.Allocate") && !r.can(vmPath(v.vmid), "VM.Config.Disk") {
			continue
		}
		m := map[string]any{"volid": v.volid, "vmid": v.vmid, "size": v.size, "content": "images", "format": "raw"}
		if s.Type == "dir" {
			m["format"], m["used"], m["ctime"], m["parent"] = "qcow2", v.size/16, v.made.Unix(), nil
			if v.base != "" {
				m["parent"] = baseID(v.base)
			}
		} else {
			m["ctime"] = fmt.Sprint(v.made.Unix()) // lvmthin: a string
		}
		rows = append(rows, m)
	}
	slices.SortFunc(rows, func(a, b map[string]any) int {
		return strings.Compare(a["volid"].(string), b["volid"].(string))
	})
	return rows, nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
