package pve

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A cloning is one clone order after its synchronous checks (qemu-server 9.2: API2/Qemu.pm clone_vm).
type cloning struct {
	t            *task
	source, id   int
	name, text   string
	pool, target string
	storage      string // of a full clone, "" for the source's
	full         bool
	made         []string // volids made so far
}

// clone checks an order and forks its worker. The checks stand in the order of the original: each text
// shadows the ones below it.
func (c *Cluster) clone(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	src := c.vms[r.vmid]
	if src == nil || src.node != r.node {
		return nil, failed("unable to find configuration file for VM %d on node '%s'", r.vmid, r.node)
	}
	k := cloning{
		source: r.vmid, id: r.num("newid", 0), name: r.str("name", ""), text: r.str("description", ""),
		pool: r.str("pool", ""), target: r.str("target", ""), storage: r.str("storage", ""),
		full: r.num("full", bit(!src.template)) == 1,
	}
	if k.pool != "" && !c.hasPool(k.pool) {
		return nil, &apiError{code: 403, message: fmt.Sprintf("Permission check failed (pool '%s' does not exist)", k.pool)}
	}
	if k.target == r.node || k.target == "localhost" {
		k.target = ""
	}
	if k.target != "" && c.nodes[k.target] == nil {
		return nil, failed("no such cluster node '%s'", k.target)
	}
	if k.storage != "" {
		s, ok := c.storages[k.storage]
		if !ok {
			return nil, failed("storage '%s' does not exist", k.storage)
		}
		if s.NoImages {
			return nil, badParam("storage", fmt.Sprintf("storage '%s' does not support vm images", k.storage))
		}
		if k.target != "" && !s.Shared {
			return nil, failed("can't clone to non-shared storage '%s'", k.storage)
		}
	}
	if k.target != "" {
		for _, key := range src.drives() {
			if !c.storageOf(src.conf[key]).Shared && k.storage == "" {
				return nil, failed("can't clone VM to node '%s' (VM uses local storage)", k.target)
			}
		}
	}
	if l := src.lock(); l != "" {
		return nil, failed("VM is locked (%s)", l)
	}
	if !k.full {
		for _, p := range []string{"storage", "format"} {
			if r.has(p) {
				return nil, failed("parameter '%s' not allowed for linked clones", p)
			}
		}
	}
	for _, key := range src.drives() {
		storage := c.storageOf(src.conf[key]).Name
		if k.storage != "" {
			storage = k.storage
		}
		if !r.can("/storage/"+storage, "Datastore.AllocateSpace") {
			return nil, denied("/storage/"+storage, "Datastore.AllocateSpace")
		}
	}
	if bridge := bridgeOf(src.conf["net0"]); bridge != "" && !r.can("/sdn/zones/localnetwork/"+bridge, "SDN.Use") {
		return nil, denied("/sdn/zones/localnetwork/"+bridge, "SDN.Use")
	}
	if e := c.taken(k.id, r.node); e != nil {
		return nil, failed("%s", e)
	}
	if !k.full {
		for _, key := range src.drives() {
			if !src.template {
				return nil, failed("Linked clone feature is not supported for '%s' (%s)", volidOf(src.conf[key]), key)
			}
		}
	}
	t := c.fork(r, "qmclone", strconv.Itoa(r.vmid), k.id, func(t *task) error {
		k.t = t
		return k.run()
	})
	return t.upid, nil
}

// taken says in PVE's words that an id has a config on this very node.
func (c *Cluster) taken(id int, node string) error {
	if v := c.vms[id]; v != nil && v.node == node {
		return fmt.Errorf("unable to create VM %d: config file already exists", id)
	}
	return nil
}

// run is the worker.
func (k *cloning) run() error {
	t, c := k.t, k.t.c
	// Between the answer with the UPID and the config file there is a moment in which the id still
	// looks free (captured: six clients, two answers 200 for one id).
	if err := t.work(c.scale(30 * time.Millisecond)); err != nil {
		return err
	}
	// Shared on the template, exclusive on the new id, for the whole clone, each waiting one second.
	unlockSource, err := t.flock(k.source, false, time.Second)
	if err != nil {
		return err
	}
	defer unlockSource()
	unlock, err := t.flock(k.id, true, time.Second)
	if err != nil {
		return err
	}
	defer unlock()

	c.mu.Lock()
	if err := c.taken(k.id, t.node); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.vms[k.id] != nil { // elsewhere in the cluster: pmxcfs refuses a second file of that number
		c.mu.Unlock()
		return fmt.Errorf("close (rename) atomic file '/etc/pve/nodes/%s/qemu-server/%d.conf' failed: File exists", t.node, k.id)
	}
	src := c.vms[k.source]
	if src == nil {
		c.mu.Unlock()
		return fmt.Errorf("unable to find configuration file for VM %d on node '%s'", k.source, t.node)
	}
	from := maps.Clone(src.conf)
	keys := src.drives()
	c.births[k.id]++
	delete(c.delays, k.id)
	v := &vm{id: k.id, node: t.node, changed: time.Now(), conf: map[string]string{
		"lock": "clone", "description": " qmclone temporary file", // the leading blank is real
	}}
	c.vms[k.id] = v
	if c.cfg.Version != "8.4" { // qemu-server 9.1.6 and later
		t.log = append(t.log, fmt.Sprintf("creating a clone of VM %d with ID %d", k.source, k.id))
	}
	conf := k.inherit(from)
	span := c.cfg.Delays.Clone
	if k.full && c.cfg.Delays.Full != (Range{}) {
		span = c.cfg.Delays.Full
	}
	total := c.draw(k.id, "clone", span)
	c.mu.Unlock()

	err = k.disks(v, conf, from, keys, total)
	if err == nil {
		err = k.finish(v)
	}
	switch {
	case err == nil:
		t.record("clone")
		return nil
	case errors.Is(err, errKilled):
		return errKilled // nobody cleans up: the config keeps lock: clone, the volumes stay
	}
	k.cleanup(v)
	return fmt.Errorf("clone failed: %w", err)
}

// inherit is the clone's config: everything of the template but what must be its own. Tags,
// protection, onboot, agent and meta are copied as they are.
func (k *cloning) inherit(from map[string]string) map[string]string {
	c := k.t.c
	conf := map[string]string{}
	for key, s := range from {
		switch {
		case key == "template", key == "parent", strings.HasPrefix(key, "unused"), drive.MatchString(key) && !strings.Contains(s, "media=cdrom"):
		case strings.HasPrefix(key, "net"):
			conf[key] = withMAC(s, c.newMAC())
		case key == "smbios1":
			conf[key] = "uuid=" + c.newUUID()
		case key == "vmgenid":
			conf[key] = c.newUUID()
		default:
			conf[key] = s
		}
	}
	conf["name"] = k.name
	if k.name == "" {
		conf["name"] = "Copy-of-VM-" + from["name"]
	}
	if k.text != "" && k.text != "0" { // only a true value in Perl's sense replaces the template's
		conf["description"] = strings.TrimRight(k.text, " \t\n")
	}
	conf["lock"] = "clone"
	return conf
}

var netModel = regexp.MustCompile(`^([a-z0-9-]+)(=[0-9A-Fa-f:]+)?`)

// withMAC is a netN line with that MAC.
func withMAC(net, mac string) string { return netModel.ReplaceAllString(net, "${1}="+mac) }

func bridgeOf(net string) string {
	_, b, _ := strings.Cut(net, "bridge=")
	b, _, _ = strings.Cut(b, ",")
	return b
}

// disks makes one volume for each drive, each under the storage's lock for a short time, and writes
// the config after each.
func (k *cloning) disks(v *vm, conf, from map[string]string, keys []string, total time.Duration) error {
	t, c := k.t, k.t.c
	for i, key := range keys {
		c.mu.Lock()
		base := volidOf(from[key])
		s := c.storageOf(base)
		if k.storage != "" {
			s = c.storages[k.storage]
		}
		// tpmstate is always copied whole since qemu-server 8.3.3.
		linked := !k.full && !strings.HasPrefix(key, "tpmstate")
		// About 0.3–1 s a hold: lvs, lvcreate, lvchange, never more than half of the whole clone.
		hold := min(c.draw(k.id, "hold"+key, Range{300 * time.Millisecond, time.Second}), total/time.Duration(2*len(keys)))
		kind := "full"
		if linked {
			kind = "linked"
		}
		t.log = append(t.log, fmt.Sprintf("create %s clone of drive %s (%s)", kind, key, base))
		c.mu.Unlock()

		var volid string
		err := t.onStorage(t.stop, s, c.scale(hold), func() {
			k.sayBefore(s, base, v, linked)
		}, func() {
			if !t.mustFail() { // a tool that fails leaves nothing
				volid = k.make(s, base, v, key, linked, from[key])
			}
		})
		if err == nil && volid == "" {
			return errors.New(t.sabotage.text)
		}
		if errors.Is(err, errTerminated) && s.Type == "dir" {
			return fmt.Errorf("unable to create image: %w", err)
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		k.made = append(k.made, volid)
		conf[key] = strings.Replace(from[key], base, volid, 1)
		c.touch(v)
		v.conf = maps.Clone(conf)
		c.mu.Unlock()
		// What is left is copying and thinking outside of the lock.
		if err := t.work(c.scale(total/time.Duration(len(keys)) - hold)); err != nil {
			return err
		}
		if i == len(keys)-1 {
			break
		}
	}
	return nil
}

// sayBefore writes what the log shows while an image is made. c.mu is held.
func (k *cloning) sayBefore(s StorageSpec, base string, v *vm, linked bool) {
	if s.Type != "dir" || !linked {
		return
	}
	file := path.Base(k.t.c.freeVolid(v.node, s, v.id, base, false))
	k.t.log = append(k.t.log, fmt.Sprintf("clone %s: images, %s, %d to %s (base=../%s)", baseID(base), file, v.id, file, baseID(base)))
}

// make makes the image and says so as its tools do. c.mu is held.
func (k *cloning) make(s StorageSpec, base string, v *vm, key string, linked bool, line string) string {
	c, t := k.t.c, k.t
	parent := ""
	if linked {
		parent = base
	}
	volid := c.freeVolid(v.node, s, v.id, parent, strings.HasPrefix(key, "tpmstate"))
	_, sizeText, _ := strings.Cut(line, "size=")
	sizeText, _, _ = strings.Cut(sizeText, ",")
	size := parseSize(sizeText)
	c.addVolume(v.node, volid, parent, v.id, size)
	file := path.Base(volid)
	switch {
	case s.Type == "lvmthin":
		t.log = append(t.log, fmt.Sprintf("  Logical volume \"%s\" created.", strings.TrimPrefix(volid, s.Name+":")))
	case s.Type == "dir" && linked:
		cluster := "cluster_size=131072 extended_l2=on preallocation=metadata compression_type=zlib"
		if c.cfg.Version == "8.4" {
			cluster = "cluster_size=65536 extended_l2=off compression_type=zlib"
		}
		t.log = append(t.log, fmt.Sprintf("Formatting '/srv/storage/%s/images/%d/%s', fmt=qcow2 %s size=%d backing_file=../%s backing_fmt=qcow2 lazy_refcounts=off refcount_bits=16",
			s.Name, v.id, file, cluster, size, baseID(base)))
	}
	return volid
}

// finish takes the lock off, then, as the very last step, puts the VM into its pool: until then a token
// whose rights come from the pool sees 403.
func (k *cloning) finish(v *vm) error {
	c := k.t.c
	c.mu.Lock()
	c.touch(v)
	delete(v.conf, "lock")
	if k.target != "" {
		v.node = k.target
	}
	c.mu.Unlock()
	if k.pool == "" {
		return nil
	}
	if err := k.t.userCfg(func() { c.pools[k.id] = k.pool }); err != nil {
		if errors.Is(err, errKilled) || errors.Is(err, errTerminated) {
			return err
		}
		return fmt.Errorf("can't add VM %d to pool '%s': %w", k.id, k.pool, err)
	}
	return nil
}

// cleanup frees what was made and removes the config. A volume that cannot be freed leaks with only a
// line in the log.
func (k *cloning) cleanup(v *vm) {
	t, c := k.t, k.t.c
	if !pause(t.killed, c.scale(time.Second)) {
		return
	}
	for _, volid := range k.made {
		c.mu.Lock()
		s := c.storageOf(volid)
		d := c.draw(k.id, "free"+volid, Range{100 * time.Millisecond, 400 * time.Millisecond})
		c.mu.Unlock()
		err := t.onStorage(t.killed, s, c.scale(d), func() {}, func() {
			delete(c.volumes, c.volumeKey(t.node, volid))
		})
		if errors.Is(err, errKilled) {
			return
		}
		if err != nil {
			t.say("%s", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch(v)
	delete(c.vms, k.id)
	delete(c.pools, k.id)
}
