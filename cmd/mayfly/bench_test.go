package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/sim"
)

// TestBench measures the design's numbers and prints them beside their targets. It never fails for a number: a machine may
// be busy. `make bench` runs it, alone on the machine.
func TestBench(t *testing.T) {
	if os.Getenv("MAYFLY_BENCH") == "" {
		t.Skip("measures for some minutes: run `make bench`")
	}
	fmt.Printf("%d cores, %s\n\n", runtime.NumCPU(), runtime.Version())
	printRow("what", "target", "measured", "")
	t.Run("reaction", benchReaction)
	t.Run("overhead", benchOverhead)
	t.Run("burst", benchBurst)
	t.Run("warm", benchWarm)
	t.Run("decide", benchDecide)
	t.Run("deliveries", benchDeliveries)
	t.Run("idle", benchIdle)
	t.Run("gates", benchGates)
}

func printRow(what, target, measured, verdict string) {
	fmt.Println(strings.TrimRight(fmt.Sprintf("%-62s | %-28s | %-52s | %s", what, target, measured, verdict), " |"))
}

// benchRow prints one number beside its target.
func benchRow(what, target, measured string, ok bool) {
	verdict := "ok"
	if !ok {
		verdict = "MISSED"
	}
	printRow(what, target, measured, verdict)
}

// benchNote prints what has no target of its own.
func benchNote(what, measured string) { printRow(what, "", measured, "") }

// benchReaction: real time, real HTTP over loopback, the database on disk with synchronous=FULL.
func benchReaction(t *testing.T) {
	const speed = 20
	r := react(t, 150, 150*time.Millisecond, speed)
	p50, p99 := quantile(r.tally.queueClone, 0.5), quantile(r.tally.queueClone, 0.99)
	benchRow("webhook in -> clone POST out", "p99 <= 10 ms", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms of %d", ms(p50), ms(p99), len(r.tally.queueClone)), p99 <= 10*time.Millisecond)
	benchNote("  the same seen from outside: GitHub dials -> Proxmox has read", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(quantile(r.outside, 0.5)), ms(quantile(r.outside, 0.99))))
	benchNote("  gate_wait_ms (not in it)", fmt.Sprintf("p50 %.3f, p99 %.3f", ms(quantile(r.tally.gateWait, 0.5)), ms(quantile(r.tally.gateWait, 0.99))))
	p50, p99 = quantile(r.tally.readyJoin, 0.5), quantile(r.tally.readyJoin, 0.99)
	benchRow("guest's ready:true read -> JIT POST sent", "<= 50 ms", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms of %d", ms(p50), ms(p99), len(r.tally.readyJoin)), p99 <= 50*time.Millisecond)
	benchRow("clones for one job", "1", fmt.Sprintf("%.2f", per(r.tally.clones, 150)), r.tally.clones == 150)
}

// benchOverhead: what we add to the world's own delays, in fake time.
func benchOverhead(t *testing.T) {
	const target = "p50 <= 1.03, p99 <= 1.06"
	ratios := func(all []*story) (ratios []float64) {
		for _, s := range all {
			ratios = append(ratios, float64(s.took())/float64(s.simulated()))
		}
		return ratios
	}
	show := func(what string, rs []float64) {
		p50, p99 := quantile(rs, 0.5), quantile(rs, 0.99)
		benchRow(what, target, fmt.Sprintf("p50 %.3f, p99 %.3f of %d", p50, p99, len(rs)), p50 <= 1.03 && p99 <= 1.06)
	}
	var learned, first []*story
	var requests, runners, github int
	for seed := range uint64(3) {
		all, h := oneByOne(t, seed+1, 48)
		slices.SortFunc(all, func(a, b *story) int { return cmp.Compare(a.vmid, b.vmid) })
		learned = append(learned, all[8:]...)
		requests, runners, github = requests+h.tally.proxmox, runners+h.tally.runners, github+h.tally.github
	}
	cold := 0
	for seed := range uint64(100) {
		all, h := oneByOne(t, seed+1, 1)
		first = append(first, all...)
		cold += h.tally.proxmox
	}
	show("queue -> listening over the simulated delays, one cold runner", ratios(learned))
	show("  the very first runner of a new process (nothing learned)", ratios(first))
	alone := float64(requests) / float64(runners)
	benchRow("Proxmox requests for a cold runner's life, alone", "<= 32", fmt.Sprintf("%.1f", alone), alone <= 32)
	benchNote("  of the very first runner of a new process", fmt.Sprintf("%.1f", float64(cold)/100))
	perJob := float64(github) / float64(runners)
	benchRow("GitHub requests for one job, looks apart", "<= 2", fmt.Sprintf("%.2f", perJob), perJob <= 2)
}

func benchBurst(t *testing.T) {
	ends := map[int]burstEnd{}
	for _, n := range []int{1, 20, 100} {
		ends[n] = burst{jobs: n, seed: 1}.run(t)
	}
	for _, n := range []int{20, 100} {
		e := ends[n]
		benchRow(fmt.Sprintf("Proxmox requests for a runner's life, %d at once on one node", n), "<= 20", fmt.Sprintf("%.1f; looks of both: %.2f a second", e.requests, e.looks), e.requests <= 20)
		benchNote("  GitHub requests for one job; look-ups of long waiting jobs", fmt.Sprintf("%.2f; %.2f", e.github, e.lookUps))
	}
	for _, n := range []int{1, 20, 100} {
		e := ends[n]
		what, got := fmt.Sprintf("burst of %d on one node: last job started after", n), fmt.Sprintf("%v; %d failures, %d volumes leaked", e.last.Round(time.Second), e.failures, e.leaked)
		if n == 20 {
			benchRow(what, "<= twice a burst of 1", got, e.last <= 2*ends[1].last)
		} else {
			benchNote(what, got)
		}
	}
}

// benchWarm: a pool that keeps two ready VMs, beside the cold runners of the same seeds.
func benchWarm(t *testing.T) {
	var warm, cold []time.Duration
	for seed := range uint64(15) {
		for ready, to := range map[int]*[]time.Duration{0: &cold, 2: &warm} {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t, houseOptions{sim: sim.Config{Seed: seed + 1, OOBE: true}, max: 6, ready: ready})
				defer h.close()
				h.start()
				h.untilReady(ready)
				h.submit(1, minutes(5))
				synctest.Sleep(10 * time.Minute)
				for _, j := range h.world.GitHub.Jobs() {
					if j.Started.IsZero() {
						t.Errorf("job %+v has not started", j)
						continue
					}
					*to = append(*to, j.Started.Sub(j.Queued))
				}
			})
		}
	}
	show := func(d []time.Duration) string {
		return fmt.Sprintf("p50 %.1f s, p99 %.1f s of %d", quantile(d, 0.5).Seconds(), quantile(d, 0.99).Seconds(), len(d))
	}
	benchNote("queued -> job started on a ready VM (ready: 2)", show(warm))
	benchNote("  on a cold one (ready: 0), a new process", show(cold))
}

// untilReady lets time pass until n spare VMs are ready, and a moment more.
func (h *house) untilReady(n int) {
	for {
		synctest.Sleep(5 * time.Second)
		w, _ := h.live.app.control.Last()
		ready := 0
		for _, r := range w.Runners {
			if r.Phase == fleet.Ready {
				ready++
			}
		}
		if ready >= n && !w.ProxmoxAsOf.IsZero() {
			return
		}
	}
}

// benchDecide runs the benchmark of fleet itself: its world is not built twice.
func benchDecide(t *testing.T) {
	const target = "<= 5 ms"
	out, err := exec.CommandContext(t.Context(), "go", "test", "-run", "^$", "-bench", "^BenchmarkDecide$", "-benchtime", "100x", "-count", "3", "mayfly/internal/fleet").CombinedOutput()
	if err != nil {
		benchNote("Decide, 10,000 runners, 100 nodes", "not measured: go test: "+err.Error())
		return
	}
	var times []float64
	for _, m := range regexp.MustCompile(`BenchmarkDecide\S*\s+\d+\s+([0-9.]+) ns/op`).FindAllStringSubmatch(string(out), -1) {
		if ns, err := strconv.ParseFloat(m[1], 64); err == nil {
			times = append(times, ns/1e6)
		}
	}
	if len(times) == 0 {
		benchNote("Decide, 10,000 runners, 100 nodes", "not measured: the benchmark says nothing")
		return
	}
	got := quantile(times, 0.5)
	benchRow("Decide, 10,000 runners, 100 nodes", target, fmt.Sprintf("%.1f ms, the middle of 3 x 100", got), got <= 5)
}

func benchDeliveries(t *testing.T) {
	const senders = 32
	d := deliver(t, senders, 1000)
	p99 := quantile(d.took, 0.99)
	benchRow(fmt.Sprintf("webhooks verified and durable, hook and store alone, %d senders", senders), ">= 3,000/s, p99 < 50 ms",
		fmt.Sprintf("%.0f/s, p50 %.1f ms, p99 %.1f ms of %d", d.rate, ms(quantile(d.took, 0.5)), ms(p99), len(d.took)), d.rate >= 3000 && p99 < 50*time.Millisecond)
}

func benchIdle(t *testing.T) {
	const runners, nodes = 10_000, 100
	r := idle(t, runners, nodes, time.Minute)
	benchRow("10,000 runners in their jobs, serve as its own process, 1 min", "<= 512 MiB, <= 25 % of a core",
		fmt.Sprintf("%d MiB at most, %.1f %% of a core", r.rss/fleet.MiB, r.cores*100), r.rss <= 512*fleet.MiB && r.cores <= 0.25)
}

// benchGates is the table that the default clone gate was chosen by (docs/adr/0004-clone-gate.md).
func benchGates(t *testing.T) {
	fmt.Println("\nclone gate, storage locks held 0.3-1 s (x 1) and 0.6-2 s (x 2); until the last job started, lock time-outs, leaked volumes, requests a runner:")
	for _, slow := range []float64{1, 2} {
		for _, gate := range []int{3, 4, 6, 8, 12, 20} {
			line := fmt.Sprintf("  x %g  gate %2d", slow, gate)
			for _, n := range []int{1, 20, 100} {
				e := burst{jobs: n, gate: gate, seed: 1, slow: slow}.run(t)
				line += fmt.Sprintf("  | %3d jobs: %4.0f s, %3d, %2d, %4.1f", n, e.last.Seconds(), e.timeouts, e.leaked, e.requests)
			}
			fmt.Println(line)
		}
	}
}
