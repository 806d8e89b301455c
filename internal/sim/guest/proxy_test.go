package guest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	client "mayfly/internal/guest"
	"mayfly/internal/sim/guest"
)

// memory is a listener of Pipes.
type memory struct {
	conns chan net.Conn
	over  chan struct{}
	end   func()
}

func newMemory() memory {
	over := make(chan struct{})
	return memory{make(chan net.Conn), over, sync.OnceFunc(func() { close(over) })}
}

func (m memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.over:
		return nil, net.ErrClosed
	}
}
func (m memory) Close() error   { m.end(); return nil }
func (m memory) Addr() net.Addr { return &net.TCPAddr{} }

func TestThroughTheProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := newMemory()
		b := newBench(t, guest.Config{}, func(c *client.Config) {
			c.Via = "http://proxy.test:3128"
			c.Dial = func(_ context.Context, _, addr string) (net.Conn, error) {
				if addr != "proxy.test:3128" {
					return nil, fmt.Errorf("dialled %s", addr)
				}
				here, there := guest.Pipe()
				listener.conns <- there
				return here, nil
			}
		})
		server := &http.Server{Handler: b.farm.Proxy()}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(listener) })
		defer serving.Wait()
		defer server.Close()

		if _, err := b.ssh.Status(t.Context(), fleet.Address{IP: "10.9.9.9", HostKey: someKey(t)}); err == nil || !strings.Contains(err.Error(), "502") {
			t.Errorf("a guest that is not there: %v", err)
		}
		var g *guest.Guest
		g = b.farm.Boot(101, "vm", mac, func() { g.Off() })
		a := b.find(g, mac)
		b.ready(a)
		if _, err := b.ssh.Start(t.Context(), a, order("r")); err != nil {
			t.Fatal(err)
		}
		if got, err := b.ssh.Status(t.Context(), a); err != nil || got.Phase != fleet.GuestListening {
			t.Errorf("it says %+v, %v", got, err)
		}
		listener.conns <- func() net.Conn { // a client that goes away in mid-word
			here, there := guest.Pipe()
			_, _ = here.Write([]byte("CONNECT 10.0.0.102:22 HTTP/1.1\r\nHost: x\r\n\r\nSSH-2."))
			time.AfterFunc(time.Second, func() { _ = here.Close() })
			return there
		}()
		time.Sleep(2 * time.Second)
	})
}

func someKey(t *testing.T) string {
	_, authorized := key(t, 3)
	return authorized
}
