package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

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
// What was read last is given again while nothing has been written since: nobody else writes, as the
// lock sees to. So a caller must not change the books.
func (s *Store) Load(ctx context.Context) (fleet.Books, error) {
	// Counted before they are read: what is written meanwhile makes the next Load read again.
	commits := s.commits.Load()
	if last := s.last.Load(); last != nil && last.commits == commits {
		return last.books, nil
	}
	books, err := s.load(ctx)
	if err != nil {
		return fleet.Books{}, fmt.Errorf("reading the books: %w", err)
	}
	s.last.Store(&edition{commits, books})
	return books, nil
}

// An edition is the books as they were after so many commits, or later.
type edition struct {
	commits uint64
	books   fleet.Books
}

func (s *Store) load(ctx context.Context) (b fleet.Books, err error) {
	// A read transaction sees one snapshot (https://www.sqlite.org/isolation.html).
	t, err := s.reads.BeginTx(ctx, nil)
	if err != nil {
		return b, err
	}
	defer t.Rollback()    // it has written nothing
	var runners, jobs int // only to make room: growing a long slice of rows costs a sixth of the time
	if err := t.QueryRowContext(ctx, countRows).Scan(&runners, &jobs); err != nil {
		return b, err
	}
	if b.Runners, err = loadRunners(ctx, t, runners); err != nil {
		return b, err
	}
	if b.Jobs, err = loadJobs(ctx, t, jobs); err != nil {
		return b, err
	}
	return b, loadMeta(ctx, t, &b)
}

func loadRunners(ctx context.Context, t *sql.Tx, room int) ([]fleet.Runner, error) {
	rows, err := t.QueryContext(ctx, selectRunners)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	runners := make([]fleet.Runner, 0, room)
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

func loadJobs(ctx context.Context, t *sql.Tx, room int) ([]fleet.Job, error) {
	rows, err := t.QueryContext(ctx, selectJobs)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	jobs := make([]fleet.Job, 0, room)
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
	// Here and not in SQL: they mostly come in this order already.
	slices.SortFunc(jobs, func(a, b fleet.Job) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	return jobs, rows.Err()
}

func loadMeta(ctx context.Context, t *sql.Tx, b *fleet.Books) error {
	rows, err := t.QueryContext(ctx, `SELECT key, value FROM meta`)
	if err != nil {
		return err
	}
	defer rows.Close()
	b.Quarantine = map[int]string{}
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
