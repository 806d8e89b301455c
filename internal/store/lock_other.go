//go:build !unix

package store

import (
	"database/sql"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// lockFile keeps a transaction open on an empty database of its own: SQLite knows how files are locked
// on every system, and such a lock ends with its process.
func lockFile(file string) (free func() error, err error) {
	db, err := sql.Open("sqlite", dsn(file+"db", "_busy_timeout=0"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		db.Close()
		var e *sqlite.Error
		if errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY {
			return nil, errLocked
		}
		return nil, err
	}
	return db.Close, nil
}
