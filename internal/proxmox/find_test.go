package proxmox

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHTGvcZVTxRWBjnEQx9fpFxkMmPrmsXHcNRHkYMbPRsv"

// A bootingGuest answers agent calls as Proxmox does: a call that finds no agent holds for 3 s,
// and is answered when the agent starts meanwhile.
type bootingGuest struct {
	agentAt, ipAt, keyAt time.Time
}

func (g bootingGuest) serve(s *pveServer) {
	wait := func(w http.ResponseWriter) bool {
		left := time.Until(g.agentAt)
		if left > 3*time.Second {
			time.Sleep(3 * time.Second)
			fail(w, 500, "QEMU guest agent is not running")
			return false
		}
		time.Sleep(left)
		return true
	}
	s.on("GET /nodes/pve1/qemu/700/agent/network-get-interfaces", func(w http.ResponseWriter, _ *http.Request) {
		if !wait(w) {
			return
		}
		own := `{"ip-address":"fe80::1%5","ip-address-type":"ipv6"},{"ip-address":"169.254.7.7","ip-address-type":"ipv4"}`
		if !time.Now().Before(g.ipAt) {
			own += `,{"ip-address":"2001:db8::5","ip-address-type":"ipv6"},{"ip-address":"10.1.3.77","ip-address-type":"ipv4"}`
		}
		give(w, `{"result":[
			{"name":"Loopback Pseudo-Interface 1","ip-addresses":[{"ip-address":"127.0.0.1"}]},
			{"name":"vEthernet","hardware-address":"00:15:5d:00:00:01","ip-addresses":[{"ip-address":"172.20.0.1"}]},
			{"name":"Ethernet","hardware-address":"bc:24:11:d1:f2:12","ip-addresses":[`+own+`]}]}`)
	})
	s.on("GET /nodes/pve1/qemu/700/agent/file-read", func(w http.ResponseWriter, r *http.Request) {
		if !wait(w) {
			return
		}
		switch {
		case r.URL.Query().Get("file") != `C:\ProgramData\ssh\ssh_host_ed25519_key.pub`:
			fail(w, 500, "Agent error: failed to open file 'x' (mode: 'r'): No such file or directory")
		case time.Now().Before(g.keyAt):
			give(w, `{"content":"","bytes-read":0}`)
		default:
			give(w, fmt.Sprintf(`{"content":"%s system@win\r\n","bytes-read":80}`, hostKey))
		}
	})
}

func TestFindWaitsForAgentAddressAndKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := s.newClient()
		for n := range 3 {
			r := runner()
			r.StartedAt = time.Now()
			up := time.Now().Add(43*time.Second + 700*time.Millisecond)
			bootingGuest{up, up.Add(2 * time.Second), up.Add(3 * time.Second)}.serve(s)
			before := len(s.requests(""))
			a, err := c.Find(t.Context(), r)
			if err != nil || a.IP != "10.1.3.77" || a.HostKey != hostKey {
				t.Fatal(a, err)
			}
			asked := s.requests("")[before:]
			late := time.Since(up.Add(3 * time.Second))
			first := asked[0].at.Sub(r.StartedAt)
			t.Logf("find %d: %d requests, first ping after %s, %s late", n, len(asked), first, late)
			if late > 2*time.Second || first < 20*time.Second || n > 0 && (len(asked) > 14 || first < 35*time.Second) {
				t.Errorf("find %d: %d requests, first ping after %s, %s late", n, len(asked), first, late)
			}
		}
	})
}

func TestFindReadsTheMACItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		bootingGuest{}.serve(s)
		r := runner()
		r.MAC = ""
		began := time.Now()
		a, err := s.newClient().Find(t.Context(), r)
		if err != nil || a.IP != "10.1.3.77" || time.Since(began) > time.Second {
			t.Error(a, err, time.Since(began))
		}
	})
}

func TestFindKeepsToTheAgentGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := s.newClient()
		up := time.Now().Add(20 * time.Second)
		bootingGuest{up, up, up}.serve(s)
		done := make(chan error)
		for range 6 {
			go func() {
				_, err := c.Find(t.Context(), runner())
				done <- err
			}()
		}
		synctest.Sleep(10 * time.Second)
		now := 0
		for _, a := range s.requests("GET") {
			if time.Since(a.at) < 3*time.Second {
				now++
			}
		}
		if now != 2 {
			t.Errorf("%d pings at once", now)
		}
		for range 6 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestFindEndsEarly(t *testing.T) {
	const ping = "GET /nodes/pve1/qemu/700/agent/file-read"
	for name, tc := range map[string]struct {
		setup func(*pveServer)
		class error
		after time.Duration
	}{
		"not running":  {func(s *pveServer) { s.fails(ping, 500, "VM 700 is not running") }, fleet.ErrGone, 10 * time.Second},
		"no agent key": {func(s *pveServer) { s.fails(ping, 500, "No QEMU guest agent configured") }, fleet.ErrConfig, 0},
		"no privilege": {func(s *pveServer) {
			s.ours()
			s.fails(ping, 403, "Permission check failed (/vms/700, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)")
		}, fleet.ErrConfig, 0},
		"absent": {func(s *pveServer) {
			s.denied()
			s.fails(ping, 403, "Permission check failed (/vms/700, VM.GuestAgent.Audit|VM.GuestAgent.Unrestricted)")
		}, fleet.ErrHidden, 10 * time.Second},
		"never there": {func(s *pveServer) { s.fails(ping, 500, "QEMU guest agent is not running") }, context.DeadlineExceeded, 5 * time.Minute},
		"node away":   {func(s *pveServer) { s.fails(ping, 595, "") }, context.DeadlineExceeded, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t)
				tc.setup(s)
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
				defer cancel()
				began := time.Now()
				_, err := s.newClient().Find(ctx, runner())
				took := time.Since(began)
				if !errors.Is(err, tc.class) || took < tc.after || took > tc.after+10*time.Second {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}

func TestFindForgivesOneAnswerThatItDoesNotRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		up := time.Now().Add(20 * time.Second)
		bootingGuest{up, up, up}.serve(s)
		read := s.routes["GET /nodes/pve1/qemu/700/agent/file-read"]
		s.on("GET /nodes/pve1/qemu/700/agent/file-read", func(w http.ResponseWriter, r *http.Request) {
			if now := time.Now().Second(); now < 5 || 8 < now && now < 13 {
				fail(w, 500, "VM 700 is not running")
				return
			}
			read(w, r)
		})
		if _, err := s.newClient().Find(t.Context(), runner()); err != nil {
			t.Error(err)
		}
	})
}

func TestPick(t *testing.T) {
	list := func(raw string) []guestInterface {
		var a agentAnswer
		if err := decode([]byte(`{"data":{"result":`+raw+`}}`), &a); err != nil {
			t.Fatal(err)
		}
		l, err := readInterfaces(a)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	const mac = "BC:24:11:AA:BB:CC"
	one := func(ips ...string) []guestInterface {
		var all []string
		for _, ip := range ips {
			all = append(all, `{"ip-address":"`+ip+`"}`)
		}
		return list(`[{"name":"e","hardware-address":"bc-24-11-aa-bb-cc","ip-addresses":[` + strings.Join(all, ",") + `]}]`)
	}
	for _, tc := range []struct {
		list []guestInterface
		late bool
		want string
	}{
		{one("10.0.0.5"), false, "10.0.0.5"},
		{one("127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "10.0.0.6"), false, "10.0.0.6"},
		{one("2001:db8::1"), false, ""},
		{one("fe80::1", "2001:db8::1"), true, "2001:db8::1"},
		{one("2001:db8::1", "10.0.0.7"), true, "10.0.0.7"},
		{one("::ffff:10.0.0.8"), false, "10.0.0.8"},
		{one("fe80::1%5", "nonsense", ""), true, ""},
		{list(`[{"name":"lo","ip-addresses":[{"ip-address":"10.0.0.9"}]}]`), true, ""},
		{list(`[{"name":"e","hardware-address":"BC:24:11:AA:BB:CD","ip-addresses":[{"ip-address":"10.0.0.9"}]}]`), true, ""},
		{list(`[{"name":"e","hardware-address":"BC:24:11:AA:BB:CC"}]`), true, ""},
	} {
		ip, ok := pick(tc.list, mac, tc.late)
		if ok != (tc.want != "") || ok && ip.String() != tc.want {
			t.Errorf("%+v: %v %v, want %q", tc.list, ip, ok, tc.want)
		}
	}
}

func TestAgentErrorWithin200(t *testing.T) {
	var a agentAnswer
	if err := decode([]byte(`{"data":{"result":{"error":{"class":"GenericError","desc":"GerÃ¤t"}}}}`), &a); err != nil {
		t.Fatal(err)
	}
	if _, err := readInterfaces(a); !errors.Is(err, fleet.ErrNotReady) || !strings.Contains(err.Error(), "Gerät") {
		t.Error(err)
	}
}

func TestLatin1(t *testing.T) {
	for in, want := range map[string]string{"Ã©": "é", "plain": "plain", "é": "é", "日本": "日本", "": ""} {
		if got := latin1(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
