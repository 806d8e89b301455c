package fleet_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/fleet"
)

const phasesFile = "testdata/phases.txt"

// TestEveryPhaseHasAnAnswer walks every phase × what Proxmox says × what GitHub says × held or not, for one runner
// of a pool that has had more than it needs for long, then for one whose pool has a job queued. No pair may be
// missing; and whatever -update writes, the laws below hold for each.
func TestEveryPhaseHasAnAnswer(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-38s | %-32s | %s\n", "runner", "not needed", "a job is queued")
	pairs := 0
	for _, phase := range fleet.Phases() {
		for _, vm := range []fleet.Sighting{fleet.Unseen, fleet.Missing, fleet.Running, fleet.Stopped} {
			for _, hub := range []fleet.Standing{fleet.NotLooked, fleet.Unlisted, fleet.Offline, fleet.Online, fleet.Occupied} {
				for _, held := range []fleet.Hold{fleet.NotHeld, fleet.AtGate, fleet.AtWork} {
					what := fmt.Sprintf("%s %s %s", phase, vm, hub)
					if held != fleet.NotHeld {
						what += " " + string(held)
					}
					var said [2]string
					for i := range said {
						w := lone(phase, vm, hub, held, i == 1)
						p := fleet.Decide(w)
						said[i] = wishes(p)
						lawsOfOne(t, fmt.Sprintf("%s, %d jobs", what, i), w.Runners[0], p)
					}
					fmt.Fprintf(&b, "%-38s | %-32s | %s\n", what, said[0], said[1])
					pairs++
				}
			}
		}
	}
	if pairs != 6*4*5*3 {
		t.Errorf("%d pairs", pairs)
	}
	if *update {
		if err := os.WriteFile(phasesFile, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(phasesFile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// lone is a world with one runner, six minutes in its phase.
func lone(phase fleet.Phase, vm fleet.Sighting, hub fleet.Standing, held fleet.Hold, job bool) fleet.World {
	since := noon.Add(-6 * time.Minute)
	r := fleet.Seen{Runner: fleet.Runner{
		Name: "k-win-00000001", Pool: "win", Node: "pve1", VMID: 100, Template: 9000, Phase: phase, Since: since, Born: since,
	}, VM: vm, Hub: hub, Held: held}
	if phase != fleet.Preparing || held != fleet.AtGate {
		r.AskedAt, r.UPID, r.ClonedAt, r.StartedAt = since, "UPID:1", since.Add(time.Minute), since.Add(2*time.Minute)
	}
	if fleet.Ready.Before(phase) {
		r.Registration = r.Name
	}
	w := fleet.World{
		Now: noon, Pace: fleet.DefaultPace(), ProxmoxAsOf: noon, GitHubAsOf: noon, Runners: []fleet.Seen{r},
		Pools: []fleet.Pool{{
			Name: "win", Labels: []string{"windows"}, Max: 10, Templates: map[string]int{"pve1": 9000}, Needs: fleet.GiB,
			CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute, JobTimeout: 24 * time.Hour,
		}},
		Nodes: []fleet.Node{{Name: "pve1", Online: true, Memory: 64 * fleet.GiB}}, Surplus: map[string]time.Time{"win": since},
	}
	if job {
		w.Jobs = []fleet.Job{{ID: 1, Status: fleet.StatusQueued, Labels: []string{"windows"}, Created: noon, Changed: noon}}
	}
	return w
}

// wishes names what p wishes, without causes.
func wishes(p fleet.Plan) string {
	var said []string
	add := func(n int, what string) {
		for range n {
			said = append(said, what)
		}
	}
	for _, a := range p.Advance {
		add(1, "advance to "+string(a.To))
	}
	add(len(p.Leave), "leave")
	add(len(p.Cancel), "cancel")
	add(len(p.Resume), "resume")
	add(len(p.Settle), "settle")
	for _, x := range p.Examine {
		add(1, "examine "+string(x.About))
	}
	add(len(p.Join), "join")
	add(len(p.Retire), "retire")
	add(len(p.Launch), "launch")
	if len(said) == 0 {
		return "-"
	}
	return strings.Join(said, ", ")
}

// lawsOfOne are what no table may change.
func lawsOfOne(t *testing.T, what string, r fleet.Seen, p fleet.Plan) {
	ends := len(p.Leave) + len(p.Cancel) + len(p.Retire)
	switch {
	case r.Phase == fleet.Busy && ends > 0:
		t.Errorf("%s: a Busy runner is ended", what)
	case r.Phase == fleet.Joining && ends > 0:
		t.Errorf("%s: a Joining runner is ended", what)
	case r.Held != fleet.NotHeld && wishesOf(p)-len(p.Leave)-len(p.Cancel) > 0:
		t.Errorf("%s: a held runner gets a wish other than to go", what)
	case r.Held != fleet.NotHeld && r.Phase != fleet.Preparing && ends > 0:
		t.Errorf("%s: a held runner that is not Preparing is told to go", what)
	case r.Held == fleet.AtWork && len(p.Cancel) > 0:
		t.Errorf("%s: a launch past the gate is cancelled", what)
	case r.Phase != fleet.Idle && len(p.Retire) > 0:
		t.Errorf("%s: only Idle runners retire", what)
	case r.Phase != fleet.Ready && len(p.Join) > 0:
		t.Errorf("%s: only Ready runners join", what)
	case wishesOf(p) > 1:
		t.Errorf("%s: %d wishes", what, wishesOf(p))
	}
	hint := r.VM == fleet.Stopped || r.VM == fleet.Missing || r.Hub == fleet.Unlisted
	registered := r.Phase == fleet.Idle || r.Phase == fleet.Busy || r.Phase == fleet.Joining
	if hint && registered && ends > 0 {
		t.Errorf("%s: a list's hint ends a runner that may be in a job", what)
	}
	if (r.VM == fleet.Stopped || r.VM == fleet.Missing) && r.Phase == fleet.Ready && ends > 0 {
		t.Errorf("%s: a hint ends a Ready runner", what)
	}
}

// wishesOf counts the wishes about runners.
func wishesOf(p fleet.Plan) int {
	return len(p.Advance) + len(p.Leave) + len(p.Cancel) + len(p.Resume) + len(p.Settle) + len(p.Examine) + len(p.Join) + len(p.Retire)
}
