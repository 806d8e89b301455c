package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bytes is an amount of memory or storage.
type Bytes int64

// Binary multiples, as Proxmox counts.
const (
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// Secret is a text that is never printed: not in logs, errors, JSON or pages.
type Secret string

// String hides the secret.
func (Secret) String() string { return "***" }

// GoString hides it from %#v.
func (Secret) GoString() string { return "***" }

// Format hides it from every verb of fmt, the wrong ones too.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("***")) } // fmt tells of what its writer fails at

// MarshalText hides it from JSON, YAML and text encoders.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Reveal returns the secret itself, for the one place that must send it.
func (s Secret) Reveal() string { return string(s) }

// A Pool is a kind of runner that we keep.
type Pool struct {
	Name      string         `json:"name"`      // 1–40 of a-z0-9-
	Labels    []string       `json:"labels"`    // complete: sent with the registration as they stand
	Ready     int            `json:"ready"`     // spare ready VMs wished for beyond demand
	Max       int            `json:"max"`       // runners at once, those leaving not counted
	Templates map[string]int `json:"templates"` // node → VMID of the template there
	Cores     int            `json:"cores"`     // of one clone; 0: the template's
	Memory    Bytes          `json:"memory"`    // of one clone; 0: the template's
	// Needs is the memory that a runner of this pool takes on its node: Memory, or
	// the template's when that is 0. The controller fills it in; 0 means not known.
	Needs        Bytes         `json:"-"`
	CloneTimeout time.Duration `json:"-"` // from the clone POST to the start task's end
	BootTimeout  time.Duration `json:"-"` // from the start task's end to a ready guest
	JobTimeout   time.Duration `json:"-"` // from Busy
}

// A Phase is where a runner is in its life. It may skip forward, never go back.
type Phase string

// The six phases (design §4).
const (
	Preparing Phase = "preparing" // its row is stored; its VM is being cloned, sized, booted, found
	Ready     Phase = "ready"     // its guest answered ready; it waits, not yet registered
	Joining   Phase = "joining"   // being registered, its runner being started
	Idle      Phase = "idle"      // its runner listens for a job
	Busy      Phase = "busy"      // in its one job
	Leaving   Phase = "leaving"   // being destroyed
)

// Phases lists all phases in the order of life.
func Phases() []Phase { return []Phase{Preparing, Ready, Joining, Idle, Busy, Leaving} }

// Before tells whether p comes before q in a runner's life.
func (p Phase) Before(q Phase) bool {
	return p.rank() < q.rank()
}

// rank is p's place in the order of life. What is no phase ranks first: nobody has done anything with it.
func (p Phase) rank() int {
	switch p {
	case Ready:
		return 1
	case Joining:
		return 2
	case Idle:
		return 3
	case Busy:
		return 4
	case Leaving:
		return 5
	}
	return 0
}

// A Runner is a row: one VM, one clone POST, at most one job. It holds what we
// decided and what nobody else remembers for us.
type Runner struct {
	Name     string // the VM's name, <instance>-<pool>-<8 hex>; unique for ever
	Pool     string
	Node     string
	VMID     int
	Template int
	Phase    Phase
	Since    time.Time // when Phase began
	Born     time.Time // when the row was written; stands in the VM's mark

	// What a launch has reached. Each is stored as soon as it is known.
	AskedAt   time.Time // stored before the clone POST is sent: without it, Proxmox was asked for nothing
	UPID      string    // the clone task; "" means that its outcome cannot be asked for
	ClonedAt  time.Time // when the clone task ended well
	MAC       string    // of net0, as the VM's config has it
	StartedAt time.Time // when the start task ended well
	Address   string    // IP of the guest, by the MAC of net0
	HostKey   string    // the guest's Ed25519 SSH host key, authorized_keys form

	// Its right to take a job.
	Registration string // its name at GitHub: Name, then Name-2, …; stored before GitHub is asked
	RunnerID     int64  // GitHub's id of it; 0 until known

	Job     int64  // the job that it is known to run
	Adopted bool   // found by its mark, without a row: its phase is what the guest says
	Cause   string // why it is leaving
}

// A Job is one GitHub workflow job.
type Job struct {
	ID         int64     `json:"id"`
	Repo       string    `json:"repo"` // owner/name
	Name       string    `json:"name"`
	Labels     []string  `json:"labels"`
	Status     JobStatus `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"` // success, failure, cancelled, …; anything GitHub says
	RunnerID   int64     `json:"runner_id,omitempty"`  // 0: none
	Runner     string    `json:"runner,omitempty"`     // the registration that has it; "" none
	Created    time.Time `json:"created"`              // by GitHub's clock
	Received   time.Time `json:"received"`             // when its first event's first byte came to us
	Changed    time.Time `json:"changed"`              // when we last learned something new of it
	Checked    time.Time `json:"-"`                    // when it was last looked up by itself; zero: never
}

// A JobStatus is the furthest that GitHub ever said of a job.
type JobStatus string

// Statuses of a job. Waiting and Queued may alternate; otherwise they go forward only
// (contract/github §1.4).
const (
	StatusWaiting    JobStatus = "waiting"
	StatusQueued     JobStatus = "queued"
	StatusInProgress JobStatus = "in_progress"
	StatusCompleted  JobStatus = "completed"
)

// Rank orders statuses: a lower rank never overwrites a higher one. 0: not a status that we know.
func (s JobStatus) Rank() int {
	switch s {
	case StatusWaiting, StatusQueued:
		return 1
	case StatusInProgress:
		return 2
	case StatusCompleted:
		return 3
	}
	return 0
}

// A Registration is a runner as GitHub lists it.
type Registration struct {
	ID     int64
	Name   string
	Online bool
	Busy   bool
}

// An Address is where a guest is reached and how it is known.
type Address struct {
	IP      string // never loopback, link-local or APIPA
	HostKey string // Ed25519, authorized_keys form, as the guest agent gave it
}

// A Permit is a registration just made, with the secret that its runner starts with.
type Permit struct {
	ID     int64
	Name   string
	Secret Secret    // the JIT configuration: kept in memory only
	Sent   time.Time // when the POST had been written
}

// A Removal is what taking a registration back came to.
type Removal string

// What GitHub said to a DELETE (contract/github §3.5, design §4).
const (
	Removed Removal = "removed" // 204: it was not busy and is gone
	Absent  Removal = "absent"  // 404, and a complete list fetched after it lacks it: proved
	Working Removal = "working" // 422: it is in a job
)

// An Order is what a guest needs to start its runner.
type Order struct {
	ID     string // the registration's name: the same id again only reports
	Secret Secret
	URL    string // where the runner belongs, for people and for token mode
	Labels []string
	// Deadline is how long the runner may live, the guest's own last resort.
	Deadline time.Duration
}

// Guest is what a guest says of itself.
type Guest struct {
	Ready bool // set up, and its runner can be started
	Phase GuestPhase
	ID    string // of the order that it works on or has worked on; "" none
	// Result is the job's result where the runner told one: succeeded, failed, …
	Result string
	Exit   int // the runner's exit code, when Phase is GuestEnded
}

// A GuestPhase is where the runner inside the guest is.
type GuestPhase string

// What the helper in the guest reports (design §7).
const (
	GuestNone      GuestPhase = "none"
	GuestStarting  GuestPhase = "starting"
	GuestListening GuestPhase = "listening"
	GuestBusy      GuestPhase = "busy"
	GuestEnded     GuestPhase = "ended"
)

// Match tells whether a runner with the given labels may run a job that asks for
// want: every label of want is there, case aside. No labels match nothing.
func Match(want, labels []string) bool {
	if len(want) == 0 {
		return false
	}
	for _, w := range want {
		if !slices.ContainsFunc(labels, func(l string) bool { return strings.EqualFold(l, w) }) {
			return false
		}
	}
	return true
}
