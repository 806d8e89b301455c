package web

import (
	"fmt"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// Sentence tells one event as a person would, on one line without a full stop. Page,
// demo and log use the same sentences. Whatever an event holds, the line is bounded and
// free of control characters.
func Sentence(e fleet.Event) string {
	var s say
	s.runner = clean(e.Runner, maxName)
	switch e.Kind {
	case fleet.JobQueued:
		s.add("%s is queued", job(e)).pool(" for pool %s", e)
	case fleet.JobStarted:
		s.add("%s has started", job(e)).on(e)
	case fleet.JobEnded:
		s.add("%s ended", job(e)).text(": %s", ending(e.Class)).took(" after %s", e).on(e)
	case fleet.Planned:
		s.add("A VM is wished for: %s", s.who()).place(e)
	case fleet.CloneAsked:
		s.add("The clone of %s was asked for", s.who()).took(" after %s", e).place(e).waited(e)
	case fleet.Cloned:
		s.add("%s was cloned", s.who()).took(" in %s", e).place(e).waited(e)
	case fleet.Started:
		s.add("%s was started", s.who()).place(e)
	case fleet.Found:
		s.add("%s has booted", s.who()).took(" in %s", e).place(e)
	case fleet.RunnerReady:
		s.add("%s is ready", s.who()).took(" after %s", e).place(e)
	case fleet.Registered:
		s.add("%s is registered at GitHub", s.who()).took(" %s after it was ready", e).waited(e)
	case fleet.Listening:
		s.add("%s listens for a job", s.who()).took(", %s after it was planned", e)
	case fleet.RunnerBusy:
		s.add("%s works", s.who())
		if e.Job != 0 {
			s.add(" on job %d", e.Job)
		}
		s.place(e)
	case fleet.RunnerLeaving:
		s.add("%s is leaving", s.who()).place(e)
	case fleet.RunnerGone:
		s.add("%s is gone", s.who()).took(" after %s", e).place(e)
	case fleet.Failed:
		s.add("Launching %s failed", s.who()).text(" (%s)", reasonWords(e.Class)).place(e)
	case fleet.Adopted:
		s.add("%s was found by its mark and adopted", s.who()).place(e)
	case fleet.GhostRemoved:
		s.add("The registration %s had no VM and was taken back", s.who())
	case fleet.ForeignSeen:
		s.add("VM %d in our range belongs to somebody else and is left alone", e.VMID).node(e)
	case fleet.HiddenSeen:
		s.add("VM %d cannot be read and is left alone", e.VMID).node(e)
	case fleet.Quarantined:
		s.add("VM id %d is quarantined until a person has looked at it", e.VMID).node(e)
	case fleet.VolumeLeaked:
		s.add("Proxmox could not remove a volume of %s", s.vm(e)).node(e)
	case fleet.LookFailed:
		s.add("A look failed").node(e)
	case fleet.LookHealed:
		s.add("A look works again").node(e)
	default:
		s.add("%s", clean(string(e.Kind), maxName)).place(e)
	}
	return s.note(e).String()
}

// say builds a sentence from the parts that an event has.
type say struct {
	strings.Builder
	runner string
}

func (s *say) add(format string, args ...any) *say {
	fmt.Fprintf(s, format, args...)
	return s
}

func (s *say) text(format, text string) *say {
	if text == "" {
		return s
	}
	return s.add(format, text)
}

func (s *say) took(format string, e fleet.Event) *say {
	if e.Took <= 0 {
		return s
	}
	return s.add(format, lasted(e.Took))
}

func (s *say) waited(e fleet.Event) *say {
	if e.Waited < time.Millisecond { // not worth a word
		return s
	}
	return s.add(", and %s of waiting at our own gates", lasted(e.Waited))
}

func (s *say) pool(format string, e fleet.Event) *say { return s.text(format, clean(e.Pool, maxName)) }

func (s *say) node(e fleet.Event) *say { return s.text(" on %s", clean(e.Node, maxName)) }

func (s *say) note(e fleet.Event) *say { return s.text(": %s", clean(e.Note, maxText)) }

// on names the runner that has a job.
func (s *say) on(e fleet.Event) *say { return s.text(" on %s", s.runner) }

// place names where a VM is: " on pve2 (VM 100012)".
func (s *say) place(e fleet.Event) *say {
	s.node(e)
	if e.VMID != 0 {
		s.add(" (VM %d)", e.VMID)
	}
	return s
}

// who is the runner, or what stands for one that has no name.
func (s *say) who() string {
	if s.runner == "" {
		return "a runner"
	}
	return s.runner
}

func (s *say) vm(e fleet.Event) string {
	if s.runner == "" {
		return fmt.Sprintf("VM %d", e.VMID)
	}
	return s.runner
}

func job(e fleet.Event) string {
	if e.Job == 0 {
		return "A job"
	}
	return fmt.Sprintf("Job %d", e.Job)
}

// ending says a conclusion in words; one that GitHub may invent later is told as it is.
func ending(conclusion string) string {
	switch conclusion {
	case "timed_out":
		return "timed out"
	case "action_required":
		return "action required"
	}
	return clean(conclusion, maxName)
}

// reasonWords says an error's class in words that tell what follows from it.
func reasonWords(class string) string {
	switch class {
	case "full":
		return "no room there"
	case "busy":
		return "somebody works with it"
	case "gone":
		return "it is gone"
	case "hidden":
		return "it cannot be read"
	case "foreign":
		return "it is not ours"
	case "taken":
		return "the id or name is taken"
	case "config":
		return "somebody must change the configuration"
	case "unknown":
		return "its outcome is not known"
	case "not_ready":
		return "the guest was not ready in time"
	case "other":
		return "it is tried again"
	}
	return clean(class, maxName)
}
