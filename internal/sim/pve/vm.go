package pve

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A vm is one config file and, if it runs, one QEMU. Guarded by the cluster's mutex.
type vm struct {
	id       int
	node     string
	conf     map[string]string // config lines; description decoded
	foreign  bool
	template bool

	run     *run      // nil: stopped
	changed time.Time // when status or config last changed, for pvestatd's old view of it
}

// A run is one life of a QEMU process.
type run struct {
	pid     int
	started time.Time
	guest   Guest
	ended   chan struct{} // closed when QEMU is gone
	paused  bool
}

// A volume is a disk image on a storage.
type volume struct {
	volid   string
	storage string
	node    string // "" on a shared storage
	vmid    int
	size    int64
	base    string // volid that it is a linked clone of, where the storage records it
	made    time.Time
}

var drive = regexp.MustCompile(`^(scsi|virtio|sata|ide|efidisk|tpmstate|unused)\d+$`)

// drives are the config keys of v's disks, in a fixed order.
func (v *vm) drives() []string {
	var keys []string
	for k, s := range v.conf {
		if drive.MatchString(k) && !strings.Contains(s, "media=cdrom") {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func volidOf(line string) string {
	volid, _, _ := strings.Cut(line, ",")
	return volid
}

func (v *vm) name() string {
	if n := v.conf["name"]; n != "" {
		return n
	}
	return "VM " + strconv.Itoa(v.id) // what PVE shows for a config without a name
}

func (v *vm) lock() string { return v.conf["lock"] }

func (v *vm) status() string {
	if v.run != nil {
		return "running"
	}
	return "stopped"
}

func (v *vm) memory() int64 {
	m := v.conf["memory"]
	m = strings.TrimPrefix(m, "current=")
	mib, err := strconv.ParseInt(m, 10, 64)
	if err != nil {
		mib = 512 // PVE's default, also shown for a half-made clone
	}
	return mib << 20
}

func (v *vm) cores() int {
	n := 1
	for _, k := range []string{"cores", "sockets"} {
		if i, err := strconv.Atoi(v.conf[k]); err == nil && i > 0 {
			n *= i
		}
	}
	return n
}

// bootDisk is the size of the first real disk: what "maxdisk" tells.
func (v *vm) bootDisk() int64 {
	for _, k := range v.drives() {
		if strings.HasPrefix(k, "efidisk") || strings.HasPrefix(k, "tpmstate") || strings.HasPrefix(k, "unused") {
			continue
		}
		if _, s, ok := strings.Cut(v.conf[k], "size="); ok {
			s, _, _ = strings.Cut(s, ",")
			return parseSize(s)
		}
	}
	return 0
}

func parseSize(s string) int64 {
	unit := int64(1)
	switch {
	case strings.HasSuffix(s, "G"):
		unit = 1 << 30
	case strings.HasSuffix(s, "M"):
		unit = 1 << 20
	case strings.HasSuffix(s, "K"):
		unit = 1 << 10
	}
	n, _ := strconv.ParseInt(strings.TrimRight(s, "GMK"), 10, 64)
	return n * unit
}

// mac is the MAC address in net0, "" without one.
func (v *vm) mac() string { return macOf(v.conf["net0"]) }

var macPattern = regexp.MustCompile(`(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}`)

func macOf(net string) string { return macPattern.FindString(net) }

// agent says whether the config has an agent line, and whether it is switched on.
func (v *vm) agent() (configured, enabled bool) {
	a, ok := v.conf["agent"]
	return ok, ok && (strings.HasPrefix(a, "1") || strings.Contains(a, "enabled=1"))
}

// numeric are the config lines that PVE gives as JSON numbers; memory and agent are property strings
// and thus JSON strings (8.1 and later).
var numeric = map[string]bool{
	"cores": true, "sockets": true, "kvm": true, "balloon": true, "template": true, "protection": true,
	"onboot": true, "tablet": true, "vcpus": true, "acpi": true, "numa": true, "freeze": true,
}

// config is v's config as GET …/config gives it.
func (v *vm) config() map[string]any {
	m := make(map[string]any, len(v.conf)+1)
	for k, s := range v.conf {
		if n, err := strconv.Atoi(s); err == nil && numeric[k] {
			m[k] = n
		} else {
			m[k] = s
		}
	}
	m["digest"] = v.digest()
	return m
}

func (v *vm) digest() string {
	h := sha1.New()
	for _, k := range slices.Sorted(maps.Keys(v.conf)) {
		fmt.Fprintf(h, "%s: %s\n", k, v.conf[k])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// A view is what pvestatd last told of a VMID. It is keyed by the id alone and lives five minutes, so
// a re-used id shows the old VM (pve-manager 9.2: PVE::API2Tools, the RRD entry pve2-vm/<vmid>).
type view struct {
	at       time.Time
	status   string
	name     string
	template bool
	memory   int64
	cores    int
	disk     int64
	uptime   time.Duration
	running  bool
}

const viewLife = 5 * time.Minute

// touch must be called with c.mu held before anything of v changes: it lets pvestatd see what v was at
// its last tick.
func (c *Cluster) touch(v *vm) {
	c.settle(v)
	v.changed = time.Now()
}

// settle brings the stale view of v up to the last tick of its node's pvestatd.
func (c *Cluster) settle(v *vm) {
	n := c.nodes[v.node]
	tick := n.lastTick(c.scale(statInterval))
	if tick.IsZero() || v.changed.After(tick) {
		return // it was changed after the tick: the view was settled before the change
	}
	w := view{at: tick, status: v.status(), name: v.name(), template: v.template, memory: v.memory(), cores: v.cores(), disk: v.bootDisk()}
	if v.run != nil {
		w.running = true
		w.uptime = max(0, tick.Sub(v.run.started))
		if v.run.paused {
			w.status = "paused"
		}
	}
	c.views[v.id] = w
}

// statInterval is the period of pvestatd (pve-manager 9.2: PVE/Service/pvestatd.pm).
const statInterval = 10 * time.Second
