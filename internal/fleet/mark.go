package fleet

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A Mark is the line in a VM's description that makes it ours. It is sent in the clone
// POST, so no VM of ours ever exists without it once its clone has ended.
type Mark struct {
	Instance string
	Name     string // the VM's name
	Born     time.Time
}

// String is the mark as it stands in the description.
func (m Mark) String() string {
	return fmt.Sprintf("mayfly %s %s born=%s", m.Instance, m.Name, m.Born.UTC().Format(time.RFC3339))
}

var markLine = regexp.MustCompile(`^mayfly ([a-z0-9]{1,12}) ([a-z0-9-]{1,63}) born=(\S+)$`)

// ParseMark finds the mark in a VM's description; ok is false if there is none, or
// more than one: then nobody can say whose the VM is.
func ParseMark(description string) (m Mark, ok bool) {
	found := 0
	for line := range strings.Lines(description) {
		f := markLine.FindStringSubmatch(strings.TrimSpace(line))
		if f == nil {
			continue
		}
		born, err := time.Parse(time.RFC3339, f[3])
		if err != nil {
			continue
		}
		found++
		m = Mark{Instance: f[1], Name: f[2], Born: born}
	}
	return m, found == 1
}

// PoolOf returns the pool in a VM name <instance>-<pool>-<8 hex> of the given instance; "" if it is no such name.
func PoolOf(instance, name string) string {
	rest, ok := strings.CutPrefix(name, instance+"-")
	if !ok || len(rest) < 10 || rest[len(rest)-9] != '-' {
		return ""
	}
	return rest[:len(rest)-9]
}

// OwnerOf returns the VM name that a registration's name belongs to: the name itself
// without the -2, -3, … of a later try.
func OwnerOf(registration string) string {
	i := strings.LastIndexByte(registration, '-')
	if i < 0 || len(registration)-i > 4 {
		return registration
	}
	for _, c := range registration[i+1:] {
		if c < '0' || c > '9' {
			return registration
		}
	}
	if len(registration[i+1:]) == 0 {
		return registration
	}
	return registration[:i]
}
