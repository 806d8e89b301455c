package github

import (
	"bytes"
	"container/heap"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"time"
)

const (
	deliveryTimeout = 10 * time.Second // GitHub records a slower answer as failed, and never tries again
	deliveriesKept  = 20000
	hookID          = 292430182
)

// A Delivery is a webhook delivery as GitHub's log of them shows it.
type Delivery struct {
	ID         int64
	GUID       string // the same for a redelivery
	Event      string
	Action     string
	Job        int64
	At         time.Time // when it was sent
	Took       time.Duration
	Code       int    // 0: no answer, or not sent yet
	Err        string // why there was no answer
	Redelivery bool
	Lost       bool // never sent, as told by Config.Lose
}

// A sending is a delivery on its way. Guarded by GitHub.mu, but for body, which never changes.
type sending struct {
	Delivery
	due      time.Time
	sequence int64
	body     []byte
}

// A lane sends its deliveries one after the other.
type lane struct {
	wake chan struct{}
	due  sendings // guarded by GitHub.mu
}

// sendings is a heap by due time, then by order.
type sendings []*sending

func (s sendings) Len() int { return len(s) }
func (s sendings) Less(i, j int) bool {
	if !s[i].due.Equal(s[j].due) {
		return s[i].due.Before(s[j].due)
	}
	return s[i].sequence < s[j].sequence
}
func (s sendings) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sendings) Push(x any)   { *s = append(*s, x.(*sending)) }
func (s *sendings) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// announce sends the webhook of what just happened to j, with what the seed does to it.
func (g *GitHub) announce(j *job, action string) {
	g.announceAs(j, action, g.viewJob(j))
}

// CheckRun sends what GitHub sends when somebody else's check ends in a run: a completed
// workflow_job without labels and runner, of an id that was never queued. It returns the id.
func (g *GitHub) CheckRun(repo, name string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkRuns++
	now := time.Now().UTC()
	j := &job{id: firstJob - g.checkRuns, run: firstRun, spec: JobSpec{Repo: repo, Name: name}, status: "completed", conclusion: "success", created: now, started: now, completed: now}
	v := g.viewJob(j)
	v.RunnerID, v.RunnerName, v.RunnerGroupID, v.RunnerGroupName = nil, nil, nil, nil
	g.announceAs(j, "completed", v)
	return j.id
}

func (g *GitHub) announceAs(j *job, action string, v jobView) {
	if len(g.lanes) == 0 || g.closed {
		return
	}
	body, err := json.Marshal(g.payload(v, j.spec.Repo, action))
	if err != nil {
		return
	}
	now := time.Now()
	due := now.Add(g.scaled(g.cfg.WebhookDelay.pick(g.rng)))
	lose, double := g.chance(g.cfg.Lose, action), g.chance(g.cfg.Double, action)
	switch {
	case g.chance(g.cfg.Late, action):
		due = due.Add(g.scaled(g.cfg.LateBy.pick(g.rng)))
	case g.chance(g.cfg.Reorder, action):
		due = due.Add(g.scaled(Range{time.Second, 30 * time.Second}.pick(g.rng)))
	default:
		if due.Before(j.due) {
			due = j.due
		}
		j.due = due
	}
	s := &sending{Delivery: Delivery{GUID: g.guid(), Event: "workflow_job", Action: action, Job: j.id, Lost: lose}, due: due, body: body}
	g.post(s)
	if double && !lose {
		again := &sending{Delivery: s.Delivery, due: due.Add(g.scaled(Range{0, 10 * time.Second}.pick(g.rng))), body: body}
		again.Redelivery = true
		g.post(again)
	}
}

// Ping sends the delivery that GitHub makes when a hook is created.
func (g *GitHub) Ping() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.lanes) == 0 || g.closed {
		return
	}
	body, err := json.Marshal(map[string]any{
		"zen": "Keep it logically awesome.", "hook_id": hookID,
		"hook": map[string]any{"type": "Repository", "id": hookID, "name": "web", "active": true, "events": []string{"workflow_job"}},
	})
	if err != nil {
		return
	}
	g.post(&sending{Delivery: Delivery{GUID: g.guid(), Event: "ping"}, due: time.Now(), body: body})
}

// Redeliver sends every delivery of the GUID again, once, with the same GUID; it tells whether there is one.
func (g *GitHub) Redeliver(guid string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.log {
		if s.GUID != guid || g.closed || len(g.lanes) == 0 {
			continue
		}
		again := &sending{Delivery: Delivery{GUID: s.GUID, Event: s.Event, Action: s.Action, Job: s.Job, Redelivery: true}, due: time.Now(), body: s.body}
		g.post(again)
		return true
	}
	return false
}

// Deliveries is the log, oldest first, of at most the last 20,000.
func (g *GitHub) Deliveries() []Delivery {
	g.mu.Lock()
	defer g.mu.Unlock()
	log := make([]Delivery, len(g.log))
	for i, s := range g.log {
		log[i] = s.Delivery
	}
	return log
}

// post puts s into the log and into its job's lane.
func (g *GitHub) post(s *sending) {
	g.sequence++
	s.sequence, s.ID = g.sequence, g.sequence
	g.log = append(g.log, s)
	if len(g.log) > deliveriesKept {
		g.log = append([]*sending(nil), g.log[deliveriesKept/10:]...)
	}
	if s.Lost {
		return
	}
	l := g.lanes[s.Job%int64(len(g.lanes))]
	heap.Push(&l.due, s)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send is a lane's goroutine.
func (g *GitHub) send(l *lane) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	g.work.Go(func() { // a delivery under way ends with Close
		select {
		case <-g.quit:
			cancel()
		case <-ctx.Done():
		}
	})
	for ctx.Err() == nil {
		s, wait := g.nextDelivery(l)
		if s != nil {
			g.deliverOne(ctx, s)
			continue
		}
		var timer <-chan time.Time
		if wait > 0 {
			timer = time.After(wait)
		}
		select {
		case <-l.wake:
		case <-timer:
		case <-ctx.Done():
		}
	}
}

// nextDelivery takes the delivery that is due, or tells how long until one is; 0: there is none.
func (g *GitHub) nextDelivery(l *lane) (*sending, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(l.due) == 0 {
		return nil, 0
	}
	if wait := time.Until(l.due[0].due); wait > 0 {
		return nil, wait
	}
	return heap.Pop(&l.due).(*sending), 0
}

func (g *GitHub) deliverOne(ctx context.Context, s *sending) {
	ctx, cancel := context.WithTimeout(ctx, deliveryTimeout)
	defer cancel()
	start := time.Now()
	code, err := g.request(ctx, s)
	g.mu.Lock()
	defer g.mu.Unlock()
	s.At, s.Took, s.Code = start, time.Since(start), code
	if err != nil {
		s.Err = err.Error()
	}
}

func (g *GitHub) request(ctx context.Context, s *sending) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.cfg.WebhookURL, bytes.NewReader(s.body))
	if err != nil {
		return 0, fmt.Errorf("make delivery %s: %w", s.GUID, err)
	}
	target := "repository"
	if !isRepo(g.cfg.Scope) {
		target = "organization"
	}
	for name, value := range map[string]string{
		"Accept":                                 "*/*",
		"Content-Type":                           "application/json",
		"User-Agent":                             "GitHub-Hookshot/0000000",
		"X-GitHub-Delivery":                      s.GUID,
		"X-GitHub-Event":                         s.Event,
		"X-GitHub-Hook-ID":                       strconv.Itoa(hookID),
		"X-GitHub-Hook-Installation-Target-ID":   "79929171",
		"X-GitHub-Hook-Installation-Target-Type": target,
	} {
		req.Header.Set(name, value)
	}
	if g.cfg.WebhookSecret != "" {
		req.Header.Set("X-Hub-Signature-256", "sha256="+sign(sha256.New, g.cfg.WebhookSecret, s.body))
		req.Header.Set("X-Hub-Signature", "sha1="+sign(sha1.New, g.cfg.WebhookSecret, s.body))
	}
	answer, err := g.deliver(req)
	if err != nil {
		return 0, fmt.Errorf("deliver %s: %w", s.GUID, err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20)); err != nil {
		return answer.StatusCode, fmt.Errorf("read the answer to %s: %w", s.GUID, err)
	}
	return answer.StatusCode, nil
}

func sign(by func() hash.Hash, secret string, body []byte) string {
	mac := hmac.New(by, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

func (g *GitHub) guid() string {
	return fmt.Sprintf("%08x-%04x-11ef-%04x-%012x", g.rng.Uint32(), g.rng.Uint32N(1<<16), 0x8000|g.rng.Uint32N(1<<14), g.rng.Uint64N(1<<48))
}
