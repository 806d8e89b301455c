package fleet_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

// A story's world is written one thing a line: a kind, its names, then facts as key=value or as one word. What
// is not said is as it is on a good day. Ages are how long ago something was.
//
//	now 12:00:00
//	look proxmox age=2s | look github never
//	pool win max=10 ready=0 labels=self-hosted,windows templates=pve1:9000 needs=8GiB clone=15m boot=5m job=24h
//	node pve1 memory=64GiB used=0 configured=0 max_runners=0 full="no room" offline cordoned
//	job 7 queued labels=windows age=5s changed=5s checked=1s runner=k-win-00000001
//	runner k-win-00000001 pool=win node=pve1 phase=ready since=30s vm=running hub=online held=working
//	       asked=20s lost cloned=15s started=10s registration=NAME template=9000 job=7 ended=5s cause="…"
//	vm 120 node=pve1 name=other
//	ghost 12 k-win-00000002 online busy
//	trouble win node=pve1 count=3 last=5s class=other text="…"
//	surplus win age=61s

// scribe reads a world.
type scribe struct {
	t *testing.T
	w fleet.World
}

// fields are one line's facts. Each must be used, or the line has a typing error.
type fields struct {
	t    *testing.T
	line string
	m    map[string]string
}

func readWorld(t *testing.T, text string) fleet.World {
	t.Helper()
	s := scribe{t, fleet.World{
		Now: noon, Pace: fleet.DefaultPace(), Surplus: map[string]time.Time{},
		ProxmoxAsOf: noon.Add(-2 * time.Second), GitHubAsOf: noon.Add(-20 * time.Second),
	}}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.read(line)
		}
	}
	return s.w
}

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func (s *scribe) read(line string) {
	kind, names, f := s.split(line)
	name := names[0]
	switch kind {
	case "now":
		at, err := time.Parse(time.TimeOnly, name)
		s.must(line, err)
		s.w.Now = time.Date(noon.Year(), noon.Month(), noon.Day(), at.Hour(), at.Minute(), at.Second(), 0, time.UTC)
		s.w.ProxmoxAsOf, s.w.GitHubAsOf = s.w.Now.Add(-2*time.Second), s.w.Now.Add(-20*time.Second)
	case "look":
		at := s.ago(f, "age")
		if f.word("never") {
			at = time.Time{}
		}
		if name == "proxmox" {
			s.w.ProxmoxAsOf = at
		} else {
			s.w.GitHubAsOf = at
		}
	case "pool":
		p := fleet.Pool{
			Name: name, Max: f.number("max", 10), Ready: f.number("ready", 0), Labels: f.list("labels", "self-hosted,windows"),
			Templates: map[string]int{}, Needs: f.bytes("needs", "8GiB"), CloneTimeout: f.span("clone", "15m"),
			BootTimeout: f.span("boot", "5m"), JobTimeout: f.span("job", "24h"),
		}
		for _, nt := range f.list("templates", "pve1:9000") {
			node, id, _ := strings.Cut(nt, ":")
			n, err := strconv.Atoi(id)
			s.must(line, err)
			p.Templates[node] = n
		}
		s.w.Pools = append(s.w.Pools, p)
	case "node":
		s.w.Nodes = append(s.w.Nodes, fleet.Node{
			Name: name, Online: !f.word("offline"), Cordoned: f.word("cordoned"), Memory: f.bytes("memory", "256GiB"),
			Used: f.bytes("used", "0GiB"), Configured: f.bytes("configured", "0GiB"), MaxRunners: f.number("max_runners", 0), Full: f.text("full", ""),
		})
	case "job":
		age := f.span("age", "5s")
		j := fleet.Job{
			ID: s.number(line, name), Repo: "acme/app", Status: fleet.JobStatus(names[1]), Labels: f.list("labels", "windows"),
			Created: s.w.Now.Add(-age), Changed: s.w.Now.Add(-f.span("changed", age.String())), Runner: f.text("runner", ""),
		}
		if j.Checked = s.ago(f, "checked"); j.Status.Rank() == 0 {
			s.t.Fatalf("%q: no such status", line)
		}
		s.w.Jobs = append(s.w.Jobs, j)
	case "runner":
		s.w.Runners = append(s.w.Runners, s.runner(name, f))
	case "vm":
		s.w.Unknown = append(s.w.Unknown, fleet.VM{ID: int(s.number(line, name)), Node: f.text("node", "pve1"), Name: f.text("name", ""), Status: f.text("status", "running")})
	case "ghost":
		s.w.Ghosts = append(s.w.Ghosts, fleet.Registration{ID: s.number(line, name), Name: names[1], Online: f.word("online"), Busy: f.word("busy")})
	case "trouble":
		s.w.Troubles = append(s.w.Troubles, fleet.Trouble{
			Pool: name, Node: f.text("node", ""), Count: f.number("count", 1), Last: s.ago(f, "last"),
			Class: f.text("class", "other"), Text: f.text("text", "it failed"),
		})
	case "surplus":
		s.w.Surplus[name] = s.ago(f, "age")
	default:
		s.t.Fatalf("%q: no such kind", line)
	}
	f.done()
}

func (s *scribe) runner(name string, f fields) fleet.Seen {
	phase := fleet.Phase(f.text("phase", "ready"))
	if !slices.Contains(fleet.Phases(), phase) {
		s.t.Fatalf("%q: no such phase", f.line)
	}
	since := s.w.Now.Add(-f.span("since", "30s"))
	r := fleet.Seen{Runner: fleet.Runner{
		Name: name, Pool: f.text("pool", "win"), Node: f.text("node", "pve1"), VMID: 100 + len(s.w.Runners), Template: f.number("template", 9000),
		Phase: phase, Since: since, Born: since,
	}, VM: fleet.Running, Hub: fleet.NotLooked}
	if phase == fleet.Preparing {
		r.VM = fleet.Unseen
	} else {
		r.Born, r.AskedAt, r.ClonedAt, r.StartedAt = since.Add(-90*time.Second), since.Add(-89*time.Second), since.Add(-60*time.Second), since.Add(-50*time.Second)
		r.UPID, r.Address = "UPID:"+name, "192.0.2.1"
	}
	switch phase {
	case fleet.Joining:
		r.Registration = name
	case fleet.Idle:
		r.Registration, r.Hub = name, fleet.Online
	case fleet.Busy:
		r.Registration, r.Hub = name, fleet.Occupied
	}
	for key, at := range map[string]*time.Time{"asked": &r.AskedAt, "cloned": &r.ClonedAt, "started": &r.StartedAt, "ended": &r.JobEnded} {
		if then := s.ago(f, key); !then.IsZero() {
			*at = then
		}
	}
	if !r.AskedAt.IsZero() && !f.word("lost") {
		r.UPID = "UPID:" + name
	}
	r.VM, r.Hub = fleet.Sighting(f.text("vm", string(r.VM))), fleet.Standing(f.text("hub", string(r.Hub)))
	r.Held, r.Registration, r.Cause = fleet.Hold(f.text("held", "")), f.text("registration", r.Registration), f.text("cause", "")
	r.JobID = int64(f.number("job", 0))
	return r
}

// split cuts a line into its kind, its names and its facts; a value with blanks stands in double quotes.
func (s *scribe) split(line string) (kind string, names []string, f fields) {
	f = fields{s.t, line, map[string]string{}}
	var words []string
	for rest := line; rest != ""; rest = strings.TrimLeft(rest, " \t") {
		quoted := false
		end := strings.IndexFunc(rest, func(c rune) bool {
			quoted = quoted != (c == '"')
			return (c == ' ' || c == '\t') && !quoted
		})
		if end < 0 {
			end = len(rest)
		}
		words, rest = append(words, strings.ReplaceAll(rest[:end], `"`, "")), rest[end:]
	}
	named := map[string]int{"job": 2, "ghost": 2}[words[0]]
	for i, word := range words[1:] {
		if key, value, ok := strings.Cut(word, "="); ok {
			f.m[key] = value
		} else if i < max(named, 1) {
			names = append(names, word)
		} else {
			f.m[word] = ""
		}
	}
	if len(names) < max(named, 1) {
		s.t.Fatalf("%q: a name is missing", line)
	}
	return words[0], names, f
}

func (s *scribe) ago(f fields, key string) time.Time {
	if _, ok := f.m[key]; !ok {
		return time.Time{}
	}
	return s.w.Now.Add(-f.span(key, ""))
}

func (s *scribe) number(line, text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	s.must(line, err)
	return n
}

func (s *scribe) must(line string, err error) {
	if err != nil {
		s.t.Fatalf("%q: %v", line, err)
	}
}

func (f fields) text(key, standard string) string {
	v, ok := f.m[key]
	delete(f.m, key)
	if !ok {
		return standard
	}
	return v
}

func (f fields) word(key string) bool {
	_, ok := f.m[key]
	delete(f.m, key)
	return ok
}

func (f fields) list(key, standard string) []string {
	v := f.text(key, standard)
	if v == "" {
		return nil
	}
	return strings.Split(v, ",")
}

func (f fields) number(key string, standard int) int {
	n, err := strconv.Atoi(f.text(key, strconv.Itoa(standard)))
	if err != nil {
		f.t.Fatalf("%q: %v", f.line, err)
	}
	return n
}

func (f fields) span(key, standard string) time.Duration {
	d, err := time.ParseDuration(f.text(key, standard))
	if err != nil {
		f.t.Fatalf("%q: %s: %v", f.line, key, err)
	}
	return d
}

func (f fields) bytes(key, standard string) fleet.Bytes {
	n, err := strconv.Atoi(strings.TrimSuffix(f.text(key, standard), "GiB"))
	if err != nil {
		f.t.Fatalf("%q: %v", f.line, err)
	}
	return fleet.Bytes(n) * fleet.GiB
}

func (f fields) done() {
	for key := range maps.Keys(f.m) {
		f.t.Fatalf("%q: what is %q?", f.line, key)
	}
}

// writePlan writes a plan one wish a line, in the plan's own order.
func writePlan(p fleet.Plan) string {
	var b strings.Builder
	for _, a := range p.Advance {
		fmt.Fprintf(&b, "advance %s to %s job=%d: %s\n", a.Runner.Name, a.To, a.Job, a.Cause)
	}
	for _, l := range []struct {
		what    string
		actions []fleet.Action
	}{{"leave", p.Leave}, {"cancel", p.Cancel}, {"resume", p.Resume}, {"settle", p.Settle}} {
		writeActions(&b, l.what, l.actions)
	}
	for _, x := range p.Examine {
		fmt.Fprintf(&b, "examine %s about %s: %s\n", x.Runner.Name, x.About, x.Cause)
	}
	writeActions(&b, "join", p.Join)
	writeActions(&b, "retire", p.Retire)
	for _, l := range p.Launch {
		fmt.Fprintf(&b, "launch %s on %s job=%d: %s\n", l.Pool, l.Node, l.Job, l.Cause)
	}
	for _, vm := range p.Inspect {
		fmt.Fprintf(&b, "inspect %d on %s\n", vm.ID, vm.Node)
	}
	for _, g := range p.Forget {
		fmt.Fprintf(&b, "forget %d %s\n", g.ID, g.Name)
	}
	for _, j := range p.LookUp {
		fmt.Fprintf(&b, "look up %d\n", j.ID)
	}
	for _, w := range p.Waits {
		held := ""
		if w.Held {
			held = " held"
		}
		fmt.Fprintf(&b, "wait %d pool=%s coming=%s%s: %s\n", w.Job, w.Pool, w.Coming, held, w.Reason)
	}
	for _, s := range p.Surplus {
		fmt.Fprintf(&b, "surplus %s\n", s)
	}
	return b.String()
}

func writeActions(b *strings.Builder, what string, actions []fleet.Action) {
	for _, a := range actions {
		class := ""
		if a.Class != "" {
			class = " (" + a.Class + ")"
		}
		fmt.Fprintf(b, "%s %s%s: %s\n", what, a.Runner.Name, class, a.Cause)
	}
}
