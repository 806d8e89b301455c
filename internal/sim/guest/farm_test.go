package guest_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	client "mayfly/internal/guest"
	"mayfly/internal/sim/guest"
)

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{Faults: guest.Faults{WrongKey: 1}})
		a := b.find(b.farm.Boot(101, "vm", mac, nil), mac)
		time.Sleep(time.Minute)
		if _, err := b.ssh.Status(t.Context(), a); err == nil || !strings.Contains(err.Error(), "wrong host key: expected SHA256:") {
			t.Errorf("wrong key: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{Faults: guest.Faults{NoSSH: 1}})
		a := b.find(b.farm.Boot(101, "vm", mac, nil), mac)
		time.Sleep(time.Minute)
		if _, err := b.ssh.Status(t.Context(), a); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("no sshd: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{Faults: guest.Faults{Hang: 1}})
		g := b.farm.Boot(101, "vm", mac, nil)
		time.Sleep(time.Hour)
		if up, _ := g.AgentUp(); up {
			t.Error("a guest that hangs has an agent")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		other, _ := key(t, 1)
		b := newBench(t, guest.Config{}, func(c *client.Config) { c.Signer = other })
		a := b.find(b.farm.Boot(101, "vm", mac, nil), mac)
		time.Sleep(time.Minute)
		if _, err := b.ssh.Status(t.Context(), a); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Errorf("a stranger's key: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{}, func(c *client.Config) { c.Command = `C:\elsewhere\mayfly-guest.exe` })
		a := b.find(b.farm.Boot(101, "vm", mac, nil), mac)
		time.Sleep(time.Minute)
		if _, err := b.ssh.Status(t.Context(), a); err == nil || !strings.Contains(err.Error(), "not recognized") {
			t.Errorf("no helper: %v", err)
		}
	})
}

func TestSeedMakesTheSameGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newBench(t, guest.Config{OOBE: true}), newBench(t, guest.Config{OOBE: true})
		ga, gb := a.farm.Boot(101, "vm", mac, nil), b.farm.Boot(101, "vm", mac, nil)
		if !maps.Equal(a.farm.Delays(101), b.farm.Delays(101)) {
			t.Error("the delays differ")
		}
		if aa := a.find(ga, mac); aa != b.find(gb, mac) {
			t.Error("the host keys differ")
		} else if other := b.find(b.farm.Boot(101, "vm", "BC:24:11:00:00:01", nil), "BC:24:11:00:00:01"); aa.HostKey == other.HostKey {
			t.Error("another clone has the same host key")
		}
	})
}

func TestAddressOfAFreshGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{SSH: guest.Range{Min: 10 * time.Second, Max: 10 * time.Second}})
		g := b.farm.Boot(249, "vm", mac, nil)
		_, changed := g.AgentUp()
		<-changed
		ethernet := func() string {
			for _, n := range g.Interfaces() {
				if n.MAC == strings.ToLower(mac) {
					return fmt.Sprint(n.IPs)
				}
			}
			return "no such NIC"
		}
		file := func() string {
			content, ok := g.ReadFile("c:/programdata/ssh/SSH_HOST_ED25519_KEY.pub")
			return fmt.Sprintf("%t %.11q", ok, content)
		}
		time.Sleep(time.Second)
		if got := ethernet(); got != "[169.254.0.249/16]" {
			t.Errorf("before DHCP answers: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := ethernet(); got != "[fe80::5d2c:0:0:f9/64 10.0.0.250/8]" {
			t.Errorf("after: %s", got)
		}
		if got := file(); got != `false ""` {
			t.Errorf("before sshd starts: %s", got)
		}
		time.Sleep(1500 * time.Millisecond)
		if got := file(); got != `true ""` {
			t.Errorf("while ssh-keygen runs: %s", got)
		}
		time.Sleep(time.Second)
		if got := file(); got != `true "ssh-ed25519"` {
			t.Errorf("then: %s", got)
		}
		if _, ok := g.ReadFile(`C:\pagefile.sys`); ok {
			t.Error("it has files that it does not have")
		}
	})
}

func TestThousandGuests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{OOBE: true})
		began := time.Now()
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() {
				off := make(chan struct{})
				var g *guest.Guest
				g = b.farm.Boot(1000+i, "vm", mac, func() { g.Off(); close(off) })
				a := b.find(g, mac)
				time.Sleep(sum(b.farm.Delays(1000+i)) - time.Since(began))
				b.ready(a)
				if _, err := b.ssh.Start(t.Context(), a, order("r")); err != nil {
					t.Error(err)
					return
				}
				b.hub.jobs <- guest.Job{ID: int64(i), Length: time.Minute, Conclusion: "success"}
				<-off
			})
		}
		all.Wait()
		b.hub.mu.Lock()
		defer b.hub.mu.Unlock()
		done := 0
		for _, line := range b.hub.told {
			if strings.HasPrefix(line, "done ") {
				done++
			}
		}
		if done != 1000 {
			t.Errorf("%d jobs of 1000 done", done)
		}
	})
}

func TestCloseWithGuestsInEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{})
		for i := range 40 {
			b.farm.Boot(100+i, "vm", mac, nil)
			time.Sleep(2 * time.Second)
		}
		b.farm.Boot(100, "vm", mac, nil) // without an Off of the first
		conn, err := b.farm.Dial(t.Context(), "tcp", "10.0.0.102:22")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		b.farm.Close()
		if up, _ := b.farm.Boot(200, "vm", mac, nil).AgentUp(); up {
			t.Error("a closed farm boots guests")
		}
	})
}
