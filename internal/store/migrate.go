package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
)

// Migration n is the n-th file here, by name. A file that was released is never changed.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id): "mayf".
const applicationID = 0x6d617966

// migrate brings the database to the newest schema, each step in a transaction of its own.
func migrate(ctx context.Context, conn *sql.Conn) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version, application, tables int
	if err := conn.QueryRowContext(ctx, `SELECT (SELECT user_version FROM pragma_user_version),
		(SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)`).
		Scan(&version, &application, &tables); err != nil {
		return err
	}
	switch {
	case application != applicationID && tables > 0:
		return misconfigured("it is the database of another program: give store.path a file of its own")
	case version > len(files):
		return misconfigured("it was written by a newer Mayfly (schema %d, this one knows %d): run that one, or give store.path a new file",
			version, len(files))
	}
	for n := version + 1; n <= len(files); n++ {
		text, err := fs.ReadFile(migrations, files[n-1])
		if err != nil {
			return err
		}
		script := fmt.Sprintf("BEGIN IMMEDIATE;\n%s\nPRAGMA application_id = %d;\nPRAGMA user_version = %d;\nCOMMIT;", text, applicationID, n)
		if _, err := conn.ExecContext(ctx, script); err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK")
			return fmt.Errorf("migration %s: %w", files[n-1], err)
		}
	}
	return nil
}
