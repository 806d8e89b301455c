package controller

import (
	"context"

	"mayfly/internal/fleet"
)

// The interfaces that the controller needs. Every method may be called again after it was
// cut short, and says what a second call does. Errors carry a class of package fleet.

// Cluster is Proxmox, seen without changing anything.
type Cluster interface {
	// Look lists nodes, templates and the VMs of our range in one request. Hints, no facts. Again: a new look.
	Look(ctx context.Context) (fleet.Sight, error)
	// Prove asks, freshly and singly, whose the VM with r's VMID is. r.Name "" asks for a VM without a
	// row: then any mark of our instance makes it ours. Again: asks anew.
	Prove(ctx context.Context, r fleet.Runner) (fleet.Proof, error)
	// Power asks whether the VM runs. Again: asks anew. ErrGone and ErrHidden are hints.
	Power(ctx context.Context, node string, vmid int) (fleet.Power, error)
	// Free asks whether nobody in the cluster has the id, seen or hidden. Again: asks anew.
	Free(ctx context.Context, vmid int) (bool, error)
}

// Maker brings a VM into being.
type Maker interface {
	// Admit waits at our own gates until a clone to node may be asked for; leave must be called when its task
	// has ended. The only error is the context's. Again: waits for another place.
	Admit(ctx context.Context, node string) (leave func(), err error)
	// Clone sends the one clone POST of this row. It is never called twice for a row. ErrTaken: the id is
	// somebody's; ErrUnknown: it may have been done; ErrFull, ErrConfig: it was not done.
	Clone(ctx context.Context, r fleet.Runner, p fleet.Pool) (fleet.Clone, error)
	// Wait returns when the task has ended; nil if well, warnings included. Again: watches on, or tells the end again.
	Wait(ctx context.Context, upid string) error
	// Fit gives the stopped clone its hardware and tags, after proof that it is ours, and returns the MAC of
	// net0. Again: sets the same once more.
	Fit(ctx context.Context, r fleet.Runner, p fleet.Pool) (mac string, err error)
	// Start starts the VM and returns when its start task has ended. Again: a VM that runs is no error.
	Start(ctx context.Context, r fleet.Runner) error
	// Find waits until the guest agent tells the guest's address and SSH host key. Again: asks anew. It ends
	// early only with the context, or when the VM is not running any more (ErrGone).
	Find(ctx context.Context, r fleet.Runner) (fleet.Address, error)
}

// Ender takes a VM away.
type Ender interface {
	// Destroy proves that the VM is r's and ours, stops it if it runs, deletes it and returns when the delete
	// task has ended well, with the volumes that Proxmox could not remove. Again: finishes what is left.
	// ErrGone, ErrHidden, ErrForeign: nothing was done, and the caller decides what that means.
	Destroy(ctx context.Context, r fleet.Runner) (leaked []string, err error)
}

// Hub is GitHub: the right to take jobs.
type Hub interface {
	// Roster lists all registrations of our scope, complete or an error. Again: a new list.
	Roster(ctx context.Context) (fleet.Roster, error)
	// Register makes a registration of that name with the pool's labels. Not repeatable: ErrTaken says that
	// the name exists, perhaps by an earlier call whose answer was lost; ErrUnknown that it may.
	Register(ctx context.Context, name string, p fleet.Pool) (fleet.Permit, error)
	// Remove takes a registration back; id 0 looks it up by name. fleet.Absent is returned only when proved by a
	// complete list fetched after the 404. Again: Absent.
	Remove(ctx context.Context, id int64, name string) (fleet.Removal, error)
	// Job looks one job up. ErrGone: GitHub says 404, which proves nothing.
	Job(ctx context.Context, j fleet.Job) (fleet.Job, error)
}

// Guests start runners inside VMs.
type Guests interface {
	// Status asks a guest for its state. ErrNotReady: it answers and is still being set up. Any other error: it
	// could not be asked, which says nothing about its runner. Again: asks anew.
	Status(ctx context.Context, a fleet.Address) (fleet.Guest, error)
	// Start has the guest start its runner, detached, and returns once it listens. The same order again reports
	// its state. ErrUnknown: the connection was lost after the order was sent.
	Start(ctx context.Context, a fleet.Address, o fleet.Order) (fleet.Guest, error)
}

// Store remembers. Each write is one transaction with its events, durable when it returns.
type Store interface {
	// Load reads everything that a decision needs.
	Load(ctx context.Context) (fleet.Books, error)
	// Create stores new rows and the id given out last, all or none. ErrTaken: a name or VMID is in use by a row.
	Create(ctx context.Context, rows []fleet.Runner, ev ...fleet.Event) error
	// Update stores the row as it is now. ErrGone: it has ended. A phase never goes back: that is an error.
	Update(ctx context.Context, r fleet.Runner, ev ...fleet.Event) error
	// End removes the row; its events stay. Again: no error.
	End(ctx context.Context, name string, ev ...fleet.Event) error
	// Observe merges what is known of jobs, forward only. Again: nothing changes.
	Observe(ctx context.Context, jobs []fleet.Job, ev ...fleet.Event) error
	// Note stores troubles (by pool and node; Count 0 clears one) and quarantined ids. Again: the same.
	Note(ctx context.Context, troubles []fleet.Trouble, quarantine map[int]string, ev ...fleet.Event) error
}
