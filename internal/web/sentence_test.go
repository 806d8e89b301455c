package web

import (
	"strings"
	"testing"
	"time"
	"unicode"

	"mayfly/internal/fleet"
)

func TestSentence(t *testing.T) {
	own := func(k fleet.Kind) fleet.Event {
		return fleet.Event{
			Kind: k, Runner: "m1-win-3f2a9c01", Pool: "win", Node: "pve2", VMID: 100012, Job: 7, Took: 72 * time.Second,
			Waited: 1500 * time.Millisecond, Class: "full", Note: "note",
		}
	}
	ended := own(fleet.JobEnded)
	ended.Class, ended.Note = "timed_out", ""
	for _, c := range []struct {
		event fleet.Event
		want  string
	}{
		{own(fleet.JobQueued), "Job 7 is queued for pool win: note"},
		{fleet.Event{Kind: fleet.JobQueued, Job: 8}, "Job 8 is queued"},
		{own(fleet.JobStarted), "Job 7 has started on m1-win-3f2a9c01: note"},
		{ended, "Job 7 ended: timed out after 1 m 12 s on m1-win-3f2a9c01"},
		{own(fleet.Planned), "A VM is wished for: m1-win-3f2a9c01 on pve2 (VM 100012): note"},
		{own(fleet.CloneAsked), "The clone of m1-win-3f2a9c01 was asked for after 1 m 12 s on pve2 (VM 100012), and 1.5 s of waiting at our own gates: note"},
		{own(fleet.RunnerReady), "m1-win-3f2a9c01 is ready after 1 m 12 s on pve2 (VM 100012): note"},
		{own(fleet.Listening), "m1-win-3f2a9c01 listens for a job, 1 m 12 s after it was planned: note"},
		{own(fleet.RunnerBusy), "m1-win-3f2a9c01 works on job 7 on pve2 (VM 100012): note"},
		{own(fleet.RunnerLeaving), "m1-win-3f2a9c01 is leaving on pve2 (VM 100012): note"},
		{own(fleet.RunnerGone), "m1-win-3f2a9c01 is gone after 1 m 12 s on pve2 (VM 100012): note"},
		{own(fleet.Failed), "Launching m1-win-3f2a9c01 failed (no room there) on pve2 (VM 100012): note"},
		{fleet.Event{Kind: fleet.Failed, Pool: "win"}, "Launching a runner failed"},
		{own(fleet.ForeignSeen), "VM 100012 in our range belongs to somebody else and is left alone on pve2: note"},
		{fleet.Event{Kind: fleet.VolumeLeaked, VMID: 9, Note: "lvm:vm-9-disk-0"}, "Proxmox could not remove a volume of VM 9: lvm:vm-9-disk-0"},
		{fleet.Event{Kind: fleet.LookHealed, Note: "GitHub"}, "A look works again: GitHub"},
		{fleet.Event{Kind: "new_kind", Note: "x"}, "new_kind: x"},
	} {
		if got := Sentence(c.event); got != c.want {
			t.Errorf("Sentence(%s)\n got %q\nwant %q", c.event.Kind, got, c.want)
		}
	}
}

// Every kind has its own words, and none lets a stranger's text out of its line.
func TestSentenceIsOneSafeLine(t *testing.T) {
	said := map[string]fleet.Kind{}
	for _, k := range kinds {
		plain := Sentence(fleet.Event{Kind: k, Runner: "r", VMID: 5, Job: 6})
		if strings.Contains(plain, string(k)) && strings.Contains(string(k), "_") {
			t.Errorf("%s is told by its code name: %q", k, plain)
		}
		if was, twice := said[plain]; twice {
			t.Errorf("%s and %s are told alike: %q", k, was, plain)
		}
		said[plain] = k

		evil := strings.Repeat("\x1b[31m\u202eevil\n", 5000)
		s := Sentence(fleet.Event{Kind: k, Runner: evil, Pool: evil, Node: evil, Class: evil, Note: evil, VMID: 5, Job: 6})
		if n := len([]rune(s)); n > 1000 {
			t.Errorf("%s: %d runes long", k, n)
		}
		for _, r := range s {
			if !unicode.IsPrint(r) {
				t.Fatalf("%s holds %U", k, r)
			}
		}
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		d            time.Duration
		lasted, ages string
	}{
		{-time.Second, "0 ms", "0 s"},
		{8 * time.Millisecond, "8 ms", "0 s"},
		{3299 * time.Millisecond, "3.2 s", "3 s"},
		{45 * time.Second, "45 s", "45 s"},
		{200 * time.Second, "3 m 20 s", "3 m 20 s"},
		{2*time.Hour + 5*time.Minute, "2 h 05 m", "2 h 05 m"},
		{99 * time.Hour, "4 d 3 h", "4 d 3 h"},
	} {
		if got := lasted(c.d); got != c.lasted {
			t.Errorf("lasted(%v) = %q, want %q", c.d, got, c.lasted)
		}
		if got := age(c.d); got != c.ages {
			t.Errorf("age(%v) = %q, want %q", c.d, got, c.ages)
		}
	}
	if got := clean("a\tb\x00c\xffd€", 6); got != "a b\uFFFDc\uFFFD…" {
		t.Errorf("clean = %q", got)
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	var r ring
	for i := range 2*ringSize + 3 {
		r.add(fleet.Event{Job: int64(i)})
	}
	all := r.all()
	if len(all) != ringSize {
		t.Fatalf("%d events kept", len(all))
	}
	for i, e := range all {
		if want := int64(ringSize + 3 + i); e.Job != want {
			t.Fatalf("event %d is %d, want %d", i, e.Job, want)
		}
	}
}
