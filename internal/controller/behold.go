package controller

import (
	"maps"
	"time"

	"mayfly/internal/fleet"
)

// inspection is what was found out about a VM without a row.
type inspection struct {
	name string // as the list showed it then
	at   time.Time
}

// behold puts together all that is known now. It changes nothing but what it remembers of troubles.
func (c *Controller) behold(now time.Time, books fleet.Books, holds map[string]fleet.Hold) fleet.World {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := fleet.World{
		Now: now, Pace: c.pace(), Jobs: books.Jobs, Nodes: c.sight.Nodes, Troubles: books.Troubles,
		Quarantine: books.Quarantine, Surplus: maps.Clone(c.surplus),
		ProxmoxAsOf: c.sight.AsOf, GitHubAsOf: c.roster.AsOf,
	}
	for _, p := range c.cfg.Pools {
		p.Needs = p.Memory
		for _, t := range p.Templates {
			if p.Memory == 0 {
				p.Needs = max(p.Needs, c.sight.Templates[t])
			}
		}
		w.Pools = append(w.Pools, p)
	}
	clear(c.troubles)
	for _, t := range books.Troubles {
		c.troubles[[2]string{t.Pool, t.Node}] = t
	}
	ran := jobsByRunner(books.Jobs)
	vms := make(map[int]fleet.VM, len(c.sight.VMs))
	names := make(map[string]bool, len(c.sight.VMs))
	for _, vm := range c.sight.VMs {
		vms[vm.ID], names[vm.Name] = vm, true
	}
	online := make(map[string]bool, len(c.sight.Nodes))
	for _, n := range c.sight.Nodes {
		online[n.Name] = n.Online
	}
	listed := make(map[string]fleet.Registration, len(c.roster.Runners))
	for _, g := range c.roster.Runners {
		listed[g.Name] = g
	}
	rows, ids := make(map[string]bool, len(books.Runners)), make(map[int]bool, len(books.Runners))
	for _, r := range books.Runners {
		rows[r.Name], ids[r.VMID] = true, true
		s := fleet.Seen{Runner: r, Held: holds[r.Name], VM: c.sighting(r, vms, online), Hub: c.standing(r, listed)}
		if j, ok := ran[r.Name]; ok {
			s.JobID = j.ID
			if j.Status == fleet.StatusCompleted {
				s.JobEnded = j.Changed
			}
		}
		w.Runners = append(w.Runners, s)
	}
	for _, vm := range c.sight.VMs {
		known, seen := c.looked[vm.ID]
		fresh := seen && known.name == vm.Name && now.Sub(known.at) < c.tempo.quiet
		if !ids[vm.ID] && !fresh && !c.ended[vm.ID].After(c.sight.AsOf) && holds[strayKey(vm.ID)] == fleet.NotHeld {
			w.Unknown = append(w.Unknown, vm)
		}
	}
	for _, g := range c.roster.Runners {
		owner := fleet.OwnerOf(g.Name)
		ours := fleet.PoolOf(c.cfg.Instance, owner) != "" || fleet.PoolOf(c.cfg.Instance, g.Name) != ""
		// Only what two lists have shown: the row of a younger one may just have ended by itself.
		if ours && !rows[owner] && !rows[g.Name] && !names[owner] && !names[g.Name] && c.haunting[g.ID].Before(c.roster.AsOf) {
			w.Ghosts = append(w.Ghosts, g)
		}
	}
	maps.DeleteFunc(c.asked, func(name string, _ time.Time) bool { return !rows[name] })
	maps.DeleteFunc(c.ended, func(_ int, at time.Time) bool { return now.Sub(at) > 10*time.Minute })
	return w
}

func (c *Controller) pace() fleet.Pace {
	p := fleet.DefaultPace()
	for _, d := range []*time.Duration{&p.Surplus, &p.Linger, &p.Backoff, &p.BackoffMax, &p.LookUp} {
		*d = time.Duration(float64(*d) / c.cfg.Speed)
	}
	return p
}

// sighting is what the last look says of r's VM: nothing, unless the look is younger than the clone and than the
// last single question, which knows better.
func (c *Controller) sighting(r fleet.Runner, vms map[int]fleet.VM, online map[string]bool) fleet.Sighting {
	if r.ClonedAt.IsZero() || !c.sight.AsOf.After(r.ClonedAt) || !c.sight.AsOf.After(c.asked[r.Name]) {
		return fleet.Unseen
	}
	vm, ok := vms[r.VMID]
	switch {
	case !ok && online[r.Node]:
		return fleet.Missing
	case !ok, !online[vm.Node], vm.Lock != "":
		return fleet.Unseen
	case vm.Status == "running":
		return fleet.Running
	case vm.Status == "stopped":
		return fleet.Stopped
	}
	return fleet.Unseen
}

// standing is what the last list says of r's registration: nothing, unless it is younger than r's phase.
func (c *Controller) standing(r fleet.Runner, listed map[string]fleet.Registration) fleet.Standing {
	if r.Registration == "" || !c.roster.AsOf.After(r.Since) || !c.roster.AsOf.After(c.asked[r.Name]) {
		return fleet.NotLooked
	}
	g, ok := listed[r.Registration]
	switch {
	case !ok:
		return fleet.Unlisted
	case g.Busy:
		return fleet.Occupied
	case g.Online:
		return fleet.Online
	}
	return fleet.Offline
}

// jobsByRunner finds, for each runner that a job names, that job. One that is still in progress counts before one
// that has ended: only when nothing runs on a runner has its job ended.
func jobsByRunner(jobs []fleet.Job) map[string]fleet.Job {
	m := map[string]fleet.Job{}
	for _, j := range jobs {
		if j.Runner == "" || j.Status.Rank() < fleet.StatusInProgress.Rank() {
			continue
		}
		for _, name := range []string{j.Runner, fleet.OwnerOf(j.Runner)} {
			if was, ok := m[name]; !ok || was.Status == fleet.StatusCompleted {
				m[name] = j
			}
		}
	}
	return m
}

// remember keeps of a decision what the next one needs, and what people ask for.
func (c *Controller) remember(w fleet.World, plan fleet.Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world, c.plan = w, plan
	surplus := make(map[string]time.Time, len(plan.Surplus))
	for _, p := range plan.Surplus {
		surplus[p] = w.Now
		if since, was := c.surplus[p]; was {
			surplus[p] = since
		}
	}
	c.surplus = surplus
	delayed := make(map[int64]bool, len(plan.Waits))
	for _, wait := range plan.Waits {
		if wait.Held || c.delayed[wait.Job] {
			delayed[wait.Job] = true
		}
	}
	c.delayed = delayed
	joining := make(map[string]bool, len(plan.Join))
	for _, a := range plan.Join {
		joining[a.Runner.Name] = true
	}
	rested := map[string]bool{}
	for _, r := range w.Runners {
		if r.Phase == fleet.Ready && r.Held == fleet.NotHeld && (!joining[r.Name] || c.rested[r.Name]) {
			rested[r.Name] = true
		}
	}
	c.rested = rested
}
