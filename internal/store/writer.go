package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"mayfly/internal/fleet"
)

// maxBatch bounds how many writes share one commit, and how many wait for the next.
const maxBatch = 256

var errClosed = errors.New("the store is closed")

// A write is one transaction that somebody waits for.
type write struct {
	run  func(*tx) error
	owed atomic.Bool // the writer has begun it, or its caller has given it up: whoever sets it decides
	err  error
	done chan struct{}
}

// claim tells whether the caller of claim is the one who decides what becomes of w.
func (w *write) claim() bool { return w.owed.CompareAndSwap(false, true) }

// do has the writer run f in a transaction and returns when that is durable. If the context ends
// before the writer has begun, nothing is written; once begun, its outcome is waited for, so that it
// is always known.
func (s *Store) do(ctx context.Context, f func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &write{run: f, done: make(chan struct{})}
	select {
	case s.queue <- w:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return errClosed
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		if w.claim() {
			return ctx.Err()
		}
	case <-s.ended:
		if w.claim() {
			return errClosed
		}
	}
	<-w.done
	return w.err
}

// writer runs writes until the Store closes; those that are queued by then are still run.
func (s *Store) writer(conn *sql.Conn) {
	defer close(s.ended)
	t := &tx{conn: conn, changes: &s.changes, statements: map[string]*sql.Stmt{}}
	defer t.close()
	batch := make([]*write, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case w := <-s.queue:
			batch = append(batch, w)
		case <-s.closing:
			for batch = s.waiting(batch); len(batch) > 0; batch = s.waiting(batch[:0]) {
				s.commit(t, batch)
			}
			return
		}
		batch = s.waiting(batch)
		s.commit(t, batch)
	}
}

// waiting adds the writes that wait, as many as fit.
func (s *Store) waiting(batch []*write) []*write {
	for len(batch) < maxBatch {
		select {
		case w := <-s.queue:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// commit runs the batch in one transaction. A write that fails undoes only itself; if the commit fails,
// nothing of the batch is stored and all of them fail.
func (s *Store) commit(t *tx, batch []*write) {
	begun := batch[:0]
	for _, w := range batch {
		if w.claim() {
			begun = append(begun, w)
		}
	}
	if len(begun) == 0 {
		return
	}
	if err := t.all(begun); err != nil {
		_ = t.exec("ROLLBACK") // it has mostly been rolled back already
		for _, w := range begun {
			w.err = errors.Join(w.err, fmt.Errorf("nothing was stored: %w", err))
		}
		t.events = t.events[:0]
	}
	s.changes.committed()
	for _, e := range t.events {
		for _, hear := range s.hear {
			hear(e)
		}
	}
	for _, w := range begun {
		close(w.done)
	}
}

// A tx is the writer's connection inside a transaction.
type tx struct {
	conn       *sql.Conn
	changes    *changes
	statements map[string]*sql.Stmt // every text is a constant of this package
	now        time.Time
	events     []fleet.Event // told when the transaction is durable
}

func (t *tx) all(batch []*write) error {
	t.events = t.events[:0]
	if err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, w := range batch {
		if err := t.one(w); err != nil {
			return err
		}
	}
	return t.exec("COMMIT")
}

// one runs w in a savepoint. Its error means that the whole transaction is lost.
func (t *tx) one(w *write) error {
	if err := t.exec("SAVEPOINT one"); err != nil {
		return err
	}
	t.now = time.Now()
	told := len(t.events)
	if w.err = w.run(t); w.err != nil {
		t.events = t.events[:told]
		// Fails if SQLite has ended the transaction by itself, as it may when the disk is full.
		if err := t.exec("ROLLBACK TO one"); err != nil {
			return err
		}
	}
	return t.exec("RELEASE one")
}

// The writer's statements are not bound to a caller's context: to cut one short would fail its neighbours.

func (t *tx) statement(query string) (*sql.Stmt, error) {
	if st, ok := t.statements[query]; ok {
		return st, nil
	}
	st, err := t.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	t.statements[query] = st
	return st, nil
}

func (t *tx) exec(query string, args ...any) error {
	_, err := t.count(query, args...)
	return err
}

// count runs a statement and returns how many rows it changed.
func (t *tx) count(query string, args ...any) (int64, error) {
	st, err := t.statement(query)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// scan reads one row into dest; found is false if there is none.
func (t *tx) scan(query string, args, dest []any) (found bool, err error) {
	st, err := t.statement(query)
	if err != nil {
		return false, err
	}
	err = st.QueryRowContext(context.Background(), args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

func (t *tx) close() {
	for _, st := range t.statements {
		st.Close()
	}
}
