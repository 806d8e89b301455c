package github

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A Fault is something going wrong with some requests. Of several that match, the one
// injected first is done.
type Fault struct {
	Match string  // "METHOD /path", * for any run of characters; "" is every request. Without /api/v3.
	Rate  float64 // the chance of each request that matches; 0 means always
	Count int     // how many requests it hits; 0 means no end
	Do    Effect
}

// An Effect is what happens to a request.
type Effect struct {
	kind   effect
	code   int
	text   string
	header map[string]string
	wait   time.Duration
}

type effect int

const (
	answerStatus effect = iota + 1
	dropBefore
	dropAfter
	answerEmpty
	shorten
	delay
	failAfter
)

// Status answers with the code and message given, and does nothing.
func Status(code int, text string) Effect { return Effect{kind: answerStatus, code: code, text: text} }

// StatusAfter does what was asked for, and answers with the code and message given.
func StatusAfter(code int, text string) Effect {
	return Effect{kind: failAfter, code: code, text: text}
}

// Limited is the secondary rate limit: 403 with retry-after, in whole seconds; 0 sends no such header.
func Limited(retryAfter time.Duration) Effect {
	e := Effect{kind: answerStatus, code: http.StatusForbidden, text: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
	if retryAfter > 0 {
		e.header = map[string]string{"Retry-After": strconv.Itoa(int(math.Ceil(retryAfter.Seconds())))}
	}
	return e
}

// DropBefore breaks the connection, and does nothing.
func DropBefore() Effect { return Effect{kind: dropBefore} }

// DropAfter does what was asked for, and breaks the connection before the answer.
func DropAfter() Effect { return Effect{kind: dropAfter} }

// Empty answers 200 with an empty list, and does nothing.
func Empty() Effect { return Effect{kind: answerEmpty} }

// Short answers a list without its last row, though total_count still counts it.
func Short() Effect { return Effect{kind: shorten} }

// NotFound is 404, as GitHub says for what is gone and for what one may not see.
func NotFound() Effect { return Status(http.StatusNotFound, "Not Found") }

// Delay answers rightly, after d.
func Delay(d time.Duration) Effect { return Effect{kind: delay, wait: d} }

type armed struct {
	Fault
	left int
}

// Inject arms a fault; the returned function takes it back.
func (g *GitHub) Inject(f Fault) (withdraw func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := &armed{Fault: f, left: f.Count}
	if a.left == 0 {
		a.left = -1
	}
	g.faults = append(g.faults, a)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		a.left = 0
	}
}

// fault tells what happens to the request.
func (g *GitHub) fault(r *http.Request) Effect {
	request := r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/v3")
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.faults {
		if a.left == 0 || !glob(a.Match, request) || (a.Rate > 0 && g.rng.Float64() >= a.Rate) {
			continue
		}
		if a.left > 0 {
			a.left--
		}
		g.requests["faults"]++
		return a.Do
	}
	return Effect{}
}

// glob matches * in pattern with any run of characters; an empty pattern matches all.
func glob(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	if len(parts) == 1 {
		return s == ""
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[len(parts)-1])
}

// withFaults serves the request, or lets go wrong what is to go wrong.
func (g *GitHub) withFaults(w http.ResponseWriter, r *http.Request, api http.Handler) {
	e := g.fault(r)
	switch e.kind {
	case answerStatus:
		a := refuse(e.code, "%s", e.text)
		a.header = e.header
		for k, v := range e.header {
			w.Header().Set(k, v)
		}
		a.write(w, r)
	case dropBefore:
		panic(http.ErrAbortHandler) // net/http's way to break a connection
	case dropAfter:
		api.ServeHTTP(&kept{header: http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case failAfter:
		api.ServeHTTP(&kept{header: http.Header{}}, r)
		refuse(e.code, "%s", e.text).write(w, r)
	case answerEmpty:
		answer{status: http.StatusOK, body: map[string]any{"total_count": 0, "runners": []any{}}}.write(w, r)
	case shorten:
		k := &kept{header: http.Header{}}
		api.ServeHTTP(k, r)
		k.shorten()
		k.replay(w)
	case delay:
		t := time.NewTimer(g.scaled(e.wait))
		defer t.Stop()
		select {
		case <-t.C:
			api.ServeHTTP(w, r)
		case <-r.Context().Done():
		case <-g.quit:
		}
	default:
		api.ServeHTTP(w, r)
	}
}

// kept is an answer that is not sent yet, or never.
type kept struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header         { return k.header }
func (k *kept) WriteHeader(code int)        { k.code = code }
func (k *kept) Write(b []byte) (int, error) { return k.body.Write(b) }

func (k *kept) shorten() {
	var list struct {
		Total   int               `json:"total_count"`
		Runners []json.RawMessage `json:"runners"`
	}
	if err := json.Unmarshal(k.body.Bytes(), &list); err != nil || len(list.Runners) == 0 {
		return
	}
	list.Runners = list.Runners[:len(list.Runners)-1]
	b, err := json.Marshal(list)
	if err != nil {
		return
	}
	k.body.Reset()
	k.body.Write(b)
}

func (k *kept) replay(w http.ResponseWriter) {
	for name, values := range k.header {
		w.Header()[name] = values
	}
	w.WriteHeader(max(k.code, http.StatusOK))
	_, _ = w.Write(k.body.Bytes()) // the client went away: nothing to do about it
}
