package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/web"
)

// printStatus prints the state for people. Times are ages; -o json has them in UTC.
func printStatus(to io.Writer, s web.Status) error {
	state := "ready"
	if !s.Ready {
		state = "NOT READY: " + s.NotReady
	}
	fmt.Fprintf(to, "instance %s, mayfly %s, up %s, %s\n", s.Instance, s.Version, age(s.UptimeSeconds), state)
	for _, l := range s.Looks {
		fmt.Fprintln(to, l.Meaning)
	}
	fmt.Fprintln(to)
	if err := table(to, func(row func(...any)) {
		row("POOL", "LIVE/MAX", "PREPARING", "READY", "JOINING", "IDLE", "BUSY", "LEAVING", "JOBS WAITING", "JOBS RUNNING")
		for _, p := range s.Pools {
			c := p.Phases
			row(p.Name, fmt.Sprintf("%d/%d", p.Live, p.Max), c.Preparing, c.Ready, c.Joining, c.Idle, c.Busy, c.Leaving, p.JobsWaiting, p.JobsRunning)
		}
	}); err != nil {
		return err
	}
	for _, p := range s.Pools {
		for _, t := range p.Troubles {
			again := "until a person has mended it"
			if !t.Stopped {
				again = "until " + t.Again.UTC().Format("15:04:05 UTC")
			}
			fmt.Fprintf(to, "  %s %s: %d failures in a row, waits %s: %s\n", p.Name, t.Node, t.Count, again, t.Text)
		}
	}
	fmt.Fprintln(to)
	if len(s.Runners) == 0 {
		fmt.Fprintln(to, "no runners")
	} else if err := table(to, func(row func(...any)) {
		row("RUNNER", "NODE", "VMID", "PHASE", "FOR", "AGE", "JOB", "NOTE")
		for _, r := range s.Runners {
			row(r.Name, r.Node, r.VMID, r.Phase, age(r.PhaseSeconds), age(r.AgeSeconds), number(r.Job), cmp.Or(r.Cause, r.Step, r.Address))
		}
	}); err != nil {
		return err
	}
	fmt.Fprintln(to)
	if len(s.Jobs) == 0 {
		fmt.Fprintln(to, "no jobs")
	} else if err := table(to, func(row func(...any)) {
		row("JOB", "REPOSITORY", "STATUS", "AGE", "WHY")
		for _, j := range s.Jobs {
			row(j.ID, j.Repo, j.Status, age(j.AgeSeconds), j.Reason)
		}
	}); err != nil {
		return err
	}
	fmt.Fprintln(to)
	if err := table(to, func(row func(...any)) {
		row("NODE", "STATE", "FREE", "OF", "RUNNERS")
		for _, n := range s.Nodes {
			state := "online"
			switch {
			case !n.Online:
				state = "DOWN"
			case n.Cordoned:
				state = "cordoned"
			case n.Full != "":
				state = n.Full
			}
			row(n.Name, state, fleet.Bytes(n.FreeBytes), fleet.Bytes(n.MemoryBytes), n.Runners)
		}
	}); err != nil {
		return err
	}
	for _, q := range s.Quarantine {
		fmt.Fprintf(to, "VMID %d is in quarantine: %s\n", q.VMID, q.Reason)
	}
	return nil
}

func printWhy(to io.Writer, w web.JobWhy) error {
	fmt.Fprintf(to, "job %d: %s\n", w.ID, w.Reason)
	if j := w.Job; j != nil {
		fmt.Fprintf(to, "  %q of %s, labels %v, %s, known for %s\n", j.Name, j.Repo, j.Labels, j.Status, age(j.AgeSeconds))
	}
	for _, e := range w.History {
		fmt.Fprintf(to, "  %s  %s\n", e.At.UTC().Format("2006-01-02 15:04:05"), e.Sentence)
	}
	return nil
}

func printPlan(to io.Writer, p web.PlanView) error {
	if p.Content {
		fmt.Fprintln(to, "Nothing is to be done.")
	}
	if err := table(to, func(row func(...any)) {
		for _, w := range p.Wishes {
			row(w.Do, cmp.Or(w.Runner, w.Pool), w.Node, number(w.Job), w.Cause)
		}
	}); err != nil {
		return err
	}
	return table(to, func(row func(...any)) {
		for _, w := range p.Waits {
			row(fmt.Sprintf("job %d", w.Job), w.Pool, w.Reason)
		}
	})
}

func age(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second).String()
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
