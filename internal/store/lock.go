package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// A lock keeps a second Store off the database. The operating system holds it, so it ends with the
// process, however that ends. The file stays: to remove it would let two hold a lock of the same name.
type lock struct {
	holder string
	free   func() error
}

var errLocked = errors.New("locked")

// acquire takes the lock of the database at path and writes beside it who holds it.
func acquire(path, who string) (*lock, error) {
	file := path + ".lock"
	free, err := lockFile(file)
	if errors.Is(err, errLocked) {
		return nil, refused{fleet.ErrBusy, fmt.Sprintf("it is in use by %s: stop that one, or give this one a store.path of its own", holderOf(file))}
	}
	if err != nil {
		return nil, explain(err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	l := &lock{
		holder: fmt.Sprintf("%s (pid %d on %s) since %s", who, os.Getpid(), host, time.Now().UTC().Format(time.RFC3339)),
		free:   free,
	}
	if err := os.WriteFile(file, []byte(l.holder+"\n"), 0o600); err != nil {
		return nil, errors.Join(explain(err), free())
	}
	return l, nil
}

func (l *lock) release() error { return l.free() }

// holderOf reads who holds the lock; it may just be taken and not yet signed.
func holderOf(file string) string {
	text, err := os.ReadFile(file)
	if len(text) > 500 {
		text = text[:500]
	}
	if holder, _, _ := strings.Cut(string(text), "\n"); err == nil && holder != "" {
		return holder
	}
	return "another process"
}
