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
	if !ok || len(rest) < 10 || !endsInHash(rest) {
		return ""
	}
	return rest[:len(rest)-9]
}

// OwnerOf returns the VM name that a registration's name belongs to: the name itself without the -2, -3, … of a
// later try. A name that no VM of any instance has is returned as it is.
func OwnerOf(registration string) string {
	i := strings.LastIndexByte(registration, '-')
	if i < 0 || !countsTries(registration[i+1:]) || !endsInHash(registration[:i]) {
		return registration
	}
	return registration[:i]
}

// endsInHash tells whether name ends in - and 8 hex, as every VM name does. The hash may be of digits only.
func endsInHash(name string) bool {
	i := len(name) - 9
	return i >= 0 && name[i] == '-' && strings.Trim(name[i+1:], "0123456789abcdef") == ""
}

// countsTries tells whether s is a number from 2 to 999, as the second registration of a VM and those after it bear.
func countsTries(s string) bool {
	return len(s) >= 1 && len(s) <= 3 && s[0] != '0' && s != "1" && strings.Trim(s, "0123456789") == ""
}
