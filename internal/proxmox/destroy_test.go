package proxmox

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

func free(w http.ResponseWriter, r *http.Request) { give(w, `"`+r.URL.Query().Get("vmid")+`"`) }

func inUseID(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(400)
	w.Write([]byte(`{"errors":{"vmid":"VM ` + r.URL.Query().Get("vmid") + ` already exists"},"message":"Parameter verification failed.\n","data":null}`))
}

// worlds are VMs that r may not be touched for, and whose they are.
var worlds = map[string]struct {
	setup func(*pveServer)
	whose fleet.Whose
	class error
}{
	"no mark":        {func(s *pveServer) { s.config(`{"name":"db1","description":"the database"}`) }, fleet.Foreign, fleet.ErrForeign},
	"no description": {func(s *pveServer) { s.config(`{"name":"k3f9-win-7a2b9c01"}`) }, fleet.Foreign, fleet.ErrForeign},
	"other instance": {func(s *pveServer) { s.config(strings.Replace(ourConfig, "mayfly k3f9", "mayfly zzzz", 1)) }, fleet.Foreign, fleet.ErrForeign},
	"a copy": {func(s *pveServer) {
		s.config(strings.Replace(ourConfig, `"name":"k3f9-win-7a2b9c01"`, `"name":"Copy-of-VM-x"`, 1))
	}, fleet.Foreign, fleet.ErrForeign},
	"no name":       {func(s *pveServer) { s.config(strings.Replace(ourConfig, `"name":"k3f9-win-7a2b9c01",`, ``, 1)) }, fleet.Foreign, fleet.ErrForeign},
	"another row's": {func(s *pveServer) { s.config(strings.ReplaceAll(ourConfig, "7a2b9c01", "00000000")) }, fleet.Other, fleet.ErrForeign},
	"two marks":     {func(s *pveServer) { s.config(strings.Replace(ourConfig, ourMark, ourMark+`\n`+ourMark, 1)) }, fleet.Foreign, fleet.ErrForeign},
	"template":      {func(s *pveServer) { s.config(strings.Replace(ourConfig, `{`, `{"template":1,`, 1)) }, fleet.Hidden, fleet.ErrHidden},
	"protected":     {func(s *pveServer) { s.config(strings.Replace(ourConfig, `{`, `{"protection":"1",`, 1)) }, fleet.Hidden, fleet.ErrHidden},
	"other pool":    {func(s *pveServer) { s.says("GET /cluster/resources", strings.Replace(ourRow, "runners", "prod", 1)) }, fleet.Hidden, fleet.ErrHidden},
	"no pool": {func(s *pveServer) {
		s.says("GET /cluster/resources", strings.Replace(ourRow, `,"pool":"runners"`, "", 1))
	}, fleet.Hidden, fleet.ErrHidden},
	"not listed":       {func(s *pveServer) { s.says("GET /cluster/resources", `[]`) }, fleet.Hidden, fleet.ErrHidden},
	"container":        {func(s *pveServer) { s.says("GET /cluster/resources", strings.Replace(ourRow, `"qemu"`, `"lxc"`, 1)) }, fleet.Foreign, fleet.ErrForeign},
	"being cloned":     {func(s *pveServer) { s.config(`{"lock":"clone","description":" qmclone temporary file"}`) }, fleet.Hidden, fleet.ErrHidden},
	"half destroyed":   {func(s *pveServer) { s.config(`{"lock":"destroyed"}`) }, fleet.Hidden, fleet.ErrHidden},
	"denied and taken": {func(s *pveServer) { s.denied(); s.on("GET /cluster/nextid", inUseID) }, fleet.Hidden, fleet.ErrHidden},
	"denied and free":  {func(s *pveServer) { s.denied(); s.on("GET /cluster/nextid", free) }, fleet.Nobody, fleet.ErrGone},
	"absent here, and taken": {func(s *pveServer) {
		s.fails("GET /nodes/pve1/qemu/700/config", 500, "Configuration file 'nodes/pve1/qemu-server/700.conf' does not exist")
		s.on("GET /cluster/nextid", inUseID)
	}, fleet.Hidden, fleet.ErrHidden},
	"absent and free": {func(s *pveServer) {
		s.says("GET /cluster/resources", `[]`)
		s.fails("GET /nodes/pve1/qemu/700/config", 500, "Configuration file 'nodes/pve1/qemu-server/700.conf' does not exist")
		s.on("GET /cluster/nextid", free)
	}, fleet.Nobody, fleet.ErrGone},
	"node away":      {func(s *pveServer) { s.fails("GET /nodes/pve1/qemu/700/config", 595, "") }, "", nil},
	"no inventory":   {func(s *pveServer) { s.fails("GET /cluster/resources", 596, "") }, "", nil},
	"locked by one":  {func(s *pveServer) { s.config(strings.Replace(ourConfig, `{`, `{"lock":"backup",`, 1)) }, fleet.Ours, fleet.ErrBusy},
	"locked foreign": {func(s *pveServer) { s.config(`{"name":"x","lock":"rollback"}`) }, fleet.Hidden, fleet.ErrHidden},
	"suspended": {func(s *pveServer) {
		s.config(strings.TrimSuffix(ourConfig, "}") + `,"lock":"suspended"}`) // status/current shows the same lock
	}, fleet.Ours, fleet.ErrBusy},
}

func (s *pveServer) config(data string) { s.says("GET /nodes/pve1/qemu/700/config", data) }

func (s *pveServer) denied() {
	s.says("GET /cluster/resources", `[]`)
	s.fails("GET /nodes/pve1/qemu/700/config", 403, "Permission check failed (/vms/700, VM.Audit)")
}

func TestProve(t *testing.T) {
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.ours()
				w.setup(s)
				p, err := s.newClient().Prove(t.Context(), runner())
				if p.Whose != w.whose || (err != nil) != (w.whose == "") {
					t.Errorf("%+v %v, want %q", p, err, w.whose)
				}
				if err == nil && p.Whose != fleet.Ours && p.Reason == "" {
					t.Error("without a reason")
				}
			})
		})
	}
}

func TestProveOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.says("GET /cluster/resources", strings.Replace(ourRow, "pve1", "pve2", 1)) // it has moved
		s.says("GET /nodes/pve2/qemu/700/config", ourConfig)
		for _, name := range []string{runner().Name, ""} {
			r := runner()
			r.Name = name
			p, err := s.newClient().Prove(t.Context(), r)
			if err != nil || p.Whose != fleet.Ours || p.Node != "pve2" || p.Mark.Name != runner().Name || !p.Mark.Born.Equal(born) {
				t.Errorf("%+v %v", p, err)
			}
		}
		r := runner()
		r.VMID = 800
		s.says("GET /cluster/resources", strings.ReplaceAll(ourRow, "700", "800"))
		s.says("GET /nodes/pve1/qemu/800/config", ourConfig)
		if p, err := s.newClient().Prove(t.Context(), r); err != nil || p.Whose != fleet.Hidden {
			t.Errorf("out of range: %+v %v", p, err)
		}
	})
}

// TestNothingIsWrittenToAnothersVM is the law of this package.
func TestNothingIsWrittenToAnothersVM(t *testing.T) {
	for name, w := range worlds {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.ours()
				w.setup(s)
				c := s.newClient()
				_, err := c.Destroy(t.Context(), runner())
				if err == nil || w.class != nil && !errors.Is(err, w.class) {
					t.Errorf("destroy: %v, want %v", err, w.class)
				}
				if w.whose != fleet.Ours {
					if _, err := c.Fit(t.Context(), runner(), fleet.Pool{}); err == nil {
						t.Error("fitted")
					}
				}
				if sent := s.writes(); len(sent) != 0 {
					t.Error("sent:", sent)
				}
			})
		})
	}
}

func TestDestroyStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		s.starts("DELETE /nodes/pve1/qemu/700", 1, "qmdestroy", "700", 2*time.Second, "OK")
		if leaked, err := s.newClient().Destroy(t.Context(), runner()); err != nil || len(leaked) != 0 {
			t.Fatal(leaked, err)
		}
		d := s.requests("DELETE")
		if len(d) != 1 || d[0].body != "" || d[0].query != "" || d[0].header.Get("Content-Type") != "" || d[0].length > 0 {
			t.Errorf("%+v", d)
		}
		t.Log(len(s.requests("")), "requests")
		if n := len(s.requests("")); n > 10 {
			t.Errorf("%d requests: %v", n, s.requests(""))
		}
	})
}

func TestDestroyRunningMeetsLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lock = "can't lock file '/var/lock/qemu-server/lock-700.conf' - got timeout"
		s := newServer(t)
		s.ours()
		s.says("GET /nodes/pve1/qemu/700/status/current", `{"status":"running","qmpstatus":"paused"}`)
		stops, deletes := 0, 0
		s.on("POST /nodes/pve1/qemu/700/status/stop", func(w http.ResponseWriter, _ *http.Request) {
			stops++
			exit := lock
			if stops > 1 {
				exit = "OK"
				s.says("GET /nodes/pve1/qemu/700/status/current", `{"status":"stopped"}`)
			}
			give(w, `"`+s.ends(stops, "qmstop", "700", 3*time.Second, exit)+`"`)
		})
		s.on("DELETE /nodes/pve1/qemu/700", func(w http.ResponseWriter, _ *http.Request) {
			switch deletes++; deletes {
			case 1:
				fail(w, 500, "VM 700 is running - destroy failed")
			case 2, 3: // qm cleanup
				give(w, `"`+s.ends(10+deletes, "qmdestroy", "700", 10*time.Second, lock)+`"`)
			default:
				give(w, `"`+s.ends(10+deletes, "qmdestroy", "700", 3*time.Second, "OK")+`"`)
			}
		})
		if _, err := s.newClient().Destroy(t.Context(), runner()); err != nil {
			t.Fatal(err)
		}
		if stops != 2 || deletes != 4 {
			t.Errorf("%d stops, %d DELETEs", stops, deletes)
		}
	})
}

func TestDestroyWithALostAnswer(t *testing.T) {
	for name, found := range map[string]bool{"task found": true, "task not found": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.ours()
				s.says("GET /nodes/pve1/tasks", `[]`)
				s.on("DELETE /nodes/pve1/qemu/700", func(w http.ResponseWriter, r *http.Request) {
					upid := s.ends(1, "qmdestroy", "700", time.Second, "OK")
					if found {
						s.says("GET /nodes/pve1/tasks", `[{"upid":"`+upid+`","type":"qmdestroy","id":"700","status":"RUNNING"}]`)
					}
					s.denied()
					s.on("GET /cluster/nextid", free)
					cut(w, r)
				})
				_, err := s.newClient().Destroy(t.Context(), runner())
				if err != nil || len(s.requests("DELETE")) != 1 {
					t.Error(err, s.requests("DELETE"))
				}
				if logs := len(s.requests("GET /nodes/pve1/tasks/" + upidOf(1, "qmdestroy", "700") + "/log")); found != (logs == 1) {
					t.Errorf("%d reads of the log", logs)
				}
			})
		})
	}
}

func TestDestroyIsFinishedBySomebodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		s.on("DELETE /nodes/pve1/qemu/700", func(w http.ResponseWriter, _ *http.Request) {
			s.denied()
			s.on("GET /cluster/nextid", free)
			fail(w, 403, "Permission check failed (/vms/700, VM.Allocate)")
		})
		if _, err := s.newClient().Destroy(t.Context(), runner()); err != nil {
			t.Error(err)
		}
	})
}

func TestDestroyLeavesAZombieToPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		s.starts("DELETE /nodes/pve1/qemu/700", 1, "qmdestroy", "700", time.Second, "access permissions cleanup for VM 700 failed: cfs-lock 'file-user_cfg' error: got lock request timeout")
		if _, err := s.newClient().Destroy(t.Context(), runner()); err == nil || fleet.Class(err) != "other" || len(s.requests("DELETE")) != 1 {
			t.Error(err)
		}
	})
}

func TestDestroyWithoutThePrivilege(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		s.fails("DELETE /nodes/pve1/qemu/700", 403, "Permission check failed (/vms/700, VM.Allocate)")
		_, err := s.newClient().Destroy(t.Context(), runner())
		if !errors.Is(err, fleet.ErrConfig) || !strings.Contains(err.Error(), "VM.Allocate") || len(s.requests("DELETE")) != 1 {
			t.Error(err, len(s.requests("DELETE")))
		}
	})
}

func TestDestroyWaitsAtTheGateAndProvesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		c := s.newClient(func(cfg *Config) { cfg.Gates.Clone = 1 })
		leave, err := c.Admit(t.Context(), "pve1")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := c.Destroy(t.Context(), runner())
			done <- err
		}()
		synctest.Sleep(time.Minute)
		s.config(`{"name":"db1"}`) // somebody gave the id to his own VM meanwhile
		leave()
		leave()
		if err := <-done; !errors.Is(err, fleet.ErrForeign) || len(s.writes()) != 0 {
			t.Error(err, s.writes())
		}
	})
}
