package web

import (
	"errors"
	"sync"
	"time"

	"mayfly/internal/fleet"
)

// still is a Source that always says the same.
type still struct {
	world fleet.World
	plan  fleet.Plan
	err   error
}

func (s still) Last() (fleet.World, fleet.Plan) { return s.world, s.plan }
func (s still) Ready() error                    { return s.err }

// moving is a Source whose world is set while it is read.
type moving struct {
	mu    sync.Mutex
	world fleet.World
}

func (m *moving) Last() (fleet.World, fleet.Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.world, fleet.Decide(m.world)
}
func (m *moving) Ready() error { return nil }

func (m *moving) set(w fleet.World) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.world = w
}

// day is a world and a plan with something of everything at the given moment.
func day(now time.Time) still {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	row := func(name, node string, vmid int, phase fleet.Phase, since, born time.Duration) fleet.Seen {
		return fleet.Seen{
			Runner: fleet.Runner{
				Name: "m1-" + name, Pool: fleet.PoolOf("m1", "m1-"+name), Node: node, VMID: vmid, Template: 9000, Phase: phase,
				Since: ago(since), Born: ago(born), AskedAt: ago(born), UPID: "UPID:x",
			},
			VM: fleet.Running, Hub: fleet.NotLooked,
		}
	}
	cloning := row("win-1c0ffee1", "pve1", 100011, fleet.Preparing, 9*time.Second, 9*time.Second)
	cloning.VM, cloning.Held = fleet.Unseen, fleet.AtWork
	booting := row("win-2badcafe", "pve2", 100012, fleet.Preparing, 44*time.Second, 44*time.Second)
	booting.ClonedAt, booting.StartedAt, booting.Held = ago(30*time.Second), ago(28*time.Second), fleet.AtWork
	ready := row("win-big-3f2a9c01", "pve2", 100013, fleet.Ready, 200*time.Second, 280*time.Second)
	busy := row("win-4d5e6f70", "pve1", 100014, fleet.Busy, 1210*time.Second, 1300*time.Second)
	busy.Job, busy.Registration, busy.RunnerID, busy.Hub, busy.Address = 7001, busy.Name, 51, fleet.Occupied, "10.0.0.14"
	leaving := row("win-8a9b0c1d", "pve2", 100015, fleet.Leaving, 4*time.Second, 2000*time.Second)
	leaving.Cause, leaving.VM, leaving.Held = "job 6990 has ended", fleet.Stopped, fleet.AtWork
	old := row("gone-aaaaaaaa", "pve3", 100016, fleet.Idle, 3*time.Hour, 4*time.Hour)
	old.Adopted = true

	job := func(id int64, name string, status fleet.JobStatus, age time.Duration, labels ...string) fleet.Job {
		return fleet.Job{
			ID: id, Repo: "acme/widgets", Name: name, Labels: labels, Status: status,
			Created: ago(age), Received: ago(age), Changed: ago(age),
		}
	}
	running := job(7001, "build (Release, x64)", fleet.StatusInProgress, 1300*time.Second, "self-hosted", "windows", "x64")
	running.Runner, running.RunnerID = busy.Registration, 51
	ended := job(6990, "unit tests", fleet.StatusCompleted, 2000*time.Second, "self-hosted", "windows")
	ended.Conclusion = "success"

	w := fleet.World{
		Now: now, Pace: fleet.DefaultPace(),
		Pools: []fleet.Pool{
			{
				Name: "win", Labels: []string{"self-hosted", "windows", "x64"}, Ready: 1, Max: 4, Needs: 8 * fleet.GiB,
				Templates: map[string]int{"pve1": 9000, "pve2": 9000}, CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute,
			},
			{
				Name: "win-big", Labels: []string{"self-hosted", "windows", "x64", "big"}, Ready: 1, Max: 2, Needs: 64 * fleet.GiB,
				Templates: map[string]int{"pve1": 9000, "pve2": 9000}, CloneTimeout: 15 * time.Minute, BootTimeout: 5 * time.Minute,
			},
			{Name: "arm", Labels: []string{"self-hosted", "windows", "arm64"}, Max: 2, Templates: map[string]int{"pve3": 9100}},
		},
		Jobs: []fleet.Job{
			ended, running,
			job(7002, "integration", fleet.StatusQueued, 95*time.Second, "self-hosted", "windows"),
			job(7003, "<script>alert('x')</script>", fleet.StatusQueued, 40*time.Second, "windows-latest", "<b>bold</b>"),
			job(7004, "deploy", fleet.StatusWaiting, 12*time.Second, "self-hosted", "windows"),
			job(7005, "arm build", fleet.StatusQueued, 8*time.Second, "self-hosted", "arm64"),
		},
		Runners: []fleet.Seen{cloning, booting, ready, busy, leaving, old},
		Nodes: []fleet.Node{
			{Name: "pve1", Online: true, Memory: 120 * fleet.GiB, Used: 41 * fleet.GiB, Configured: 72 * fleet.GiB},
			{Name: "pve2", Online: true, Memory: 120 * fleet.GiB, Used: 90 * fleet.GiB, Configured: 64 * fleet.GiB, Full: "storage local-lvm is 91 % full (watermark 90 %)"},
			{Name: "pve3", Online: false, MaxRunners: 2},
			{Name: "pve4", Online: true, Cordoned: true, MaxRunners: 2},
		},
		Troubles: []fleet.Trouble{
			{Pool: "win", Node: "pve2", Count: 3, Last: ago(12 * time.Second), Class: "full", Text: "storage 'local-lvm': no space left"},
			{Pool: "arm", Count: 1, Last: ago(time.Hour), Class: "config", Text: "template 9100 does not exist on pve3"},
		},
		Quarantine:  map[int]string{100003: "VM 100003 <img src=x> has no mark of ours", 100001: "still hidden 15 m after its clone"},
		Unknown:     []fleet.VM{{ID: 100090, Node: "pve1", Name: "somebody"}},
		Ghosts:      []fleet.Registration{{ID: 9, Name: "m1-win-deadbeef"}},
		Surplus:     map[string]time.Time{},
		ProxmoxAsOf: ago(3 * time.Second), GitHubAsOf: ago(41 * time.Second),
	}
	// Written by hand, so that what the API says does not change with how fleet words its reasons.
	spare := row("win-9e8d7c6b", "pve1", 100018, fleet.Ready, time.Minute, 3*time.Minute).Runner
	plan := fleet.Plan{
		Launch:  []fleet.Launch{{Pool: "win", Node: "pve1", Job: 7002, Cause: "job 7002 waits"}},
		Advance: []fleet.Advance{{Runner: busy.Runner, To: fleet.Busy, Job: 7001, Cause: "job 7001 runs on it"}},
		Join:    []fleet.Action{{Runner: ready.Runner, Cause: "a job waits"}},
		Resume:  []fleet.Action{{Runner: booting.Runner, Cause: "nobody works on it"}},
		Settle:  []fleet.Action{{Runner: spare, Cause: "nobody knows whether its runner was started"}},
		Examine: []fleet.Examine{{Runner: busy.Runner, Cause: "GitHub does not list it"}},
		Cancel:  []fleet.Action{{Runner: cloning.Runner, Cause: "more runners than pool win needs"}},
		Retire:  []fleet.Action{{Runner: old.Runner, Cause: "more runners than pool gone needs"}},
		Leave:   []fleet.Action{{Runner: leaving.Runner, Cause: "job 6990 has ended"}},
		Inspect: w.Unknown, Forget: w.Ghosts, LookUp: w.Jobs[2:3], Surplus: []string{"gone"},
		Waits: []fleet.Wait{
			{Job: 7001, Pool: "win", Coming: busy.Name, Reason: "runs on " + busy.Name},
			{Job: 7002, Pool: "win", Coming: booting.Name, Reason: booting.Name + " is preparing on pve2"},
			{Job: 7003, Reason: "no pool has all of its labels: windows-latest, <b>bold</b>", Held: true},
			{Job: 7004, Reason: "GitHub holds it back", Held: true},
			{Job: 7005, Pool: "arm", Reason: "pool arm is stopped until its configuration is mended", Held: true},
		},
	}
	return still{world: w, plan: plan}
}

// story is events of one job's life, and of other things.
func story(now time.Time) []fleet.Event {
	at := func(d time.Duration, e fleet.Event) fleet.Event {
		e.At = now.Add(-d)
		return e
	}
	const runner = "m1-win-4d5e6f70"
	own := func(k fleet.Kind, took time.Duration) fleet.Event {
		return fleet.Event{Kind: k, Runner: runner, Pool: "win", Node: "pve1", VMID: 100014, Took: took}
	}
	asked := own(fleet.CloneAsked, 6*time.Millisecond)
	asked.Waited = 1500 * time.Millisecond
	busy := own(fleet.RunnerBusy, 0)
	busy.Job = 7001
	return []fleet.Event{
		at(1300*time.Second, fleet.Event{Kind: fleet.JobQueued, Job: 7001, Pool: "win"}),
		at(1300*time.Second, own(fleet.Planned, 0)),
		at(1299*time.Second, asked),
		at(1280*time.Second, own(fleet.Cloned, 19*time.Second)),
		at(1279*time.Second, own(fleet.Started, 0)),
		at(1240*time.Second, own(fleet.Found, 38*time.Second)),
		at(1228*time.Second, own(fleet.RunnerReady, 72*time.Second)),
		at(1228*time.Second, own(fleet.Registered, 31*time.Millisecond)),
		at(1220*time.Second, own(fleet.Listening, 80*time.Second)),
		at(1210*time.Second, fleet.Event{Kind: fleet.JobStarted, Job: 7001, Pool: "win", Runner: runner}),
		at(1210*time.Second, busy),
		at(64*time.Second, fleet.Event{Kind: fleet.JobEnded, Job: 6990, Pool: "win", Runner: "m1-win-8a9b0c1d", Class: "success", Took: 22 * time.Minute}),
		at(50*time.Second, fleet.Event{Kind: fleet.LookFailed, Note: "GitHub: 502 Bad Gateway"}),
		at(41*time.Second, fleet.Event{Kind: fleet.LookHealed, Note: "GitHub"}),
		at(12*time.Second, fleet.Event{Kind: fleet.Failed, Runner: "m1-win-0000beef", Pool: "win", Node: "pve2", VMID: 100017, Class: "full", Note: "storage 'local-lvm': no space left"}),
		at(9*time.Second, fleet.Event{Kind: fleet.ForeignSeen, VMID: 100003, Node: "pve1"}),
		at(4*time.Second, fleet.Event{Kind: fleet.RunnerLeaving, Runner: "m1-win-8a9b0c1d", Pool: "win", Node: "pve2", VMID: 100015, Note: "job 6990 has ended"}),
	}
}

var errNotYet = errors.New("no look at Proxmox yet")
