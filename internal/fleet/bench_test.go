package fleet_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

// BenchmarkDecide is the design's target: 10,000 runners on 100 nodes, 10 pools, 2,000 open jobs, at most 5 ms.
// It is a busy moment: about a thousand launches and hundreds of joins in one plan.
// The rows come as the store gives them, by name; jobs as they came; a few nodes are full, down or in trouble.
func BenchmarkDecide(b *testing.B) {
	w := large(rand.New(rand.NewPCG(1, 2)))
	p := fleet.Decide(w)
	b.Logf("%d launches, %d joins, %d waits, %d leaves", len(p.Launch), len(p.Join), len(p.Waits), len(p.Leave))
	b.ReportAllocs()
	for b.Loop() {
		fleet.Decide(w)
	}
}

// BenchmarkDecideContent is the same fleet when every runner is in its job and nothing waits.
func BenchmarkDecideContent(b *testing.B) {
	w := large(rand.New(rand.NewPCG(1, 2)))
	w.Jobs, w.Troubles = nil, nil
	for i := range w.Pools {
		w.Pools[i].Ready = 0
	}
	for i := range w.Runners {
		r := &w.Runners[i]
		r.Phase, r.Since, r.VM, r.Hub = fleet.Busy, w.Now.Add(-time.Minute), fleet.Running, fleet.Occupied
	}
	b.ReportAllocs()
	for b.Loop() {
		fleet.Decide(w)
	}
}

func large(rnd *rand.Rand) fleet.World {
	w := fleet.World{Now: noon, Pace: fleet.DefaultPace(), ProxmoxAsOf: noon, GitHubAsOf: noon}
	templates := map[string]int{}
	for i := range 100 {
		n := fleet.Node{Name: fmt.Sprintf("pve%03d", i), Online: i%25 != 3, Cordoned: i%20 == 7, Memory: 1100 * fleet.GiB, Used: 700 * fleet.GiB}
		templates[n.Name] = 9000 + i
		w.Nodes = append(w.Nodes, n)
	}
	for i := range 10 {
		w.Pools = append(w.Pools, fleet.Pool{
			Name: fmt.Sprintf("p%d", i), Labels: []string{"self-hosted", "windows", "x64", fmt.Sprintf("size-%d", i)}, Max: 2000, Ready: 800, Templates: templates,
			Needs: 8 * fleet.GiB, CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute, JobTimeout: 24 * time.Hour,
		})
		w.Troubles = append(w.Troubles, fleet.Trouble{Pool: fmt.Sprintf("p%d", i), Node: fmt.Sprintf("pve%03d", i*10), Count: 2, Last: noon.Add(-time.Minute), Text: "it failed"})
	}
	phases := []fleet.Phase{fleet.Busy, fleet.Busy, fleet.Joining, fleet.Preparing, fleet.Preparing, fleet.Leaving}
	for len(phases) < 20 {
		phases = append(phases, fleet.Ready)
	}
	for i := range 10_000 {
		// Names in order, as the store reads them: pool by pool, then by their hash.
		pool := i / 1000
		since := noon.Add(-time.Duration(rnd.IntN(280)) * time.Second)
		r := fleet.Seen{Runner: fleet.Runner{
			Name: fmt.Sprintf("k3f9-p%d-%08x", pool, i<<16|rnd.IntN(1<<16)), Pool: fmt.Sprintf("p%d", pool), Node: w.Nodes[rnd.IntN(100)].Name, VMID: 100000 + i,
			Phase: phases[rnd.IntN(len(phases))], Since: since, Born: since, AskedAt: since, UPID: "UPID:pve:0", ClonedAt: since, StartedAt: since,
		}, VM: fleet.Running, Hub: fleet.NotLooked}
		r.Template = templates[r.Node]
		switch r.Phase {
		case fleet.Preparing, fleet.Joining, fleet.Leaving:
			r.Held, r.VM = fleet.AtWork, fleet.Unseen
		}
		if fleet.Ready.Before(r.Phase) {
			r.Registration = r.Name
		}
		w.Runners = append(w.Runners, r)
	}
	var busy []fleet.Seen
	for _, r := range w.Runners {
		if r.Phase == fleet.Busy {
			busy = append(busy, r)
		}
	}
	for i := range 2000 {
		j := fleet.Job{
			ID: int64(i + 1), Labels: []string{"self-hosted", "windows", fmt.Sprintf("size-%d", rnd.IntN(10))}, Status: fleet.StatusQueued,
			Created: noon.Add(-time.Duration(rnd.IntN(600)) * time.Second), Changed: noon,
		}
		if i < len(busy) {
			j.Status, j.Runner = fleet.StatusInProgress, busy[i].Registration
		}
		w.Jobs = append(w.Jobs, j)
	}
	return w
}
