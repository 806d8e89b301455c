package fleet

import "time"

// An Event is something that happened, told once it is stored. Log, metrics, page and the
// store's own trail all hear the same events.
type Event struct {
	At     time.Time     `json:"at"`
	Kind   Kind          `json:"kind"`
	Runner string        `json:"runner,omitempty"`
	Pool   string        `json:"pool,omitempty"`
	Node   string        `json:"node,omitempty"`
	VMID   int           `json:"vmid,omitempty"`
	Job    int64         `json:"job,omitempty"`
	Took   time.Duration `json:"took,omitempty"`   // how long what ended here had lasted, waits at our gates left out
	Waited time.Duration `json:"waited,omitempty"` // of that, at our own gates
	Class  string        `json:"class,omitempty"`  // of an error, or a job's conclusion
	Note   string        `json:"note,omitempty"`   // for people
}

// A Kind says what an Event is. They are few and fixed: metrics count them.
type Kind string

// The kinds of events.
const (
	JobQueued     Kind = "job_queued"
	JobStarted    Kind = "job_started"
	JobEnded      Kind = "job_ended"     // Class: its conclusion; Took: from started to ended
	Planned       Kind = "planned"       // a row was stored: a VM is wished for
	CloneAsked    Kind = "clone_asked"   // the clone POST was accepted; Took: from the demand, Waited: at our gates
	Cloned        Kind = "cloned"        // Took: VM creation time
	Started       Kind = "started"       // the VM was started
	Found         Kind = "found"         // the guest agent told its address; Took: boot time
	RunnerReady   Kind = "runner_ready"  // the guest answered ready; Took: since the row
	Registered    Kind = "registered"    // Took: from ready to the JIT POST sent, for a runner that joined at once
	Listening     Kind = "listening"     // Took: since the row
	RunnerBusy    Kind = "runner_busy"   // it has its job
	RunnerLeaving Kind = "leaving"       // Note: why
	RunnerGone    Kind = "gone"          // its VM is destroyed, its row ended; Took: since the row
	Failed        Kind = "failed"        // a launch failed; Class, Note
	Adopted       Kind = "adopted"       // a marked VM without a row got one
	GhostRemoved  Kind = "ghost_removed" // a registration without a row was taken back
	ForeignSeen   Kind = "foreign"       // a VM of somebody else in our range
	HiddenSeen    Kind = "hidden"        // an id that is taken and that we may not read
	Quarantined   Kind = "quarantined"   // an id that nobody uses until a person looked
	VolumeLeaked  Kind = "volume_leaked" // Note: its volid
	LookFailed    Kind = "look_failed"   // Note: what could not be seen
	LookHealed    Kind = "look_healed"   // it can be seen again
)

// A Hearer is told every event after it is stored. It must not block, and may be called from several goroutines.
type Hearer func(Event)
