package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// home is a node with what this plan has already given it.
type home struct {
	Node
	rows   int   // our runners there, leaving ones too
	waking Bytes // memory of our runners there that the list does not show running yet
}

// 9. launch
func (d *decision) launch() {
	d.settleHomes()
	old := d.w.Now.Sub(d.w.ProxmoxAsOf)
	for _, p := range d.order {
		missing := p.need - p.live()
		if p.removed || missing <= 0 {
			if p.removed && len(p.queued) > 0 {
				p.refused = "pool " + p.Name + " was removed from the config"
			}
			continue
		}
		switch {
		case d.w.ProxmoxAsOf.IsZero():
			p.refused = "Proxmox has not been seen yet"
			continue
		case old > d.w.Pace.ProxmoxFresh:
			p.refused = fmt.Sprintf("Proxmox was last seen %v ago", old.Round(time.Second))
			continue
		}
		if missing, p.refused = d.afterTrouble(p, missing); missing <= 0 {
			continue
		}
		d.launchIn(p, missing)
	}
}

// launchIn launches n runners of p, as far as there are nodes for them.
func (d *decision) launchIn(p *pool, n int) {
	unserved := p.queued[min(len(p.queued), p.count(Preparing, Ready, Joining, Idle)):]
	for range n {
		h, why := d.place(p)
		if h == nil {
			p.refused = why
			return
		}
		h.rows++
		h.waking += p.Needs
		l := Launch{Pool: p.Name, Node: h.Name, Cause: fmt.Sprintf("pool %s keeps %d ready", p.Name, p.Ready)}
		if len(unserved) > 0 {
			l.Job, l.Cause = unserved[0].ID, fmt.Sprintf("job %d waits", unserved[0].ID)
			p.placed[l.Job], unserved = l, unserved[1:]
		}
		d.plan.Launch = append(d.plan.Launch, l)
	}
}

func (d *decision) settleHomes() {
	for _, n := range d.w.Nodes {
		d.homes[n.Name] = &home{Node: n}
	}
	for _, r := range d.runners {
		h := d.homes[r.Node]
		if h == nil {
			continue
		}
		h.rows++
		if r.VM != Running { // else the list counts it
			h.waking += d.pools[r.Pool].Needs
		}
	}
}

// place finds the node for one more runner of p: the one with the most free memory; why tells, when
// there is none, what each of its nodes lacks.
func (d *decision) place(p *pool) (best *home, why string) {
	var reasons []string
	for _, name := range sorted(p.Templates) {
		h := d.homes[name]
		if no := d.refusal(p, name, h); no != "" {
			reasons = append(reasons, no)
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(h.free(), best.free()), cmp.Compare(best.rows, h.rows)) > 0 {
			best = h
		}
	}
	if best == nil {
		why = fmt.Sprintf("no node can take a runner of pool %s: %s", p.Name, strings.Join(reasons, "; "))
	}
	return best, why
}

// free is the memory that is left on the node, as far as it is known.
func (h *home) free() Bytes {
	if h.Memory == 0 {
		return 0
	}
	return h.Memory - max(h.Used, h.Configured) - h.waking
}

// refusal tells why the node cannot take one more runner of p; "" when it can.
func (d *decision) refusal(p *pool, name string, h *home) string {
	switch {
	case h == nil:
		return name + " is not a node of the cluster"
	case !h.Online:
		return name + " is down"
	case h.Cordoned:
		return name + " is cordoned"
	case h.Full != "":
		return name + ": " + h.Full
	case h.MaxRunners > 0 && h.rows >= h.MaxRunners:
		return fmt.Sprintf("%s has %d of max_runners %d", name, h.rows, h.MaxRunners)
	case h.Memory == 0 && h.MaxRunners == 0:
		return name + ": its memory is not known (give the token Sys.Audit, or set proxmox.nodes." + name + ".memory)"
	case h.Memory > 0 && p.Needs == 0:
		return fmt.Sprintf("%s: template %d is not seen there, so what a runner needs is not known", name, p.Templates[name])
	case h.Memory > 0 && h.free() < p.Needs:
		return fmt.Sprintf("%s has %s of memory free, a runner needs %s", name, max(h.free(), 0), p.Needs)
	}
	return d.nodeTrouble(p, name)
}

// String shows an amount as people write it: GiB with one decimal, or MiB.
func (b Bytes) String() string {
	if b >= GiB || b <= -GiB {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(b)/float64(GiB)), ".0") + " GiB"
	}
	return fmt.Sprintf("%d MiB", b/MiB)
}

// Wait is how long the trouble keeps its pool or node from another try. An outcome that was
// lost, or an id that was somebody's, is tried again at once the first time.
func (t Trouble) Wait(p Pace) time.Duration {
	n := t.Count - 1
	if t.Class == "unknown" || t.Class == "taken" {
		n--
	}
	if n < 0 {
		return 0
	}
	wait := p.Backoff
	for range min(n, 30) {
		if wait *= 2; wait >= p.BackoffMax {
			return p.BackoffMax
		}
	}
	return wait
}

func (d *decision) trouble(pool, node string) *Trouble {
	for i, t := range d.w.Troubles {
		if t.Pool == pool && t.Node == node && t.Count > 0 {
			return &d.w.Troubles[i]
		}
	}
	return nil
}

// afterTrouble cuts how many runners p may launch down to what its failures allow.
func (d *decision) afterTrouble(p *pool, n int) (int, string) {
	t := d.trouble(p.Name, "")
	if t == nil {
		return n, ""
	}
	if t.Class == "config" {
		return 0, fmt.Sprintf("pool %s is stopped until its configuration is mended: %s", p.Name, t.Text)
	}
	return d.trial(*t, "pool "+p.Name, n, func(r *Seen) bool { return r.Pool == p.Name })
}

// nodeTrouble tells why failures of p on the node keep it away; "" when they do not.
func (d *decision) nodeTrouble(p *pool, node string) string {
	t := d.trouble(p.Name, node)
	if t == nil {
		return ""
	}
	n, why := d.trial(*t, node, 1, func(r *Seen) bool { return r.Pool == p.Name && r.Node == node })
	planned := slices.ContainsFunc(d.plan.Launch, func(l Launch) bool { return l.Pool == p.Name && l.Node == node })
	if n > 0 && (!planned || t.Wait(d.w.Pace) == 0) {
		return ""
	}
	return why
}

// trial allows nothing while t makes wait, then one runner at a time, until one has succeeded.
func (d *decision) trial(t Trouble, who string, n int, of func(*Seen) bool) (int, string) {
	wait := t.Wait(d.w.Pace)
	if wait == 0 {
		return n, ""
	}
	if again := t.Last.Add(wait); d.w.Now.Before(again) {
		return 0, fmt.Sprintf("%s rests after %d failures in a row, until %s: %s", who, t.Count, again.UTC().Format("15:04:05 UTC"), t.Text)
	}
	for _, r := range d.runners {
		if r.Phase == Preparing && of(r) && r.Born.After(t.Last) {
			return 0, fmt.Sprintf("%s tries one runner at a time after %d failures (%s is the trial): %s", who, t.Count, r.Name, t.Text)
		}
	}
	return 1, fmt.Sprintf("%s tries one runner at a time after %d failures: %s", who, t.Count, t.Text)
}

// 10. spare
func (d *decision) spare() {
	for _, p := range d.order {
		d.replaceOld(p)
		extra := p.live() - p.need
		if extra <= 0 {
			continue
		}
		d.plan.Surplus = append(d.plan.Surplus, p.Name)
		since, known := d.w.Surplus[p.Name]
		if !p.removed && (!known || d.w.Now.Sub(since) < d.w.Pace.Surplus) {
			continue
		}
		d.giveUp(p, extra)
	}
}

// giveUp gives up extra runners of p, the cheapest first. What is Joining or Busy is never among them.
func (d *decision) giveUp(p *pool, extra int) {
	cause := "more runners than pool " + p.Name + " needs"
	take := func(r *Seen, to *[]Action) {
		if extra > 0 && d.wish(r) {
			*to = append(*to, Action{r.Runner, cause, ""})
			extra--
		}
	}
	preparing := slices.Clone(p.have[Preparing])
	slices.Reverse(preparing) // the youngest has the furthest to go
	for _, r := range preparing {
		if r.Held == AtGate {
			take(r, &d.plan.Cancel)
		}
	}
	for _, r := range p.have[Ready] {
		if r.Held == NotHeld {
			take(r, &d.plan.Leave)
		}
	}
	for _, r := range preparing {
		if !r.ClonedAt.IsZero() {
			take(r, &d.plan.Leave)
		}
	}
	if d.w.Now.Sub(d.w.GitHubAsOf) > d.w.Pace.GitHubFresh {
		return
	}
	for _, r := range p.have[Idle] {
		if r.Held == NotHeld {
			take(r, &d.plan.Retire)
		}
	}
}

// replaceOld lets Ready runners go whose template is no longer the pool's.
func (d *decision) replaceOld(p *pool) {
	if p.removed {
		return
	}
	for _, r := range p.have[Ready] {
		if r.Held == NotHeld && p.Templates[r.Node] != r.Template {
			d.leave(r, fmt.Sprintf("made from template %d, which pool %s no longer uses on %s", r.Template, p.Name, r.Node), "")
		}
	}
}
