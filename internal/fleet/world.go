package fleet

import "time"

// World is all that is known at one moment. Decide reads nothing else.
type World struct {
	Now      time.Time
	Pace     Pace
	Pools    []Pool // in the order of the config
	Jobs     []Job  // the ledger: open jobs, and ended ones whose runner still has a row
	Runners  []Seen // every row
	Nodes    []Node
	Unknown  []VM           // VMs of our range without a row, and not inspected lately
	Ghosts   []Registration // registrations with a name of ours, and neither a row nor a VM of that name
	Troubles []Trouble
	// Quarantine is the ids that nobody uses until a person has looked, with the reason.
	Quarantine map[int]string
	// Surplus tells since when a pool has had more than it needs, as the last Plan found it.
	Surplus map[string]time.Time

	ProxmoxAsOf time.Time // when the last look at Proxmox that worked began; zero: none yet
	GitHubAsOf  time.Time // the same for GitHub
}

// Pace is how long things wait. All are real durations; a demo that runs faster divides them.
type Pace struct {
	Surplus      time.Duration // more than needed for so long, before anything is given up
	Linger       time.Duration // what a VM has after its job's completed event
	Backoff      time.Duration // after the first failure; doubled by each further one
	BackoffMax   time.Duration
	LookUp       time.Duration // after which an open job is looked up by itself
	ProxmoxFresh time.Duration // how old a look may be to launch on it
	GitHubFresh  time.Duration // how old a look may be to retire on it
}

// DefaultPace is the design's numbers.
func DefaultPace() Pace {
	return Pace{
		Surplus: time.Minute, Linger: time.Minute, Backoff: 10 * time.Second, BackoffMax: 10 * time.Minute,
		LookUp: 3 * time.Minute, ProxmoxFresh: 30 * time.Second, GitHubFresh: 2 * time.Minute,
	}
}

// Seen is a row with what the last looks and the ledger say of it.
type Seen struct {
	Runner
	VM       Sighting
	Hub      Standing
	JobID    int64     // the job that the ledger says it runs or ran; 0 none
	JobEnded time.Time // when the ledger learned that this job has ended; zero: not
	Held     Hold
}

// A Sighting is what the last look at Proxmox says of a row's VM. A hint, never a fact.
type Sighting string

// The sightings. Unseen is everything that proves nothing: no look young enough, a node
// that is away, a lock, a status that is neither.
const (
	Unseen  Sighting = "unseen"
	Missing Sighting = "missing" // the list should show it, and does not
	Running Sighting = "running"
	Stopped Sighting = "stopped"
)

// A Standing is what the last look at GitHub says of a row's registration. A hint.
type Standing string

// The standings.
const (
	NotLooked Standing = "not_looked" // not registered, or no list younger than the registration
	Unlisted  Standing = "unlisted"
	Offline   Standing = "offline"
	Online    Standing = "online"
	Occupied  Standing = "occupied" // GitHub says busy
)

// A Hold says whether a goroutine of the controller works on a row.
type Hold string

// The holds.
const (
	NotHeld Hold = ""
	AtGate  Hold = "gate"    // a launch that waits at our own gate: nothing has been asked of Proxmox
	AtWork  Hold = "working" // anything else
)

// Plan is what to do now. Every slice is in a fixed order; an empty Plan means content.
type Plan struct {
	Advance []Advance // facts to write down: a runner is further than its row says
	Leave   []Action  // write Leaving, or carry a Leaving on
	Cancel  []Action  // launches to give up, held or not, that have asked Proxmox for nothing
	Resume  []Action  // Preparing, and nobody is on it: a restart cut it short
	Settle  []Action  // Joining, and nobody is on it: ask the guest
	Examine []Examine // a hint that it has ended: ask singly, then write what is true
	Join    []Action  // Ready → Joining
	Retire  []Action  // Idle and not needed: gone only if GitHub agrees
	Launch  []Launch
	Inspect []VM           // VMs without a row: whose are they?
	Forget  []Registration // ghosts
	LookUp  []Job          // jobs to ask GitHub about singly
	Waits   []Wait         // each open job: what comes for it, or why nothing does
	// Surplus is the pools that have more than they need now, to be given back with the next World.
	Surplus []string
}

// An Action is one wish about one runner, with its cause.
type Action struct {
	Runner Runner
	Cause  string
	Class  string // of the failure that it is (timeout, unknown); "" when it is none
}

// An Examine wishes that a runner be asked about singly.
type Examine struct {
	Runner Runner
	Cause  string
	About  Doubt
}

// A Doubt is what a list made doubtful.
type Doubt string

// The doubts.
const (
	AboutVM           Doubt = "vm"
	AboutRegistration Doubt = "registration"
)

// An Advance moves a row forward on what GitHub says.
type Advance struct {
	Runner Runner
	To     Phase
	Job    int64
	Cause  string
}

// A Launch wishes for one more runner. The controller gives it name and VMID.
type Launch struct {
	Pool  string
	Node  string
	Job   int64 // the job it was counted for; 0: a spare one
	Cause string
}

// A Wait tells what an open job waits for.
type Wait struct {
	Job    int64  `json:"job"`
	Pool   string `json:"pool,omitempty"`   // "" when no pool matches
	Coming string `json:"coming,omitempty"` // the runner that is on its way or has it; "" when there is none
	Reason string `json:"reason"`           // for people, always set
	// Held tells that it waits for capacity, a back-off or a person, not just for a VM that is being made.
	Held bool `json:"held"`
}
