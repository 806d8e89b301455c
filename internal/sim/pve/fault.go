package pve

import (
	"regexp"
	"slices"
	"time"
)

// A Fault makes matching requests go wrong.
type Fault struct {
	Match string  // regexp on "METHOD /path", the path without /api2/json
	Rate  float64 // share of matching requests that are struck; 0 is all
	Count int     // how many are struck at most; 0 is no limit
	Do    Action
}

// An Action is what a fault does. Make one with the functions of this file.
type Action struct {
	does deed
	code int
	text string
	log  []string
	wait time.Duration
	rate float64
}

type deed int

const (
	delays deed = iota + 1
	dropsBefore
	dropsAfter
	answers
	answersAfter
	empties
	staleStopped
	dropsRows
	taskFails
	diskStays
)

// Status answers with an error of that code and text; nothing is done. 401 and 59x have no body.
func Status(code int, text string) Action { return Action{does: answers, code: code, text: text} }

// StatusAfter does what was asked and then answers with an error, as the time-out on .active.lock does
// to a task that runs.
func StatusAfter(code int, text string) Action {
	return Action{does: answersAfter, code: code, text: text}
}

// DropBefore closes the connection; nothing is done.
func DropBefore() Action { return Action{does: dropsBefore} }

// DropAfter does what was asked and closes the connection without an answer.
func DropAfter() Action { return Action{does: dropsAfter} }

// Delay lets d pass before the request is looked at. Speed does not divide it.
func Delay(d time.Duration) Action { return Action{does: delays, wait: d} }

// Empty does what was asked and answers 200 with no data: an empty list for lists, else null.
func Empty() Action { return Action{does: empties} }

// StaleStopped makes lists show every VM as stopped.
func StaleStopped() Action { return Action{does: staleStopped} }

// DropRows leaves each VM's row out of lists with that chance.
func DropRows(rate float64) Action { return Action{does: dropsRows, rate: rate} }

// TaskFails lets the request start its task, which ends with that error after those lines in its log:
// a clone while it makes its first disk, cleaning up after itself; others before they do anything.
func TaskFails(text string, log ...string) Action {
	return Action{does: taskFails, text: text, log: log}
}

// DiskStays makes a destroy unable to remove its disks: they leak with "WARNINGS: n".
func DiskStays() Action { return Action{does: diskStays} }

type fault struct {
	Fault
	match *regexp.Regexp
	hits  int
}

// Inject lays a fault on requests until cancel is called. Several may hit one request. A Match that is
// no regexp is taken as plain text.
func (c *Cluster) Inject(f Fault) (cancel func()) {
	re, err := regexp.Compile(f.Match)
	if err != nil {
		re = regexp.MustCompile(regexp.QuoteMeta(f.Match))
	}
	x := &fault{Fault: f, match: re}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, x)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.faults = slices.DeleteFunc(c.faults, func(o *fault) bool { return o == x })
	}
}

// strike are the actions that hit a request. c.mu must be held.
func (c *Cluster) strike(call string) []Action {
	var acts []Action
	for _, f := range c.faults {
		if f.Count > 0 && f.hits >= f.Count || !f.match.MatchString(call) {
			continue
		}
		if f.Rate > 0 && c.rng.Float64() >= f.Rate {
			continue
		}
		f.hits++
		acts = append(acts, f.Do)
	}
	return acts
}

// lie changes a good answer.
func (c *Cluster) lie(a Action, data any) any {
	rows, isList := data.([]map[string]any)
	switch a.does {
	case empties:
		if isList {
			return []map[string]any{}
		}
		if _, ok := data.(paged); ok {
			return paged{rows: []map[string]any{}}
		}
		return nil
	case staleStopped:
		for _, m := range rows {
			if _, isVM := m["vmid"]; isVM && m["status"] == "running" {
				m["status"], m["uptime"] = "stopped", 0
			}
		}
	case dropsRows:
		c.mu.Lock()
		defer c.mu.Unlock()
		rows = slices.DeleteFunc(rows, func(m map[string]any) bool {
			_, isVM := m["vmid"]
			return isVM && c.rng.Float64() < a.rate
		})
		if isList {
			return rows
		}
	}
	return data
}
