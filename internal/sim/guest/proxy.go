package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// Proxy is an HTTP proxy that knows CONNECT only and leads to the guests, for a simulator in a process of its own.
// Its tunnels end with the guests.
func (f *Farm) Proxy() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			return
		}
		guest, err := f.Dial(r.Context(), "tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer guest.Close()
		control := http.NewResponseController(w)
		client, buffered, err := control.Hijack()
		if errors.Is(err, http.ErrNotSupported) {
			http.Error(w, "only HTTP/1.1", http.StatusHTTPVersionNotSupported)
			return
		} else if err != nil {
			return
		}
		defer client.Close()
		if _, err := fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			return
		}
		join(guest, client, buffered)
	})
}

// join copies both ways until either side ends.
func join(guest, client net.Conn, fromClient io.Reader) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(guest, fromClient)
		_ = guest.Close()
	})
	_, _ = io.Copy(client, guest)
	_ = client.Close()
	_ = guest.Close()
	both.Wait()
}
