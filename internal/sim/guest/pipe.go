package guest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeRoom is how much one direction of a Pipe takes before a write waits: more than SSH's largest packet,
// since both of its ends speak before they listen.
const pipeRoom = 256 << 10

// Pipe is net.Pipe with buffers: an in-memory connection whose two ends may both write first, as SSH's do.
// What was written before a Close can still be read.
func Pipe() (net.Conn, net.Conn) {
	a, b := newHalf(), newHalf()
	return &pipeEnd{a, b}, &pipeEnd{b, a}
}

// half is one direction.
type half struct {
	mu      sync.Mutex
	changed *sync.Cond
	buffer  bytes.Buffer
	ended   bool // nothing more is written
	broken  bool // nobody reads
	read    expiry
	write   expiry
}

// expiry is a deadline of one side of a half.
type expiry struct {
	at    time.Time
	timer *time.Timer
}

func newHalf() *half {
	h := new(half)
	h.changed = sync.NewCond(&h.mu)
	return h
}

func (h *half) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.broken:
			return 0, net.ErrClosed
		case h.read.over():
			return 0, os.ErrDeadlineExceeded
		case h.buffer.Len() > 0 || len(p) == 0:
			h.changed.Broadcast()
			return h.buffer.Read(p)
		case h.ended:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) Write(p []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended, h.broken:
			return written, io.ErrClosedPipe
		case h.write.over():
			return written, os.ErrDeadlineExceeded
		}
		n := min(len(p), pipeRoom-h.buffer.Len())
		if n > 0 {
			h.buffer.Write(p[:n])
			h.changed.Broadcast()
			written, p = written+n, p[n:]
		}
		if len(p) == 0 {
			return written, nil
		}
		h.changed.Wait()
	}
}

// end closes the writer's side, or the reader's.
func (h *half) end(reader bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if reader {
		h.broken = true
		h.read.set(time.Time{}, nil)
	} else {
		h.ended = true
		h.write.set(time.Time{}, nil)
	}
	h.changed.Broadcast()
}

func (h *half) expire(e *expiry, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.set(at, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.changed.Broadcast()
	})
	h.changed.Broadcast()
}

func (e *expiry) set(at time.Time, then func()) {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
	e.at = at
	if !at.IsZero() {
		e.timer = time.AfterFunc(time.Until(at), then)
	}
}

func (e *expiry) over() bool { return !e.at.IsZero() && !time.Now().Before(e.at) }

type pipeEnd struct{ in, out *half }

func (c *pipeEnd) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *pipeEnd) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c *pipeEnd) Close() error {
	c.out.end(false)
	c.in.end(true)
	return nil
}

func (c *pipeEnd) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *pipeEnd) SetReadDeadline(t time.Time) error {
	c.in.expire(&c.in.read, t)
	return nil
}

func (c *pipeEnd) SetWriteDeadline(t time.Time) error {
	c.out.expire(&c.out.write, t)
	return nil
}

func (c *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (c *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "memory" }
func (pipeAddr) String() string  { return "memory" }
