package web

import "time"

// The views are what the JSON API answers and what the page shows. Field names are stable;
// times are UTC, durations are seconds, amounts are bytes. Slices are never null.

// Status answers GET /api/v1/status: the whole state at one moment.
type Status struct {
	Instance      string            `json:"instance"`
	Version       string            `json:"version"`
	Now           time.Time         `json:"now"`            // when this was answered
	AsOf          time.Time         `json:"as_of"`          // when Mayfly last decided on this state; year 1: not yet
	UptimeSeconds float64           `json:"uptime_seconds"` // since this process started
	Ready         bool              `json:"ready"`          // as /readyz
	NotReady      string            `json:"not_ready,omitempty"`
	Looks         []LookView        `json:"looks"`
	Pools         []PoolView        `json:"pools"` // in the order of the config, then removed ones
	Runners       []RunnerView      `json:"runners"`
	Jobs          []JobView         `json:"jobs"` // the oldest first
	Nodes         []NodeView        `json:"nodes"`
	Quarantine    []QuarantinedView `json:"quarantine"`
}

// LookView is how recently one of the outside systems was seen.
type LookView struct {
	System     string    `json:"system"`         // proxmox or github
	AsOf       time.Time `json:"as_of,omitzero"` // when the last look that worked began; absent: none yet
	AgeSeconds float64   `json:"age_seconds"`    // 0 when there was none yet
	Fresh      bool      `json:"fresh"`          // young enough to act on
	Meaning    string    `json:"meaning"`        // for people: what follows from its age
}

// PoolView is one pool, with its runners counted by phase.
type PoolView struct {
	Name        string        `json:"name"`
	Labels      []string      `json:"labels"`
	ReadyWish   int           `json:"ready_wish"` // spare ready VMs wished for
	Max         int           `json:"max"`
	Removed     bool          `json:"removed"` // no longer in the config: its runners drain
	Live        int           `json:"live"`    // runners that count against max: all but the leaving ones
	Phases      PhaseCounts   `json:"phases"`
	JobsWaiting int           `json:"jobs_waiting"`
	JobsRunning int           `json:"jobs_running"`
	Troubles    []TroubleView `json:"troubles"`
}

// PhaseCounts is how many runners are in each phase.
type PhaseCounts struct {
	Preparing int `json:"preparing"`
	Ready     int `json:"ready"`
	Joining   int `json:"joining"`
	Idle      int `json:"idle"`
	Busy      int `json:"busy"`
	Leaving   int `json:"leaving"`
}

// TroubleView is failures in a row of a pool, as a whole or on one node.
type TroubleView struct {
	Node    string    `json:"node,omitempty"` // absent: the pool as a whole
	Count   int       `json:"count"`
	Last    time.Time `json:"last"`
	Class   string    `json:"class"`
	Text    string    `json:"text"`
	Again   time.Time `json:"again,omitzero"` // when it is tried again; absent when it is stopped
	Stopped bool      `json:"stopped"`        // until a person has mended the configuration and resumed it
}

// RunnerView is one runner: its row, and what the last looks say of it.
type RunnerView struct {
	Name         string    `json:"name"`
	Pool         string    `json:"pool"`
	Node         string    `json:"node"`
	VMID         int       `json:"vmid"`
	Template     int       `json:"template"`
	Phase        string    `json:"phase"`
	Step         string    `json:"step,omitempty"` // of a preparing runner: waiting, cloning, starting, booting, setting_up
	Since        time.Time `json:"since"`          // when the phase began
	PhaseSeconds float64   `json:"phase_seconds"`
	Born         time.Time `json:"born"`
	AgeSeconds   float64   `json:"age_seconds"`
	Address      string    `json:"address,omitempty"`
	Registration string    `json:"registration,omitempty"`
	RunnerID     int64     `json:"runner_id,omitempty"`
	Job          int64     `json:"job,omitempty"`
	Adopted      bool      `json:"adopted"`
	Cause        string    `json:"cause,omitempty"` // why it is leaving
	VM           string    `json:"vm"`              // hint of the last look: unseen, missing, running, stopped
	Hub          string    `json:"hub"`             // hint of the last look: not_looked, unlisted, offline, online, occupied
}

// JobView is one job of the ledger, with what it waits for.
type JobView struct {
	ID         int64     `json:"id"`
	Repo       string    `json:"repo"`
	Name       string    `json:"name"`
	Labels     []string  `json:"labels"`
	Status     string    `json:"status"` // waiting, queued, in_progress, completed
	Conclusion string    `json:"conclusion,omitempty"`
	Created    time.Time `json:"created"`
	Received   time.Time `json:"received"`
	Changed    time.Time `json:"changed"`
	AgeSeconds float64   `json:"age_seconds"` // since Received
	Pool       string    `json:"pool,omitempty"`
	Runner     string    `json:"runner,omitempty"` // that has it, or that is on its way
	Reason     string    `json:"reason"`           // what it waits for, or what runs it
	Held       bool      `json:"held"`             // it waits for capacity, a back-off or a person
}

// NodeView is one Proxmox host as the last look shows it.
type NodeView struct {
	Name            string `json:"name"`
	Online          bool   `json:"online"`
	Cordoned        bool   `json:"cordoned"`
	MemoryBytes     int64  `json:"memory_bytes"`     // less what is reserved; 0: not known
	UsedBytes       int64  `json:"used_bytes"`       // measured
	ConfiguredBytes int64  `json:"configured_bytes"` // of the running VMs that we can see
	FreeBytes       int64  `json:"free_bytes"`       // memory − max(used, configured), never below 0
	MaxRunners      int    `json:"max_runners"`      // 0: no such bound
	Runners         int    `json:"runners"`          // rows there, leaving ones too
	Full            string `json:"full,omitempty"`   // why its storage can take no more

	Storages []StorageView `json:"storages"`
}

// StorageView is a storage of a node that VM images may be on.
type StorageView struct {
	Name       string `json:"name"`
	UsedBytes  int64  `json:"used_bytes"`
	TotalBytes int64  `json:"total_bytes"`
}

// QuarantinedView is a VMID that nobody uses until a person has looked at it.
type QuarantinedView struct {
	VMID   int    `json:"vmid"`
	Reason string `json:"reason"`
}

// EventView is one event.
type EventView struct {
	At            time.Time `json:"at"`
	Kind          string    `json:"kind"`
	Runner        string    `json:"runner,omitempty"`
	Pool          string    `json:"pool,omitempty"`
	Node          string    `json:"node,omitempty"`
	VMID          int       `json:"vmid,omitempty"`
	Job           int64     `json:"job,omitempty"`
	TookSeconds   float64   `json:"took_seconds,omitempty"`
	WaitedSeconds float64   `json:"waited_seconds,omitempty"`
	Class         string    `json:"class,omitempty"`
	Note          string    `json:"note,omitempty"`
	Sentence      string    `json:"sentence"` // all of it, for people
}

// Events answers GET /api/v1/events, oldest first.
type Events struct {
	Events []EventView `json:"events"`
}

// JobWhy answers GET /api/v1/jobs/{id}: why a job waits, or what became of it.
type JobWhy struct {
	ID      int64       `json:"id"`
	Job     *JobView    `json:"job"`     // null when the ledger no longer has it open
	Reason  string      `json:"reason"`  // one line, always set
	History []EventView `json:"history"` // of the job, and of the runner that has it or is on its way; oldest first
}

// PlanView answers GET /api/v1/plan: the last decision, wish by wish with its cause.
type PlanView struct {
	Now     time.Time  `json:"now"`
	AsOf    time.Time  `json:"as_of"`   // when it was decided
	Content bool       `json:"content"` // nothing is to be done
	Wishes  []WishView `json:"wishes"`
	Waits   []WaitView `json:"waits"`   // of every open job
	Surplus []string   `json:"surplus"` // pools that have more than they need
}

// WishView is one thing that the plan wants done.
type WishView struct {
	// Do is launch, join, advance, leave, cancel, resume, settle, examine, retire, inspect, forget or look_up.
	Do     string `json:"do"`
	Runner string `json:"runner,omitempty"` // or the registration to forget
	Pool   string `json:"pool,omitempty"`
	Node   string `json:"node,omitempty"`
	VMID   int    `json:"vmid,omitempty"`
	Job    int64  `json:"job,omitempty"`
	Cause  string `json:"cause"`
}

// WaitView is what one open job waits for.
type WaitView struct {
	Job    int64  `json:"job"`
	Pool   string `json:"pool,omitempty"`
	Coming string `json:"coming,omitempty"`
	Reason string `json:"reason"`
	Held   bool   `json:"held"`
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	Error string `json:"error"`
}
