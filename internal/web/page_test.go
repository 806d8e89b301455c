package web

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

// page renders the page of a source that heard the given events.
func page(t *testing.T, source Source, events ...fleet.Event) string {
	t.Helper()
	w := New(Config{Source: source, Instance: "m1", Version: "0.1.0"})
	for _, e := range events {
		w.Hear(e)
	}
	rec := ask(w.Handler(), "GET", "/")
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("the page answers %d %s: %s", rec.Code, rec.Header(), rec.Body)
	}
	text := rec.Body.String()
	balanced(t, text)
	return text
}

// balanced checks that every element that must be closed is.
func balanced(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta", "link", "br"}, xml.HTMLEntity
	var open []string
	for {
		tok, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page cannot be read: %v", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			switch tok.Name.Local {
			case "meta", "link", "br":
			default:
				open = append(open, tok.Name.Local)
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != tok.Name.Local {
				if tok.Name.Local == "meta" || tok.Name.Local == "link" || tok.Name.Local == "br" {
					continue
				}
				t.Fatalf("</%s> closes nothing; open are %v", tok.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Fatalf("never closed: %v", open)
	}
}

func has(t *testing.T, page string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		text := page(t, day(now), story(now)...)
		has(t, text,
			`<meta http-equiv="refresh" content="3">`, "instance <b>m1</b>", "Proxmox 3 s ago", "GitHub 41 s ago",
			"<b>3</b> of max 4 · 1 kept ready", "2 preparing", "removed from the config",
			"<b>3 failures in a row on pve2.</b>", "Tried again in 28 s.", "Stopped until somebody mends the configuration.",
			"build (Release, x64)", "runs on m1-win-4d5e6f70", "no pool has all of its labels",
			"GitHub holds it back", "pool arm is stopped until its configuration is mended", "unit tests", "it has ended: success",
			"m1-win-2badcafe", "booting", "cloning", "20 m 10 s", "job 6990 has ended",
			"<b>48 GiB</b> of 120 GiB memory free", "storage local-lvm is 91 % full", "down", "cordoned",
			"Quarantined ids", "100003", "Its memory is not known: at most 2 runners.",
			"m1-win-4d5e6f70 is ready after 1 m 12 s on pve1 (VM 100014)",
		)
		if i, j := strings.Index(text, "is leaving on pve2"), strings.Index(text, "Job 7001 is queued"); i > j {
			t.Error("the latest event is not the first")
		}
		still := ask(New(Config{Source: day(now)}).Handler(), "GET", "/?refresh=0").Body.String()
		if strings.Contains(still, "http-equiv") {
			t.Error("a paused page refreshes itself")
		}
	})
}

func TestPageEscapesStrangers(t *testing.T) {
	now := time.Now()
	s := day(now)
	evil := `"><script>alert(1)</script><img src=x onerror=y>` + "\x1b[2J\u202e"
	for i := range s.world.Jobs {
		j := &s.world.Jobs[i]
		j.Name, j.Repo, j.Conclusion, j.Labels = evil, evil, evil, []string{evil}
		j.Status = fleet.JobStatus(evil)
	}
	for i := range s.world.Runners {
		r := &s.world.Runners[i]
		r.Name, r.Pool, r.Node, r.Cause, r.Address, r.Phase = evil, evil, evil, evil, evil, fleet.Phase(evil)
	}
	for i := range s.world.Nodes {
		s.world.Nodes[i].Name, s.world.Nodes[i].Full = evil, evil
	}
	for i := range s.world.Pools {
		s.world.Pools[i].Name, s.world.Pools[i].Labels = evil, []string{evil}
	}
	for i := range s.world.Troubles {
		s.world.Troubles[i].Pool, s.world.Troubles[i].Text, s.world.Troubles[i].Node = evil, evil, evil
	}
	for i := range s.plan.Waits {
		s.plan.Waits[i].Reason = evil
	}
	s.world.Quarantine = map[int]string{1: evil}
	s.err = errors.New(evil)
	var events []fleet.Event
	for _, k := range append(kinds, fleet.Kind(evil)) {
		events = append(events, fleet.Event{Kind: k, Runner: evil, Pool: evil, Node: evil, Class: evil, Note: evil})
	}
	text := page(t, s, events...)
	for _, bad := range []string{"<script", "<img", "\x1b", "\u202e"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
}

func TestPageBounds(t *testing.T) {
	now := time.Now()
	s := day(now)
	long := strings.Repeat("x", 100_000)
	many := make([]string, 1000)
	for i := range many {
		many[i] = long
	}
	job, runner := s.world.Jobs[2], s.world.Runners[0]
	job.Name, job.Repo, job.Labels = long, long, many
	s.world.Jobs, s.world.Runners = nil, nil
	for i := range 3000 {
		j, r := job, runner
		j.ID, r.Name = int64(i+1), fmt.Sprintf("m1-win-%08x", i)
		r.Cause = long
		s.world.Jobs, s.world.Runners = append(s.world.Jobs, j), append(s.world.Runners, r)
	}
	text := page(t, s)
	has(t, text, "And 2500 more")
	if len(text) > 4<<20 {
		t.Errorf("the page has %d bytes", len(text))
	}
}

func TestPageWithNothing(t *testing.T) {
	text := page(t, still{err: errNotYet})
	has(t, text, "not ready", errNotYet.Error(), "Proxmox not seen yet", "no VM is made until it is seen",
		"Nothing has been decided yet", "No jobs waiting", "No runners", "No nodes seen yet", "Nothing has happened yet")
	idle := page(t, still{world: fleet.World{Now: time.Now(), ProxmoxAsOf: time.Now().Add(-time.Hour), GitHubAsOf: time.Now()}})
	has(t, idle, "No pools. Add one", "Proxmox was last seen 1 h 00 m ago: no VM is made until it is seen again")
}

func TestStyle(t *testing.T) {
	rec := ask(New(Config{Source: still{}}).Handler(), "GET", "/style.css")
	if rec.Code != 200 || rec.Header().Get("Content-Type") != "text/css; charset=utf-8" || rec.Body.Len() == 0 {
		t.Errorf("style: %d %v", rec.Code, rec.Header())
	}
	if strings.Contains(rec.Body.String(), "url(") {
		t.Error("the style loads something, which the policy forbids")
	}
}
