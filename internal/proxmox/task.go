package proxmox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

const (
	// A task is asked for again after this share of the time that it has lasted, or sooner: between the
	// fastest and the slowest of the last few any moment is as likely as another, so that equal steps are
	// the fewest requests for a given delay.
	pollShare = 0.08
	steps     = 6
	minPoll   = 500 * time.Millisecond
	maxStep   = 3 * time.Second
	// While none of its kind has ended yet on that node, nothing says when to ask.
	unknownShare   = 0.25
	firstPoll      = time.Second
	firstClonePoll = 4 * time.Second
	// The first poll of a task comes at this share of the fastest of the last few.
	earlyShare = 0.9
	// After a poll that could not be answered.
	minTrouble = time.Second
	maxTrouble = 10 * time.Second
)

// An ending is how a task ended: OK, WARNINGS: n, or why not.
type ending string

func (e ending) warned() bool { return strings.HasPrefix(string(e), "WARNINGS:") }
func (e ending) well() bool   { return e == "OK" || e.warned() }

// Wait returns when the task has ended; nil if well, warnings included. Until the context ends
// it outlasts an unreachable node and lost answers. ErrUnknown: how it ended cannot be asked
// for, its log is gone or its worker was killed. Of a clone, ErrTaken: the id is somebody's.
func (c *Client) Wait(ctx context.Context, upid string) error {
	_, err := c.wait(ctx, upid)
	return err
}

func (c *Client) wait(ctx context.Context, upid string) (ending, error) {
	t, err := parseUPID(upid)
	if err != nil {
		return "", fmt.Errorf("proxmox: wait for a task: %w: %w", fleet.ErrUnknown, err)
	}
	end, err := c.watch(ctx, t)
	if err == nil && !end.well() {
		from := taskCall(t.kind)
		why, class := classify(from, t.id, 0, string(end), nil)
		err = &failure{call: from.name, text: string(end), cause: why, class: class}
	}
	if err != nil {
		return end, fmt.Errorf("proxmox: task %s of VM %s on node %s: %w", t.kind, t.id, t.node, err)
	}
	return end, nil
}

// watch asks for t, alone or in one list with the others of its node, until it has ended.
func (c *Client) watch(ctx context.Context, t taskID) (ending, error) {
	kind := t.node + " " + t.kind
	w := c.watches.add(t)
	defer c.watches.remove(w)
	began := time.Now()
	polls := c.pollsFor(kind, t)
	trouble := c.scaled(minTrouble)
	var last error
	timer := time.NewTimer(polls.first)
	defer timer.Stop()
	for {
		alone, hidden := false, false
		select {
		case <-ctx.Done():
			return "", gaveUp(ctx, last)
		case seen := <-w.told:
			if end, ended := seen.end(); ended {
				c.learn(kind, end, began)
				return end, nil
			}
			if seen == notListed && w.solo {
				continue // it never is
			}
			alone, hidden = seen == notListed, seen == notListed
		case <-timer.C:
			alone = !c.listed(ctx, w)
		}
		wait := polls.after(time.Since(began))
		if alone {
			end, ended, err := c.taskStatus(ctx, t)
			switch {
			case ended:
				c.learn(kind, end, began)
				return end, nil
			case err != nil && ctx.Err() != nil:
				return "", gaveUp(ctx, cmpErr(last, err))
			case err != nil:
				if why := causeOf(err); why == noTask || why == denied || why == badRequest {
					return "", fmt.Errorf("%w: %w", fleet.ErrUnknown, err)
				}
				last, wait = err, trouble
				trouble = min(2*trouble, c.scaled(maxTrouble))
			default:
				last, trouble = nil, c.scaled(minTrouble)
				w.solo = w.solo || hidden
			}
		}
		timer.Reset(wait)
	}
}

// learn remembers how long a task took that ended well.
func (c *Client) learn(kind string, end ending, began time.Time) {
	if end.well() {
		c.taskTimes.add(kind, time.Since(began))
	}
}

// gaveUp is the context's error, with what had kept us from asking.
func gaveUp(ctx context.Context, last error) error {
	if last == nil || errors.Is(last, ctx.Err()) {
		return ctx.Err()
	}
	return fmt.Errorf("%w; before that %w", ctx.Err(), last)
}

// polls say when a task is asked for, counted from when we began to wait for it.
type polls struct {
	first       time.Duration
	least, most time.Duration // between two
	share       float64       // of the time that it has lasted, within these
}

func (c *Client) pollsFor(kind string, t taskID) polls {
	p := polls{first: c.scaled(firstPoll), least: c.scaled(minPoll), most: c.scaled(maxStep), share: unknownShare}
	fastest, known := c.taskTimes.fastest(kind)
	switch {
	case known:
		p.first, p.share = time.Duration(earlyShare*float64(fastest)), pollShare
		p.least = max(p.least, min(p.most, (c.taskTimes.slowest(kind)-fastest)/steps))
	case t.kind == "qmclone":
		p.first = c.scaled(firstClonePoll)
	}
	return p
}

// after is how long to wait after an answer that the task still runs.
func (p polls) after(elapsed time.Duration) time.Duration {
	return max(p.least, min(p.most, time.Duration(p.share*float64(elapsed))), p.first-elapsed)
}

// taskStatus asks for one task, on the node in its UPID: any other says that there is none.
func (c *Client) taskStatus(ctx context.Context, t taskID) (end ending, ended bool, err error) {
	var s struct {
		Status     text `json:"status"`
		ExitStatus text `json:"exitstatus"`
	}
	_, err = c.do(ctx, request{call: callTaskStatus, method: http.MethodGet, path: taskPath(t, "/status"), subject: t.id}, &s)
	if err != nil || s.Status != "stopped" {
		return "", false, err
	}
	if s.ExitStatus == "" {
		return "unexpected status", true, nil
	}
	return ending(s.ExitStatus), true, nil
}

func taskPath(t taskID, rest string) string {
	return "/nodes/" + url.PathEscape(t.node) + "/tasks/" + url.PathEscape(t.raw) + rest
}

// taskRows lists the tasks of a node, newest first.
func (c *Client) taskRows(ctx context.Context, node string, params url.Values) ([]taskRow, error) {
	var rows []taskRow
	_, err := c.do(ctx, request{call: callTaskList, method: http.MethodGet, path: "/nodes/" + url.PathEscape(node) + "/tasks", params: params}, &rows)
	return rows, err
}

// A taskRow is a line of a task list, where status is what elsewhere is exitstatus, and RUNNING
// before.
type taskRow struct {
	UPID   text `json:"upid"`
	Status text `json:"status"`
	Kind   text `json:"type"`
	ID     text `json:"id"`
}

const maxLeaked = 64

var leakLine = regexp.MustCompile(`Could not remove disk '([^']{1,255})', check manually`)

// leaked reads in a destroy task's log which volumes it could not remove. Before qemu-server
// 9.1.19 nothing but this line tells; the task ends OK.
func (c *Client) leaked(ctx context.Context, t taskID) ([]string, error) {
	var lines []struct {
		T text `json:"t"`
	}
	params := url.Values{"start": {"0"}, "limit": {strconv.Itoa(500)}}
	_, err := c.do(ctx, request{call: callTaskLog, method: http.MethodGet, path: taskPath(t, "/log"), params: params, subject: t.id}, &lines)
	if err != nil {
		return nil, err
	}
	var volumes []string
	for _, l := range lines {
		if f := leakLine.FindStringSubmatch(string(l.T)); f != nil && len(volumes) < maxLeaked {
			volumes = append(volumes, printable(f[1]))
		}
	}
	return volumes, nil
}
