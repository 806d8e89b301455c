package guest_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/guest/wire"
	"mayfly/internal/sim/guest"
)

func TestLifeOfAGuest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{})
		off := make(chan time.Time, 1)
		var g *guest.Guest
		began := time.Now()
		g = b.farm.Boot(101, "a1-win-00000001", mac, func() { g.Off(); off <- time.Now() })
		if up, changed := g.AgentUp(); up {
			t.Error("the agent answers at power-on")
		} else {
			<-changed
		}
		d := b.farm.Delays(101)
		if got, want := time.Since(began), d["boot"]+d["agent"]; got != want {
			t.Errorf("the agent answered after %v, want %v", got, want)
		}
		a := b.find(g, mac)
		if a.IP != "10.0.0.102" {
			t.Errorf("address %s", a.IP)
		}
		if got := b.ready(a); got.Phase != fleet.GuestNone || got.ID != "" {
			t.Errorf("a ready guest says %+v", got)
		}
		if late := time.Since(began) - (d["boot"] + d["agent"] + d["ssh"]); late < 0 || late > 2*time.Second {
			t.Errorf("seen ready %v after it was", late)
		}
		asked := time.Now()
		got, err := b.ssh.Start(t.Context(), a, order("r-1"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Phase != fleet.GuestListening || got.ID != "r-1" || !got.Ready {
			t.Errorf("after start it says %+v", got)
		}
		if took := time.Since(asked); took != d["register"] {
			t.Errorf("start took %v, want %v", took, d["register"])
		}
		b.hub.jobs <- guest.Job{ID: 77, Length: time.Minute, Conclusion: "failure"}
		time.Sleep(time.Second)
		if got, err := b.ssh.Status(t.Context(), a); err != nil || got.Phase != fleet.GuestBusy {
			t.Errorf("in its job it says %+v, %v", got, err)
		}
		if _, err := b.ssh.Start(t.Context(), a, order("r-2")); !errors.Is(err, fleet.ErrBusy) {
			t.Errorf("another order: %v, want ErrBusy", err)
		}
		if got, err := b.ssh.Start(t.Context(), a, order("r-1")); err != nil || got.Phase != fleet.GuestBusy {
			t.Errorf("the same order again: %+v, %v", got, err)
		}
		time.Sleep(time.Minute)
		got, err = b.ssh.Status(t.Context(), a)
		if want := (fleet.Guest{Ready: true, Phase: fleet.GuestEnded, ID: "r-1", Result: "failed", Exit: 102}); err != nil || got != want {
			t.Errorf("after its job it says %+v, %v; want %+v", got, err, want)
		}
		<-off
		if heard, want := b.hub.heard(), "connect jit-of-r-1, done 77 failure"; heard != want {
			t.Errorf("the hub heard %q, want %q", heard, want)
		}
		if _, err := b.ssh.Status(t.Context(), a); !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("of a VM that is off: %v", err)
		}
	})
}

func TestOOBERebootsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{OOBE: true})
		began := time.Now()
		g := b.farm.Boot(101, "a1-win-00000001", mac, nil)
		a := b.find(g, mac)
		var said []string
		for range 600 {
			text := "unreachable"
			switch s, err := b.ssh.Status(t.Context(), a); {
			case err == nil && s.Ready:
				text = "ready"
			case errors.Is(err, fleet.ErrNotReady):
				text = "not ready"
			}
			if len(said) == 0 || said[len(said)-1] != text {
				said = append(said, text)
			}
			if text == "ready" {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		if want := []string{"unreachable", "not ready", "unreachable", "not ready", "ready"}; !slices.Equal(said, want) {
			t.Errorf("it said %q, want %q", said, want)
		}
		if again := b.find(g, mac); again != a {
			t.Errorf("after the reboot it is %+v, was %+v", again, a)
		}
		if _, err := b.ssh.Start(t.Context(), a, order("r-1")); err != nil {
			t.Fatal(err)
		}
		if late := time.Since(began) - sum(b.farm.Delays(101)); late < 0 || late > time.Second {
			t.Errorf("it listened %v after the sum of its delays", late)
		}
	})
}

func TestStartBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{SSH: guest.Range{Min: 100 * time.Second, Max: 100 * time.Second}})
		a := b.find(b.farm.Boot(101, "vm", mac, nil), mac)
		time.Sleep(30 * time.Second) // sshd listens, the guest is not ready
		if _, err := b.ssh.Start(t.Context(), a, order("r-1")); !errors.Is(err, fleet.ErrNotReady) {
			t.Errorf("got %v, want ErrNotReady", err)
		}
		b.ready(a)
		if _, err := b.ssh.Start(t.Context(), a, order("r-1")); err != nil {
			t.Error(err)
		}
	})
}

func TestPowerCut(t *testing.T) {
	for _, when := range []string{"booting", "registering", "idle", "busy", "ended", "frozen"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, guest.Config{})
				g := b.farm.Boot(101, "vm", mac, func() { t.Error("it powered itself off") })
				want := ""
				if when != "booting" {
					a := b.find(g, mac)
					b.ready(a)
					if when == "registering" {
						time.AfterFunc(time.Second, g.Off)
						if _, err := b.ssh.Start(t.Context(), a, order("r")); !errors.Is(err, fleet.ErrUnknown) {
							t.Errorf("start: %v, want ErrUnknown", err)
						}
					} else {
						if _, err := b.ssh.Start(t.Context(), a, order("r")); err != nil {
							t.Fatal(err)
						}
						want = "connect jit-of-r, lost"
					}
					if when == "busy" || when == "ended" {
						b.hub.jobs <- guest.Job{ID: 5, Length: time.Minute, Conclusion: "success"}
						time.Sleep(time.Second)
					}
					if when == "ended" {
						time.Sleep(time.Minute)
						want = "connect jit-of-r, done 5 success"
					}
					if when == "frozen" {
						g.Freeze()
						began := time.Now()
						if _, err := b.ssh.Status(t.Context(), a); err == nil || time.Since(began) != 25*time.Second {
							t.Errorf("status of a frozen guest: %v after %v", err, time.Since(began))
						}
					}
				}
				g.Off()
				if heard := b.hub.heard(); heard != want {
					t.Errorf("the hub heard %q, want %q", heard, want)
				}
				if up, _ := g.AgentUp(); up || g.Interfaces() != nil {
					t.Error("the agent answers without power")
				}
				time.Sleep(time.Hour)
				if heard := b.hub.heard(); heard != want {
					t.Errorf("an hour later the hub heard %q, want %q", heard, want)
				}
			})
		})
	}
}

func TestRunnerEndsWithoutAJob(t *testing.T) {
	for name, c := range map[string]struct {
		faults guest.Faults
		reject error
		drop   bool
		order  time.Duration // deadline
		start  string        // class of start's error
		heard  string
		want   fleet.Guest
	}{
		"dropped while idle": {drop: true, heard: "connect jit-of-r", want: fleet.Guest{Exit: 0}},
		"deadline":           {order: time.Minute, heard: "connect jit-of-r, lost", want: fleet.Guest{Exit: wire.ExitDeadline}},
		"jit rejected":       {reject: errors.New("no"), start: "other", want: fleet.Guest{Exit: 1}},
		"session conflict":   {reject: guest.ErrConflict, start: "other", want: fleet.Guest{Exit: 5}},
		"version deprecated": {faults: guest.Faults{RunnerFail: 1, RunnerExit: 7}, start: "config", want: fleet.Guest{Exit: 7}},
		"deadline too short": {order: time.Second, start: "other", want: fleet.Guest{Exit: wire.ExitDeadline}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, guest.Config{Faults: c.faults})
				b.hub.reject = c.reject
				off := make(chan struct{})
				var g *guest.Guest
				g = b.farm.Boot(101, "vm", mac, func() { g.Off(); close(off) })
				a := b.find(g, mac)
				b.ready(a)
				o := order("r")
				o.Deadline = c.order
				if _, err := b.ssh.Start(t.Context(), a, o); fleet.Class(err) != c.start {
					t.Errorf("start: class %q of %v, want %q", fleet.Class(err), err, c.start)
				}
				if c.drop {
					close(b.hub.drop)
					synctest.Wait()
				} else if c.start == "" {
					time.Sleep(c.order - b.farm.Delays(101)["register"] + time.Millisecond)
				}
				c.want.Ready, c.want.Phase, c.want.ID = true, fleet.GuestEnded, "r"
				if got, err := b.ssh.Status(t.Context(), a); err != nil || got != c.want {
					t.Errorf("it says %+v, %v; want %+v", got, err, c.want)
				}
				<-off
				if heard := b.hub.heard(); heard != c.heard {
					t.Errorf("the hub heard %q, want %q", heard, c.heard)
				}
			})
		})
	}
}

func TestCancelledJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{Speed: 10})
		g := b.farm.Boot(101, "vm", mac, nil)
		a := b.find(g, mac)
		b.ready(a)
		if _, err := b.ssh.Start(t.Context(), a, order("r")); err != nil {
			t.Fatal(err)
		}
		cancelled := make(chan struct{})
		b.hub.jobs <- guest.Job{ID: 5, Length: 100 * time.Second, Conclusion: "success", Cancelled: cancelled}
		time.Sleep(9 * time.Second)
		if s := g.State(); s.Phase != wire.PhaseBusy {
			t.Errorf("before the job's tenth second it is %s", s.Phase)
		}
		close(cancelled)
		synctest.Wait()
		if s := g.State(); s.Phase != wire.PhaseEnded || s.Result != "canceled" || s.Exit != 103 {
			t.Errorf("it says %+v", s)
		}
	})
}

// The runner lives on when the connection that brought its order is lost.
func TestConnectionLostAfterTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, guest.Config{Faults: guest.Faults{DropStart: 1}})
		g := b.farm.Boot(101, "vm", mac, nil)
		a := b.find(g, mac)
		b.ready(a)
		if _, err := b.ssh.Start(t.Context(), a, order("r")); !errors.Is(err, fleet.ErrUnknown) {
			t.Errorf("got %v, want ErrUnknown", err)
		}
		if got, err := b.ssh.Status(t.Context(), a); err != nil || got.Phase != fleet.GuestStarting {
			t.Errorf("then it says %+v, %v", got, err)
		}
		time.Sleep(10 * time.Second)
		if got, err := b.ssh.Start(t.Context(), a, order("r")); err != nil || got.Phase != fleet.GuestListening {
			t.Errorf("the same order again: %+v, %v", got, err)
		}
		if heard := b.hub.heard(); heard != "connect jit-of-r" {
			t.Errorf("the hub heard %q", heard)
		}
	})
}
