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

// berth is a home that nothing but room keeps from taking runners of one pool.
type berth struct {
	*home
	trial string // why it takes one only; "" when it takes any number
	tried bool   // and has it
}

// want is one more runner that a pool needs, for a job or as a spare.
type want struct {
	pool *pool
	job  *Job
}

// 9. launch
func (d *decision) launch() {
	d.settleHomes()
	var jobs, spares []want
	for _, p := range d.order {
		n := p.need - p.live()
		if p.removed || n <= 0 {
			continue
		}
		if n, p.refused = d.mayLaunch(p, n); n <= 0 {
			continue
		}
		p.berths = d.berthsOf(p)
		// Those after the ones that the runners without a known job serve; a busy one may be in a job that
		// GitHub has not yet told to be in progress.
		unserved := p.queued[min(len(p.queued), p.live()-p.begun):]
		for i := range n {
			if i < len(unserved) {
				jobs = append(jobs, want{p, unserved[i]})
			} else {
				spares = append(spares, want{pool: p})
			}
		}
	}
	// The oldest job first, whosever it is, and jobs before spares: else the first pools of the config
	// would keep the others from the nodes that they share.
	slices.SortStableFunc(jobs, func(a, b want) int { return byAge(a.job, b.job) })
	for _, n := range slices.Concat(jobs, spares) {
		d.launchFor(n)
	}
}

// mayLaunch cuts the n runners that p lacks down to what our sight of Proxmox and p's failures allow; why tells what does.
func (d *decision) mayLaunch(p *pool, n int) (may int, why string) {
	old := d.w.Now.Sub(d.w.ProxmoxAsOf)
	switch t := d.troubles[[2]string{p.Name, ""}]; {
	case d.w.ProxmoxAsOf.IsZero():
		return 0, "Proxmox has not been seen yet"
	case old > d.w.Pace.ProxmoxFresh:
		return 0, fmt.Sprintf("Proxmox was last seen %v ago", old.Round(time.Second))
	case t != nil && t.Class == "config":
		return 0, fmt.Sprintf("pool %s is stopped until its configuration is mended: %s", p.Name, t.Text)
	case p.expired != "":
		return 0, p.expired
	case t != nil:
		return d.trial(t, "pool "+p.Name, p, n)
	}
	return n, ""
}

// launchFor launches one runner, if a node can take it.
func (d *decision) launchFor(n want) {
	p := n.pool
	if p.crowded {
		return
	}
	b := p.bestBerth()
	if b == nil {
		p.crowded, p.refused = true, d.whyNowhere(p)
		return
	}
	b.rows++
	b.waking += p.Needs
	b.tried = true
	p.launched++
	l := Launch{Pool: p.Name, Node: b.Name}
	if n.job != nil {
		l.Job, l.Cause = n.job.ID, fmt.Sprintf("job %d waits", n.job.ID)
		p.placed[l.Job] = l.Node
	} else {
		l.Cause = fmt.Sprintf("pool %s keeps %d ready", p.Name, p.Ready)
	}
	d.plan.Launch = append(d.plan.Launch, l)
}

func (d *decision) settleHomes() {
	for _, n := range d.w.Nodes {
		d.homes[n.Name] = &home{Node: n}
	}
	for _, r := range d.rows {
		h := d.homes[r.Node]
		if h == nil {
			continue
		}
		h.rows++
		if r.VM != Running { // else the list counts it
			h.waking += r.pool.Needs
		}
	}
}

// berthsOf finds the nodes that can take runners of p as long as they have room, by name.
func (d *decision) berthsOf(p *pool) []*berth {
	var berths []*berth
	for _, name := range sorted(p.Templates) {
		h := d.homes[name]
		if closed(h, name) != "" {
			continue
		}
		b := &berth{home: h}
		if t := d.troubles[[2]string{p.Name, name}]; t != nil {
			var n int
			if n, b.trial = d.trial(t, name, p, 1); n == 0 {
				continue
			}
		}
		berths = append(berths, b)
	}
	return berths
}

// bestBerth is where one more runner of p goes: the node with the most free memory; nil when none has room.
func (p *pool) bestBerth() (best *berth) {
	for _, b := range p.berths {
		if b.tried && b.trial != "" || !b.fits(p) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(b.free(), best.free()), cmp.Compare(best.rows, b.rows)) > 0 {
			best = b
		}
	}
	return best
}

// whyNowhere tells what each node of p lacks.
func (d *decision) whyNowhere(p *pool) string {
	var reasons []string
	for _, name := range sorted(p.Templates) {
		h := d.homes[name]
		why := closed(h, name)
		if why == "" && !h.fits(p) {
			why = h.lack(p)
		}
		if t := d.troubles[[2]string{p.Name, name}]; why == "" && t != nil {
			_, why = d.trial(t, name, p, 1)
		}
		reasons = append(reasons, why)
	}
	return fmt.Sprintf("no node can take a runner of pool %s: %s", p.Name, strings.Join(reasons, "; "))
}

// closed tells why the node takes nothing new, whatever its room; "" when it is open.
func closed(h *home, name string) string {
	switch {
	case h == nil:
		return name + " is not a node of the cluster"
	case !h.Online:
		return name + " is down"
	case h.Cordoned:
		return name + " is cordoned"
	case h.Full != "":
		return name + ": " + h.Full
	}
	return ""
}

// fits tells whether the node has room for one more runner of p. What is not known is neither plenty nor nothing:
// a bound must be known, of memory or of runners.
func (h *home) fits(p *pool) bool {
	switch {
	case h.MaxRunners > 0 && h.rows >= h.MaxRunners:
		return false
	case h.Memory == 0:
		return h.MaxRunners > 0
	}
	return p.Needs > 0 && h.free() >= p.Needs
}

// lack tells why p does not fit.
func (h *home) lack(p *pool) string {
	switch {
	case h.MaxRunners > 0 && h.rows >= h.MaxRunners:
		return fmt.Sprintf("%s has %d of max_runners %d", h.Name, h.rows, h.MaxRunners)
	case h.Memory == 0:
		return h.Name + ": its memory is not known (give the token Sys.Audit, or set proxmox.nodes." + h.Name + ".memory)"
	case p.Needs == 0:
		return fmt.Sprintf("%s: template %d is not seen there, so what a runner needs is not known", h.Name, p.Templates[h.Name])
	}
	return fmt.Sprintf("%s has %s of memory free, a runner needs %s", h.Name, max(h.free(), 0), p.Needs)
}

// free is the memory that is left on the node, as far as it is known.
func (h *home) free() Bytes {
	if h.Memory == 0 {
		return 0
	}
	return h.Memory - max(h.Used, h.Configured) - h.waking
}

// String shows an amount as people write it: GiB with one decimal, or MiB.
func (b Bytes) String() string {
	if b >= GiB || b <= -GiB {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(b)/float64(GiB)), ".0") + " GiB"
	}
	return fmt.Sprintf("%d MiB", b/MiB)
}

// Wait is how long the trouble keeps its pool or node from another try. An outcome that was lost is tried again at
// once the first time, an id that was somebody's some more times: several VMs that we may not see can stand in a row.
func (t Trouble) Wait(p Pace) time.Duration {
	n := t.Count - 1
	switch t.Class {
	case "unknown":
		n--
	case "taken":
		n -= 8
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

// trial allows nothing while t makes wait, then one runner of p at a time, on t's node if it has one, until one
// has succeeded.
func (d *decision) trial(t *Trouble, who string, p *pool, n int) (int, string) {
	wait := t.Wait(d.w.Pace)
	if wait == 0 {
		return n, ""
	}
	if again := t.Last.Add(wait); d.w.Now.Before(again) {
		return 0, fmt.Sprintf("%s rests after %d failures in a row, until %s: %s", who, t.Count, again.UTC().Format("15:04:05 UTC"), t.Text)
	}
	for _, r := range p.preparing {
		if (t.Node == "" || t.Node == r.Node) && r.Born.After(t.Last) {
			return 0, fmt.Sprintf("%s tries one runner at a time after %d failures (%s is the trial): %s", who, t.Count, r.Name, t.Text)
		}
	}
	return 1, fmt.Sprintf("%s tries one runner at a time after %d failures: %s", who, t.Count, t.Text)
}

// 10. spare
func (d *decision) spare() {
	for _, p := range d.order {
		extra := p.live() - d.replaceOld(p) - p.need
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
	for _, r := range slices.Concat(p.in(Ready), p.in(Idle)) {
		if r.Held != NotHeld {
			extra-- // perhaps it goes already
		}
	}
	cause := "more runners than pool " + p.Name + " needs"
	take := func(r *row, to *[]Action) {
		if extra > 0 && !r.inJob() && r.wish() {
			r.as = Leaving
			*to = append(*to, Action{r.Runner, cause, ""})
			extra--
		}
	}
	preparing := slices.Clone(p.in(Preparing))
	slices.Reverse(preparing) // the youngest has the furthest to go
	for _, r := range preparing {
		if r.Held == AtGate && r.UPID == "" && r.AskedAt.IsZero() {
			take(r, &d.plan.Cancel)
		}
	}
	for _, r := range p.in(Ready) {
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
	for _, r := range p.in(Idle) {
		if r.Held == NotHeld {
			take(r, &d.plan.Retire)
		}
	}
}

// replaceOld lets Ready runners go whose template is no longer the pool's, and tells how many.
func (d *decision) replaceOld(p *pool) (n int) {
	if p.removed {
		return 0
	}
	for _, r := range p.in(Ready) {
		if r.Held == NotHeld && !r.wished && p.Templates[r.Node] != r.Template {
			d.leave(r, fmt.Sprintf("made from template %d, which pool %s no longer uses on %s", r.Template, p.Name, r.Node), "")
			n++
		}
	}
	return n
}
