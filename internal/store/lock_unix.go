//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes an flock: it belongs to the open file, so it also keeps out this same process,
// and the kernel drops it when the process is gone.
func lockFile(file string) (free func() error, err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, &os.PathError{Op: "flock", Path: file, Err: err}
	}
	return f.Close, nil
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != syscall.EINTR {
			return err
		}
	}
}
