package proxmox

import (
	"errors"
	"regexp"

	"mayfly/internal/fleet"
)

// A cause is why Proxmox did not do what it was asked. Its only discriminator is text: it
// never uses 404, 409 or 423, a missing VM, a lock and a name clash are all 500.
type cause string

const (
	other         cause = "other" // nothing we know
	badToken      cause = "bad_token"
	denied        cause = "denied"
	badRequest    cause = "bad_request"
	notProxmox    cause = "not_proxmox" // redirects, 404: another server answers
	badTLS        cause = "bad_tls"
	lost          cause = "lost"        // perhaps done
	unreachable   cause = "unreachable" // not delivered
	noTask        cause = "no_task"
	taken         cause = "taken"
	configLock    cause = "config_lock" // the flock on one VM's config: another operation works, or qm cleanup after a stop
	storageLock   cause = "storage_lock"
	clusterLock   cause = "cluster_lock" // user.cfg and other cluster-wide files
	zombie        cause = "zombie"       // destroyed but for a config with lock: destroyed
	noQuorum      cause = "no_quorum"
	locked        cause = "locked"
	protected     cause = "protected"
	stillRunning  cause = "still_running"
	alreadyRuns   cause = "already_running"
	notRunning    cause = "not_running"
	agentSilent   cause = "agent_silent"
	agentError    cause = "agent_error"
	agentMissing  cause = "agent_missing"
	missing       cause = "missing" // of this node: the VM may have moved
	noSpace       cause = "no_space"
	unsupported   cause = "unsupported"
	wrongSetting  cause = "wrong_setting"
	highAvailable cause = "high_available"
	inUse         cause = "in_use"
	interrupted   cause = "interrupted"
	changed       cause = "changed" // the config, by somebody else meanwhile
	startFailed   cause = "start_failed"
	timedOut      cause = "timed_out"
	noService     cause = "no_service" // pmxcfs does not answer
)

// A call is a request of ours, or the task that it began.
type call struct {
	name  string // in metrics and logs
	onVM  bool   // addresses a VM: a 403 may mean that it does not exist
	once  bool   // sending it again could do it twice
	agent bool   // goes to the guest, and may wait there
}

var (
	callLook       = call{name: "look"}
	callInventory  = call{name: "inventory"}
	callTemplate   = call{name: "template"}
	callNextID     = call{name: "nextid"}
	callClone      = call{name: "clone", once: true}
	callTaskStatus = call{name: "task_status"}
	callTaskList   = call{name: "task_list"}
	callTaskLog    = call{name: "task_log"}
	callConfig     = call{name: "config", onVM: true}
	callConfigPut  = call{name: "config_put", onVM: true}
	callStatus     = call{name: "status", onVM: true}
	callStart      = call{name: "start", onVM: true}
	callStop       = call{name: "stop", onVM: true}
	callDelete     = call{name: "delete", onVM: true, once: true}
	callPing       = call{name: "agent_ping", onVM: true, agent: true}
	callInterfaces = call{name: "agent_interfaces", onVM: true, agent: true}
	callFileRead   = call{name: "agent_file_read", onVM: true, agent: true}
)

// taskCall is the call that began a task of that kind.
func taskCall(kind string) call {
	switch kind {
	case "qmclone":
		return callClone
	case "qmstart", "hastart":
		return callStart
	case "qmstop", "hastop":
		return callStop
	case "qmdestroy":
		return callDelete
	}
	return call{name: "task"}
}

var configLockText = regexp.MustCompile(`can't lock file '/var/lock/qemu-server/lock-(\d+)\.conf' - got timeout`)

// texts tells causes apart, first match wins. They are the die() texts of qemu-server,
// pve-storage, pve-cluster, pve-common and pve-access-control as of PVE 9.2, compared with 8.4.
var texts = []struct {
	re    *regexp.Regexp
	cause cause
}{
	{regexp.MustCompile(`tasks/\.active\.lock' - got timeout`), lost},
	{regexp.MustCompile(`^unexpected status$|^unable to get last line from task log`), lost},
	{configLockText, configLock},
	{regexp.MustCompile(`no quorum|unable to open file '/etc/pve/[^']*' - Permission denied`), noQuorum},
	{regexp.MustCompile(`access permissions cleanup for VM \d+ failed`), zombie},
	{regexp.MustCompile(`pve-manager/pve-storage-|cfs-lock 'storage-|'storage-[^']*'-locked command timed out`), storageLock},
	{regexp.MustCompile(`cfs-lock '|got lock request timeout`), clusterLock},
	{regexp.MustCompile(`VM is locked( \([a-z-]+\))?|CT is locked`), locked},
	{regexp.MustCompile(`protection mode enabled`), protected},
	{regexp.MustCompile(`VM \d+ is running - destroy failed`), stillRunning},
	{regexp.MustCompile(`VM \d+ already running`), alreadyRuns},
	{regexp.MustCompile(`^VM \d+ (is )?not running`), notRunning},
	{regexp.MustCompile(`QEMU guest agent is not running|qga command '[^']*' failed|unable to connect to VM \d+ qga socket`), agentSilent},
	{regexp.MustCompile(`No QEMU guest agent configured`), agentMissing},
	{regexp.MustCompile(`^Agent error: `), agentError},
	{regexp.MustCompile(`Configuration file '[^']*' does not exist|unable to find configuration file for VM`), missing},
	{regexp.MustCompile(`still in use by linked clone`), inUse},
	{regexp.MustCompile(`No space left on device|(not enough|insufficient) (free )?space|free space in thin pool \S+ reached threshold|[Dd]isk quota exceeded|[Oo]ut of (disk |data )?space|Cannot allocate memory`), noSpace},
	{regexp.MustCompile(`config file already exists|already exists|File exists`), taken},
	{regexp.MustCompile(`used in HA resources`), highAvailable},
	{regexp.MustCompile(`not allowed for linked clones|not supported|only root can|can't start a vm if it's a template`), unsupported},
	{regexp.MustCompile(`no such cluster node|hostname lookup '[^']*' failed|storage '[^']*' (does not exist|is disabled|is not available)|pool '[^']*' does not exist|can't clone (VM )?to |bridge '[^']*' does not exist|snapshot '[^']*' does not exist|^malformed JSON`), wrongSetting},
	{regexp.MustCompile(`interrupted by signal|received interrupt`), interrupted},
	{regexp.MustCompile(`checksum mismatch`), changed},
	{regexp.MustCompile(`init request failed|ipcc_send_rec|Connection refused`), noService},
	{regexp.MustCompile(`^start failed: |^volume '[^']*' does not exist`), startFailed},
	{regexp.MustCompile(`got timeout|timed out`), timedOut},
}

// classify says why a request or a task failed, and what can be done about it. subject is the
// VMID in the request's path: of a clone the template's. status is HTTP's, 0 for a task's end;
// message is Proxmox' text without the fields of a 400. A nil class: wait and try again.
func classify(c call, subject string, status int, message string, fields map[string]string) (cause, error) {
	why := causeOfStatus(status, fields)
	if why == "" {
		why = causeOfText(c, subject, message)
	}
	return why, classOf(c, why)
}

func causeOfStatus(status int, fields map[string]string) cause {
	switch {
	case status == 0 || status == 500:
		return ""
	case status == 401:
		return badToken
	case status == 403:
		return denied
	case status == 400:
		if fields["upid"] != "" {
			return noTask
		}
		return badRequest
	case status == 595:
		return unreachable
	case status >= 596 && status <= 599, status >= 502 && status <= 504:
		// pveproxy, or a proxy before it, lost the hop behind it.
		return lost
	case status == 501, status == 506:
		return unsupported
	case status == 429:
		return timedOut
	case status >= 300 && status < 500:
		return notProxmox
	}
	return other
}

func causeOfText(c call, subject, message string) cause {
	for _, t := range texts {
		if !t.re.MatchString(message) {
			continue
		}
		if t.cause == configLock && c == callClone {
			// Of the new id: somebody makes it. Of the template: somebody changes that.
			if id := configLockText.FindStringSubmatch(message)[1]; id != subject {
				return taken
			}
		}
		return t.cause
	}
	return other
}

func classOf(c call, why cause) error {
	switch why {
	case badToken, badRequest, notProxmox, badTLS, unsupported, wrongSetting, agentMissing, highAvailable:
		return fleet.ErrConfig
	case denied:
		if c.onVM {
			return fleet.ErrHidden
		}
		return fleet.ErrConfig
	case missing:
		if c == callClone || c == callTemplate {
			return fleet.ErrConfig // the template
		}
		return fleet.ErrGone
	case taken:
		return fleet.ErrTaken
	case noSpace:
		return fleet.ErrFull
	case locked, protected, stillRunning, inUse:
		return fleet.ErrBusy
	case agentSilent, agentError:
		return fleet.ErrNotReady
	case noTask:
		return fleet.ErrUnknown
	case lost:
		if c.once {
			return fleet.ErrUnknown
		}
	}
	return nil
}

// mend says what a person can do about a cause of class ErrConfig.
func (c cause) mend() string {
	switch c {
	case badToken:
		return "token refused: check its name and secret, that it has not expired, and that token and user are enabled"
	case denied:
		return "grant the privilege named to the token and, as it has privilege separation, to its user: VM.Clone on the template, the runner role on the pool, Datastore.AllocateSpace on the storage, SDN.Use on the bridge"
	case notProxmox:
		return "this is not Proxmox' API: the endpoint is like https://pve1:8006"
	case badTLS:
		return "give the cluster's CA, /etc/pve/pve-root-ca.pem, or the certificate's SHA-256 fingerprint"
	case agentMissing:
		return "enable the QEMU guest agent in the template: qm set ID --agent 1"
	case missing:
		return "the template is not on that node: check its VMID"
	case highAvailable:
		return "take the runner's VM out of HA"
	}
	return ""
}

// isLost tells whether err leaves open whether the request was carried out.
func isLost(err error) bool {
	return causeOf(err) == lost || errors.Is(err, fleet.ErrUnknown)
}
