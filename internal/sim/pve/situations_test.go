package pve

import (
	"strings"
	"time"
)

// notSimulated names the captures that say nothing about this simulator, and why.
func notSimulated(name string) (why string, skip bool) {
	for prefix, why := range map[string]string{
		"auth-ticket": "tickets are not used: tokens only", "extjs": "the browser's format", "http-plain-on-8006": "TLS is the wiring's",
		"agent-file-write": "no file-write", "agent-hostname": "not called",
		"agent-info": "not called", "agent-osinfo": "not called", "agent-netif-no-ipv4-yet": "a state of the guest, whose own it is",
		"agent-calls-block-workers": "timings, see TestWorkersStarve", "race-nextid": "a race, see TestRaceForOneID",
		"noquorum": "quorum is not simulated", "pmxcfs": "pmxcfs cannot fail here", "pvedaemon": "pvedaemon cannot fail here",
		"snapshot": "no snapshots", "suspend": "not called", "resume": "not called", "resize": "not called", "reboot": "not called",
		"migrate": "not called", "narrow-suspend": "not called",
		"cluster-config": "not called", "cluster-tasks": "not called", "nodes-network": "not called", "config-pending": "not called",
		"stop-lock-timeout": "see TestQuickRestart, which needs the stop before it", "node-status-ok": "hardware of the rig",
		"status-after-reboot": "reboot is not called", "agent-key-removed": "a sequence with qm on the host",
		"thin-after": "texts of simulated lvm commands", "thin-storage-content": "root's view of the rig's volumes",
		"clone-full-ok": "progress lines of qemu-img", "thin-clone-full": "progress lines of qemu-img",
		"permissions":      "ACL details of the rig",
		"mark-permissions": "ACL details of the rig",
	} {
		if strings.HasPrefix(name, prefix) {
			return why, true
		}
	}
	return "", false
}

func vm101(r *rig) {
	r.clone(101, "name=runner-1", "full=0")
	r.do(orch, "PUT", "nodes/pve/qemu/101/config", "tags=ci;job-42", "description=runner for job 42", "memory=160")
}

func running101(r *rig) {
	vm101(r)
	r.start(101)
	time.Sleep(2 * time.Second)
}

func answering101(r *rig) {
	running101(r)
	g := r.guest(101)
	g.files = map[string]string{"/tmp/x": "hello"}
	g.agent(true)
}

// executed has run a program in the guest.
func executed(program string) func(*rig) {
	return both(answering101, func(r *rig) { r.do(root, "POST", "nodes/pve/qemu/101/agent/exec", "command="+program) })
}

// as170 lets VM 170 be what 101 is.
func as170(r *rig) {
	r.clone(170)
	r.start(170)
	g := r.guest(170)
	g.ran = "/bin/true"
	g.agent(true)
}

func vm110(r *rig) { r.clone(110, "name=runner-renamed") }

func running110(r *rig) { vm110(r); r.start(110) }

func gone101(r *rig) {
	vm101(r)
	r.mustTask(orch, "DELETE", "nodes/pve/qemu/101")
}

// cloning120 is in the midst of a slow clone, asked for by token.
func cloning120(token string) situation {
	return situation{world: slowClone, before: func(r *rig) {
		w := r.do(token, "POST", "nodes/pve/qemu/9000/clone", "newid=120", "name=runner-slow", "full=0", "pool=runners")
		r.upid = w.text()
		time.Sleep(100 * time.Millisecond)
	}}
}

func killed122(r *rig) {
	r.do(root, "POST", "nodes/pve/qemu/9000/clone", "newid=122", "name=runner-killed", "full=0", "pool=runners")
	time.Sleep(100 * time.Millisecond)
	r.c.KillClone(122)
	time.Sleep(time.Second)
}

func vm700(r *rig) {
	r.clone(700, "name=k3f9-win-7a2b9c01", "full=0", "description=mayfly k3f9 k3f9-win-7a2b9c01 born=2026-11-23T21:55:00Z")
}

func put700(r *rig) {
	vm700(r)
	time.Sleep(3 * time.Second)
	r.do(orch, "PUT", "nodes/pve/qemu/700/config", "tags=mayfly;k3f9", "protection=0", "onboot=0", "balloon=0", "cores=2")
}

// narrow701 is made by the narrow token.
func narrow701(r *rig) {
	r.mustTask(narrow, "POST", "nodes/pve/qemu/9000/clone", "newid=701", "name=k3f9-win-7a2b9c02", "full=0", "pool=runners")
}

func narrowUp(r *rig) {
	narrow701(r)
	r.mustTask(narrow, "POST", "nodes/pve/qemu/701/status/start")
	r.guest(701).agent(true)
}

func narrowGone(r *rig) {
	narrow701(r)
	r.mustTask(narrow, "DELETE", "nodes/pve/qemu/701")
}

// ended makes a finished task of the orchestrator.
func ended(r *rig) {
	vm110(r)
	r.upid = r.do(orch, "POST", "nodes/pve/qemu/110/status/stop").text()
	r.wait(r.upid)
}

func fails(match string, a Action) func(*rig) {
	return func(r *rig) { r.c.Inject(Fault{Match: match, Count: 1, Do: a}) }
}

func both(f ...func(*rig)) func(*rig) {
	return func(r *rig) {
		for _, g := range f {
			g(r)
		}
	}
}

func foreignTask(r *rig) {
	r.upid = r.do(root, "POST", "nodes/pve/qemu/9000/clone", "newid=120", "full=0", "pool=runners").text()
	time.Sleep(time.Second)
}

func thin130(r *rig) {
	r.mustTask(orch, "POST", "nodes/pve/qemu/9001/clone", "newid=130", "name=runner-130", "full=0", "pool=runners")
}

func efi110(c *Config) {
	c.Templates[0].Disks = []string{"virtio0", "efidisk0"}
	c.Templates[0].Config["efidisk0"] = "tank:9000/base-9000-disk-1.qcow2,efitype=4m,pre-enrolled-keys=1,size=4M"
}

var pressure = []string{"pressurecpusome", "pressurecpufull"}

var noSpace = TaskFails("unable to create image: qemu-img: injected failure: No space left on device")

var situations = map[string]situation{
	"after-aborted-clone-config": {}, "after-failed-clone-config": {},
	"after-killed-clone-config":          {before: killed122, world: slowClone},
	"after-killed-clone-delete":          {before: killed122, world: slowClone},
	"after-killed-clone-delete-skiplock": {before: killed122, world: slowClone},
	"after-killed-clone-start":           {before: killed122, world: slowClone},
	"after-killed-clone-status":          {before: killed122, world: slowClone},
	"after-killed-clone-status-orch":     {before: killed122, world: slowClone},

	"agent-exec-nosuchfile": {before: answering101}, "agent-exec-ok": {before: answering101},
	"agent-exec-old-style": {before: func(r *rig) { r.clone(170); r.start(170); r.guest(170).agent(true) }}, "narrow-exec-denied": {before: narrow701},
	"agent-exec-status-badpid":    {before: answering101, params: []string{"pid=999999"}},
	"agent-exec-status-ok":        {before: executed("/bin/sh"), params: []string{"pid=2001"}, fields: []string{"err-data", "err-truncated"}},
	"agent-exec-status-no-output": {before: both(executed("/bin/true"), as170), params: []string{"pid=2001"}},
	"agent-exec-status-running":   {before: executed("/bin/sleep"), params: []string{"pid=2001"}},
	"agent-file-read-missing":     {before: answering101}, "agent-file-read-ok": {before: answering101},
	"agent-netif-early": {before: answering101}, "agent-netif-ok": {before: answering101},
	"agent-netif-not-running": {before: running101}, "agent-netif-vm-stopped": {before: vm101},
	"agent-not-configured": {before: func(r *rig) {
		r.clone(171)
		r.do(orch, "PUT", "nodes/pve/qemu/171/config", "delete=agent")
		r.start(171)
	}},
	"agent-ping-missing-vm-as-root": {before: gone101}, "agent-ping-not-running": {before: running101},
	"agent-ping-ok": {before: answering101}, "agent-ping-vm-stopped": {before: vm101},
	"agent-ping-paused": {before: both(answering101, func(r *rig) { r.c.Pause(101, true) })},
	"agent-unknown-cmd": {before: running101}, "agent-wrong-method": {before: running101},
	"agent-zero-at-start": {before: func(r *rig) {
		r.clone(172)
		r.clone(102)
		r.do(orch, "PUT", "nodes/pve/qemu/102/config", "agent=0")
		r.start(102)
	}},

	"auth-bad-secret": {}, "auth-bearer-header": {}, "auth-disabled-user": {}, "auth-empty-secret": {}, "auth-expired-token": {},
	"auth-no-header": {}, "auth-token-without-acl": {}, "auth-unknown-token": {},

	"clone-bad-name": {}, "clone-default-full-param": {},
	"clone-linked-from-nontemplate": {before: func(r *rig) { r.clone(110, "full=1") }},
	"clone-linked-ok":               {}, "clone-linked-with-storage": {}, "clone-newid-abc": {}, "clone-newid-taken": {world: thin}, "clone-no-newid": {},
	"clone-no-pool-denied": {}, "clone-nobody-denied": {}, "clone-privsep-denied": {}, "clone-slow-start": {},
	"clone-storage-fails":      {before: fails("POST .*/clone", noSpace)},
	"clone-full-storage-fails": {before: fails("POST .*/clone", noSpace)},
	"clone-storage-no-images":  {}, "clone-unknown-pool": {}, "clone-unknown-storage": {}, "clone-unknown-storage-root": {},
	"clone-unknown-target-node": {}, "clone-unknown-template": {}, "clone-unknown-template-root": {},
	"clone-worker-sigkill": {world: slowClone, during: func(r *rig) {
		time.Sleep(100 * time.Millisecond)
		r.c.KillClone(122)
		time.Sleep(50 * time.Millisecond)
	}},
	"rootclone-slow-start": {},

	"cluster-resources-badtype": {}, "cluster-status": {},
	"cluster-resources-vm": {before: both(answering101, func(r *rig) {
		if r.c.cfg.Version == "8.4" {
			r.clone(102, "name=runner-2")
		}
		time.Sleep(10 * time.Second)
	}), world: thin84},
	"cluster-resources-all": {world: tankOnly, before: both(vm110, func(r *rig) { time.Sleep(10 * time.Second) })},

	"config-agent-zero":   {before: func(r *rig) { r.clone(102) }},
	"config-bad-bridge":   {before: vm110},
	"config-bad-digest":   {before: vm101},
	"config-bad-memory":   {before: vm110},
	"config-bad-property": {before: both(vm101, vm110)},
	"config-bad-tag":      {before: vm110}, "config-denied-cloudinit": {before: vm110}, "config-denied-option": {before: vm110},
	"config-get-ok": {before: vm101}, "config-missing-vm-as-root": {before: gone101}, "config-net-back": {before: vm110},
	"config-of-default-clone": {before: func(r *rig) { r.clone(111, "name=runner-default") }}, "config-protection": {before: vm110},
	"config-put-ok": {before: vm101}, "content-type-unknown": {},

	"delete-missing": {before: gone101}, "delete-missing-as-root": {before: gone101}, "delete-ok": {before: vm101},
	"delete-protected": {before: both(vm110, func(r *rig) { r.do(root, "PUT", "nodes/pve/qemu/110/config", "protection=1") })},
	"delete-running":   {before: running101}, "denied-nobody": {before: running101},

	"during-clone-config": cloning120(orch), "during-clone-config-put": cloning120(orch), "during-clone-delete": cloning120(orch),
	"during-clone-nextid":     cloning120(orch),
	"during-clone-resources":  {world: slowClone, before: during},
	"during-clone-same-newid": cloning120(orch), "during-clone-start": cloning120(orch), "during-clone-status": cloning120(orch),
	"during-clone-task-log": cloning120(orch), "during-clone-task-status": cloning120(orch),
	"during-clone-second-clone": {before: func(r *rig) {
		r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=120", "full=0", "pool=runners")
		time.Sleep(50 * time.Millisecond)
	}, world: slowHold},
	"rootduring-clone-config": cloning120(root), "rootduring-clone-config-put": cloning120(root),
	"rootduring-clone-delete": {world: func(c *Config) { c.Delays.Clone = Range{5 * time.Second, 5 * time.Second} }, before: cloning120(root).before},
	"rootduring-clone-list":   {world: slowClone, before: during},
	"rootduring-clone-start":  cloning120(root), "rootduring-clone-status": cloning120(root),

	"http-chunked-body": {}, "http-delete-with-body": {}, "http-get-with-bool": {world: thin}, "http-gzip": {world: thin}, "http-head": {},
	"http-post-content-length-0": {}, "http-put-query": {}, "json-body": {}, "json-body-broken": {}, "json-body-ok": {}, "method-unknown": {},

	"mark-clone-with-description": {}, "mark-config-during-or-just-after": {before: vm700}, "mark-config-after": {before: vm700},
	"mark-config-after-put": {before: put700}, "mark-feature-clone": {}, "mark-feature-clone-thin": {world: thin},
	"mark-nextid-probe": {before: vm700}, "mark-put-tags": {before: vm700},
	"mark-resources": {world: thin, before: func(r *rig) { // just after a tick of pvestatd, so that the next is far away
		n := r.c.nodes["pve"]
		time.Sleep(time.Until(n.lastTick(statInterval).Add(statInterval + time.Millisecond)))
		put700(r)
	}},
	"narrow-clone": {}, "narrow-config-after-delete": {before: narrowGone}, "narrow-delete": {before: narrow701},
	"narrow-delete-again": {before: narrowGone}, "narrow-fileread": {before: narrowUp}, "narrow-nextid-after-delete": {before: narrowGone},
	"narrow-put": {before: narrow701}, "narrow-start": {before: narrow701}, "narrow-stop": {before: narrowUp},

	"nextid-check-free": {}, "nextid-check-taken": {}, "nextid-nobody": {}, "nextid-ok": {},
	"node-status-denied": {}, "node-unknown": {}, "node-unknown-as-root": {},
	"node2-nextid-300-taken": {world: node2, before: vm300}, "node2-resources": {world: node2, before: both(vm110, vm300)},
	"node2-unreachable-list": {world: node2, before: vm300}, "node2-unreachable-status": {world: node2, before: vm300},
	"node2-vm-start-on-wrong-node": {world: node2, before: vm300},
	"nodes":                        {}, "nodes-nobody": {},
	"nodes-qemu-list": {before: func(r *rig) {
		answering101(r)
		if r.c.cfg.Version == "8.4" {
			r.clone(102, "name=runner-2")
		}
	}, world: thin84},
	"path-unknown": {}, "path-unknown-root": {},
	"pool-get":     {before: both(vm110, func(r *rig) { time.Sleep(10 * time.Second) }), fields: []string{"comment"}},
	"pool-unknown": {}, "pools": {fields: []string{"comment"}},

	"shutdown-ok": {before: answering101}, "shutdown-timeout": {before: running110}, "shutdown-when-stopped": {before: vm101},
	"start-already-running": {before: running101},
	"start-disk-missing": {before: both(vm110, func(r *rig) {
		r.c.mu.Lock()
		defer r.c.mu.Unlock()
		r.c.vms[110].conf["virtio0"] = "tank:110/vm-110-disk-0.qcow2,size=64M"
	})},
	"start-missing-vm-as-root": {before: gone101}, "start-ok": {before: vm101}, "start-ok-2": {before: vm101}, "start-ok-3": {before: vm110},
	"start-qemu-fails": {before: both(vm101, vm110, func(r *rig) {
		text := "kvm: injected: cannot set up guest memory pc.ram: Cannot allocate memory"
		if r.c.cfg.Version == "8.4" {
			text = "kvm: injected: Cannot allocate memory"
		}
		r.c.Inject(Fault{Match: "status/start", Do: TaskFails("start failed: QEMU exited with code 1", text)})
	})},
	"start-template":            {},
	"status-after-failed-start": {before: vm110}, "status-current-after-stop": {before: both(running101, func(r *rig) { r.stop(101) })},
	"status-current-running": {before: running101, fields: pressure}, "status-current-stopped": {before: vm101},
	"status-missing-vm": {before: gone101}, "status-missing-vm-as-root": {before: gone101},
	"status-paused": {before: both(running101, func(r *rig) { r.c.Pause(101, true) })},

	"stop-missing-vm-as-root": {before: gone101}, "stop-ok": {before: running101}, "stop-skiplock-denied": {before: vm110}, "stop-when-stopped": {before: vm101},
	"storage-content": {before: func(r *rig) { r.clone(110, "full=1") }}, "storage-list": {world: tankOnly}, "storage-status": {},

	"task-bad-upid": {}, "task-stop-finished": {before: ended}, "task-stop-foreign": {before: foreignTask, world: slowClone},
	"task-stop-own-clone": {world: slowHold, during: func(r *rig) { time.Sleep(100 * time.Millisecond) }},
	"task-unknown":        {}, "task-unknown-upid": {}, "task-unknown-upid-log": {}, "task-upid-urlencoded": {before: ended},
	"tasks-list":        {before: history, fields: []string{"total"}, unequal: true},
	"tasks-list-active": {before: ended},
	"tasks-list-since":  {before: history, params: []string{"since=0", "until=4000000000", "limit=2", "start=1"}, fields: []string{"total"}, unequal: true},

	"template-config": {}, "template-feature-clone": {}, "template-status": {},
	"thin-agent-netif-ok":  {world: thin, before: func(r *rig) { thin130(r); r.start(130); r.guest(130).agent(true) }},
	"thin-clone-linked-ok": {world: thin},
	"thin-clone-pool-full": {world: thin, before: fails("POST .*/clone", TaskFails("clone image 'pve/base-9001-disk-0' error:   Cannot create new thin volume, free space in thin pool pve/data reached threshold."))},
	"thin-config":          {world: thin, before: thin130}, "thin-delete-ok": {world: thin, before: thin130}, "thin-start-ok": {world: thin, before: thin130},
	"thin-stop-ok": {world: thin, before: func(r *rig) { thin130(r); r.start(130) }}, "thin-storage-status": {world: thin},
	"trailing-slash": {}, "unknown-param": {}, "unknown-param-clone": {}, "version": {},

	"warnings-delete":         {before: fails("DELETE", DiskStays())},
	"warnings-delete-after":   {},
	"warnings-start-efi":      {world: efi110, before: vm110},
	"warnings-start-efi-stop": {world: efi110, before: running110}, "warnings-start-efi-tasklist": {world: efi110, before: running110, fields: []string{"total"}},
}

func slowHold(c *Config) { c.Delays.Clone = Range{4 * time.Second, 4 * time.Second} }

func tankOnly(c *Config) { c.Storages = c.Storages[:1] }

// during is the rig's world while VM 120 is being cloned.
func during(r *rig) {
	for id, name := range map[int]string{110: "runner-full", 111: "runner-default", 113: "runner-json"} {
		r.clone(id, "name="+name)
	}
	time.Sleep(10 * time.Second)
	cloning120(orch).before(r)
}

func node2(c *Config) {
	c.Nodes = []NodeSpec{{Name: "pve", Memory: 64 << 30, Cores: 16}, {Name: "pve2", Memory: 64 << 30, Cores: 16}}
}

// vm300 stands on a node that nobody has heard of for long.
func vm300(r *rig) {
	time.Sleep(20 * time.Second)
	r.c.SetNode("pve2", false)
	r.c.AddVM(VMSpec{ID: 300, Node: "pve2", Name: "x"})
	r.c.mu.Lock()
	r.c.vms[300].changed = time.Now()
	r.c.mu.Unlock()
}

// history makes some ended tasks of the orchestrator.
func history(r *rig) {
	vm110(r)
	for range 5 {
		r.wait(r.do(orch, "POST", "nodes/pve/qemu/110/status/stop").text())
	}
}

// thin84 has the second template that the rig of 8.4 had from the start.
func thin84(c *Config) {
	if c.Version == "8.4" {
		thin(c)
	}
}
