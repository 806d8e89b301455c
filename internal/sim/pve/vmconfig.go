package pve

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// configPrivileges: any of them opens PUT …/config; each option then asks for its own.
var configPrivileges = []string{
	"VM.Config.Disk", "VM.Config.CDROM", "VM.Config.CPU", "VM.Config.Memory", "VM.Config.Network",
	"VM.Config.HWType", "VM.Config.Options", "VM.Config.Cloudinit",
}

func (c *Cluster) getConfig(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	return v.config(), nil
}

func isMemory(s string) string {
	s = strings.TrimPrefix(s, "current=")
	if !integerText.MatchString(s) {
		return fmt.Sprintf("invalid format - format error\nmemory.current: type check ('integer') failed - got '%s'\n", s)
	}
	return ""
}

func isDescription(s string) string {
	if len(s) > 8192 {
		return "value may only be 8192 characters long"
	}
	return ""
}

func anything(string) string { return "" }

// options are the config lines that PUT takes, by their privilege ("" is root@pam's alone).
var options = map[string]struct {
	privilege string
	check     func(string) string
}{
	"cores": {"VM.Config.CPU", atLeast(1)}, "sockets": {"VM.Config.CPU", atLeast(1)}, "vcpus": {"VM.Config.CPU", atLeast(1)},
	"cpu": {"VM.Config.CPU", anything}, "cpulimit": {"VM.Config.CPU", anything}, "cpuunits": {"VM.Config.CPU", atLeast(1)}, "numa": {"VM.Config.CPU", isBool},
	"memory": {"VM.Config.Memory", isMemory}, "balloon": {"VM.Config.Memory", atLeast(0)}, "shares": {"VM.Config.Memory", atLeast(0)},
	"name": {"VM.Config.Options", isDNSName}, "description": {"VM.Config.Options", isDescription}, "tags": {"VM.Config.Options", isTags},
	"agent": {"VM.Config.Options", anything}, "onboot": {"VM.Config.Options", isBool}, "protection": {"VM.Config.Options", isBool},
	"ostype": {"VM.Config.Options", anything}, "boot": {"VM.Config.Options", anything}, "tablet": {"VM.Config.Options", isBool},
	"kvm": {"VM.Config.Options", isBool}, "acpi": {"VM.Config.Options", isBool}, "freeze": {"VM.Config.Options", isBool}, "bios": {"VM.Config.Options", anything},
	"machine": {"VM.Config.HWType", anything}, "scsihw": {"VM.Config.HWType", anything}, "vga": {"VM.Config.HWType", anything}, "smbios1": {"VM.Config.HWType", anything},
	"ciuser": {"VM.Config.Network", anything}, "cipassword": {"VM.Config.Network", anything}, "nameserver": {"VM.Config.Network", anything}, "searchdomain": {"VM.Config.Network", anything},
	"args": {"", anything}, "lock": {"", anything}, "hookscript": {"", anything}, "vmgenid": {"", anything}, "affinity": {"", anything},
}

var numbered = regexp.MustCompile(`^(net|ipconfig|serial|scsi|virtio|sata|ide|efidisk|tpmstate|unused)\d+$`)

// privilegeOf is the privilege that an option needs; known is false for no option at all.
func privilegeOf(key string) (privilege string, known bool) {
	if o, ok := options[key]; ok {
		return o.privilege, true
	}
	switch {
	case !numbered.MatchString(key):
		return "", false
	case strings.HasPrefix(key, "net"), strings.HasPrefix(key, "ipconfig"):
		return "VM.Config.Network", true
	case strings.HasPrefix(key, "serial"):
		return "VM.Config.HWType", true
	}
	return "VM.Config.Disk", true
}

// putConfig is synchronous: it waits for the VM's flock inside of its pvedaemon worker (qemu-server
// 9.2: API2/Qemu.pm update_vm_api).
func (c *Cluster) putConfig(r *request) (any, *apiError) {
	set, remove, e := r.changes()
	if e != nil {
		return nil, e
	}
	c.mu.Lock()
	e = c.mayChange(r, set, remove)
	c.mu.Unlock()
	if e != nil {
		return nil, e
	}
	release, _, how := c.acquire(c.done, flockKey(r.node, r.vmid), true, flockWait)
	switch how {
	case lockTimeout:
		return nil, failed("can't lock file '/var/lock/qemu-server/lock-%d.conf' - got timeout", r.vmid)
	case lockEnded:
		return nil, &apiError{code: -1}
	}
	defer release()
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	if r.has("digest") && r.str("digest", "") != v.digest() {
		return nil, failed("checksum mismatch (file change by other user?)")
	}
	if err := v.unlocked(); err != nil {
		return nil, failed("%s", err)
	}
	c.touch(v)
	conf := maps.Clone(v.conf)
	for _, key := range remove {
		delete(conf, key)
	}
	for key, s := range set {
		conf[key] = c.normal(key, s)
	}
	v.conf = conf
	return nil, nil
}

// changes are the options to set and to remove, after the schema's checks.
func (r *request) changes() (set map[string]string, remove []string, e *apiError) {
	bad := map[string]string{}
	set = map[string]string{}
	for key := range r.params {
		switch key {
		case "delete":
			remove = strings.FieldsFunc(r.str(key, ""), func(c rune) bool { return c == ',' || c == ';' || c == ' ' })
			continue
		case "digest", "force", "revert", "skiplock", "node", "vmid":
			continue
		}
		if _, known := privilegeOf(key); !known {
			bad[key] = unknownProperty
			continue
		}
		set[key] = strings.Join(r.params[key], ",")
		if o, ok := options[key]; ok {
			if text := o.check(set[key]); text != "" {
				bad[key] = text
			}
		}
	}
	if len(bad) > 0 {
		return nil, nil, &apiError{code: 400, message: "Parameter verification failed.", errors: bad}
	}
	if e := onlyRoot(r, "skiplock"); e != nil {
		return nil, nil, e
	}
	if len(set) == 0 && len(remove) == 0 {
		return nil, nil, failed("no options specified")
	}
	return set, remove, nil
}

// mayChange checks each option's privilege and the VM's lock, before the flock. c.mu is held.
func (c *Cluster) mayChange(r *request, set map[string]string, remove []string) *apiError {
	keys := append(slices.Sorted(maps.Keys(set)), remove...)
	for _, key := range keys {
		privilege, known := privilegeOf(key)
		switch {
		case !known:
			return badParam("delete", fmt.Sprintf("unable to delete '%s' - no such option", key))
		case privilege == "":
			return failed("only root can set '%s' config", key)
		case !r.can(vmPath(r.vmid), privilege):
			return denied(vmPath(r.vmid), privilege)
		}
	}
	v := c.here(r.node, r.vmid)
	if v == nil {
		return failed("%s", noConfig(r.node, r.vmid))
	}
	if err := v.unlocked(); err != nil {
		return failed("%s", err)
	}
	return nil
}

// normal is an option's value as the config file keeps it. c.mu is held.
func (c *Cluster) normal(key, s string) string {
	switch {
	case key == "tags": // lower case, sorted, each once, unless datacenter.cfg says otherwise
		list := tagList(strings.ToLower(s))
		slices.Sort(list)
		return strings.Join(slices.Compact(list), ";")
	case key == "description":
		return strings.TrimRight(s, " \t\n")
	case strings.HasPrefix(key, "net") && macOf(s) == "": // the whole line is replaced; without a MAC it gets a new one
		return withMAC(s, c.newMAC())
	}
	return s
}

// feature says whether a linked clone is possible: here of templates only.
func (c *Cluster) feature(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	has := r.str("feature", "") != "clone" || v.template
	nodes := []string{}
	if has {
		nodes = append(nodes, r.node)
	}
	return map[string]any{"hasFeature": bit(has), "nodes": nodes}, nil
}

func (c *Cluster) nextID(r *request) (any, *apiError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.has("vmid") { // needs no privilege, and knows no range
		if id := r.num("vmid", 0); c.vms[id] != nil {
			return nil, badParam("vmid", fmt.Sprintf("VM %d already exists", id))
		}
		return r.str("vmid", ""), nil
	}
	for id := 100; id < 1000000; id++ {
		if c.vms[id] == nil {
			return strconv.Itoa(id), nil // a JSON string (captured)
		}
	}
	return nil, failed("unable to get any free VMID in range [100, 1000000]")
}
