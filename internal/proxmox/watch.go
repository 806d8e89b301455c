package proxmox

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// So many tasks of one node are watched by one list for all of them, fewer one by one.
const (
	manyTasks = 2
	// The pause between two lists of a node grows by listShare with each task there, up to
	// maxListPause: many together cost no more than few, and wait a little longer.
	listShare    = 750 * time.Millisecond
	maxListPause = 3 * time.Second
)

// A sighting is what a list of a node's tasks told of one: its ending, or one of these two.
type sighting string

const (
	stillRuns sighting = "RUNNING"
	notListed sighting = "" // asked for alone then: it has just ended, or the list hides it
)

func (s sighting) end() (e ending, ended bool) {
	return ending(s), s != stillRuns && s != notListed
}

// A watched task belongs to the one goroutine that waits for it.
type watched struct {
	task taskID
	told chan sighting // holds the newest only
	solo bool          // the list did not show it while it ran
}

// watches are the tasks being waited for, by node.
type watches struct {
	mu      sync.Mutex
	nodes   map[string]map[*watched]struct{}
	listing map[string]bool
	listed  map[string]time.Time // when the last list of a node was begun
}

func (s *watches) add(t taskID) *watched {
	w := &watched{task: t, told: make(chan sighting, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes, s.listing, s.listed = map[string]map[*watched]struct{}{}, map[string]bool{}, map[string]time.Time{}
	}
	if s.nodes[t.node] == nil {
		s.nodes[t.node] = map[*watched]struct{}{}
	}
	s.nodes[t.node][w] = struct{}{}
	return w
}

func (s *watches) remove(w *watched) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nodes[w.task.node], w)
	if len(s.nodes[w.task.node]) == 0 {
		delete(s.nodes, w.task.node)
	}
}

// begin returns whom a list of the node would serve. lead: the caller makes the list and calls
// end; covered: somebody makes one, or will soon; neither: w is asked for alone.
func (s *watches) begin(w *watched, speed float64) (all []*watched, lead, covered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	node := w.task.node
	if w.solo || len(s.nodes[node]) < manyTasks {
		return nil, false, false
	}
	every := min(time.Duration(len(s.nodes[node]))*listShare, maxListPause)
	if s.listing[node] || time.Since(s.listed[node]) < time.Duration(float64(every)/speed) {
		return nil, false, true
	}
	s.listing[node], s.listed[node] = true, time.Now()
	for other := range s.nodes[node] {
		all = append(all, other)
	}
	return all, true, false
}

func (s *watches) end(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listing, node)
}

// tell replaces what was told before and not yet heard.
func (w *watched) tell(s sighting) {
	for {
		select {
		case w.told <- s:
			return
		default:
		}
		select {
		case <-w.told:
		default:
		}
	}
}

// listed has w's node listed for all that wait there, and tells each what it saw; false when w
// is to be asked for alone: few wait, the list failed, or it does not show w.
func (c *Client) listed(ctx context.Context, w *watched) bool {
	all, lead, covered := c.watches.begin(w, c.cfg.Speed)
	if !lead {
		return covered
	}
	defer c.watches.end(w.task.node)
	oldest := w.task.started
	for _, o := range all {
		if o.task.started.Before(oldest) {
			oldest = o.task.started
		}
	}
	rows, err := c.taskRows(ctx, w.task.node, url.Values{
		"source": {"all"},
		"since":  {strconv.FormatInt(max(oldest.Add(-time.Second).Unix(), 0), 10)},
		"limit":  {"1000"},
	})
	if err != nil {
		return false
	}
	seen := make(map[string]sighting, len(rows))
	for _, r := range rows {
		s := sighting(r.Status)
		if s == "" {
			s = stillRuns
		}
		seen[string(r.UPID)] = s
	}
	for _, o := range all {
		o.tell(seen[o.task.raw])
	}
	return true
}
