package github

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"mayfly/internal/fleet"
)

// Bounds of what strangers write into a job.
const (
	maxText     = 256
	maxLabels   = 100 // that a runner can have
	maxLabelLen = 256
	maxOutcome  = 64
)

// errNotOurs: a job that no runner of ours can ever run.
var errNotOurs = errors.New("more or longer labels than a runner can have")

// workflowJob is a job in a webhook and in REST; the two agree on these members.
type workflowJob struct {
	ID         int64    `json:"id"`
	Name       string   `json:"name"`
	Status     string   `json:"status"`
	Conclusion string   `json:"conclusion"`
	Labels     []string `json:"labels"`
	RunnerID   int64    `json:"runner_id"`
	Runner     string   `json:"runner_name"`
	Created    lenient  `json:"created_at"`
	Started    lenient  `json:"started_at"`
	Completed  lenient  `json:"completed_at"`
}

// lenient is a time that may be missing, null or odd: no time is worth losing an event.
type lenient struct{ time.Time }

// UnmarshalJSON leaves the time zero when it is no RFC 3339 text.
func (l *lenient) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) != nil {
		return nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		l.Time = t.UTC()
	}
	return nil
}

// job is the job as the ledger wants it. action is the webhook's, "" in REST.
func (w workflowJob) job(repo, action string) (fleet.Job, error) {
	switch {
	case w.ID <= 0:
		return fleet.Job{}, errors.New("decode a job: it has no id")
	case !goodRepo(repo):
		return fleet.Job{}, errors.New("decode a job: its repository is not owner/name")
	case len(w.Labels) > maxLabels:
		return fleet.Job{}, errNotOurs
	}
	labels := make([]string, 0, len(w.Labels))
	for _, l := range w.Labels {
		if utf8.RuneCountInString(l) > maxLabelLen {
			return fleet.Job{}, errNotOurs // cut short it could match a pool
		}
		labels = append(labels, strings.Clone(l))
	}
	status := furthest(statusOf(action), statusOf(w.Status))
	if status == "" {
		return fleet.Job{}, fmt.Errorf("decode job %d: no known status", w.ID)
	}
	j := fleet.Job{ID: w.ID, Repo: repo, Name: bounded(w.Name, maxText), Labels: labels, Status: status, Created: w.Created.Time}
	if j.Created.IsZero() {
		j.Created = w.Started.Time
	}
	// A queued job may name a runner that it does not have (octokit's recorded example
	// does); 0 and "" are a job that was cancelled before it had one.
	if status.Rank() > fleet.StatusQueued.Rank() && w.RunnerID > 0 && w.Runner != "" {
		j.RunnerID, j.Runner = w.RunnerID, bounded(w.Runner, maxText)
	}
	if status == fleet.StatusCompleted {
		j.Conclusion = bounded(w.Conclusion, maxOutcome)
	}
	return j, nil
}

// statusOf maps GitHub's statuses and actions; "" for what we do not know. A pending or
// requested job is held back by GitHub, and wants no runner yet.
func statusOf(s string) fleet.JobStatus {
	switch s {
	case "queued", "in_progress", "completed", "waiting":
		return fleet.JobStatus(s)
	case "pending", "requested":
		return fleet.StatusWaiting
	}
	return ""
}

// furthest takes the job's own status where it is as far as the action or farther:
// a queued action with the status waiting is a job that waits.
func furthest(action, status fleet.JobStatus) fleet.JobStatus {
	if status.Rank() >= action.Rank() {
		return status
	}
	return action
}

// event is what hearers are told if the job is news to the store.
func (w workflowJob) event(j fleet.Job, at time.Time) []fleet.Event {
	e := fleet.Event{At: at, Job: j.ID, Runner: j.Runner, Note: j.Repo + ": " + j.Name}
	switch j.Status {
	case fleet.StatusQueued:
		e.Kind = fleet.JobQueued
	case fleet.StatusInProgress:
		e.Kind = fleet.JobStarted
	case fleet.StatusCompleted:
		e.Kind = fleet.JobEnded
		e.Class = outcome(j.Conclusion)
		if j.Runner != "" && !w.Started.IsZero() && w.Completed.After(w.Started.Time) {
			e.Took = w.Completed.Sub(w.Started.Time)
		}
	default:
		return nil
	}
	return []fleet.Event{e}
}

// outcome is a conclusion as a metric may carry it: one of GitHub's, or other.
func outcome(conclusion string) string {
	switch conclusion {
	case "success", "failure", "cancelled", "skipped", "timed_out", "neutral", "action_required", "stale":
		return conclusion
	}
	return "other"
}

// bounded is at most n runes of s, without control characters.
func bounded(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n == 0 {
			break
		}
		n--
		if unicode.IsControl(r) || r == utf8.RuneError {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}
