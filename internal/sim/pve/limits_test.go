package pve

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bubble runs f with a rig in fake time.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, cfg)) })
}

// took is the fake time that f needs.
func took(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// Eight pings of a silent guest keep three workers busy: the last is answered after 9 s here (captured:
// 18 s, as the real workers took them unevenly), a protected call waits behind them, an unprotected
// one does not.
func TestWorkersStarve(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101)
		r.clone(102)
		r.start(101)
		var wg sync.WaitGroup
		last := took(func() {
			for range 8 {
				wg.Go(func() {
					if w := r.do(orch, "POST", "nodes/pve/qemu/101/agent/ping"); w.reason != "QEMU guest agent is not running" {
						t.Error(w)
					}
				})
			}
			synctest.Wait()
			if d := took(func() { r.do(orch, "GET", "nodes/pve/qemu/102/config") }); d != 0 {
				t.Errorf("config waited %v", d)
			}
			if d := took(func() { r.do(orch, "GET", "nodes/pve/qemu/102/status/current") }); d < 6*time.Second {
				t.Errorf("status/current waited only %v", d)
			}
			wg.Wait()
		})
		if last != 9*time.Second {
			t.Errorf("the last ping was answered after %v", last)
		}
	})
}

func TestPingIsAnsweredWhenTheAgentStarts(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101)
		r.start(101)
		g := r.guest(101)
		time.AfterFunc(2260*time.Millisecond, func() { g.agent(true) })
		d := took(func() {
			if w := r.do(orch, "POST", "nodes/pve/qemu/101/agent/ping"); w.code != 200 {
				t.Error(w)
			}
		})
		if d != 2260*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
	})
}

func (r *rig) row(id int) map[string]any {
	for _, m := range r.do(orch, "GET", "cluster/resources", "type=vm").rows() {
		if m["vmid"] == float64(id) {
			return m
		}
	}
	return nil
}

// nextTick sleeps until just after pvestatd ran.
func (r *rig) nextTick() {
	n := r.c.nodes["pve"]
	time.Sleep(time.Until(n.lastTick(statInterval).Add(statInterval + time.Millisecond)))
}

func TestListsAreStale(t *testing.T) {
	cfg := windows()
	cfg.Delays = Delays{Clone: Range{200 * time.Millisecond, 200 * time.Millisecond}}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		r.nextTick()
		r.clone(101, "name=first")
		if m := r.row(101); m["status"] != "unknown" || m["name"] != nil || m["template"] != nil || m["pool"] != "runners" {
			t.Fatalf("fresh: %v", m)
		}
		r.nextTick()
		if m := r.row(101); m["status"] != "stopped" || m["name"] != "first" {
			t.Fatalf("seen: %v", m)
		}
		r.start(101)
		r.do(orch, "PUT", "nodes/pve/qemu/101/config", "tags=a")
		if m := r.row(101); m["status"] != "stopped" || m["tags"] != "a" {
			t.Fatalf("status must be stale and tags live: %v", m)
		}
		if m := r.do(orch, "GET", "nodes/pve/qemu/101/status/current").object(); m["status"] != "running" {
			t.Fatalf("status/current: %v", m)
		}
		r.nextTick()
		if m := r.row(101); m["status"] != "running" {
			t.Fatalf("after the tick: %v", m)
		}
		r.stop(101)
		r.mustTask(orch, "DELETE", "nodes/pve/qemu/101")
		if m := r.row(101); m != nil {
			t.Fatalf("existence is live: %v", m)
		}
		r.clone(101, "name=second")
		if m := r.row(101); m["status"] != "running" || m["name"] != "first" {
			t.Fatalf("a re-used id shows the old VM: %v", m)
		}
		r.nextTick()
		if m := r.row(101); m["status"] != "stopped" || m["name"] != "second" {
			t.Fatalf("after the tick: %v", m)
		}
		r.c.SetNode("pve", false)
		time.Sleep(6 * time.Minute)
		if m := r.row(101); m["status"] != "unknown" || m["name"] != nil {
			t.Fatalf("a node silent for long: %v", m)
		}
	})
}

// A held storage lock fails the clone and its cleanup: what was made before leaks.
func TestStorageLockTimeoutLeaks(t *testing.T) {
	cfg := windows()
	cfg.Delays.Clone = Range{12 * time.Second, 12 * time.Second}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		upid := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=101", "pool=runners").text()
		time.Sleep(2 * time.Second) // the first disk stands
		release := r.c.HoldStorage("pve", "local-lvm")
		exit := r.wait(upid)
		release()
		if exit != "clone failed: can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout" {
			t.Fatal(exit)
		}
		if got := r.c.Leaked(); !slices.Equal(got, []string{"local-lvm:vm-101-disk-0"}) {
			t.Errorf("leaked %v", got)
		}
		if len(r.c.VMs()) != 0 {
			t.Errorf("left %v", r.c.VMs())
		}
		r.clone(101) // a later VM of that id finds the name taken
		r.mustTask(orch, "DELETE", "nodes/pve/qemu/101", "destroy-unreferenced-disks=1")
		if got := r.c.Volumes(); len(got) != 0 {
			t.Errorf("volumes %v", got)
		}
	})
}

// Twenty clones at once on one storage: the lock is waited for at most 10 s.
func TestBurstOfClonesFails(t *testing.T) {
	cfg := windows()
	cfg.Delays.Clone = Range{10 * time.Second, 10 * time.Second}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		var upids []string
		for i := range 40 {
			w := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", fmt.Sprintf("newid=%d", 200+i), "pool=runners")
			upids = append(upids, w.text())
		}
		failed := 0
		for _, u := range upids {
			if exit := r.wait(u); exit != "OK" {
				failed++
				if !strings.Contains(exit, "got timeout") {
					t.Error(exit)
				}
			}
		}
		t.Logf("%d of 40 clones failed, %d volumes leaked", failed, len(r.c.Leaked()))
		if failed == 0 {
			t.Error("no clone failed")
		}
	})
}

func TestDestroyLosesUserCfg(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101)
		release := r.c.HoldUserCfg()
		exit := r.wait(r.do(orch, "DELETE", "nodes/pve/qemu/101").text())
		release()
		if exit != "access permissions cleanup for VM 101 failed: cfs-lock 'file-user_cfg' error: got lock request timeout" {
			t.Fatal(exit)
		}
		conf := r.do(root, "GET", "nodes/pve/qemu/101/config").object()
		if conf["lock"] != "destroyed" || len(conf) != 2 {
			t.Errorf("config %v", conf)
		}
		if exit := r.wait(r.do(root, "DELETE", "nodes/pve/qemu/101").text()); exit != "VM is locked (destroyed)" {
			t.Error(exit)
		}
	})
}

func TestFlockDuringClone(t *testing.T) {
	cfg := windows()
	cfg.Delays.Clone = Range{20 * time.Second, 20 * time.Second}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		first := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=101", "pool=runners").text()
		time.Sleep(5 * time.Millisecond)
		second := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=101", "pool=runners").text()
		if exit := r.wait(second); exit != "can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout" {
			t.Errorf("second clone: %s", exit)
		}
		start := r.do(root, "POST", "nodes/pve/qemu/101/status/start").text()
		d := took(func() {
			if exit := r.wait(start); exit != "can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout" {
				t.Errorf("start: %s", exit)
			}
		})
		if d < 10*time.Second || d > 11*time.Second {
			t.Errorf("waited %v", d)
		}
		if exit := r.wait(first); exit != "OK" {
			t.Errorf("first clone: %s", exit)
		}
	})
}

// Six clients, one nextid: those that come before the config file stands get 200.
func TestRaceForOneID(t *testing.T) {
	cfg := windows()
	cfg.Delays.Clone = Range{500 * time.Millisecond, 500 * time.Millisecond}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		id := r.do(orch, "GET", "cluster/nextid").text()
		var upids []string
		refused := 0
		for i := range 6 {
			w := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid="+id, "pool=runners", fmt.Sprintf("name=client-%d", i))
			switch {
			case w.code == 200:
				upids = append(upids, w.text())
			case w.reason == "unable to create VM 100: config file already exists":
				refused++
			default:
				t.Error(w)
			}
			time.Sleep(10 * time.Millisecond)
		}
		won := 0
		for _, u := range upids {
			switch exit := r.wait(u); exit {
			case "OK":
				won++
			case "unable to create VM 100: config file already exists":
			default:
				t.Error(exit)
			}
		}
		if won != 1 || refused == 0 || len(upids) < 2 {
			t.Errorf("%d accepted, %d refused, %d won", len(upids), refused, won)
		}
		if vms := r.c.VMs(); len(vms) != 1 || vms[0].Name != "client-0" {
			t.Errorf("VMs %v", vms)
		}
	})
}

// A clone whose id stands on another node fails in its task.
func TestIDOnAnotherNode(t *testing.T) {
	cfg := windows()
	node2(&cfg)
	bubble(t, cfg, func(t *testing.T, r *rig) {
		r.c.AddVM(VMSpec{ID: 300, Node: "pve2", Name: "other", Foreign: true})
		upid := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=300", "pool=runners").text()
		if exit := r.wait(upid); exit != "close (rename) atomic file '/etc/pve/nodes/pve/qemu-server/300.conf' failed: File exists" {
			t.Error(exit)
		}
		r.do(orch, "DELETE", "nodes/pve2/qemu/300")
		if got := r.c.Touched(); !slices.Equal(got, []int{300}) {
			t.Errorf("touched %v", got)
		}
	})
}

func TestKilledClone(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		upid := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=101", "pool=runners").text()
		time.Sleep(2 * time.Second)
		if !r.c.KillClone(101) {
			t.Fatal("no clone to kill")
		}
		if exit := r.wait(upid); exit != "unexpected status" {
			t.Error(exit)
		}
		if vms := r.c.VMs(); len(vms) != 1 || vms[0].Lock != "clone" || vms[0].Pool != "" {
			t.Errorf("left %v", vms)
		}
		if w := r.do(orch, "GET", "nodes/pve/qemu/101/config"); w.code != 403 {
			t.Error(w)
		}
		if exit := r.wait(r.do(root, "DELETE", "nodes/pve/qemu/101").text()); exit != "VM is locked (clone)" {
			t.Error(exit)
		}
	})
}

// qm cleanup sees the VM running again and keeps its flock: the next stop fails.
func TestQuickRestart(t *testing.T) {
	cfg := captureWorld("9.2")
	bubble(t, cfg, func(t *testing.T, r *rig) {
		running101(r)
		r.guest(101).agent(true)
		r.mustTask(orch, "POST", "nodes/pve/qemu/101/status/shutdown", "timeout=60")
		r.start(101)
		upid := r.do(orch, "POST", "nodes/pve/qemu/101/status/stop").text()
		if exit := r.wait(upid); exit != "can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout" {
			t.Error(exit)
		}
		var lines []string
		for _, m := range r.do(orch, "GET", "nodes/pve/tasks/"+upid+"/log").rows() {
			lines = append(lines, m["t"].(string))
		}
		if want := []string{"trying to acquire lock...", "TASK ERROR: can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout"}; !slices.Equal(lines, want) {
			t.Errorf("log %q", lines)
		}
		time.Sleep(30 * time.Second)
		r.stop(101)
	})
}

func TestGuestPowersItselfOff(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101)
		r.start(101)
		g := r.guest(101)
		g.m.PowerOff()
		g.m.PowerOff()
		synctest.Wait()
		if m := r.do(orch, "GET", "nodes/pve/qemu/101/status/current").object(); m["status"] != "stopped" || g.off != 1 {
			t.Errorf("%v, Off called %d times", m["status"], g.off)
		}
		r.mustTask(orch, "DELETE", "nodes/pve/qemu/101")
	})
}

func TestFaults(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101, "name=x")
		r.start(101)
		r.nextTick()
		get := func() (wire, error) { return r.try(orch, "GET", "cluster/resources", "type=vm") }
		with := func(a Action, f func()) {
			cancel := r.c.Inject(Fault{Match: "resources|clone", Do: a})
			defer cancel()
			f()
		}
		with(Status(595, "No route to host"), func() {
			if w, _ := get(); w.code != 595 || w.reason != "No route to host" || w.body != "" {
				t.Error(w)
			}
		})
		with(Status(500, "got timeout"), func() {
			if w, _ := get(); w.code != 500 || w.message() != "got timeout" {
				t.Error(w)
			}
		})
		with(DropBefore(), func() {
			if _, err := get(); err == nil {
				t.Error("no error")
			}
		})
		with(Delay(5*time.Second), func() {
			if d := took(func() { get() }); d != 5*time.Second {
				t.Error(d)
			}
		})
		with(Empty(), func() {
			if w, _ := get(); w.body != `{"data":[]}` {
				t.Error(w)
			}
		})
		with(StaleStopped(), func() {
			if m := r.row(101); m["status"] != "stopped" {
				t.Error(m)
			}
		})
		with(DropRows(1), func() {
			if m := r.row(101); m != nil {
				t.Error(m)
			}
		})
		if m := r.row(101); m["status"] != "running" {
			t.Errorf("after all faults: %v", m)
		}
		with(DropAfter(), func() {
			if _, err := r.try(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=102", "pool=runners"); err == nil {
				t.Error("no error")
			}
		})
		with(StatusAfter(500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout"), func() {
			if w := r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=103", "pool=runners"); w.code != 500 {
				t.Error(w)
			}
		})
		time.Sleep(time.Minute)
		if n := len(r.c.VMs()); n != 3 {
			t.Errorf("%d VMs: what was lost must have been done", n)
		}
		cancel := r.c.Inject(Fault{Match: "GET /version", Count: 2, Do: Status(500, "x")})
		for i, want := range []int{500, 500, 200} {
			if w := r.do(orch, "GET", "version"); w.code != want {
				t.Errorf("request %d: %d", i, w.code)
			}
		}
		cancel()
	})
}

func TestCrashedNode(t *testing.T) {
	cfg := windows()
	node2(&cfg)
	cfg.Templates = append(cfg.Templates, TemplateSpec{ID: 9002, Node: "pve2", Name: "win-template-2"})
	bubble(t, cfg, func(t *testing.T, r *rig) {
		upid := r.do(orch, "POST", "nodes/pve2/qemu/9002/clone", "newid=101", "pool=runners").text()
		time.Sleep(2 * time.Second)
		r.c.Crash("pve2")
		if w := r.do(orch, "GET", "nodes/pve2/tasks/"+upid+"/status"); w.code != 595 {
			t.Error(w)
		}
		r.c.SetNode("pve2", true)
		if exit := r.wait(upid); exit != "unexpected status" {
			t.Error(exit)
		}
	})
}

// An ordinary client of net/http understands the answers, keeps its connection where the real one lets
// it, and gets 596 after 30 s of silence.
func TestOrdinaryClient(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		client := r.server.Client()
		get := func(path string) *http.Response {
			req, _ := http.NewRequest("GET", "http://pve/api2/json/"+path, nil)
			req.Header.Set("Authorization", "PVEAPIToken="+orch)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp
		}
		if resp := get("version"); resp.StatusCode != 200 || resp.Close {
			t.Error(resp.Status, resp.Close)
		}
		if resp := get("nodes/pve/qemu/9000/status/current"); resp.StatusCode != 200 || !resp.Close {
			t.Error(resp.Status, resp.Close)
		}
		if resp := get("nodes/pve/qemu/777/config"); resp.Status != "403 Permission check failed (/vms/777, VM.Audit)" {
			t.Error(resp.Status)
		}
		// All three workers wait for VM 9000's flock, ten seconds each, and more wait behind them.
		release := r.c.HoldVM("pve", 9000)
		defer release()
		var wg sync.WaitGroup
		for range 13 {
			wg.Go(func() { r.do(root, "PUT", "nodes/pve/qemu/9000/config", "cores=2") })
		}
		synctest.Wait()
		if d := took(func() {
			if resp := get("nodes/pve/qemu/9000/status/current"); resp.Status != "596 Connection timed out" {
				t.Error(resp.Status)
			}
		}); d != 30*time.Second {
			t.Errorf("gave up after %v", d)
		}
		wg.Wait()
	})
}

// Close ends whatever waits, and leaves no goroutine: the bubble would not end otherwise.
func TestCloseEndsAll(t *testing.T) {
	bubble(t, windows(), func(t *testing.T, r *rig) {
		r.clone(101)
		r.start(101)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() { r.try(orch, "POST", "nodes/pve/qemu/101/agent/ping") })
		}
		r.do(orch, "POST", "nodes/pve/qemu/9000/clone", "newid=102", "pool=runners")
		synctest.Wait()
		r.c.Close()
		wg.Wait()
		if g := r.guest(101); g.off != 1 {
			t.Errorf("Off called %d times", g.off)
		}
		if _, err := r.try(orch, "GET", "version"); err == nil {
			t.Error("answered after Close")
		}
		r.c.Close()
	})
}

// lives lets n VMs be born, live and be destroyed on forty nodes, a few a second, and sums up the
// delays that they got.
func lives(t *testing.T, n int) (sum time.Duration) {
	cfg := Config{Delays: Linked(), Seed: 42}
	for i := range 40 {
		name := fmt.Sprintf("n%02d", i)
		cfg.Nodes = append(cfg.Nodes, NodeSpec{Name: name, Memory: 512 << 30, Cores: 64})
		cfg.Templates = append(cfg.Templates, TemplateSpec{ID: 9000 + i, Node: name, Name: "win-" + name})
	}
	bubble(t, cfg, func(t *testing.T, r *rig) {
		task := func(method, path string, params ...string) {
			w := r.do(orch, method, path, params...)
			if exit := r.wait(w.text()); exit != "OK" && exit != "WARNINGS: 1" {
				t.Errorf("%s %s: %s", method, path, exit)
			}
		}
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				node, id := cfg.Nodes[i%40].Name, 10000+i
				time.Sleep(time.Duration(i) * 150 * time.Millisecond)
				p := fmt.Sprintf("nodes/%s/qemu/%d", node, id)
				task("POST", fmt.Sprintf("nodes/%s/qemu/%d/clone", node, 9000+i%40), fmt.Sprintf("newid=%d", id), "pool=runners")
				task("POST", p+"/status/start")
				time.Sleep(10 * time.Minute)
				task("POST", p+"/status/stop")
				task("DELETE", p)
			})
		}
		wg.Wait()
		if n := len(r.c.VMs()) + len(r.c.Volumes()); n != 0 {
			t.Errorf("%d VMs and volumes left", n)
		}
		for i := range n {
			for _, d := range r.c.Delays(10000 + i) {
				sum += d
			}
		}
	})
	return sum
}

func TestThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand VMs take some seconds")
	}
	lives(t, 1000)
}

func TestSameSeedSameDelays(t *testing.T) {
	if first, again := lives(t, 100), lives(t, 100); first != again {
		t.Errorf("the same seed gave %v and %v", first, again)
	}
}
