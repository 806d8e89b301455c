package pve

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inTask forks a worker that holds the VM's flock during its whole work (qemu-server 9.2: start, stop,
// shutdown and destroy all do).
func (c *Cluster) inTask(r *request, kind, use string, work func(*task, *request) error) *task {
	return c.fork(r, kind, strconv.Itoa(r.vmid), r.vmid, func(t *task) error {
		unlock, err := t.flock(r.vmid, true, flockWait)
		if err != nil {
			return err
		}
		defer unlock()
		if err := t.sabotaged(); err != nil {
			return err
		}
		err = work(t, r)
		t.record(use)
		return err
	})
}

func (t *task) mustFail() bool { return t.sabotage != nil && t.sabotage.does == taskFails }

// sabotaged is the failure that an injected TaskFails laid on the task.
func (t *task) sabotaged() error {
	if !t.mustFail() {
		return nil
	}
	for _, line := range t.sabotage.log {
		t.say("%s", line)
	}
	return errors.New(t.sabotage.text)
}

func noConfig(node string, vmid int) string {
	return fmt.Sprintf("Configuration file 'nodes/%s/qemu-server/%d.conf' does not exist", node, vmid)
}

// here is the VM if its config is on the node. c.mu must be held.
func (c *Cluster) here(node string, vmid int) *vm {
	if v := c.vms[vmid]; v != nil && v.node == node {
		return v
	}
	return nil
}

// unlocked refuses a VM with a config lock.
func (v *vm) unlocked() error {
	if l := v.lock(); l != "" {
		return fmt.Errorf("VM is locked (%s)", l)
	}
	return nil
}

// start answers 200 in nearly every case; what is wrong stands in the task.
func (c *Cluster) start(r *request) (any, *apiError) {
	if e := onlyRoot(r, "skiplock", "stateuri", "migratedfrom", "force-cpu", "targetstorage"); e != nil {
		return nil, e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inTask(r, "qmstart", "start", c.startTask).upid, nil
}

func (c *Cluster) startTask(t *task, r *request) error {
	c.mu.Lock()
	v := c.here(t.node, r.vmid)
	var err error
	switch {
	case v == nil:
		err = errors.New(noConfig(t.node, r.vmid))
	case v.template:
		err = errors.New("you can't start a vm if it's a template")
	case v.lock() != "":
		err = v.unlocked()
	case v.run != nil:
		err = fmt.Errorf("VM %d already running", r.vmid)
	default:
		for _, key := range v.drives() {
			if volid := volidOf(v.conf[key]); c.volumes[c.volumeKey(t.node, volid)] == nil && !strings.HasPrefix(key, "unused") {
				err = fmt.Errorf("volume '%s' does not exist", volid)
				break
			}
		}
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	efi := v.conf["efidisk0"]
	delay := c.draw(r.vmid, "start", c.cfg.Delays.Start)
	c.nodes[t.node].pid += 3
	run := &run{pid: c.nodes[t.node].pid, ended: make(chan struct{})}
	machine := Machine{ID: v.id, Node: v.node, Name: v.name(), MAC: v.mac(), PowerOff: func() { c.powerOff(v, run) }}
	c.mu.Unlock()

	if err := t.work(c.scale(delay)); err != nil {
		return err
	}
	if strings.Contains(efi, "pre-enrolled-keys=1") && !strings.Contains(efi, "ms-cert=2023k") && c.cfg.Version != "8.4" {
		t.efiWarning(r.vmid)
	}
	run.guest = Guest(silent{})
	if c.cfg.Boot != nil {
		if g := c.cfg.Boot(machine); g != nil {
			run.guest = g
		}
	}
	c.mu.Lock()
	if c.closed || t.cause != nil || isClosed(run.ended) { // cut, or switched off by itself, while booting
		c.mu.Unlock()
		run.guest.Off()
		return t.why()
	}
	c.touch(v)
	run.started = time.Now()
	v.run = run
	c.mu.Unlock()
	return nil
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// efiWarning is what check_efi_vars prints since qemu-server 9.1.10 for an EFI disk without the
// certificates of 2023: one warning of several lines, and the task ends "WARNINGS: 1".
func (t *task) efiWarning(vmid int) {
	t.warn("EFI disk without 'ms-cert=2023k' option, suggesting that not all UEFI 2023")
	for _, line := range []string{
		"certificates from Microsoft are enrolled yet.",
		"The UEFI 2011 certificates expire in June 2026! The new certificates are required",
		"for secure boot update for Windows and common Linux distributions.",
		"Use 'Disk Action > Enroll Updated Certificates' in the UI or, while the VM is",
		fmt.Sprintf("shut down, run 'qm enroll-efi-keys %d' to enroll the new certificates.", vmid),
		"",
		"For Windows with BitLocker, run the following command inside Powershell:",
		"  manage-bde -protectors -disable <drive>",
		"for each drive with BitLocker (for example, <drive> could be 'C:').",
		"This is required for each drive with BitLocker before proceeding with enrollment.",
		"Otherwise, you will be prompted for the BitLocker recovery key on the next boot.",
	} {
		t.say("%s", line)
	}
}

// powerOff is the guest's own doing.
func (c *Cluster) powerOff(v *vm, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case v.run == r:
		c.cutPower(v)
		c.qmCleanup(v.node, v.id)
	case r.started.IsZero() && !isClosed(r.ended): // it was switched off before start had ended
		close(r.ended)
	}
}

// qmCleanup is `qm cleanup`, which qmeventd runs when a QEMU has ended. It takes the VM's flock and,
// since qemu-server 9.1.13, keeps it up to 30 s while it sees the VM running: after a stop with a quick
// start the next stop fails with the flock's time-out. c.mu must be held.
func (c *Cluster) qmCleanup(node string, vmid int) {
	if c.cfg.Version == "8.4" {
		return
	}
	wait := c.scale(c.draw(vmid, "cleanup", Range{100 * time.Millisecond, 500 * time.Millisecond}))
	c.spawn(func() {
		if !pause(c.done, wait) {
			return
		}
		release, _, how := c.acquire(c.done, flockKey(node, vmid), true, 60*time.Second)
		if how != lockTaken {
			return
		}
		defer release()
		c.mu.Lock()
		v := c.here(node, vmid)
		var ended chan struct{}
		if v != nil && v.run != nil {
			ended = v.run.ended
		}
		c.mu.Unlock()
		if ended == nil {
			return
		}
		timer := time.NewTimer(c.scale(30 * time.Second))
		defer timer.Stop()
		select {
		case <-ended:
		case <-timer.C:
		case <-c.done:
		}
	})
}

// stop pulls the plug. A VM that is stopped already is no error.
func (c *Cluster) stop(r *request) (any, *apiError) {
	if e := onlyRoot(r, "skiplock", "keepActive", "migratedfrom"); e != nil {
		return nil, e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.num("overrule-shutdown", 0) == 1 { // one's own shutdown of this VM is ended first
		for _, t := range c.tasks {
			if t.kind == "qmshutdown" && t.vmid == r.vmid && t.exit == "" {
				t.end(errTerminated)
			}
		}
	}
	return c.inTask(r, "qmstop", "stop", c.stopTask).upid, nil
}

// stoppable is the VM's running QEMU; nil and no error if it is stopped.
func (c *Cluster) stoppable(t *task, vmid int) (*vm, *run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(t.node, vmid)
	if v == nil {
		return nil, nil, fmt.Errorf("unable to find configuration file for VM %d on node '%s'", vmid, t.node)
	}
	if err := v.unlocked(); err != nil {
		return nil, nil, err
	}
	return v, v.run, nil
}

func (c *Cluster) stopTask(t *task, r *request) error {
	v, run, err := c.stoppable(t, r.vmid)
	if err != nil || run == nil {
		return err
	}
	c.mu.Lock()
	delay := c.scale(c.draw(r.vmid, "stop", c.cfg.Delays.Stop))
	c.mu.Unlock()
	if err := t.work(delay); err != nil {
		return err
	}
	c.cut(v, run)
	return nil
}

// cut ends that life of a VM, if it has not ended by itself.
func (c *Cluster) cut(v *vm, r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.run == r {
		c.cutPower(v)
		c.qmCleanup(v.node, v.id)
	}
}

// shutdown asks the guest. Only one whose agent answers obeys here.
func (c *Cluster) shutdown(r *request) (any, *apiError) {
	if e := onlyRoot(r, "skiplock", "keepActive"); e != nil {
		return nil, e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inTask(r, "qmshutdown", "stop", c.shutdownTask).upid, nil
}

func (c *Cluster) shutdownTask(t *task, r *request) error {
	v, run, err := c.stoppable(t, r.vmid)
	if err != nil || run == nil {
		return err
	}
	if up, _ := run.guest.AgentUp(); up {
		c.mu.Lock()
		delay := c.scale(c.draw(r.vmid, "shutdown", c.cfg.Delays.Stop))
		c.mu.Unlock()
		if err := t.work(delay); err != nil {
			return err
		}
		c.cut(v, run)
		return nil
	}
	timer := time.NewTimer(time.Duration(r.num("timeout", 60)) * time.Second)
	defer timer.Stop()
	select {
	case <-run.ended:
		return nil
	case <-t.stop:
		return t.why()
	case <-timer.C:
	}
	if r.num("forceStop", 0) != 1 {
		return errors.New("VM quit/powerdown failed - got timeout")
	}
	c.cut(v, run)
	return nil
}

// destroy refuses at once what is absent, protected or running; a config lock only in its task.
func (c *Cluster) destroy(r *request) (any, *apiError) {
	if e := onlyRoot(r, "skiplock"); e != nil {
		return nil, e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.here(r.node, r.vmid)
	if v == nil {
		return nil, failed("%s", noConfig(r.node, r.vmid))
	}
	if err := v.destroyable(); err != nil {
		return nil, failed("%s", err)
	}
	return c.inTask(r, "qmdestroy", "destroy", c.destroyTask).upid, nil
}

func (v *vm) destroyable() error {
	if v.conf["protection"] == "1" {
		return fmt.Errorf("can't remove VM %d - protection mode enabled", v.id)
	}
	if v.run != nil {
		return fmt.Errorf("VM %d is running - destroy failed", v.id)
	}
	return nil
}

// destroyTask frees the disks, leaves a config with only `lock: destroyed`, takes the VM out of
// user.cfg, and unlinks the config (qemu-server 9.2: destroy_vm; access-control 9.1: remove_vm_access).
func (c *Cluster) destroyTask(t *task, r *request) error {
	c.mu.Lock()
	v := c.here(t.node, r.vmid)
	var err error
	switch {
	case v == nil:
		err = errors.New(noConfig(t.node, r.vmid))
	case v.lock() != "":
		err = v.unlocked()
	default:
		err = v.destroyable()
	}
	if err == nil && v.template {
		for _, key := range v.drives() {
			if base := volidOf(v.conf[key]); c.inUse(base) {
				err = fmt.Errorf("base volume '%s' is still in use by linked cloned", base)
			}
		}
	}
	if err != nil {
		c.mu.Unlock()
		return err
	}
	var volids []string
	for _, key := range v.drives() {
		if volid := volidOf(v.conf[key]); c.volumes[c.volumeKey(t.node, volid)] != nil {
			volids = append(volids, volid)
		}
	}
	if r.num("destroy-unreferenced-disks", 0) == 1 {
		for _, l := range c.volumes {
			if l.vmid == r.vmid && (l.node == "" || l.node == t.node) && !slices.Contains(volids, l.volid) {
				volids = append(volids, l.volid)
			}
		}
	}
	delay := c.draw(r.vmid, "destroy", c.cfg.Delays.Destroy)
	c.mu.Unlock()

	if err := c.freeDisks(t, r.vmid, volids, &delay); err != nil {
		return err
	}
	c.mu.Lock()
	c.touch(v)
	v.conf = map[string]string{"lock": "destroyed"} // name and tags are gone from here on
	c.mu.Unlock()
	if err := t.work(c.scale(delay)); err != nil {
		return err
	}
	if err := t.userCfg(func() { delete(c.pools, r.vmid) }); err != nil {
		if errors.Is(err, errKilled) || errors.Is(err, errTerminated) {
			return err
		}
		// The config with lock: destroyed stays, and no token can remove it.
		return fmt.Errorf("access permissions cleanup for VM %d failed: %w", r.vmid, err)
	}
	if r.num("purge", 0) == 1 {
		t.say("purging VM %d from related configurations..", r.vmid)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch(v)
	delete(c.vms, r.vmid)
	return nil
}

// freeDisks frees volumes one after the other and takes what it needed off delay. A volume that cannot
// be freed leaks: a warning since qemu-server 9.1.19, only a line in the log before.
func (c *Cluster) freeDisks(t *task, vmid int, volids []string, delay *time.Duration) error {
	for i, volid := range volids {
		c.mu.Lock()
		s := c.storageOf(volid)
		hold := min(c.draw(vmid, "free"+strconv.Itoa(i), Range{200 * time.Millisecond, 700 * time.Millisecond}), *delay/2)
		c.mu.Unlock()
		*delay -= hold
		var err error
		if t.sabotage != nil && t.sabotage.does == diskStays {
			file := strings.ReplaceAll(volid[strings.LastIndexAny(volid, ":/")+1:], " ", "")
			err = fmt.Errorf("unlink '/srv/storage/%s/images/%d/%s' failed - Operation not permitted", s.Name, vmid, file)
		} else {
			err = t.onStorage(t.stop, s, c.scale(hold), func() {}, func() {
				delete(c.volumes, c.volumeKey(t.node, volid))
				if s.Type == "lvmthin" {
					t.log = append(t.log, fmt.Sprintf("  Logical volume \"%s\" successfully removed.", baseID(volid)))
				}
			})
		}
		if errors.Is(err, errKilled) || errors.Is(err, errTerminated) {
			return err
		}
		if err != nil {
			text := fmt.Sprintf("Could not remove disk '%s', check manually: %s", volid, err)
			if c.cfg.Version == "8.4" {
				t.say("%s", text)
			} else {
				t.warn("%s", text)
			}
		}
	}
	return nil
}
