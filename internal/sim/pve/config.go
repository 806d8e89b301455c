// Package pve is a small Proxmox VE: its API over HTTP as the real one answers (held to captures of
// 9.2.11 and 8.4.21 by a test), with the limits that bound the real one: three pvedaemon workers a
// node, guest agent pings that hold one of them, locks round storages, VMs and user.cfg, lists that
// are ten seconds old, clones that pass through half-made stages.
//
// Time is plain time.Now and timers, so it runs in real time and inside a testing/synctest bubble.
package pve

import (
	"net/netip"
	"time"
)

// Config describes a cluster. The zero value of every field is usable but Nodes, Token and Secret.
type Config struct {
	Seed uint64 // every random choice comes from it

	Nodes   []NodeSpec
	Token   string // the orchestrator's token, USER@REALM!NAME
	Secret  string
	Tokens  []TokenSpec // further tokens
	Pool    string      // the resource pool that Token may work in; "runners" if empty
	Pools   []string    // further pools, in which Token has no rights
	Version string      // "9.2" (default) or "8.4"

	Templates []TemplateSpec
	Storages  []StorageSpec // a storage that a template names and that is missing here is a local lvmthin

	Delays Delays
	Speed  float64 // divides every simulated delay, not the time-outs of locks; 0 is 1

	Workers    int  // pvedaemon workers a node; 0 is 3
	NoSysAudit bool // Token has no Sys.Audit on nodes: no memory, no cores, no other's tasks

	// Boot is called when QEMU of a VM has started, outside of any lock. Nil: every guest's agent
	// stays silent.
	Boot func(Machine) Guest
}

// A Range is a duration drawn evenly between Min and Max.
type Range struct{ Min, Max time.Duration }

// Delays are how long work takes when it waits for nobody.
type Delays struct {
	Clone, Start, Stop, Destroy Range
	Full                        Range // a full clone; as Clone if zero
}

// Linked is how long work on linked clones of a Windows template takes on a node with local disks.
func Linked() Delays {
	return Delays{
		Clone:   Range{10 * time.Second, 30 * time.Second},
		Start:   Range{1 * time.Second, 2 * time.Second},
		Stop:    Range{1 * time.Second, 3 * time.Second},
		Destroy: Range{1 * time.Second, 3 * time.Second},
	}
}

// A NodeSpec is one machine of the cluster.
type NodeSpec struct {
	Name   string
	Memory int64 // bytes
	Cores  int
}

// Rights are what a token may do.
type Rights int

const (
	// Nothing: an authenticated token without any ACL.
	Nothing Rights = iota
	// PoolOnly: VM rights on the pool, PVETemplateUser on the templates, use of storages and bridges.
	PoolOnly
	// Narrow is PoolOnly without VM.Config.Disk, VM.Snapshot and VM.GuestAgent.Unrestricted.
	Narrow
	// Root is a token of root@pam without privilege separation. It is not root@pam: no token may skip locks.
	Root
)

// A TokenSpec is an API token.
type TokenSpec struct {
	ID, Secret string
	Rights     Rights
}

// A StorageSpec is a storage. Type is lvmthin (default), dir, zfspool or rbd.
type StorageSpec struct {
	Name, Type string
	Shared     bool // one lock for the cluster instead of one a node
	NoImages   bool // its content has no "images"
	Total      int64
}

// A TemplateSpec is a VM template on one node.
type TemplateSpec struct {
	ID      int
	Node    string
	Name    string
	Memory  int64 // bytes
	Cores   int
	Storage string
	// Disks are the drives by config key. Empty: efidisk0, scsi0 and tpmstate0, as a Windows 11 template has.
	Disks []string
	// Config overrides or adds config lines; a value "" removes the line.
	Config map[string]string
}

// A VMSpec is a VM that somebody else made.
type VMSpec struct {
	ID          int
	Node, Name  string
	Description string
	Tags        string
	Pool        string
	Storage     string // "" for a VM without disks
	Lock        string
	Running     bool // runs, with a guest whose agent never answers unless Guest is set
	Guest       Guest
	Protection  bool
	Memory      int64
	Cores       int
	// Foreign: it is nobody's to touch; Touched tells who did.
	Foreign bool
	Config  map[string]string // overrides; a value "" removes the line
}

// A Machine is what a guest knows of the VM that it runs in.
type Machine struct {
	ID   int
	Node string
	Name string
	MAC  string // of net0, upper case; "" without a net0
	// PowerOff is the guest's own power-off: the VM is stopped when it returns. It may be called more
	// than once and from any goroutine; it does nothing after the power was cut.
	PowerOff func()
}

// A Guest is what runs inside a VM. Its methods are called from several goroutines.
type Guest interface {
	// AgentUp says whether the QEMU guest agent answers; changed is closed at the next change of up.
	AgentUp() (up bool, changed <-chan struct{})
	// Interfaces are the guest's network interfaces as its agent tells them.
	Interfaces() []NIC
	// ReadFile is the content of a file; ok is false if there is none.
	ReadFile(path string) (content string, ok bool)
	// Off: the power is gone, everything in it ends now. It is called exactly once for each boot, also
	// after PowerOff, never while the cluster holds a lock, and may block until all has ended.
	Off()
}

// A NIC is a network interface of a guest.
type NIC struct {
	Name string
	MAC  string // lower case; "" if it has none
	IPs  []netip.Prefix
}

// silent is a guest whose agent never answers.
type silent struct{}

func (silent) AgentUp() (bool, <-chan struct{}) { return false, nil }
func (silent) Interfaces() []NIC                { return nil }
func (silent) ReadFile(string) (string, bool)   { return "", false }
func (silent) Off()                             {}

func (c Config) withDefaults() Config {
	if c.Speed <= 0 {
		c.Speed = 1
	}
	if c.Workers <= 0 {
		c.Workers = 3
	}
	if c.Version == "" {
		c.Version = "9.2"
	}
	if c.Pool == "" {
		c.Pool = "runners"
	}
	if len(c.Nodes) == 0 {
		c.Nodes = []NodeSpec{{Name: "pve", Memory: 64 << 30, Cores: 16}}
	}
	return c
}
