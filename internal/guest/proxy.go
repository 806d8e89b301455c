package guest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
)

// viaProxy makes connections through the HTTP proxy at host:port, by CONNECT (RFC 9110 §9.3.6).
func viaProxy(dial func(ctx context.Context, network, addr string) (net.Conn, error), proxy string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, proxy)
		if err != nil {
			return nil, fmt.Errorf("proxy %s: %w", proxy, err)
		}
		release := closeOn(ctx, conn)
		tunnel, err := connectThrough(conn, addr)
		release()
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("proxy %s: %w", proxy, err)
		}
		return tunnel, nil
	}
}

func connectThrough(conn net.Conn, addr string) (net.Conn, error) {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr); err != nil {
		return nil, err
	}
	bounded := &io.LimitedReader{R: conn, N: 16 << 10} // the answer's head; afterwards everything is the guest's
	buffered := bufio.NewReader(bounded)
	answer, err := http.ReadResponse(buffered, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, err
	}
	// Its body stays untouched: what follows the head is the tunnel, whatever Content-Length says.
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answers %d to CONNECT %s", answer.StatusCode, addr)
	}
	bounded.N = math.MaxInt64
	return tunnel{conn, buffered}, nil
}

// tunnel is a connection whose first bytes may have come with the proxy's answer: SSH servers speak first.
type tunnel struct {
	net.Conn
	buffered *bufio.Reader
}

func (t tunnel) Read(p []byte) (int, error) { return t.buffered.Read(p) }
