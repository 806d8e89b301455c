package web

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

//go:embed style.css
var styleText []byte

// Rows that the page shows of one table; the API has all.
const (
	pageRows   = 500
	pageEvents = 60
)

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"age":     func(s float64) string { return age(time.Duration(s * float64(time.Second))) },
	"clock":   func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"words":   func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"join":    strings.Join,
	"count":   count,
	"gib":     gib,
	"percent": percent,
	"share":   func(part, whole int) int64 { return percent(int64(part), int64(whole)) },
	"in":      func(now, then time.Time) string { return age(then.Sub(now)) },
	"phases":  func(c PhaseCounts) []phaseCount { return slices.DeleteFunc(c.list(), phaseCount.none) },
	"after":   func(then, now time.Time) bool { return then.After(now) },
}).Parse(pageText))

// pageData is what page.html shows: the status, cut to what fits on a page.
type pageData struct {
	Status
	Refresh     int // seconds; 0: it stays as it is
	Phases      []phaseCount
	Waiting     int // jobs that wait for a runner
	MoreRunners int
	MoreJobs    int
	Events      []EventView // the latest first
}

type phaseCount struct {
	Name string
	N    int
}

func (c phaseCount) none() bool { return c.N == 0 }

func (w *Web) page(rw http.ResponseWriter, r *http.Request) {
	now := time.Now()
	d := pageData{Status: w.status(now), Refresh: 3}
	if r.URL.Query().Get("refresh") == "0" {
		d.Refresh = 0
	}
	var all PhaseCounts
	for _, p := range d.Pools {
		all.merge(p.Phases)
	}
	d.Phases = all.list()
	for _, j := range d.Jobs {
		if j.Status == "queued" || j.Status == "waiting" {
			d.Waiting++
		}
	}
	d.MoreRunners = max(len(d.Runners)-pageRows, 0)
	d.Runners = d.Runners[:len(d.Runners)-d.MoreRunners]
	d.MoreJobs = max(len(d.Jobs)-pageRows, 0)
	d.Jobs = d.Jobs[:len(d.Jobs)-d.MoreJobs]
	events := w.events.all()
	d.Events = eventViews(events[max(len(events)-pageEvents, 0):])
	slices.Reverse(d.Events)

	// Rendered first, so that an error is not half a page.
	var page bytes.Buffer
	if err := pageTemplate.Execute(&page, d); err != nil {
		w.log.Error("rendering the page", "err", err)
		fail(rw, http.StatusInternalServerError, "the page could not be rendered; /api/v1/status has the same")
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = rw.Write(page.Bytes())
}

func style(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/css; charset=utf-8")
	_, _ = rw.Write(styleText)
}

func (c *PhaseCounts) merge(o PhaseCounts) {
	c.Preparing += o.Preparing
	c.Ready += o.Ready
	c.Joining += o.Joining
	c.Idle += o.Idle
	c.Busy += o.Busy
	c.Leaving += o.Leaving
}

// list is the counts in the order of a runner's life.
func (c PhaseCounts) list() []phaseCount {
	return []phaseCount{
		{"preparing", c.Preparing},
		{"ready", c.Ready},
		{"joining", c.Joining},
		{"idle", c.Idle},
		{"busy", c.Busy},
		{"leaving", c.Leaving},
	}
}

func gib(b int64) string {
	switch g := float64(b) / (1 << 30); {
	case b == 0:
		return "0"
	case g < 10:
		return fmt.Sprintf("%.1f GiB", g)
	default:
		return fmt.Sprintf("%.0f GiB", g)
	}
}

// percent is part of whole from 0 to 100; 0 when whole is not known.
func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return min(max(part*100/whole, 0), 100)
}
