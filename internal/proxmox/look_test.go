package proxmox

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mayfly/internal/fleet"
)

func TestLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.says("GET /cluster/resources", `[
			{"type":"node","node":"pve1","status":"online","maxmem":68719476736,"mem":"1073741824"},
			{"type":"node","node":"pve2","status":"online","level":""},
			{"type":"node","node":"pve3","status":"offline"},
			{"type":"node","node":"pve4","status":"online","maxmem":1073741824},
			{"type":"qemu","vmid":700,"node":"pve1","status":"unknown","pool":"runners","tags":"k3f9;mayfly"},
			{"type":"qemu","vmid":"701","node":"pve1","status":"running","name":"k3f9-win-7a2b9c01","maxmem":4294967296,"template":0,"lock":"backup"},
			{"type":"lxc","vmid":702,"node":"pve2","status":"stopped","name":"ct"},
			{"type":"qemu","vmid":100,"node":"pve1","status":"running","name":"db","maxmem":2147483648},
			{"type":"qemu","vmid":9000,"node":"pve1","status":"stopped","template":1,"maxmem":8589934592,"name":"win"},
			{"type":"storage","node":"pve1","storage":"tank","status":"available","disk":95,"maxdisk":100,"content":"images,rootdir"},
			{"type":"storage","node":"pve2","storage":"iso","status":"available","disk":99,"maxdisk":100,"content":"iso"},
			{"type":"storage","node":"pve2","storage":"gone","status":"unknown","content":"images"},
			{"type":"pool","pool":"runners","id":"/pool/runners"},
			{"type":"network","network":"localnetwork","node":"pve1","status":"ok"},
			{"type":"novelty","vmid":{"a":1},"status":["x"]}]`)
		got, err := s.newClient(func(c *Config) {
			c.Reserve = 4 * fleet.GiB
			c.NodeMemory = map[string]fleet.Bytes{"pve3": 16 * fleet.GiB}
			c.NodeMaxRunners = map[string]int{"pve3": 5}
			c.Cordoned = []string{"pve2"}
			c.StorageWatermark = 0.9
		}).Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := fleet.Sight{
			Nodes: []fleet.Node{
				{Name: "pve1", Online: true, Memory: 60 * fleet.GiB, Used: fleet.GiB, Configured: 6 * fleet.GiB, Full: "storage tank is 95 % full, over the mark of 90 %", Storages: []fleet.Storage{{Name: "tank", Used: 95, Total: 100}}},
				{Name: "pve2", Online: true, Cordoned: true, MaxRunners: 2},
				{Name: "pve3", Memory: 16 * fleet.GiB, MaxRunners: 5},
				{Name: "pve4", Online: true, Memory: 1},
			},
			VMs: []fleet.VM{
				{ID: 700, Node: "pve1", Pool: "runners", Status: "unknown"},
				{ID: 701, Node: "pve1", Name: "k3f9-win-7a2b9c01", Status: "running", Lock: "backup"},
				{ID: 702, Node: "pve2", Name: "ct", Status: "stopped"},
			},
			Templates: map[int]fleet.Bytes{9000: 8 * fleet.GiB},
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(fleet.Sight{}, "AsOf")); d != "" || got.AsOf.IsZero() {
			t.Error(d)
		}
	})
}

func TestALookThatSeesNoNodeIsNone(t *testing.T) {
	for _, data := range []string{`[]`, `null`, `[{"type":"qemu","vmid":700,"node":"pve1"}]`, `{}`, `"x"`} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t)
			s.says("GET /cluster/resources", data)
			if got, err := s.newClient().Look(t.Context()); err == nil || !strings.Contains(err.Error(), "look") {
				t.Error(data, got, err)
			}
		})
	}
}
