// Package wire is what the two ends of a guest's SSH session say to each other: one
// order on the helper's standard input, JSON lines on its standard output, and an exit code.
//
// Everything is bounded, since either end may be broken and the guest runs strangers' jobs.
package wire

// Version is the protocol's version, the v of an Order. An end refuses any other.
const Version = 1

// Bounds, in bytes, line ends included.
const (
	MaxOrder  = 64 << 10 // of an order: what the QEMU guest agent's exec takes on stdin, so that both transports carry it
	MaxLine   = 4 << 10  // of one line of output; longer ones are skipped
	MaxOutput = 1 << 20  // of all lines of one command
)

// The helper's commands.
const (
	CommandStatus = "status" // tell the state
	CommandStart  = "start"  // read an order and start its runner, detached
)
