package guest_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/sim/guest"
)

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := guest.Pipe()
		big := []byte(strings.Repeat("x", 1<<20))
		var got int
		var reading sync.WaitGroup
		reading.Go(func() {
			p := make([]byte, 10_000)
			for {
				n, err := b.Read(p)
				got += n
				if err != nil {
					return
				}
			}
		})
		if n, err := a.Write(big); n != len(big) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = a.Close()
		reading.Wait()
		if got != len(big) {
			t.Errorf("read %d bytes of %d", got, len(big))
		}
		if _, err := b.Write([]byte("x")); err == nil {
			t.Error("wrote to a closed pipe")
		}

		a, b = guest.Pipe()
		_ = a.SetReadDeadline(time.Now().Add(time.Second))
		began := time.Now()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(began))
		}
		_ = a.SetDeadline(time.Now().Add(time.Second))
		if n, err := a.Write(big); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("write: %d, %v", n, err)
		}
		_ = a.SetDeadline(time.Time{})
		time.AfterFunc(time.Second, func() { _ = a.Close() })
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed end: %v", err)
		}
		if n, err := b.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("what was written before the close: %d, %v", n, err)
		}
	})
}
