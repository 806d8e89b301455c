package proxmox

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A taskID is a parsed UPID, the name of a task: UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:
type taskID struct {
	raw     string
	node    string
	kind    string    // qmclone, qmstart, …
	id      string    // the VMID; of a clone the template's
	started time.Time // by the node's clock, whole seconds
}

// upidForm follows pve-common 9.2.1, PVE/UPID.pm.
var upidForm = regexp.MustCompile(`^UPID:([a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s/]+):([^:\s/]*):([^:\s/]+):$`)

const maxUPID = 512

func parseUPID(s string) (taskID, error) {
	if len(s) > maxUPID {
		return taskID{}, fmt.Errorf("a UPID of %d bytes", len(s))
	}
	f := upidForm.FindStringSubmatch(s)
	if f == nil {
		return taskID{}, fmt.Errorf("%q is not a UPID", s)
	}
	sec, err := strconv.ParseInt(f[4], 16, 64)
	if err != nil {
		return taskID{}, fmt.Errorf("%q is not a UPID: %w", s, err)
	}
	return taskID{raw: s, node: f[1], kind: f[5], id: f[6], started: time.Unix(sec, 0)}, nil
}
