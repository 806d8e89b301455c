package proxmox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

const (
	// pveproxy gives a hop behind it 30 s before it answers 596: we outwait that.
	requestTimeout = 35 * time.Second
	// A guest-agent call waits its turn for one of three workers as well.
	agentTimeout = 40 * time.Second
	maxBody      = 16 << 20
)

// A request is one call of the API.
type request struct {
	call    call
	method  string
	path    string // below /api2/json, escaped
	subject string // the VMID in path, "" none
	params  url.Values
	// admitted: it has waited for its turn at the rate limit already.
	admitted bool
}

// do sends r and decodes the answer's data into out, unless that is nil. sent is when the last
// byte had been written, zero if it perhaps never was. Errors are failures.
func (c *Client) do(ctx context.Context, r request, out any) (sent time.Time, err error) {
	if !r.admitted {
		if err := c.rate.Wait(ctx); err != nil {
			return time.Time{}, &failure{call: r.call.name, cause: unreachable, err: cmpErr(ctx.Err(), err)}
		}
	}
	began := time.Now()
	sent, status, err := c.send(ctx, r, out)
	took := time.Since(began)
	outcome := "ok"
	switch {
	case err == nil:
	case ctx.Err() != nil:
		outcome = "canceled"
	default:
		outcome = fleet.Class(err)
	}
	if c.cfg.Observe != nil {
		c.cfg.Observe(r.call.name, outcome, took)
	}
	c.log.DebugContext(ctx, "proxmox", "call", r.call.name, "method", r.method, "path", r.path, "status", status, "outcome", outcome, "took", took)
	return sent, err
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// send tries the endpoints, the one that worked last first, until one takes the connection.
func (c *Client) send(ctx context.Context, r request, out any) (sent time.Time, status int, err error) {
	limit := requestTimeout
	if r.call.agent {
		limit = agentTimeout
	}
	n := int64(len(c.cfg.Endpoints))
	first := c.preferred.Load()
	for i := range n {
		at := (first + i) % n
		var reached bool
		sent, status, reached, err = c.sendTo(ctx, c.cfg.Endpoints[at], limit, r, out)
		if reached {
			if i > 0 {
				c.preferred.CompareAndSwap(first, at)
			}
			return sent, status, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return sent, status, err
}

// sendTo sends r to one endpoint. reached is false when no connection was made, so that
// nothing can have been done there.
func (c *Client) sendTo(ctx context.Context, endpoint string, limit time.Duration, r request, out any) (sent time.Time, status int, reached bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var w wire
	req, err := c.build(httptrace.WithClientTrace(ctx, w.trace()), endpoint, r)
	if err != nil {
		return time.Time{}, 0, false, &failure{call: r.call.name, cause: badRequest, class: fleet.ErrConfig, err: err}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		connected, sent := w.state()
		return sent, 0, connected, broken(r.call, connected, err)
	}
	defer resp.Body.Close()
	_, sent = w.state()
	if sent.IsZero() {
		sent = time.Now()
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return sent, resp.StatusCode, true, broken(r.call, true, err)
	}
	if len(body) > maxBody {
		return sent, resp.StatusCode, true, broken(r.call, true, fmt.Errorf("an answer of more than %d MiB", maxBody>>20))
	}
	if resp.StatusCode != http.StatusOK {
		reason := strings.TrimPrefix(resp.Status, fmt.Sprint(resp.StatusCode))
		message, fields := errorText(reason, body)
		why, class := classify(r.call, r.subject, resp.StatusCode, message, fields)
		return sent, resp.StatusCode, true, &failure{call: r.call.name, status: resp.StatusCode, text: message, fields: fields, cause: why, class: class}
	}
	if err := decode(body, out); err != nil {
		return sent, resp.StatusCode, true, broken(r.call, true, err)
	}
	return sent, resp.StatusCode, true, nil
}

// build makes the HTTP request. Proxmox takes parameters of GET and DELETE only in the query
// (501 for a body), a body only with a known length (501 for chunks), and reads a form alike in
// all versions, other than JSON.
func (c *Client) build(ctx context.Context, endpoint string, r request) (*http.Request, error) {
	target := endpoint + "/api2/json" + r.path
	form := r.params.Encode()
	var body io.Reader
	if r.method == http.MethodPost || r.method == http.MethodPut {
		body = strings.NewReader(form)
	} else if form != "" {
		target += "?" + form
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Authorization", c.auth)
	return req, nil
}

// decode reads {"data": …}.
func decode(body []byte, out any) error {
	var envelope struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &envelope); err != nil {
		return fmt.Errorf("an answer that is not JSON: %w", err)
	}
	if out == nil {
		return nil
	}
	if len(envelope.Data) == 0 || bytes.Equal(envelope.Data, []byte("null")) {
		return errors.New("an answer without data")
	}
	if err := json.Unmarshal(envelope.Data, out); err != nil {
		return fmt.Errorf("an answer of another shape: %w", err)
	}
	return nil
}

// broken is a request without a whole answer.
func broken(c call, connected bool, err error) *failure {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the address says nothing here
	}
	f := &failure{call: c.name, cause: lost, err: err}
	if !connected {
		f.cause = unreachable
		if isTLS(err) {
			f.cause = badTLS
		}
	}
	f.class = classOf(c, f.cause)
	return f
}

// wire notes how far a request got. The transport tells from goroutines of its own.
type wire struct {
	mu        sync.Mutex
	connected bool
	sent      time.Time
}

func (w *wire) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.connected = true
		},
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			now := time.Now()
			w.mu.Lock()
			defer w.mu.Unlock()
			if i.Err == nil {
				w.sent = now
			}
		},
	}
}

func (w *wire) state() (connected bool, sent time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.connected, w.sent
}

func vmPath(node string, vmid int, rest string) string {
	return fmt.Sprintf("/nodes/%s/qemu/%d%s", url.PathEscape(node), vmid, rest)
}
