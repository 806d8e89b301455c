package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

// worlds draws a world: mostly one that could be, with facts now and then that do not fit together.
func worlds(t *rapid.T) fleet.World {
	d := drawer{t}
	w := fleet.World{Now: noon, Pace: fleet.DefaultPace(), Surplus: map[string]time.Time{}}
	w.ProxmoxAsOf, w.GitHubAsOf = d.look("proxmox"), d.look("github")
	nodes := d.nodes(&w)
	d.pools(&w, nodes)
	d.runners(&w, nodes)
	d.jobs(&w)
	d.jobsOfRunners(&w)
	d.troubles(&w)
	for i := range d.upTo("strays", 3) {
		w.Unknown = append(w.Unknown, fleet.VM{ID: 900 + i, Node: "pve1"})
	}
	for i := range d.upTo("ghosts", 3) {
		w.Ghosts = append(w.Ghosts, fleet.Registration{ID: int64(i), Name: fmt.Sprintf("k-ghost-%08d", i), Busy: d.bool("busy ghost")})
	}
	return w
}

// drawer gives the draws short names.
type drawer struct{ *rapid.T }

func (d drawer) upTo(what string, n int) int { return rapid.IntRange(0, n).Draw(d.T, what) }
func (d drawer) bool(what string) bool       { return rapid.Bool().Draw(d.T, what) }

// seldom is true once in n times.
func (d drawer) seldom(what string, n int) bool { return rapid.IntRange(1, n).Draw(d.T, what) == n }

func one[V any](d drawer, what string, of ...V) V { return rapid.SampledFrom(of).Draw(d.T, what) }

func (d drawer) ago(what string, of ...time.Duration) time.Time {
	return noon.Add(-one(d, what, of...))
}

func (d drawer) look(what string) time.Time {
	if d.seldom(what+" never", 12) {
		return time.Time{}
	}
	return d.ago(what, time.Second, time.Second, time.Second, 10*time.Second, 40*time.Second, 3*time.Minute)
}

func (d drawer) nodes(w *fleet.World) (names []string) {
	for i := range 1 + d.upTo("nodes", 3) {
		n := fleet.Node{
			Name: fmt.Sprintf("pve%d", i+1), Online: !d.seldom("offline", 8), Cordoned: d.seldom("cordoned", 8),
			Memory: one[fleet.Bytes](d, "memory", 0, 8, 24, 64, 256) * fleet.GiB, Used: one[fleet.Bytes](d, "used", 0, 3, 20) * fleet.GiB,
			Configured: one[fleet.Bytes](d, "configured", 0, 8, 16) * fleet.GiB, MaxRunners: one(d, "max_runners", 0, 0, 2, 5),
		}
		if d.seldom("full", 10) {
			n.Full = "its storage is full"
		}
		w.Nodes, names = append(w.Nodes, n), append(names, n.Name)
	}
	return append(names, "pve9") // a node that is not there
}

var allLabels = []string{"windows", "gpu", "x64", "self-hosted"}

func (d drawer) labels(what string) []string {
	return slices.DeleteFunc(slices.Clone(allLabels), func(string) bool { return d.bool(what) })
}

func (d drawer) pools(w *fleet.World, nodes []string) {
	for i := range 1 + d.upTo("pools", 3) {
		p := fleet.Pool{
			Name: fmt.Sprintf("p%d", i), Labels: d.labels("without"), Max: d.upTo("max", 8), Ready: max(0, d.upTo("ready", 4)-1), Templates: map[string]int{},
			Needs: one[fleet.Bytes](d, "needs", 4, 8, 8, 16, 0) * fleet.GiB, CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute, JobTimeout: time.Hour,
		}
		for _, n := range nodes {
			if d.bool("template") {
				p.Templates[n] = 9000
			}
		}
		w.Pools = append(w.Pools, p)
		if d.bool("surplus") {
			w.Surplus[p.Name] = d.ago("surplus since", time.Second, 59*time.Second, 2*time.Minute)
		}
	}
}

func (d drawer) runners(w *fleet.World, nodes []string) {
	for i := range d.upTo("runners", 14) {
		pool := fmt.Sprintf("p%d", d.upTo("pool", len(w.Pools)-1))
		if d.seldom("of a removed pool", 12) {
			pool = "removed"
		}
		since := d.ago("since", 0, time.Second, 20*time.Second, 4*time.Minute, 6*time.Minute, 20*time.Minute, 2*time.Hour)
		r := fleet.Seen{Runner: fleet.Runner{
			Name: fmt.Sprintf("k-%s-%08d", pool, i), Pool: pool, Node: one(d, "node", nodes...), VMID: 100 + i, Template: one(d, "template", 9000, 9000, 9000, 8000),
			Phase: one(d, "phase", fleet.Phases()...), Since: since, Born: since,
		}}
		r.Held = one(d, "held", fleet.NotHeld, fleet.NotHeld, fleet.AtWork)
		r.VM = one(d, "vm", fleet.Running, fleet.Running, fleet.Running, fleet.Unseen, fleet.Stopped, fleet.Missing)
		r.Hub = fleet.NotLooked
		if r.Phase == fleet.Preparing {
			d.launchOf(&r)
		} else {
			r.AskedAt, r.UPID, r.ClonedAt, r.StartedAt = since, "UPID", since, since
		}
		if fleet.Ready.Before(r.Phase) || d.seldom("registered early", 20) {
			r.Registration = r.Name + one(d, "registration", "", "", "-2")
			r.Hub = one(d, "hub", fleet.NotLooked, fleet.Online, fleet.Online, fleet.Offline, fleet.Unlisted, fleet.Occupied)
		}
		w.Runners = append(w.Runners, r)
	}
}

func (d drawer) launchOf(r *fleet.Seen) {
	stage := d.upTo("stage", 4)
	if stage == 0 {
		r.Held = one(d, "gate", fleet.AtGate, fleet.AtGate, fleet.NotHeld)
	}
	for i, at := range []*time.Time{&r.AskedAt, &r.ClonedAt, &r.StartedAt} {
		if i < stage {
			*at = r.Since
		}
	}
	if stage > 1 || stage == 1 && d.bool("task known") {
		r.UPID = "UPID"
	}
	r.VM = one(d, "vm of a launch", fleet.Unseen, fleet.Unseen, fleet.Stopped, fleet.Running)
}

func (d drawer) jobs(w *fleet.World) {
	for i := range d.upTo("jobs", 12) {
		j := fleet.Job{
			ID: int64(i + 1), Labels: d.labels("job without"), Created: d.ago("age", 0, time.Second, time.Minute, 4*time.Minute, time.Hour),
			Status: one(d, "status", fleet.StatusQueued, fleet.StatusQueued, fleet.StatusQueued, fleet.StatusInProgress, fleet.StatusInProgress, fleet.StatusWaiting, fleet.StatusCompleted),
		}
		if j.Changed = j.Created; d.bool("checked") {
			j.Checked = d.ago("checked", time.Second, time.Minute)
		}
		if d.seldom("shouts", 5) {
			for i := range j.Labels {
				j.Labels[i] = strings.ToUpper(j.Labels[i])
			}
		}
		if j.Status.Rank() > 1 {
			j.Runner = one(d, "runner elsewhere", "", "bare-metal", "k-p0-ffffffff")
			if len(w.Runners) > 0 && !d.seldom("elsewhere", 4) {
				r := one(d, "its runner", w.Runners...)
				if j.Runner = r.Registration; j.Runner == "" || d.seldom("another registration", 10) {
					j.Runner = r.Name
				}
			}
		}
		w.Jobs = append(w.Jobs, j)
	}
}

// jobsOfRunners joins runners and ledger as the controller does: one in progress counts before one that has ended.
func (d drawer) jobsOfRunners(w *fleet.World) {
	for i := range w.Runners {
		r := &w.Runners[i]
		for _, j := range w.Jobs {
			if j.Runner == "" || j.Status.Rank() < 2 || j.Runner != r.Name && fleet.OwnerOf(j.Runner) != r.Name || r.JobID != 0 && r.JobEnded.IsZero() {
				continue
			}
			if r.JobID, r.JobEnded = j.ID, (time.Time{}); j.Status == fleet.StatusCompleted {
				r.JobEnded = d.ago("ended", 0, 30*time.Second, 70*time.Second)
			}
		}
		if d.seldom("facts that do not fit", 15) {
			r.JobID, r.JobEnded = 1, d.ago("ended anyway", 0, 2*time.Minute)
		}
	}
}

func (d drawer) troubles(w *fleet.World) {
	for _, p := range w.Pools {
		for _, node := range []string{"", "pve1", "pve2"} {
			if d.seldom("trouble", 6) {
				w.Troubles = append(w.Troubles, fleet.Trouble{
					Pool: p.Name, Node: node, Count: d.upTo("failures", 4), Class: one(d, "class", "other", "timeout", "unknown", "full", "config"),
					Last: d.ago("failed", time.Second, 15*time.Second, 3*time.Minute, time.Hour), Text: "it failed",
				})
			}
		}
	}
}
