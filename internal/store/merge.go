package store

import (
	"time"

	"mayfly/internal/fleet"
)

// merge adds what news says of a job to what is known of it, and tells whether that is anything new.
// A status never goes back; what was once known is never blanked; a completed job's conclusion stays.
// GitHub's events come late, twice and out of order, and one that comes late may still know a runner.
// When the job was received or looked up is ours to know and no news of the job.
func merge(known, news fleet.Job, now time.Time) (fleet.Job, bool) {
	j := known
	forward := news.Status.Rank() > 0 && news.Status.Rank() >= known.Status.Rank()
	changed := false

	if forward && j.Status != news.Status {
		j.Status, changed = news.Status, true
	}
	if news.Status == fleet.StatusCompleted && j.Conclusion == "" && news.Conclusion != "" {
		j.Conclusion, changed = news.Conclusion, true
	}
	if news.RunnerID != 0 && news.RunnerID != j.RunnerID && (forward || j.RunnerID == 0) {
		j.RunnerID, changed = news.RunnerID, true
	}
	if news.Runner != "" && news.Runner != j.Runner && (forward || j.Runner == "") {
		j.Runner, changed = news.Runner, true
	}
	if j.Repo == "" && news.Repo != "" {
		j.Repo, changed = news.Repo, true
	}
	if j.Name == "" && news.Name != "" {
		j.Name, changed = news.Name, true
	}
	if len(j.Labels) == 0 && len(news.Labels) > 0 {
		j.Labels, changed = news.Labels, true
	}
	if j.Created.IsZero() && !news.Created.IsZero() {
		j.Created, changed = news.Created, true
	}
	if !news.Received.IsZero() && (j.Received.IsZero() || news.Received.Before(j.Received)) {
		j.Received = news.Received
	}
	if news.Checked.After(j.Checked) {
		j.Checked = news.Checked
	}
	if changed {
		j.Changed = now
	}
	return j, changed
}
