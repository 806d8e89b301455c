package web

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mayfly/internal/fleet"
)

// worldCollector reads the last world at each scrape, so that no gauge outlives what it counted.
type worldCollector struct{ source Source }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// What the world tells. Nodes and pools are the only names in it, and no stranger writes them.
var (
	runnersDesc    = desc("mayfly_runners", "Runners by phase.", "pool", "phase")
	maxDesc        = desc("mayfly_pool_max_runners", "Runners that the pool may have at once.", "pool")
	readyWishDesc  = desc("mayfly_pool_ready_wish", "Spare ready VMs wished for.", "pool")
	troublesDesc   = desc("mayfly_troubles", "Failures in a row, of the pool as a whole and on its nodes.", "pool")
	jobsOpenDesc   = desc("mayfly_jobs_open", "Jobs that have not completed, by status.", "status")
	jobsHeldDesc   = desc("mayfly_jobs_held", "Open jobs that wait for capacity, a back-off or a person.")
	lookAgeDesc    = desc("mayfly_look_age_seconds", "Age of the last look that worked.", "system")
	decisionDesc   = desc("mayfly_decision_age_seconds", "Time since the last decision.")
	quarantineDesc = desc("mayfly_quarantined_vmids", "Ids that nobody uses until a person has looked.")
	strangersDesc  = desc("mayfly_unknown_vms", "VMs in our range without a row.")
	readyDesc      = desc("mayfly_ready", "1 when Mayfly is ready, else 0.")
	nodeUpDesc     = desc("mayfly_node_online", "1 when Proxmox says that the node is online, else 0.", "node")
	nodeCordonDesc = desc("mayfly_node_cordoned", "1 when the node takes no new runner, else 0.", "node")
	nodeFullDesc   = desc("mayfly_node_storage_full", "1 when the node's storage can take no more, else 0.", "node")
	nodeMemDesc    = desc("mayfly_node_memory_bytes", "Memory of the node less what is reserved; absent when not known.", "node")
	nodeUsedDesc   = desc("mayfly_node_memory_used_bytes", "Measured memory use of the node.", "node")
	nodeConfDesc   = desc("mayfly_node_memory_configured_bytes", "Memory of the running VMs that we can see.", "node")
	storageDesc    = desc("mayfly_storage_bytes", "Size of a node's storage for VM images.", "node", "storage")
	storageUseDesc = desc("mayfly_storage_used_bytes", "Used part of a node's storage for VM images.", "node", "storage")
	nodeRowsDesc   = desc("mayfly_node_runners", "Our runners on the node, leaving ones too.", "node")
)

// Describe implements prometheus.Collector.
func (c worldCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		runnersDesc, maxDesc, readyWishDesc, troublesDesc, jobsOpenDesc, jobsHeldDesc, lookAgeDesc, decisionDesc, quarantineDesc,
		strangersDesc, readyDesc, nodeUpDesc, nodeCordonDesc, nodeFullDesc, nodeMemDesc, nodeUsedDesc, nodeConfDesc, nodeRowsDesc,
		storageDesc, storageUseDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c worldCollector) Collect(ch chan<- prometheus.Metric) {
	world, plan := c.source.Last()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := time.Now()
	gauge(readyDesc, truth(c.source.Ready() == nil))
	gauge(quarantineDesc, float64(len(world.Quarantine)))
	gauge(strangersDesc, float64(len(world.Unknown)))
	if !world.Now.IsZero() {
		gauge(decisionDesc, seconds(now.Sub(world.Now)))
	}
	for system, asOf := range map[string]time.Time{"proxmox": world.ProxmoxAsOf, "github": world.GitHubAsOf} {
		if !asOf.IsZero() {
			gauge(lookAgeDesc, seconds(now.Sub(asOf)), system)
		}
	}
	collectPools(world, gauge)
	collectJobs(world, plan, gauge)
	collectNodes(world, gauge)
}

type gaugeFunc func(d *prometheus.Desc, v float64, labels ...string)

func collectPools(world fleet.World, gauge gaugeFunc) {
	type key struct {
		pool  string
		phase fleet.Phase
	}
	runners := make(map[key]int)
	troubles := make(map[string]int)
	for _, p := range world.Pools {
		pool := place(p.Name)
		if _, twice := troubles[pool]; twice { // a second one would spoil the whole scrape
			continue
		}
		gauge(maxDesc, float64(p.Max), pool)
		gauge(readyWishDesc, float64(p.Ready), pool)
		troubles[pool] = 0
		for _, phase := range fleet.Phases() {
			runners[key{pool, phase}] = 0 // so that a pool without runners says 0 and not nothing
		}
	}
	for _, r := range world.Runners {
		runners[key{place(r.Pool), r.Phase}]++
	}
	for _, t := range world.Troubles {
		troubles[place(t.Pool)] += t.Count
	}
	for k, n := range runners {
		gauge(runnersDesc, float64(n), k.pool, string(k.phase))
	}
	for pool, n := range troubles {
		gauge(troublesDesc, float64(n), pool)
	}
}

func collectJobs(world fleet.World, plan fleet.Plan, gauge gaugeFunc) {
	open := map[fleet.JobStatus]int{fleet.StatusWaiting: 0, fleet.StatusQueued: 0, fleet.StatusInProgress: 0}
	for _, j := range world.Jobs {
		if _, known := open[j.Status]; known {
			open[j.Status]++
		}
	}
	for status, n := range open {
		gauge(jobsOpenDesc, float64(n), string(status))
	}
	held := 0
	for _, w := range plan.Waits {
		if w.Held {
			held++
		}
	}
	gauge(jobsHeldDesc, float64(held))
}

func collectNodes(world fleet.World, gauge gaugeFunc) {
	rows := make(map[string]int)
	for _, r := range world.Runners {
		rows[r.Node]++
	}
	seen := make(map[string]bool)
	for _, n := range world.Nodes {
		node := place(n.Name)
		if seen[node] { // as above
			continue
		}
		seen[node] = true
		gauge(nodeUpDesc, truth(n.Online), node)
		gauge(nodeCordonDesc, truth(n.Cordoned), node)
		gauge(nodeFullDesc, truth(n.Full != ""), node)
		gauge(nodeRowsDesc, float64(rows[n.Name]), node)
		stored := make(map[string]bool)
		for _, s := range n.Storages {
			if name := place(s.Name); !stored[name] {
				stored[name] = true
				gauge(storageDesc, float64(s.Total), node, name)
				gauge(storageUseDesc, float64(s.Used), node, name)
			}
		}
		if n.Memory > 0 {
			gauge(nodeMemDesc, float64(n.Memory), node)
			gauge(nodeUsedDesc, float64(n.Used), node)
			gauge(nodeConfDesc, float64(n.Configured), node)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
