package pve

import (
	"testing"
	"testing/synctest"
)

func windows() Config {
	return Config{Delays: Linked(), Templates: []TemplateSpec{{ID: 9000, Node: "pve", Name: "win-template"}}}
}

func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, windows())
		mark := "mayfly k3f9 k3f9-win-7a2b9c01 born=2026-11-23T21:55:00Z"
		r.clone(700, "name=k3f9-win-7a2b9c01", "full=0", "description="+mark)
		conf := r.do(orch, "GET", "nodes/pve/qemu/700/config").object()
		if conf["description"] != mark || conf["name"] != "k3f9-win-7a2b9c01" || conf["lock"] != nil || conf["template"] != nil {
			t.Fatalf("config after the clone: %v", conf)
		}
		if w := r.do(orch, "PUT", "nodes/pve/qemu/700/config", "tags=mayfly;k3f9", "cores=2"); w.code != 200 {
			t.Fatal(w)
		}
		if tags := r.do(orch, "GET", "nodes/pve/qemu/700/config").object()["tags"]; tags != "k3f9;mayfly" {
			t.Fatalf("tags %v", tags)
		}
		r.start(700)
		g := r.guest(700)
		g.agent(true)
		if w := r.do(orch, "POST", "nodes/pve/qemu/700/agent/ping"); w.code != 200 {
			t.Fatal(w)
		}
		if w := r.do(orch, "DELETE", "nodes/pve/qemu/700"); w.reason != "VM 700 is running - destroy failed" {
			t.Fatal(w)
		}
		r.stop(700)
		if len(r.c.Volumes()) != 3 {
			t.Fatalf("volumes %v", r.c.Volumes())
		}
		r.mustTask(orch, "DELETE", "nodes/pve/qemu/700")
		if len(r.c.VMs())+len(r.c.Volumes())+len(r.c.Leaked()) != 0 {
			t.Fatalf("left: %v %v", r.c.VMs(), r.c.Volumes())
		}
		synctest.Wait()
		if g.off != 1 {
			t.Fatalf("Off was called %d times", g.off)
		}
		d := r.c.Delays(700)
		if d["clone"] < 10e9 || d["clone"] > 31e9 || d["start"] < 1e9 {
			t.Fatalf("delays %v", d)
		}
	})
}
