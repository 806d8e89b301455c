package proxmox

import (
	"errors"
	"strings"
	"testing"

	"mayfly/internal/fleet"
)

// TestClassify holds the error texts that Proxmox' code has, by call.
func TestClassify(t *testing.T) {
	const task = 0
	for _, tc := range []struct {
		call   call
		status int
		text   string
		fields map[string]string
		cause  cause
		class  error
	}{
		{callLook, 401, "No ticket", nil, badToken, fleet.ErrConfig},
		{callLook, 401, "Authentication failed!", nil, badToken, fleet.ErrConfig},
		{callConfig, 403, "Permission check failed (/vms/105, VM.Audit)", nil, denied, fleet.ErrHidden},
		{callPing, 403, "Permission check failed (/vms/105, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)", nil, denied, fleet.ErrHidden},
		{callClone, 403, "Permission check failed", nil, denied, fleet.ErrConfig},
		{callClone, 403, "Permission check failed (pool 'p' does not exist)", nil, denied, fleet.ErrConfig},
		{callClone, 400, "Parameter verification failed.", map[string]string{"newid": "property is missing and it is not optional"}, badRequest, fleet.ErrConfig},
		{callConfigPut, 400, "Parameter verification failed.", map[string]string{"memory": "hotplug problem - x"}, badRequest, fleet.ErrConfig},
		{callTaskStatus, 400, "Parameter verification failed.", map[string]string{"upid": "no such task"}, noTask, fleet.ErrUnknown},
		{callTaskStatus, 400, "Parameter verification failed.", map[string]string{"upid": "unable to parse worker upid"}, noTask, fleet.ErrUnknown},
		{callConfig, 500, "Configuration file 'nodes/pve1/qemu-server/105.conf' does not exist", nil, missing, fleet.ErrGone},
		{callStop, 500, "unable to find configuration file for VM 105 on node 'pve1'", nil, missing, fleet.ErrGone},
		{callClone, 500, "unable to find configuration file for VM 9000 on node 'pve1'", nil, missing, fleet.ErrConfig},
		{callClone, 500, "unable to create VM 105: config file already exists", nil, taken, fleet.ErrTaken},
		{callClone, task, "unable to create VM 105: config file already exists", nil, taken, fleet.ErrTaken},
		{callClone, task, "close (rename) atomic file '/etc/pve/nodes/pve1/qemu-server/105.conf' failed: File exists", nil, taken, fleet.ErrTaken},
		{callClone, task, "can't lock file '/var/lock/qemu-server/lock-105.conf' - got timeout", nil, taken, fleet.ErrTaken},
		{callClone, task, "can't lock file '/var/lock/qemu-server/lock-9000.conf' - got timeout", nil, configLock, nil},
		{callClone, 500, "parameter 'storage' not allowed for linked clones", nil, unsupported, fleet.ErrConfig},
		{callClone, 500, "Linked clone feature is not supported for 'local-lvm:vm-9000-disk-0' (scsi0)", nil, unsupported, fleet.ErrConfig},
		{callClone, 500, "Linked clone feature is not supported for drive 'scsi0'", nil, unsupported, fleet.ErrConfig},
		{callClone, 500, "storage 'x' is not available on node 'pve1'", nil, wrongSetting, fleet.ErrConfig},
		{callClone, 500, "can't clone VM to node 'pve2' (VM uses local storage)", nil, wrongSetting, fleet.ErrConfig},
		{callClone, 500, "VM is locked (backup)", nil, locked, fleet.ErrBusy},
		{callDelete, task, "VM is locked (clone)", nil, locked, fleet.ErrBusy},
		{callDelete, 500, "VM 105 is running - destroy failed", nil, stillRunning, fleet.ErrBusy},
		{callDelete, 500, "can't remove VM 105 - protection mode enabled", nil, protected, fleet.ErrBusy},
		{callDelete, 500, "unable to remove VM 105 - used in HA resources and purge parameter not set.", nil, highAvailable, fleet.ErrConfig},
		{callClone, 500, "cluster not ready - no quorum?", nil, noQuorum, nil},
		{callDelete, task, "cfs-lock 'file-user_cfg' error: no quorum!", nil, noQuorum, nil},
		{callPing, 500, "No QEMU guest agent configured", nil, agentMissing, fleet.ErrConfig},
		{callPing, 500, "VM 105 is not running", nil, notRunning, nil},
		{callPing, 500, "QEMU guest agent is not running", nil, agentSilent, fleet.ErrNotReady},
		{callInterfaces, 500, "VM 105 qga command 'guest-network-get-interfaces' failed - got timeout", nil, agentSilent, fleet.ErrNotReady},
		{callInterfaces, 500, "unable to connect to VM 105 qga socket - timeout after 31 retries", nil, agentSilent, fleet.ErrNotReady},
		{callFileRead, 500, "Agent error: failed to open file 'x' (mode: 'r'): No such file or directory", nil, agentError, fleet.ErrNotReady},
		{callConfigPut, 500, "checksum mismatch (file change by other user?)", nil, changed, nil},
		{callConfigPut, 500, "only root can set 'args' config", nil, unsupported, fleet.ErrConfig},
		{callClone, 500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout", nil, lost, fleet.ErrUnknown},
		{callDelete, 500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout", nil, lost, fleet.ErrUnknown},
		{callStart, 500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout", nil, lost, nil},
		{callClone, 500, "hostname lookup 'N' failed - failed to get address info for: N: Name or service not known", nil, wrongSetting, fleet.ErrConfig},
		{callStatus, 501, "Method 'GET /nosuch' not implemented", nil, unsupported, fleet.ErrConfig},
		{callClone, 595, "No route to host", nil, unreachable, nil},
		{callClone, 596, "Connection timed out", nil, lost, fleet.ErrUnknown},
		{callClone, 599, "Too many redirections", nil, lost, fleet.ErrUnknown},
		{callClone, 502, "Bad Gateway", nil, lost, fleet.ErrUnknown},
		{callDelete, 596, "Broken pipe", nil, lost, fleet.ErrUnknown},
		{callConfig, 596, "Connection timed out", nil, lost, nil},
		{callLook, 404, "Not Found", nil, notProxmox, fleet.ErrConfig},
		{callLook, 301, "Moved Permanently", nil, notProxmox, fleet.ErrConfig},
		{callClone, task, "unexpected status", nil, lost, fleet.ErrUnknown},
		{callClone, task, "received interrupt", nil, interrupted, nil},
		{callClone, task, "clone failed: interrupted by signal", nil, interrupted, nil},
		{callClone, task, "clone failed: unable to create image: interrupted by signal", nil, interrupted, nil},
		{callStop, task, "can't lock file '/var/lock/qemu-server/lock-105.conf' - got timeout", nil, configLock, nil},
		{callClone, task, "clone failed: can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout", nil, storageLock, nil},
		{callClone, task, "clone failed: cfs-lock 'storage-ceph' error: got lock request timeout", nil, storageLock, nil},
		{callClone, task, "clone failed: 'storage-ceph'-locked command timed out - aborting", nil, storageLock, nil},
		{callClone, task, "clone failed: unable to create image: qemu-img: /x: No space left on device", nil, noSpace, fleet.ErrFull},
		{callClone, task, "clone failed: clone image 'pve/base-9000-disk-0' error:   Cannot create new thin volume, free space in thin pool pve/data reached threshold.", nil, noSpace, fleet.ErrFull},
		{callClone, task, "clone failed: can't add VM 105 to pool 'P': cfs-lock 'file-user_cfg' error: got lock request timeout", nil, clusterLock, nil},
		{callStart, task, "bridge 'vmbr9' does not exist", nil, wrongSetting, fleet.ErrConfig},
		{callStart, task, "volume 'tank:110/vm-110-disk-0.qcow2' does not exist", nil, startFailed, nil},
		{callStart, task, "VM 105 already running", nil, alreadyRuns, nil},
		{callStart, task, "you can't start a vm if it's a template", nil, unsupported, fleet.ErrConfig},
		{callStart, task, "start failed: QEMU exited with code 1", nil, startFailed, nil},
		{callStart, task, "start failed: command '/usr/bin/kvm -id 105' failed: got timeout", nil, startFailed, nil},
		{callDelete, task, "base volume 'tank:base-9000-disk-0' is still in use by linked cloned", nil, inUse, fleet.ErrBusy},
		{callDelete, task, "access permissions cleanup for VM 105 failed: cfs-lock 'file-user_cfg' error: got lock request timeout", nil, zombie, nil},
		{callDelete, task, "unable to open file '/etc/pve/nodes/pve/qemu-server/125.conf.tmp.3956' - Permission denied", nil, noQuorum, nil},
		{callClone, 500, "RPCEnvironment init request failed: Unable to load access control list: Connection refused", nil, noService, nil},
		{callClone, 500, "something new", nil, other, nil},
	} {
		subject := "105"
		if tc.call == callClone {
			subject = "9000"
		}
		why, class := classify(tc.call, subject, tc.status, tc.text, tc.fields)
		if why != tc.cause || !errors.Is(class, tc.class) || class != nil && tc.class == nil {
			t.Errorf("%s %d %q: %s/%v, want %s/%v", tc.call.name, tc.status, tc.text, why, class, tc.cause, tc.class)
		}
	}
}

func TestErrorText(t *testing.T) {
	for _, tc := range []struct{ reason, body, message, field string }{
		{"VM is locked (clone)", `{"data":null,"message":"VM is locked (clone)\n"}`, "VM is locked (clone)", ""},
		{"line one", `{"message":"line one\nline two\n","data":null}`, "line one\nline two", ""},
		{"VM is locked (clone)", `{"data":null}`, "VM is locked (clone)", ""}, // before pve-http-server 5.2.0
		{"Authentication failed!", "", "Authentication failed!", ""},
		{"Unexpected content for method 'DELETE'", "Unexpected content for method 'DELETE'", "Unexpected content for method 'DELETE'", ""},
		{"Parameter verification failed.", `{"data":null,"errors":{"vmid":"VM 105 already exists\n"}}`, "Parameter verification failed.", "VM 105 already exists"},
		{"x", `{"message":7,"errors":{"vmid":{"a":1}}}`, "7", ""},
	} {
		message, fields := errorText(tc.reason, []byte(tc.body))
		if message != tc.message || fields["vmid"] != tc.field {
			t.Errorf("%q %s: %q %v", tc.reason, tc.body, message, fields)
		}
	}
}

func TestFailureIsBounded(t *testing.T) {
	f := &failure{call: "start", status: 500, text: "start failed: " + strings.Repeat("-device x\n", 10000) + "why", class: fleet.ErrBusy}
	got := f.Error()
	if len(got) > 1000 || strings.Contains(got, "\n") || !strings.Contains(got, "why") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func FuzzErrorBody(f *testing.F) {
	f.Add("VM is locked (clone)", []byte(`{"data":null,"message":"VM is locked (clone)\n"}`))
	f.Add("Parameter verification failed.", []byte(`{"errors":{"newid":"x","a":[1]},"data":null}`))
	f.Add("", []byte(`{"message":{}}`))
	f.Add("\xff\x00", []byte(``))
	f.Fuzz(func(t *testing.T, reason string, body []byte) {
		message, fields := errorText(reason, body)
		for _, c := range []call{callClone, callDelete, callPing, callConfig, callLook} {
			for _, status := range []int{0, 200, 301, 400, 401, 403, 500, 501, 595, 596} {
				why, class := classify(c, "105", status, message, fields)
				if why == "" {
					t.Fatalf("no cause for %d %q", status, message)
				}
				e := &failure{call: c.name, status: status, text: message, fields: fields, cause: why, class: class}
				if strings.ContainsAny(e.Error(), "\n\r\x00") {
					t.Fatalf("control characters in %q", e.Error())
				}
			}
		}
	})
}

func FuzzUPID(f *testing.F) {
	f.Add("UPID:pve1:00039FB2:0012D6C4:66F0A0B1:qmclone:9000:gha@pve!orch:")
	f.Add("UPID:pve-2:00039FB2:10012D6C4:66F0A0B1:qmdestroy:105:root@pam:")
	f.Add("UPID:a/../b:00039FB2:0012D6C4:66F0A0B1:qmstart:1:x:")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := parseUPID(s)
		if err != nil {
			return
		}
		if p := taskPath(u, "/status"); strings.Count(p, "/") != 5 || strings.ContainsAny(p, "?# \n") {
			t.Fatalf("%q makes the path %q", s, p)
		}
	})
}

func FuzzAgentInterfaces(f *testing.F) {
	f.Add([]byte(`{"result":[{"name":"Ethernet","hardware-address":"bc:24:11:aa:bb:cc","ip-addresses":[{"ip-address":"10.0.0.5","ip-address-type":"ipv4","prefix":24},{"ip-address":"fe80::1%5"}]}]}`))
	f.Add([]byte(`{"result":{"error":{"class":"GenericError","desc":"no"}}}`))
	f.Add([]byte(`{"result":[{"hardware-address":7,"ip-addresses":[{"ip-address":{}}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var a agentAnswer
		if decode([]byte(`{"data":`+string(data)+`}`), &a) != nil {
			return
		}
		list, err := readInterfaces(a)
		if err != nil {
			return
		}
		for _, late := range []bool{false, true} {
			ip, ok := pick(list, "BC:24:11:AA:BB:CC", late)
			if ok && (!ip.IsGlobalUnicast() || ip.Is6() && !late) {
				t.Fatalf("%s from %s", ip, data)
			}
		}
	})
}
