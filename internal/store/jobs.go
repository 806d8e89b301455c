package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"mayfly/internal/fleet"
)

const (
	jobColumns = `id, repo, name, labels, status, conclusion, runner_id, runner, created, received, changed, checked`

	selectJob = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ?`

	upsertJob = `INSERT INTO jobs (` + jobColumns + `, owner) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET (repo, name, labels, status, conclusion, runner_id, runner, created, received, changed, checked, owner) =
		(excluded.repo, excluded.name, excluded.labels, excluded.status, excluded.conclusion, excluded.runner_id, excluded.runner,
		excluded.created, excluded.received, excluded.changed, excluded.checked, excluded.owner)`
)

// Record stores what a webhook delivery says of a job, with the delivery's GUID, and tells whether it
// is anything new; its events are stored only then. A GUID that is stored already changes nothing; one whose
// storing failed is not stored, so that its redelivery works. A guid "" is not remembered.
func (s *Store) Record(ctx context.Context, guid string, job fleet.Job, ev ...fleet.Event) (changed bool, err error) {
	err = s.do(ctx, func(t *tx) error {
		if guid != "" {
			n, err := t.count(`INSERT INTO deliveries (guid, at) VALUES (?, ?) ON CONFLICT DO NOTHING`, guid, nanos(t.now))
			if err != nil {
				return fmt.Errorf("storing delivery %q of job %d: %w", guid, job.ID, err)
			}
			if n == 0 {
				return nil
			}
		}
		var err error
		changed, err = t.mergeJob(job)
		if err != nil {
			return fmt.Errorf("storing delivery %q of job %d: %w", guid, job.ID, err)
		}
		if !changed {
			return nil
		}
		return t.tell(ev)
	})
	return changed && err == nil, err
}

// Observe merges what is known of jobs, forward only; their Checked is stored when it is later than the one
// known. Events are stored, but for those that tell of a job's step (queued, started, ended) when there was
// nothing new about that job: again, nothing changes.
func (s *Store) Observe(ctx context.Context, jobs []fleet.Job, ev ...fleet.Event) error {
	return s.do(ctx, func(t *tx) error {
		news := map[int64]bool{}
		for _, j := range jobs {
			changed, err := t.mergeJob(j)
			if err != nil {
				return fmt.Errorf("storing job %d: %w", j.ID, err)
			}
			news[j.ID] = news[j.ID] || changed
		}
		return t.tell(slices.DeleteFunc(slices.Clone(ev), func(e fleet.Event) bool {
			isNew, observed := news[e.Job]
			return observed && !isNew && tellsStep(e.Kind)
		}))
	})
}

func tellsStep(k fleet.Kind) bool {
	return k == fleet.JobQueued || k == fleet.JobStarted || k == fleet.JobEnded
}

// mergeJob stores what j adds to what is known of the job. A status that we do not know (GitHub may invent
// one) makes no row, and is no error: to refuse it would only have it sent again.
func (t *tx) mergeJob(j fleet.Job) (changed bool, err error) {
	if j.ID <= 0 {
		return false, fmt.Errorf("a job's id is positive, not %d", j.ID)
	}
	known := fleet.Job{ID: j.ID}
	var row jobRow
	found, err := t.scan(selectJob, []any{j.ID}, row.dest())
	if err != nil {
		return false, err
	}
	if found {
		if known, err = row.job(nil); err != nil {
			return false, err
		}
	} else if j.Status.Rank() == 0 {
		return false, nil
	}
	merged, changed := merge(known, j, t.now)
	if !changed && merged.Received.Equal(known.Received) && merged.Checked.Equal(known.Checked) {
		return false, nil
	}
	labels := ""
	if len(merged.Labels) > 0 {
		text, err := json.Marshal(merged.Labels)
		if err != nil {
			return false, err
		}
		labels = string(text)
	}
	t.touchJob(j.ID)
	return changed, t.exec(upsertJob,
		merged.ID, merged.Repo, merged.Name, labels, string(merged.Status), merged.Conclusion, merged.RunnerID, merged.Runner,
		nanos(merged.Created), nanos(merged.Received), nanos(merged.Changed), nanos(merged.Checked), fleet.OwnerOf(merged.Runner))
}

// A jobRow is a row of jobs as SQLite gives it.
type jobRow struct {
	j                                   fleet.Job
	labels                              string
	created, received, changed, checked int64
}

func (r *jobRow) dest() []any {
	return []any{
		&r.j.ID, &r.j.Repo, &r.j.Name, &r.labels, &r.j.Status, &r.j.Conclusion, &r.j.RunnerID, &r.j.Runner,
		&r.created, &r.received, &r.changed, &r.checked,
	}
}

// job makes the job. Many jobs ask for the same labels: seen, where it is not nil, saves parsing them anew.
func (r *jobRow) job(seen map[string][]string) (fleet.Job, error) {
	j := r.j
	j.Created, j.Received, j.Changed, j.Checked = fromNanos(r.created), fromNanos(r.received), fromNanos(r.changed), fromNanos(r.checked)
	if r.labels == "" {
		return j, nil
	}
	labels, ok := seen[r.labels]
	if !ok {
		if err := json.Unmarshal([]byte(r.labels), &labels); err != nil {
			return j, fmt.Errorf("labels of job %d: %w", j.ID, err)
		}
		if seen != nil {
			seen[r.labels] = labels
		}
	}
	j.Labels = slices.Clone(labels)
	return j, nil
}
