package github

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

const (
	apiVersion = "2022-11-28"
	// maxAnswer bounds an answer; a page of 100 runners is about 100 KB.
	maxAnswer = 8 << 20
	// maxMessage bounds what of GitHub's words goes into our errors.
	maxMessage = 300
)

// A request is one call of the API.
type request struct {
	call   string // its name for metrics
	method string
	path   string // below the API's base
	query  url.Values
	url    string // instead of path and query: a Link's next
	body   any
}

// A reply is an answer that came whole.
type reply struct {
	status int
	header http.Header
	body   []byte
	sent   time.Time // when the request had been written
}

// errUnsent: the request never left; nothing was done.
var errUnsent = errors.New("not sent")

// do sends the request once GitHub's limit and our own bound allow it, and again after a
// limit: GitHub has then done nothing. Any other answer, good or bad, is a reply. An error
// that is errUnsent says that nothing was done; after another one it is not known.
func (c *Client) do(ctx context.Context, q request) (reply, error) {
	for {
		if err := c.gate.pass(ctx); err != nil {
			return reply{}, fmt.Errorf("%w: %w", errUnsent, err)
		}
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return reply{}, fmt.Errorf("%w: %w", errUnsent, ctx.Err())
		}
		start := time.Now()
		a, err := c.once(ctx, q)
		<-c.slots
		took := time.Since(start)
		if err != nil {
			c.observe(q.call, "error", took)
			c.log.LogAttrs(ctx, slog.LevelDebug, "github request failed", slog.String("call", q.call), slog.Duration("took", took))
			return reply{}, err
		}
		c.budget.note(a.header)
		told, limited := limitOf(a.status, a.header, a.message())
		if !limited {
			c.gate.passed(start)
			c.observe(q.call, strconv.Itoa(a.status), took)
			c.log.LogAttrs(ctx, slog.LevelDebug, "github request", slog.String("call", q.call), slog.String("method", q.method),
				slog.Int("status", a.status), slog.Duration("took", took))
			return a, nil
		}
		c.observe(q.call, "limited", took)
		until := c.gate.limited(start, told)
		c.log.LogAttrs(ctx, slog.LevelWarn, "github rate limit", slog.String("call", q.call), slog.Int("status", a.status), slog.Time("until", until))
	}
}

func (c *Client) once(ctx context.Context, q request) (reply, error) {
	token, err := c.token(ctx)
	if err != nil {
		return reply{}, fmt.Errorf("%w: get a token: %w", errUnsent, err)
	}
	target := q.url
	if target == "" {
		u := *c.scope.api
		u.Path += q.path
		u.RawQuery = q.query.Encode()
		target = u.String()
	}
	var body io.Reader
	if q.body != nil {
		b, err := json.Marshal(q.body)
		if err != nil {
			return reply{}, fmt.Errorf("%w: encode: %w", errUnsent, err)
		}
		body = bytes.NewReader(b)
	}
	var w written
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, w.trace()), q.method, target, body)
	if err != nil {
		return reply{}, fmt.Errorf("%w: %w", errUnsent, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", apiVersion)
	req.Header.Set("User-Agent", "mayfly")
	req.Header.Set("Authorization", "Bearer "+token.Reveal())

	answer, err := c.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the address says nothing here
		}
		if _, began := w.at(); !began {
			return reply{}, fmt.Errorf("%w: %w", errUnsent, err)
		}
		return reply{}, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return reply{}, fmt.Errorf("read the answer %d: %w", answer.StatusCode, err)
	}
	if len(b) > maxAnswer {
		return reply{}, fmt.Errorf("read the answer %d: longer than %d bytes", answer.StatusCode, maxAnswer)
	}
	sent, _ := w.at()
	if sent.IsZero() { // answered before all of it was written
		sent = time.Now()
	}
	return reply{status: answer.StatusCode, header: answer.Header, body: b, sent: sent}, nil
}

// written notes when a request was written. net/http tells it from another goroutine.
type written struct {
	mu    sync.Mutex
	began bool
	done  time.Time
}

func (w *written) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		WroteHeaders: func() { w.note(time.Time{}) },
		WroteRequest: func(httptrace.WroteRequestInfo) { w.note(time.Now()) },
	}
}

func (w *written) note(done time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.done = true, done
}

// at is when the request had been written, and whether any of it may have been.
func (w *written) at() (done time.Time, began bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done, w.began
}

// message is GitHub's own word on what is wrong, for people, bounded and on one line.
func (a reply) message() string {
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(a.body, &m) != nil {
		return ""
	}
	return bounded(strings.Join(strings.Fields(m.Message), " "), maxMessage)
}

// refusal is the error for an answer that no runner call of ours expects.
func (c *Client) refusal(a reply) error { return refusal(a, c.scope.page, c.scope.needs) }

// refusal is the error for an answer about what that its call does not expect: a token
// that is not taken or a permission that is missing stays so until a person acts; what the
// server could not do may go better later.
func refusal(a reply, what, needs string) error {
	said := fmt.Sprintf("GitHub answered %d %q", a.status, a.message())
	switch {
	case a.status == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s: the token is wrong, expired or revoked", fleet.ErrConfig, said)
	case a.status == http.StatusForbidden, a.status == http.StatusNotFound:
		if accepted := a.header.Get("X-Accepted-GitHub-Permissions"); accepted != "" {
			needs += "; GitHub wants " + bounded(accepted, maxMessage)
		}
		return fmt.Errorf("%w: %s: %s does not exist, or the token may not do this there (%s)", fleet.ErrConfig, said, what, needs)
	case a.status >= 300 && a.status < 400:
		return fmt.Errorf("%w: %s: it points elsewhere; was %s renamed?", fleet.ErrConfig, said, what)
	}
	return errors.New(said)
}
