package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mayfly/internal/fleet"
)

const (
	selectRunners = `SELECT ` + runnerColumns + ` FROM runners ORDER BY name`

	// The completed jobs of living runners are few: found from the runners, by an index.
	selectJobs = `SELECT ` + jobColumns + ` FROM jobs WHERE status <> 'completed'
		UNION ALL SELECT ` + jobColumns + ` FROM jobs WHERE status = 'completed' AND owner IN (SELECT name FROM runners)`

	countRows = `SELECT (SELECT count(*) FROM runners), (SELECT count(*) FROM jobs WHERE status <> 'completed')`
)

// Load reads everything that a decision needs, as it was at one moment: runners by name; by creation and id, the
// jobs not completed and the completed ones that a runner with a row is known to have run.
//
// Of what it read last it reads only those rows again that were written since: nobody else writes, as
// the lock sees to. So a caller must not change the books; they stay as they are.
func (s *Store) Load(ctx context.Context) (fleet.Books, error) {
	// Counted before they are read: what is written meanwhile makes the next Load read again.
	batches, e := s.changes.now()
	if e != nil {
		return e.books, nil
	}
	e, err := s.load(ctx, batches)
	if err != nil {
		return fleet.Books{}, fmt.Errorf("reading the books: %w", err)
	}
	s.changes.publish(e)
	return e.books, nil
}

// load reads an edition that has the first so many batches, or more.
func (s *Store) load(ctx context.Context, batches uint64) (*edition, error) {
	t, err := s.reads.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer t.Rollback() // it has written nothing
	// A read transaction sees one snapshot (https://www.sqlite.org/isolation.html), that of its first read. Whatever
	// is in it or in the last edition, and not in both, was touched before now.
	var id int
	if err := t.StmtContext(ctx, s.one.snapshot).QueryRowContext(ctx).Scan(&id); err != nil {
		return nil, err
	}
	last, touched := s.changes.since()
	e := &edition{batches: batches}
	switch {
	case last != nil && last.batches > batches:
		return last, nil // another Load, begun later: what was forgotten for it may not be in our snapshot
	case last == nil || touched.all > 0:
		e.books, err = loadAll(ctx, t)
	default:
		e.books, err = s.one.patch(ctx, t, last.books, touched)
	}
	return e, err
}

func loadAll(ctx context.Context, t *sql.Tx) (b fleet.Books, err error) {
	var runners, jobs int // only to make room: growing a long slice of rows costs a sixth of the time
	if err := t.QueryRowContext(ctx, countRows).Scan(&runners, &jobs); err != nil {
		return b, err
	}
	if b.Runners, err = scanRunners(make([]fleet.Runner, 0, runners))(t.QueryContext(ctx, selectRunners)); err != nil {
		return b, err
	}
	if b.Jobs, err = scanJobs(make([]fleet.Job, 0, jobs))(t.QueryContext(ctx, selectJobs)); err != nil {
		return b, err
	}
	slices.SortFunc(b.Jobs, byCreation) // here and not in SQL: they mostly come in this order already
	return b, loadMeta(ctx, t, &b)
}

func byName(a, b fleet.Runner) int { return strings.Compare(a.Name, b.Name) }

func byCreation(a, b fleet.Job) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// scanRunners adds the rows of a query to runners.
func scanRunners(runners []fleet.Runner) func(*sql.Rows, error) ([]fleet.Runner, error) {
	return func(rows *sql.Rows, err error) ([]fleet.Runner, error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		for rows.Next() {
			var r fleet.Runner
			var since, born, asked, cloned, started int64
			if err := rows.Scan(&r.Name, &r.Pool, &r.Node, &r.VMID, &r.Template, &r.Phase, &since, &born, &asked, &r.UPID, &cloned,
				&r.MAC, &started, &r.Address, &r.HostKey, &r.Registration, &r.RunnerID, &r.Job, &r.Adopted, &r.Cause); err != nil {
				return nil, err
			}
			r.Since, r.Born, r.AskedAt, r.ClonedAt, r.StartedAt = fromNanos(since), fromNanos(born), fromNanos(asked), fromNanos(cloned), fromNanos(started)
			runners = append(runners, r)
		}
		return runners, rows.Err()
	}
}

// scanJobs adds the rows of a query to jobs.
func scanJobs(jobs []fleet.Job) func(*sql.Rows, error) ([]fleet.Job, error) {
	return func(rows *sql.Rows, err error) ([]fleet.Job, error) {
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var row jobRow
		dest, seen := row.dest(), map[string][]string{}
		for rows.Next() {
			if err := rows.Scan(dest...); err != nil {
				return nil, err
			}
			j, err := row.job(seen)
			if err != nil {
				return nil, err
			}
			jobs = append(jobs, j)
		}
		return jobs, rows.Err()
	}
}

func loadMeta(ctx context.Context, t *sql.Tx, b *fleet.Books) error {
	rows, err := t.QueryContext(ctx, `SELECT key, value FROM meta`)
	if err != nil {
		return err
	}
	defer rows.Close()
	b.Quarantine, b.Troubles = map[int]string{}, nil // not into those of an edition
	for rows.Next() {
		var key, value string
		if err := rows.Scan(&key, &value); err != nil {
			return err
		}
		switch key {
		case metaLastVMID:
			b.LastVMID, err = strconv.Atoi(value)
		case metaTroubles:
			err = json.Unmarshal([]byte(value), &b.Troubles)
		case metaQuarantine:
			err = json.Unmarshal([]byte(value), &b.Quarantine)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return rows.Err()
}
