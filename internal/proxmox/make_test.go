package proxmox

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

func TestCloneSendsOneForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.says("GET /nodes/pve1/qemu/9000/config", `{"template":1,"name":"win"}`)
		s.says("POST /nodes/pve1/qemu/9000/clone", `"`+upidOf(1, "qmclone", "9000")+`"`)
		c := s.newClient()
		for range 2 {
			got, err := c.Clone(t.Context(), runner(), fleet.Pool{Name: "win"})
			if err != nil || got.UPID != upidOf(1, "qmclone", "9000") || got.Sent.IsZero() {
				t.Fatal(got, err)
			}
		}
		posts := s.requests("POST")
		if len(posts) != 2 || len(s.requests("GET")) != 1 {
			t.Fatal("the template is read once, a clone posted for each call:", s.requests(""))
		}
		p := posts[0]
		form, err := url.ParseQuery(p.body)
		want := url.Values{"newid": {"700"}, "name": {"k3f9-win-7a2b9c01"}, "description": {ourMark}, "pool": {"runners"}, "full": {"0"}}
		if err != nil || form.Encode() != want.Encode() {
			t.Errorf("form %v, want %v", form, want)
		}
		if p.chunks || p.length != int64(len(p.body)) || p.header.Get("Content-Type") != "application/x-www-form-urlencoded" || p.query != "" {
			t.Errorf("not a plain form of known length: %+v", p)
		}
		if got := p.header.Get("Authorization"); got != "PVEAPIToken=mayfly@pve!orch="+secret {
			t.Errorf("Authorization %q", got)
		}
	})
}

func TestCloneErrors(t *testing.T) {
	const clone = "POST /nodes/pve1/qemu/9000/clone"
	for name, tc := range map[string]struct {
		setup func(*pveServer)
		class error
		posts int
		sent  bool
	}{
		"answer lost": {func(s *pveServer) { s.on(clone, cut) }, fleet.ErrUnknown, 1, true},
		"596":         {func(s *pveServer) { s.fails(clone, 596, "") }, fleet.ErrUnknown, 1, true},
		"active lock": {func(s *pveServer) {
			s.fails(clone, 500, "can't lock file '/var/log/pve/tasks/.active.lock' - got timeout")
		}, fleet.ErrUnknown, 1, true},
		"an answer of no use": {func(s *pveServer) { s.says(clone, `"fine"`) }, fleet.ErrUnknown, 1, true},
		"no answer's data":    {func(s *pveServer) { s.says(clone, `null`) }, fleet.ErrUnknown, 1, true},
		"half an answer": {func(s *pveServer) {
			s.on(clone, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "100")
				w.Write([]byte(`{"data":"UPID`))
			})
		}, fleet.ErrUnknown, 1, true},
		"taken":              {func(s *pveServer) { s.fails(clone, 500, "unable to create VM 700: config file already exists") }, fleet.ErrTaken, 1, true},
		"denied":             {func(s *pveServer) { s.fails(clone, 403, "Permission check failed") }, fleet.ErrConfig, 1, true},
		"token":              {func(s *pveServer) { s.fails(clone, 401, "") }, fleet.ErrConfig, 1, true},
		"595":                {func(s *pveServer) { s.fails(clone, 595, "") }, nil, 1, true},
		"protected template": {func(s *pveServer) { s.says("GET /nodes/pve1/qemu/9000/config", `{"template":1,"protection":1}`) }, fleet.ErrConfig, 0, false},
		"no template":        {func(s *pveServer) { s.says("GET /nodes/pve1/qemu/9000/config", `{"name":"x"}`) }, fleet.ErrConfig, 0, false},
		"absent template": {func(s *pveServer) {
			s.fails("GET /nodes/pve1/qemu/9000/config", 500, "Configuration file 'nodes/pve1/qemu-server/9000.conf' does not exist")
		}, fleet.ErrConfig, 0, false},
		"hidden template": {func(s *pveServer) {
			s.fails("GET /nodes/pve1/qemu/9000/config", 403, "Permission check failed (/vms/9000, VM.Audit)")
		}, fleet.ErrConfig, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				s.says("GET /nodes/pve1/qemu/9000/config", `{"template":1}`)
				tc.setup(s)
				got, err := s.newClient().Clone(t.Context(), runner(), fleet.Pool{})
				if err == nil || fleet.Class(err) != fleet.Class(cmpErr(tc.class, errors.New("x"))) {
					t.Errorf("%v, want the class %v", err, tc.class)
				}
				if n := len(s.requests("POST")); n != tc.posts || got.Sent.IsZero() == tc.sent {
					t.Errorf("%d POSTs, sent %v", n, got.Sent)
				}
				if !strings.Contains(err.Error(), "700") || strings.Contains(err.Error(), secret) {
					t.Errorf("error text: %v", err)
				}
			})
		})
	}
}

func TestCloneRefusesAnIDOutOfRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		r := runner()
		r.VMID = 9000
		if _, err := s.newClient().Clone(t.Context(), r, fleet.Pool{}); !errors.Is(err, fleet.ErrConfig) || len(s.requests("")) != 0 {
			t.Error(err, s.requests(""))
		}
	})
}

func TestACloneThatIsCanceledIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.says("GET /nodes/pve1/qemu/9000/config", `{"template":1}`)
		s.on("POST /nodes/pve1/qemu/9000/clone", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := s.newClient().Clone(ctx, runner(), fleet.Pool{})
		if !errors.Is(err, fleet.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) || got.Sent.IsZero() {
			t.Error(got, err)
		}
	})
}

func TestFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		const put = "PUT /nodes/pve1/qemu/700/config"
		s.says(put, `null`)
		c := s.newClient()
		mac, err := c.Fit(t.Context(), runner(), fleet.Pool{Cores: 4, Memory: 8 * fleet.GiB})
		if err != nil || mac != "BC:24:11:D1:F2:12" {
			t.Fatal(mac, err)
		}
		form, _ := url.ParseQuery(s.requests("PUT")[0].body)
		want := url.Values{"tags": {"mayfly;k3f9"}, "protection": {"0"}, "onboot": {"0"}, "cores": {"4"}, "memory": {"8192"}, "balloon": {"0"}}
		if form.Encode() != want.Encode() {
			t.Errorf("form %v, want %v", form, want)
		}
		if n := len(s.requests("")); n != 3 {
			t.Errorf("%d requests", n)
		}
		if _, err := c.Fit(t.Context(), runner(), fleet.Pool{}); err != nil || strings.Contains(s.requests("PUT")[1].body, "memory") {
			t.Error("the template's hardware stays:", err)
		}
		s.fails(put, 403, "Permission check failed (/vms/700, VM.Config.CPU)")
		if _, err := c.Fit(t.Context(), runner(), fleet.Pool{Cores: 4}); !errors.Is(err, fleet.ErrConfig) || !strings.Contains(err.Error(), "VM.Config.CPU") {
			t.Error("a privilege is missing:", err)
		}
		s.fails(put, 500, "VM is locked (backup)")
		if _, err := c.Fit(t.Context(), runner(), fleet.Pool{}); !errors.Is(err, fleet.ErrBusy) {
			t.Error(err)
		}
	})
}

func TestStart(t *testing.T) {
	const start = "POST /nodes/pve1/qemu/700/status/start"
	for name, tc := range map[string]struct {
		setup func(*pveServer)
		class string
	}{
		"well":     {func(s *pveServer) { s.starts(start, 1, "qmstart", "700", 2*time.Second, "OK") }, ""},
		"warnings": {func(s *pveServer) { s.starts(start, 1, "qmstart", "700", 2*time.Second, "WARNINGS: 1") }, ""},
		"running":  {func(s *pveServer) { s.starts(start, 1, "qmstart", "700", 2*time.Second, "VM 700 already running") }, ""},
		"bridge": {func(s *pveServer) {
			s.starts(start, 1, "qmstart", "700", 2*time.Second, "bridge 'vmbr9' does not exist")
		}, "config"},
		"locked": {func(s *pveServer) { s.starts(start, 1, "qmstart", "700", 2*time.Second, "VM is locked (backup)") }, "busy"},
		"qemu": {func(s *pveServer) {
			s.starts(start, 1, "qmstart", "700", 2*time.Second, "start failed: QEMU exited with code 1")
		}, "other"},
		"absent":  {func(s *pveServer) { s.fails(start, 403, "Permission check failed (/vms/700, VM.PowerMgmt)") }, "hidden"},
		"quorum":  {func(s *pveServer) { s.fails(start, 500, "cluster not ready - no quorum?") }, "other"},
		"lost":    {func(s *pveServer) { s.on(start, cut) }, "other"},
		"no task": {func(s *pveServer) { s.says(start, `"`+upidOf(9, "qmstart", "700")+`"`) }, "config"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				tc.setup(s)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				err := s.newClient().Start(ctx, runner())
				if name == "no task" {
					tc.class = fleet.Class(fleet.ErrConfig) // the server has no such route: 501
					if ctx.Err() == nil {
						t.Error("a task whose status cannot be had is waited for")
					}
				}
				if fleet.Class(err) != tc.class {
					t.Errorf("%v, want %q", err, tc.class)
				}
			})
		})
	}
}

func TestStartOutlastsALock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		n := 0
		s.on("POST /nodes/pve1/qemu/700/status/start", func(w http.ResponseWriter, _ *http.Request) {
			n++
			exit := "can't lock file '/var/lock/qemu-server/lock-700.conf' - got timeout"
			if n == 3 {
				exit = "OK"
			}
			give(w, `"`+s.ends(n, "qmstart", "700", 10*time.Second, exit)+`"`)
		})
		if err := s.newClient().Start(t.Context(), runner()); err != nil || n != 3 {
			t.Error(n, err)
		}
	})
}
