package web

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"mayfly/internal/fleet"
)

// status makes the view of the last world. It is the only place that reads the world for page and API.
func (w *Web) status(now time.Time) Status {
	world, plan := w.source.Last()
	s := Status{
		Instance: w.instance, Version: w.version, Now: now.UTC(), AsOf: world.Now.UTC(),
		UptimeSeconds: seconds(now.Sub(w.started)), Ready: true,
		Looks: looks(world, now), Runners: []RunnerView{}, Jobs: []JobView{}, Nodes: []NodeView{},
		Quarantine: []QuarantinedView{},
	}
	if err := w.source.Ready(); err != nil {
		s.Ready, s.NotReady = false, clean(err.Error(), maxText)
	}
	waits := make(map[int64]fleet.Wait, len(plan.Waits))
	for _, wait := range plan.Waits {
		waits[wait.Job] = wait
	}
	rows := make(map[string]int)
	for _, r := range world.Runners {
		s.Runners = append(s.Runners, runnerView(r, now))
		rows[r.Node]++
	}
	for _, j := range world.Jobs {
		wait := waits[j.ID]
		s.Jobs = append(s.Jobs, jobView(j, wait, now))
	}
	for _, n := range world.Nodes {
		s.Nodes = append(s.Nodes, nodeView(n, rows[n.Name]))
	}
	for id, reason := range world.Quarantine {
		s.Quarantine = append(s.Quarantine, QuarantinedView{VMID: id, Reason: clean(reason, maxText)})
	}
	s.Pools = poolViews(world, s.Jobs)
	slices.SortFunc(s.Runners, func(a, b RunnerView) int {
		return cmp.Or(a.Born.Compare(b.Born), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(s.Jobs, func(a, b JobView) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(s.Nodes, func(a, b NodeView) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Quarantine, func(a, b QuarantinedView) int { return cmp.Compare(a.VMID, b.VMID) })
	return s
}

func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }

func looks(world fleet.World, now time.Time) []LookView {
	pace := world.Pace
	if pace == (fleet.Pace{}) {
		pace = fleet.DefaultPace()
	}
	look := func(system, name, stops string, asOf time.Time, fresh time.Duration) LookView {
		v := LookView{System: system, AsOf: asOf.UTC()}
		if asOf.IsZero() {
			v.Meaning = name + " has not been seen yet: " + stops + " seen"
			return v
		}
		old := max(now.Sub(asOf), 0)
		v.AgeSeconds, v.Fresh = old.Seconds(), old <= fresh
		v.Meaning = fmt.Sprintf("%s was seen %s ago", name, age(old))
		if !v.Fresh {
			v.Meaning = fmt.Sprintf("%s was last seen %s ago: %s seen again", name, age(old), stops)
		}
		return v
	}
	return []LookView{
		look("proxmox", "Proxmox", "no VM is made until it is", world.ProxmoxAsOf, pace.ProxmoxFresh),
		look("github", "GitHub", "no idle runner is given up until it is", world.GitHubAsOf, pace.GitHubFresh),
	}
}

func poolViews(world fleet.World, jobs []JobView) []PoolView {
	views := []PoolView{}
	at := make(map[string]int)
	add := func(p fleet.Pool, removed bool) {
		at[p.Name] = len(views)
		views = append(views, PoolView{
			Name: clean(p.Name, maxName), Labels: cleanAll(p.Labels), ReadyWish: p.Ready, Max: p.Max,
			Removed: removed, Troubles: []TroubleView{},
		})
	}
	for _, p := range world.Pools {
		add(p, false)
	}
	for _, r := range world.Runners {
		if _, known := at[r.Pool]; !known {
			add(fleet.Pool{Name: r.Pool}, true)
		}
		v := &views[at[r.Pool]]
		v.Phases.add(r.Phase)
		if r.Phase != fleet.Leaving {
			v.Live++
		}
	}
	for _, j := range jobs {
		i, known := at[j.Pool]
		switch {
		case !known:
		case j.Status == string(fleet.StatusInProgress):
			views[i].JobsRunning++
		case j.Status == string(fleet.StatusQueued):
			views[i].JobsWaiting++
		}
	}
	for _, t := range world.Troubles {
		if i, known := at[t.Pool]; known && t.Count > 0 {
			views[i].Troubles = append(views[i].Troubles, troubleView(t, world.Pace))
		}
	}
	for _, v := range views {
		slices.SortFunc(v.Troubles, func(a, b TroubleView) int { return cmp.Compare(a.Node, b.Node) })
	}
	return views
}

func (c *PhaseCounts) add(p fleet.Phase) {
	switch p {
	case fleet.Preparing:
		c.Preparing++
	case fleet.Ready:
		c.Ready++
	case fleet.Joining:
		c.Joining++
	case fleet.Idle:
		c.Idle++
	case fleet.Busy:
		c.Busy++
	case fleet.Leaving:
		c.Leaving++
	}
}

func troubleView(t fleet.Trouble, pace fleet.Pace) TroubleView {
	v := TroubleView{
		Node: clean(t.Node, maxName), Count: t.Count, Last: t.Last.UTC(),
		Class: clean(t.Class, maxName), Text: clean(t.Text, maxText),
	}
	if t.Class == "config" && t.Node == "" { // waiting would not help: fleet's rule 9
		v.Stopped = true
	} else {
		v.Again = t.Last.Add(t.Wait(pace)).UTC()
	}
	return v
}

func runnerView(r fleet.Seen, now time.Time) RunnerView {
	return RunnerView{
		Name: clean(r.Name, maxName), Pool: clean(r.Pool, maxName), Node: clean(r.Node, maxName),
		VMID: r.VMID, Template: r.Template, Phase: clean(string(r.Phase), maxName), Step: step(r),
		Since: r.Since.UTC(), PhaseSeconds: seconds(now.Sub(r.Since)),
		Born: r.Born.UTC(), AgeSeconds: seconds(now.Sub(r.Born)),
		Address: clean(r.Address, maxName), Registration: clean(r.Registration, maxName), RunnerID: r.RunnerID,
		Job: cmp.Or(r.Job, r.JobID), Adopted: r.Adopted, Cause: clean(r.Cause, maxText),
		VM: string(r.VM), Hub: string(r.Hub),
	}
}

// step is how far a preparing runner is, by what its launch has stored.
func step(r fleet.Seen) string {
	switch {
	case r.Phase != fleet.Preparing:
		return ""
	case r.AskedAt.IsZero() && r.UPID == "":
		return "waiting"
	case r.ClonedAt.IsZero():
		return "cloning"
	case r.StartedAt.IsZero():
		return "starting"
	case r.Address == "":
		return "booting"
	default:
		return "setting_up"
	}
}

func jobView(j fleet.Job, wait fleet.Wait, now time.Time) JobView {
	v := JobView{
		ID: j.ID, Repo: clean(j.Repo, maxName), Name: clean(j.Name, maxName), Labels: cleanAll(j.Labels),
		Status: clean(string(j.Status), maxName), Conclusion: clean(j.Conclusion, maxName),
		Created: j.Created.UTC(), Received: j.Received.UTC(), Changed: j.Changed.UTC(),
		AgeSeconds: seconds(now.Sub(j.Received)), Pool: clean(wait.Pool, maxName),
		Runner: clean(cmp.Or(wait.Coming, j.Runner), maxName), Reason: clean(wait.Reason, maxText), Held: wait.Held,
	}
	if v.Reason == "" {
		v.Reason = "Mayfly has not decided on it yet"
		if j.Status == fleet.StatusCompleted {
			v.Reason = "it has ended"
			if j.Conclusion != "" {
				v.Reason += ": " + ending(j.Conclusion)
			}
		}
	}
	return v
}

func nodeView(n fleet.Node, rows int) NodeView {
	storages := make([]StorageView, 0, len(n.Storages))
	for _, s := range n.Storages {
		storages = append(storages, StorageView{Name: clean(s.Name, maxName), UsedBytes: int64(s.Used), TotalBytes: int64(s.Total)})
	}
	return NodeView{
		Storages: storages, Name: clean(n.Name, maxName), Online: n.Online, Cordoned: n.Cordoned,
		MemoryBytes: int64(n.Memory), UsedBytes: int64(n.Used), ConfiguredBytes: int64(n.Configured),
		FreeBytes: int64(max(n.Memory-max(n.Used, n.Configured), 0)), MaxRunners: n.MaxRunners,
		Runners: rows, Full: clean(n.Full, maxText),
	}
}

// maxLabels bounds the labels shown of one job.
const maxLabels = 20

func cleanAll(texts []string) []string {
	out := make([]string, 0, min(len(texts), maxLabels))
	for i, t := range texts {
		if i == maxLabels {
			return append(out, fmt.Sprintf("and %d more", len(texts)-i))
		}
		out = append(out, clean(t, maxName))
	}
	return out
}

func eventView(e fleet.Event) EventView {
	return EventView{
		At: e.At.UTC(), Kind: clean(string(e.Kind), maxName), Runner: clean(e.Runner, maxName), Pool: clean(e.Pool, maxName),
		Node: clean(e.Node, maxName), VMID: e.VMID, Job: e.Job,
		TookSeconds: seconds(e.Took), WaitedSeconds: seconds(e.Waited),
		Class: clean(e.Class, maxName), Note: clean(e.Note, maxText), Sentence: Sentence(e),
	}
}

func eventViews(events []fleet.Event) []EventView {
	views := make([]EventView, 0, len(events))
	for _, e := range events {
		views = append(views, eventView(e))
	}
	return views
}
