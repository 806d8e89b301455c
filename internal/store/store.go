// Package store remembers runners, jobs and what happened, in one SQLite file.
//
// Every write is one transaction with its events and is on the disk when it returns (WAL,
// synchronous=FULL). One goroutine writes: it takes whatever writes wait, runs each of them
// in a savepoint of its own, and commits all of them at once. Reads have connections of their own and
// see every write that has returned. No secret is ever stored.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mayfly/internal/fleet"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Options of Open.
type Options struct {
	// Fast leaves out the wait for the disk: a crash of the machine (not of the process) may then lose or
	// break the database. For tests and simulations.
	Fast bool
	// Hear are told every event, in the order of the commits, after it is stored and before the write that
	// brought it returns. They must not block and must not call the Store.
	Hear []fleet.Hearer
	// Holder says who opens the database, for whoever finds it in use. "" is "mayfly".
	Holder string
}

// A Store is an open database. Its methods may be called from any goroutine.
type Store struct {
	reads *sql.DB
	hear  []fleet.Hearer

	one     reader
	changes changes

	queue   chan *write
	closing chan struct{}
	ended   chan struct{} // the writer has ended
	close   func() error  // does its work once
}

// Open opens the database at path, makes it if it is not there, and brings its schema up to date. It
// is refused, naming the holder, while another Store is open on the same file, in this process or
// another. Errors that a person must mend are fleet.ErrConfig; one in use is fleet.ErrBusy.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	s, err := open(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, opts Options) (_ *Store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := prepareFile(path); err != nil {
		return nil, err
	}
	var undo []func() error
	defer func() {
		if err != nil {
			err = errors.Join(append([]error{err}, closeAll(undo))...)
		}
	}()

	l, err := acquire(path, cmp.Or(opts.Holder, "mayfly"))
	if err != nil {
		return nil, err
	}
	undo = append(undo, l.release)

	synchronous := "FULL"
	if opts.Fast {
		synchronous = "OFF"
	}
	writes, err := sql.Open("sqlite", dsn(path, "_journal_mode=WAL", "_busy_timeout=10000", "_synchronous="+synchronous))
	if err != nil {
		return nil, err
	}
	undo = append(undo, writes.Close)
	writes.SetMaxOpenConns(1)
	conn, err := writes.Conn(ctx)
	if err != nil {
		return nil, explain(err)
	}
	undo = append(undo, conn.Close)
	if err := migrate(ctx, conn); err != nil {
		return nil, explain(err)
	}
	if _, err := conn.ExecContext(ctx, `INSERT INTO lease (id, holder, since) VALUES (1, ?, ?)
		ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, since = excluded.since`, l.holder, nanos(time.Now())); err != nil {
		return nil, explain(err)
	}

	reads, err := sql.Open("sqlite", dsn(path, "_query_only=true", "_busy_timeout=10000"))
	if err != nil {
		return nil, err
	}
	undo = append(undo, reads.Close)
	reads.SetMaxOpenConns(4)
	reads.SetMaxIdleConns(4)

	one, err := prepare(ctx, reads)
	if err != nil {
		return nil, explain(err)
	}

	s := &Store{
		reads: reads, hear: opts.Hear, one: one,
		queue:   make(chan *write, maxBatch),
		closing: make(chan struct{}),
		ended:   make(chan struct{}),
	}
	s.close = sync.OnceValue(func() error {
		close(s.closing)
		<-s.ended
		return closeAll(undo)
	})
	go s.writer(conn)
	return s, nil
}

// Close waits for the writes that were begun, refuses later ones, and gives the database free. Again: says the same.
func (s *Store) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

func closeAll(undo []func() error) error {
	var errs []error
	for i := len(undo) - 1; i >= 0; i-- {
		errs = append(errs, undo[i]())
	}
	return errors.Join(errs...)
}

func dsn(path string, options ...string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	for i, o := range options {
		if i > 0 {
			u.RawQuery += "&"
		}
		u.RawQuery += o
	}
	return u.String()
}

// prepareFile makes the file readable by us alone, before SQLite gives its mode to the files beside it.
func prepareFile(path string) error {
	dir := filepath.Dir(path)
	switch d, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return misconfigured("the folder %s does not exist: make it with `install -d -m 0700 -o <user of mayfly> %s`", dir, dir)
	case err != nil:
		return explain(err)
	case !d.IsDir():
		return misconfigured("%s is not a folder: choose another store.path", dir)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return explain(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return misconfigured("%s is not a regular file: choose another store.path", path)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return f.Chmod(0o600)
}

// nanos is t as it is stored: UTC nanoseconds since 1970, 0 for none. What does not fit is
// brought to the nearest that does.
func nanos(t time.Time) int64 {
	const first, last = -1 << 63, 1<<63 - 1
	switch {
	case t.IsZero():
		return 0
	case t.Before(time.Unix(0, first)):
		return first
	case t.After(time.Unix(0, last)):
		return last
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
