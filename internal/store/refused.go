package store

import (
	"errors"
	"fmt"
	"io/fs"

	"mayfly/internal/fleet"
)

// A refused error is one sentence for a person, with what mends it; its class is for the program only.
type refused struct {
	class error
	text  string
}

func (r refused) Error() string { return r.text }
func (r refused) Unwrap() error { return r.class }

func misconfigured(format string, args ...any) error {
	return refused{fleet.ErrConfig, fmt.Sprintf(format, args...)}
}

// explain adds the mend to the errors that a person can mend.
func explain(err error) error {
	var path *fs.PathError
	switch {
	case errors.As(err, &path) && errors.Is(err, fs.ErrPermission):
		return misconfigured("%s may not be written by this user: give it to them with chown, or choose another store.path", path.Path)
	case errors.As(err, &path):
		return misconfigured("%v: choose another store.path", err)
	case isCorrupt(err):
		return misconfigured("it is damaged or no database (%v): move it away (a new one loses no VM), or choose another store.path", err)
	}
	return err
}
