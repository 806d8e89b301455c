package fleet

import "time"

// A Sight is one look at Proxmox: lists, so hints and never facts (contract/proxmox §9).
type Sight struct {
	AsOf      time.Time     // when the look began
	Nodes     []Node        // every node of the cluster
	VMs       []VM          // every VM, ours or not, whose id is in our range
	Templates map[int]Bytes // VMID of each template that we clone → its memory, where it is seen
}

// A Node is a Proxmox host as the last look shows it.
type Node struct {
	Name       string
	Online     bool
	Cordoned   bool   // by the config or by a person: takes no new runner
	Memory     Bytes  // of the node, less what is reserved; 0: not known
	Used       Bytes  // measured
	Configured Bytes  // memory of the running VMs that we can see
	MaxRunners int    // bounds our runners there when Memory is not known; 0: no bound
	Full       string // why its storage can take no more; "" when it can
	Storages   []Storage
}

// A Storage is where a node keeps VM images, as the last look shows it.
type Storage struct {
	Name        string
	Used, Total Bytes
}

// A VM is Proxmox' thing, as a list shows it.
type VM struct {
	ID     int
	Node   string
	Name   string // "" while Proxmox does not know it yet
	Pool   string // the Proxmox pool; "" none, or not to be seen
	Status string // running, stopped, unknown, …; up to 10 s old, older for a node that is away
	Lock   string
}

// A Proof is what a fresh, single question said about whose a VM is.
type Proof struct {
	Whose  Whose
	Mark   Mark   // when Whose is Ours or Other
	Node   string // where the VM really is
	Reason string // for people: why it is not ours
}

// Whose answers whose VM it is.
type Whose string

// The answers. Only Ours may be stopped, changed or destroyed.
const (
	Ours    Whose = "ours"
	Other   Whose = "other"   // marked by us, and not the row's VM
	Foreign Whose = "foreign" // readable, without our mark
	Hidden  Whose = "hidden"  // it exists, and we cannot read whose it is
	Nobody  Whose = "nobody"  // the id seems free
)

// A Power is what status/current says of one VM.
type Power string

// Power states. Anything that is neither is PowerUnknown: locked, an unreachable node.
const (
	PowerOn      Power = "on"
	PowerOff     Power = "off" // stopped, and no lock
	PowerUnknown Power = "unknown"
)

// A Clone is a clone POST that Proxmox accepted.
type Clone struct {
	UPID string
	Sent time.Time // when the request's last byte had been written
}

// A Roster is a complete list of the registrations of our scope.
type Roster struct {
	AsOf    time.Time // when its first page was asked for
	Runners []Registration
}

// Books are what the store remembers.
type Books struct {
	Runners  []Runner
	Jobs     []Job // every job not completed, and completed ones that a runner here is known to have run
	Troubles []Trouble
	// Quarantine is the ids that nobody may use until a person has looked at them, with the reason.
	Quarantine map[int]string
	LastVMID   int // the id given out last; 0 none
}

// A Trouble is failures in a row. They are facts of the world, so that waiting after them is decided,
// and seen, like everything else.
type Trouble struct {
	Pool  string
	Node  string // "" for the pool as a whole
	Count int
	Last  time.Time
	Class string // see Class
	Text  string
}
