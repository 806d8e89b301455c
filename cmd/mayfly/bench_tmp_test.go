package main
import ("testing";"mayfly/internal/fleet";"slices";"fmt";"time";"cmp")
func TestTmpRatio(t *testing.T) {
	lag := func(all []*story) {
		k := map[string][]time.Duration{}
		var ratios []float64
		for _, s := range all {
			at := s.at
			d := s.delay
			k["1queue-clone"] = append(k["1queue-clone"], at[fleet.CloneAsked].Sub(at[fleet.JobQueued]))
			k["2clone"] = append(k["2clone"], at[fleet.Cloned].Sub(at[fleet.CloneAsked])-d["clone"])
			k["3start"] = append(k["3start"], at[fleet.Started].Sub(at[fleet.Cloned])-d["start"])
			k["4ready"] = append(k["4ready"], at[fleet.RunnerReady].Sub(at[fleet.Started])-(s.simulated()-d["clone"]-d["start"]-d["register"]))
			k["5listen"] = append(k["5listen"], at[fleet.Listening].Sub(at[fleet.RunnerReady])-d["register"])
			ratios = append(ratios, float64(s.took())/float64(s.simulated()))
		}
		var names []string
		for n := range k { names = append(names, n) }
		slices.SortFunc(names, cmp.Compare[string])
		for _, n := range names { fmt.Printf("%s p50 %v p99 %v max %v\n", n, quantile(k[n], .5).Round(time.Millisecond), quantile(k[n], .99).Round(time.Millisecond), slices.Max(k[n]).Round(time.Millisecond)) }
		fmt.Printf("ratio p50 %.4f p99 %.4f\n", quantile(ratios, .5), quantile(ratios, .99))
	}
	var cold []*story
	var px int
	sum := map[string]int{}
	for seed := range uint64(60) {
		a, h := oneByOne(t, seed+1, 1)
		cold = append(cold, a...)
		px += h.tally.proxmox
		for k, v := range h.world.PVE.Requests() { sum[k] += v }
	}
	lag(cold)
	fmt.Println("requests", float64(px)/60, sum)
	a, h := oneByOne(t, 1, 70)
	slices.SortFunc(a, func(x,y *story) int {return cmp.Compare(x.vmid,y.vmid)})
	lag(a[10:])
	fmt.Println("requests", float64(h.tally.proxmox)/70, h.world.PVE.Requests())
}
