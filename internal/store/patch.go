package store

import (
	"context"
	"database/sql"
	"slices"

	"mayfly/internal/fleet"
)

const (
	selectRunner = `SELECT ` + runnerColumns + ` FROM runners WHERE name = ?`

	selectBookedJob = `SELECT ` + jobColumns + ` FROM jobs WHERE id = ?
		AND (status <> 'completed' OR EXISTS (SELECT 1 FROM runners WHERE name = owner))`

	selectDoneJobs = `SELECT ` + jobColumns + ` FROM jobs WHERE status = 'completed' AND owner = ?`
)

// A reader reads single rows.
type reader struct {
	snapshot, runner, job, done *sql.Stmt
}

func prepare(ctx context.Context, db *sql.DB) (r reader, err error) {
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{{&r.snapshot, `SELECT id FROM lease`}, {&r.runner, selectRunner}, {&r.job, selectBookedJob}, {&r.done, selectDoneJobs}} {
		if *p.to, err = db.PrepareContext(ctx, p.query); err != nil {
			return r, err
		}
	}
	return r, nil
}

// patch returns the books with the touched rows read anew. The completed jobs of a touched runner are
// among them: they come and go with its row.
func (r reader) patch(ctx context.Context, t *sql.Tx, old fleet.Books, touched touched) (fleet.Books, error) {
	b := old
	var runners []fleet.Runner
	var jobs []fleet.Job
	var err error
	one, done := t.StmtContext(ctx, r.runner), t.StmtContext(ctx, r.done)
	for name := range touched.runners {
		before := len(runners)
		if runners, err = scanRunners(runners)(one.QueryContext(ctx, name)); err != nil {
			return b, err
		}
		if len(runners) == before {
			continue // it has ended
		}
		if jobs, err = scanJobs(jobs)(done.QueryContext(ctx, name)); err != nil {
			return b, err
		}
	}
	one = t.StmtContext(ctx, r.job)
	for id := range touched.jobs {
		if jobs, err = scanJobs(jobs)(one.QueryContext(ctx, id)); err != nil {
			return b, err
		}
	}
	if len(touched.runners) > 0 {
		b.Runners = replace(old.Runners, runners, byName, func(r *fleet.Runner) bool {
			_, is := touched.runners[r.Name]
			return is
		})
	}
	b.Jobs = replace(old.Jobs, jobs, byCreation, func(j *fleet.Job) bool {
		_, is := touched.jobs[j.ID]
		if !is && j.Status == fleet.StatusCompleted {
			_, is = touched.runners[fleet.OwnerOf(j.Runner)]
		}
		return is
	})
	if touched.meta > 0 {
		err = loadMeta(ctx, t, &b)
	}
	return b, err
}

// replace returns rows, which are in order, without the stale ones and with the fresh ones, each once, in
// a new slice; or rows itself if that changes nothing.
func replace[T any](rows, fresh []T, order func(a, b T) int, stale func(*T) bool) []T {
	if len(fresh) == 0 && untilStale(rows, stale) == len(rows) {
		return rows
	}
	merged := make([]T, 0, len(rows)+len(fresh))
	keep := func(rows []T) {
		for {
			n := untilStale(rows, stale)
			merged = append(merged, rows[:n]...)
			if n == len(rows) {
				return
			}
			rows = rows[n+1:]
		}
	}
	slices.SortFunc(fresh, order)
	for i, f := range fresh {
		if i > 0 && order(fresh[i-1], f) == 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(rows, f, order)
		keep(rows[:at])
		merged, rows = append(merged, f), rows[at:]
	}
	keep(rows)
	return merged
}

// untilStale counts the rows before the first stale one. They are large, so it does not copy them.
func untilStale[T any](rows []T, stale func(*T) bool) int {
	for i := range rows {
		if stale(&rows[i]) {
			return i
		}
	}
	return len(rows)
}
