package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"mayfly/internal/fleet"
)

const insertEvent = `INSERT INTO events (at, kind, runner, pool, node, vmid, job, took, waited, class, note)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// tell stores events in this transaction; they are heard once it is durable.
func (t *tx) tell(events []fleet.Event) error {
	for _, e := range events {
		if e.At.IsZero() {
			e.At = t.now
		}
		e.Note = clip(e.Note)
		if err := t.exec(insertEvent, nanos(e.At), string(e.Kind), e.Runner, e.Pool, e.Node, e.VMID, e.Job,
			int64(e.Took), int64(e.Waited), e.Class, e.Note); err != nil {
			return fmt.Errorf("storing event %s (runner %q, job %d): %w", e.Kind, e.Runner, e.Job, err)
		}
		t.events = append(t.events, e)
	}
	return nil
}

// Events returns the limit events stored last, newest first.
func (s *Store) Events(ctx context.Context, limit int) ([]fleet.Event, error) {
	return s.events(ctx, `SELECT `+eventColumns+` FROM events ORDER BY id DESC LIMIT ?`, max(limit, 0))
}

// JobEvents are the stored events of one job, the oldest first.
func (s *Store) JobEvents(ctx context.Context, job int64) ([]fleet.Event, error) {
	return s.events(ctx, `SELECT `+eventColumns+` FROM events WHERE job = ? AND job <> 0 ORDER BY id`, job)
}

const eventColumns = `at, kind, runner, pool, node, vmid, job, took, waited, class, note`

func (s *Store) events(ctx context.Context, query string, arg any) ([]fleet.Event, error) {
	rows, err := s.reads.QueryContext(ctx, query, arg)
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	defer rows.Close()
	var events []fleet.Event
	for rows.Next() {
		var e fleet.Event
		var at int64
		if err := rows.Scan(&at, &e.Kind, &e.Runner, &e.Pool, &e.Node, &e.VMID, &e.Job, &e.Took, &e.Waited, &e.Class, &e.Note); err != nil {
			return nil, fmt.Errorf("reading events: %w", err)
		}
		e.At = fromNanos(at)
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return events, nil
}

// Job returns what is known of one job; ok is false if that is nothing.
func (s *Store) Job(ctx context.Context, id int64) (job fleet.Job, ok bool, err error) {
	var row jobRow
	err = s.reads.QueryRowContext(ctx, selectJob, id).Scan(row.dest()...)
	if err == sql.ErrNoRows {
		return fleet.Job{}, false, nil
	}
	if err == nil {
		job, err = row.job(nil)
	}
	if err != nil {
		return fleet.Job{}, false, fmt.Errorf("reading job %d: %w", id, err)
	}
	return job, true, nil
}

// JobCounts returns how many jobs are known in each status, those pruned left out.
func (s *Store) JobCounts(ctx context.Context) (map[fleet.JobStatus]int, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT status, count(*) FROM jobs GROUP BY status`)
	if err != nil {
		return nil, fmt.Errorf("counting jobs: %w", err)
	}
	defer rows.Close()
	counts := map[fleet.JobStatus]int{}
	for rows.Next() {
		var status fleet.JobStatus
		var n int
		if err := rows.Scan(&status, &n); err != nil {
			return nil, fmt.Errorf("counting jobs: %w", err)
		}
		counts[status] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("counting jobs: %w", err)
	}
	return counts, nil
}

const (
	// keepTombstones is how long a completed job and a delivery stay at least: longer than GitHub may still
	// send something about them (redelivery for 3 days, a job queued for 1 day, and a margin).
	keepTombstones = 8 * 24 * time.Hour

	// pruneAtOnce bounds what one transaction deletes, so that other writes are not held up.
	pruneAtOnce = 1000
)

// Prune deletes events from before the given time; and deliveries and completed jobs from before it, but
// none that is younger than eight days or whose runner still has a row. Jobs not completed stay. Again:
// deletes what is left.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	tombstones := before
	if youngest := time.Now().Add(-keepTombstones); tombstones.After(youngest) {
		tombstones = youngest
	}
	for _, p := range []struct {
		what, bound, del string
		before           time.Time
	}{
		// Events are stored in about the order of their time: the newest id that is old bounds the search.
		{
			"events", `SELECT max(id) FROM events WHERE at < ?`,
			`DELETE FROM events WHERE id IN (SELECT id FROM events WHERE id <= ? AND at < ? ORDER BY id LIMIT ?)`, before,
		},
		{
			"deliveries", `SELECT max(at) FROM deliveries WHERE at < ?`,
			`DELETE FROM deliveries WHERE guid IN (SELECT guid FROM deliveries WHERE at <= ? AND at < ? ORDER BY at LIMIT ?)`, tombstones,
		},
		{
			"jobs", `SELECT max(id) FROM jobs WHERE status = 'completed' AND changed < ?`,
			`DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE id <= ? AND changed < ? AND status = 'completed'
				AND owner NOT IN (SELECT name FROM runners) ORDER BY id LIMIT ?)`, tombstones,
		},
	} {
		if err := s.prune(ctx, p.bound, p.del, nanos(p.before)); err != nil {
			return fmt.Errorf("pruning %s from before %s: %w", p.what, p.before.UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}

func (s *Store) prune(ctx context.Context, bound, del string, before int64) error {
	var last sql.NullInt64
	if err := s.reads.QueryRowContext(ctx, bound, before).Scan(&last); err != nil || !last.Valid {
		return err
	}
	for {
		var n int64
		err := s.do(ctx, func(t *tx) (err error) {
			n, err = t.count(del, last.Int64, before, pruneAtOnce)
			return err
		})
		if err != nil || n < pruneAtOnce {
			return err
		}
	}
}
