package main

import (
	"fmt"
	"io"
	"time"
)

// report is what a demo found. All *_ms are wall-clock milliseconds of this machine.
type report struct {
	Jobs                     int        `json:"jobs"`
	Succeeded                int        `json:"succeeded"`
	Killed                   int        `json:"killed"`
	VMsLeft                  int        `json:"vms_left"`
	VolumesLeft              int        `json:"volumes_left"`
	ForeignTouched           int        `json:"foreign_touched"`
	ClonesPerJob             float64    `json:"clones_per_job"`
	ProxmoxRequestsPerRunner float64    `json:"proxmox_requests_per_runner"` // looks not counted
	GitHubRequestsPerJob     float64    `json:"github_requests_per_job"`     // looks not counted
	QueueToCloneMS           *quantiles `json:"queue_to_clone_ms"`           // waits at our gates, for capacity or back-off not in it
	GateWaitMS               *quantiles `json:"gate_wait_ms"`
	ReadyToJoinMS            *quantiles `json:"ready_to_join_ms"`
	OverheadRatio            *quantiles `json:"overhead_ratio"`         // only from fake time: null above speed 1
	QueueToListeningSeconds  *quantiles `json:"queue_to_start_seconds"` // in the world's time: from queued to the job's start
	Seed                     uint64     `json:"seed"`

	cutOff           bool // ended by Ctrl-C, amid its work
	running, waiting int  // jobs then
}

func (s *stage) report(o demoOptions) *report {
	st, t := s.world.GitHub.Stats(), s.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	var waits []time.Duration
	for _, j := range s.world.GitHub.Jobs() {
		if !j.Started.IsZero() {
			waits = append(waits, time.Duration(float64(j.Started.Sub(j.Queued))*o.speed))
		}
	}
	r := &report{
		Jobs: st.Submitted, Succeeded: st.Succeeded, Killed: st.Killed,
		VMsLeft: len(s.world.PVE.VMs()), VolumesLeft: len(s.world.PVE.Volumes()), ForeignTouched: len(s.world.PVE.Touched()),
		ClonesPerJob: per(t.clones, st.Submitted), ProxmoxRequestsPerRunner: per(t.proxmox, t.runners), GitHubRequestsPerJob: per(t.github, st.Submitted),
		QueueToCloneMS: millis(t.queueClone), GateWaitMS: millis(t.gateWait), ReadyToJoinMS: millis(t.readyJoin), Seed: o.seed,
		cutOff: o.jobs == 0 || st.Succeeded < o.jobs, running: st.Running, waiting: st.Queued,
	}
	if len(waits) > 0 {
		r.QueueToListeningSeconds = &quantiles{quantile(waits, 0.5).Round(100 * time.Millisecond).Seconds(), quantile(waits, 0.99).Round(100 * time.Millisecond).Seconds()}
	}
	return r
}

func per(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n*100/of) / 100
}

func (r *report) print(to io.Writer) {
	if r.cutOff {
		fmt.Fprintf(to, "\n%d jobs: %d succeeded, %d running, %d waiting, %d killed. %d VMs were there when you stopped it; a real serve would take them up at its next start.\n",
			r.Jobs, r.Succeeded, r.running, r.waiting, r.Killed, r.VMsLeft)
	} else {
		fmt.Fprintf(to, "\n%d jobs, %d succeeded, %d killed. VMs left: %d, volumes left: %d. Clones per job: %.2f.\n",
			r.Jobs, r.Succeeded, r.Killed, r.VMsLeft, r.VolumesLeft, r.ClonesPerJob)
	}
	if q := r.QueueToListeningSeconds; q != nil {
		fmt.Fprintf(to, "From queued to started, in the world's time: half within %v, 99 %% within %v.\n", seconds(q.P50), seconds(q.P99))
	}
	if q := r.QueueToCloneMS; q != nil {
		fmt.Fprintf(to, "From a webhook's first byte to the clone request, on this machine: half within %.1f ms, 99 %% within %.1f ms.\n", q.P50, q.P99)
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
