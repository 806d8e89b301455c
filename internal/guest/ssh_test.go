package guest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"mayfly/internal/fleet"
	"mayfly/internal/guest"
	"mayfly/internal/guest/wire"
)

const secret = "U0VDUkVULUpJVC1DT05GSUcgb2YgYSBydW5uZXIgdGhhdCBub2JvZHkgbWF5IHNlZQ=="

func order() fleet.Order {
	return fleet.Order{ID: "a1-win-00000001", Secret: secret, URL: "https://github.com/o/r", Labels: []string{"windows", "x64"}, Deadline: time.Hour}
}

// listening is what a helper says that has started its runner.
const listening = "Active code page: 437\r\n" +
	`{"ev":"phase","phase":"network","st":"ok","ms":812}` + "\r\n" +
	`{"ev":"of a later version","state":{}}` + "\r\n" +
	`{"ev":"state","state":{"ready":true,"phase":"listening","id":"a1-win-00000001","exit":0}}` + "\r\n" +
	`{"ev":"exit","code":0}` + "\r\n"

func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got wire.Order
		s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int {
			text, err := io.ReadAll(ch)
			if err != nil || bytes.Count(text, []byte("\n")) != 1 {
				t.Errorf("on stdin came %d bytes, %v", len(text), err)
			}
			got, err = wire.ReadOrder(bytes.NewReader(text))
			if err != nil {
				t.Error(err)
			}
			_, _ = io.WriteString(ch, listening)
			return 0
		}}
		var calls []string
		c := newSSHD(t, s, func(c *guest.Config) {
			c.Observe = func(call, outcome string, took time.Duration) { calls = append(calls, call+" "+outcome) }
		})
		g, err := c.Start(t.Context(), s.address, order())
		if want := (fleet.Guest{Ready: true, Phase: fleet.GuestListening, ID: "a1-win-00000001"}); err != nil || g != want {
			t.Errorf("got %+v, %v", g, err)
		}
		if got.JIT != secret || got.ID != order().ID || got.Deadline != 3600 || !got.PowerOff || !got.Now.Equal(time.Now()) ||
			got.URL != order().URL || !slices.Equal(got.Labels, order().Labels) {
			t.Errorf("the guest got %+v", got)
		}
		if want := `C:\runner-agent\mayfly-guest.exe start`; len(s.commands) != 1 || s.commands[0] != want {
			t.Errorf("the command line was %q", s.commands)
		}
		if want := []string{"connect ok", "start ok"}; !slices.Equal(calls, want) {
			t.Errorf("observed %q", calls)
		}
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int {
			if text, err := io.ReadAll(ch); err != nil || len(text) > 0 {
				t.Errorf("on stdin came %q, %v", text, err)
			}
			_, _ = io.WriteString(ch, `{"ev":"state","state":{"ready":true,"phase":"ended","id":"x-2","result":"failed","exit":102}}`)
			return 0
		}}
		c := newSSHD(t, s)
		g, err := c.Status(t.Context(), s.address)
		if want := (fleet.Guest{Ready: true, Phase: fleet.GuestEnded, ID: "x-2", Result: "failed", Exit: 102}); err != nil || g != want {
			t.Errorf("got %+v, %v", g, err)
		}
		if want := `C:\runner-agent\mayfly-guest.exe status`; s.commands[0] != want {
			t.Errorf("the command line was %q", s.commands)
		}
	})
}

func TestExitStatuses(t *testing.T) {
	for status, class := range map[int]string{
		1: "other", 2: "config", 3: "other", 4: "not_ready", 10: "config", 11: "config", 12: "other", 13: "busy", 20: "other", 21: "other",
		30: "other", 31: "config", 32: "other", 33: "other", 40: "other", 41: "other", 42: "config", 43: "other", 50: "other", 60: "config",
		127: "config", 9009: "config", 0xC0000005: "other",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &sshd{run: func(command string, ch ssh.Channel, _ func()) int {
				// It refuses at once, without reading the order.
				fmt.Fprintf(ch, "{\"ev\":\"fatal\",\"code\":%d,\"msg\":\"because of \\u001b[31m that\"}\r\n", status&0xff)
				fmt.Fprintf(ch.Stderr(), "and\r\nof this")
				return status
			}}
			c := newSSHD(t, s)
			_, err := c.Start(t.Context(), s.address, order())
			if fleet.Class(err) != class {
				t.Errorf("exit status %d: class %s of %v, want %s", status, fleet.Class(err), err, class)
			}
			for _, want := range []string{"guest 10.1.2.3: start of a1-win-00000001", fmt.Sprintf("exit code %d", status), "because of [31m that", "and of this", wire.Meaning(status)} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("exit status %d: %v does not say %q", status, err, want)
				}
			}
			if conns, _ := s.count(); conns != 1 {
				t.Errorf("exit status %d: %d connections", status, conns)
			}
		})
	}
}

func TestConnectionLost(t *testing.T) {
	for name, c := range map[string]struct {
		run   func(command string, ch ssh.Channel, drop func()) int
		class string // of start's error; of status' it is always other
		want  string
	}{
		"before anything": {
			run:   func(_ string, _ ssh.Channel, drop func()) int { drop(); return 0 },
			class: "unknown", want: "the connection was lost",
		},
		"with the order read": {
			run:   func(_ string, ch ssh.Channel, drop func()) int { _, _ = io.ReadAll(ch); drop(); return 0 },
			class: "unknown", want: "the connection was lost",
		},
		"in mid-line": {
			run: func(_ string, ch ssh.Channel, drop func()) int {
				_, _ = io.ReadAll(ch)
				_, _ = io.WriteString(ch, listening[:len(listening)/2])
				drop()
				return 0
			},
			class: "unknown", want: "the connection was lost",
		},
		"without an exit status": {
			run:   func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.ReadAll(ch); _ = ch.Close(); return -1 },
			class: "unknown", want: "the connection was lost",
		},
		"never answered": {
			run:   func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.ReadAll(ch); return -1 },
			class: "unknown", want: "no answer within",
		},
		"endless output": {
			run: func(_ string, ch ssh.Channel, _ func()) int {
				for {
					if _, err := io.WriteString(ch, strings.Repeat("noise ", 1000)+"\n"); err != nil {
						return -1
					}
				}
			},
			class: "unknown", want: "too much output",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sshd{run: c.run}
				client := newSSHD(t, s)
				_, err := client.Start(t.Context(), s.address, order())
				if fleet.Class(err) != c.class || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("start: class %s of %v, want %s", fleet.Class(err), err, c.class)
				}
				if _, commands := s.count(); commands != 1 {
					t.Errorf("the order was sent %d times", commands)
				}
				_, err = client.Status(t.Context(), s.address)
				if fleet.Class(err) != "other" || !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("status: %v", err)
				}
			})
		})
	}
}

// sshd keeps a session open while another process holds its output (Win32-OpenSSH issue 2452).
func TestSessionThatIsNeverClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int {
			_, _ = io.ReadAll(ch)
			_, _ = io.WriteString(ch, listening)
			return -1
		}}
		c := newSSHD(t, s)
		began := time.Now()
		g, err := c.Start(t.Context(), s.address, order())
		if err != nil || g.Phase != fleet.GuestListening {
			t.Errorf("got %+v, %v", g, err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAnswersThatAreNone(t *testing.T) {
	for name, c := range map[string]struct{ says, class string }{
		"nothing":       {"", "other"},
		"no JSON":       {"<html>ready</html>", "other"},
		"unknown phase": {`{"ev":"state","state":{"ready":true,"phase":"dancing"}}`, "other"},
		"markup":        {`{"ev":"state","state":{"ready":true,"phase":"ended","result":"<script>"}}`, "other"},
		"another order": {`{"ev":"state","state":{"ready":true,"phase":"busy","id":"x-2"}}`, "busy"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.WriteString(ch, c.says); return 0 }}
			client := newSSHD(t, s)
			if _, err := client.Start(t.Context(), s.address, order()); fleet.Class(err) != c.class {
				t.Errorf("%s: class %s of %v, want %s", name, fleet.Class(err), err, c.class)
			}
		})
	}
}

func TestSlowBanner(t *testing.T) {
	for banner, good := range map[time.Duration]bool{20 * time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			s := &sshd{banner: banner, run: func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.WriteString(ch, listening); return 0 }}
			c := newSSHD(t, s)
			began := time.Now()
			_, err := c.Status(t.Context(), s.address)
			if good != (err == nil) {
				t.Errorf("a banner after %v: %v", banner, err)
			}
			if !good && (time.Since(began) != 25*time.Second || !strings.Contains(err.Error(), "no SSH handshake within 25s")) {
				t.Errorf("a banner after %v: %v after %v", banner, err, time.Since(began))
			}
		})
	}
}

func TestTries(t *testing.T) {
	for refuse, want := range map[int]struct {
		conns int
		took  time.Duration
		good  bool
	}{0: {1, 0, true}, 1: {2, time.Second, true}, 2: {3, 3 * time.Second, true}, 3: {3, 3 * time.Second, false}} {
		synctest.Test(t, func(t *testing.T) {
			s := &sshd{refuse: refuse, run: func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.WriteString(ch, listening); return 0 }}
			c := newSSHD(t, s)
			began := time.Now()
			_, err := c.Start(t.Context(), s.address, order())
			conns, _ := s.count()
			if conns != want.conns || time.Since(began) != want.took || (err == nil) != want.good || (err != nil && fleet.Class(err) != "other") {
				t.Errorf("%d connections refused: %d made, %v after %v", refuse, conns, err, time.Since(began))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sshd{refuse: 1}
		c := newSSHD(t, s)
		if _, err := c.Status(t.Context(), s.address); err == nil {
			t.Error("status tried twice")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &sshd{refuse: 9}
		c := newSSHD(t, s, func(c *guest.Config) { c.Tries, c.Speed = 5, 10 })
		began := time.Now()
		if _, err := c.Start(t.Context(), s.address, order()); err == nil || time.Since(began) != time.Second {
			t.Errorf("5 tries at speed 10: %v after %v", err, time.Since(began))
		}
	})
}

func TestWrongHostKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other, _ := pair(t, "x")
		s := &sshd{key: other, run: func(string, ssh.Channel, func()) int { t.Error("it ran a command"); return 0 }}
		c := newSSHD(t, s)
		_, err := c.Start(t.Context(), s.address, order())
		want, _, _, _, _ := ssh.ParseAuthorizedKey([]byte(s.address.HostKey))
		for _, part := range []string{"wrong host key: expected " + ssh.FingerprintSHA256(want), "got " + ssh.FingerprintSHA256(other.PublicKey())} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v does not say %q", err, part)
			}
		}
		if conns, _ := s.count(); conns != 1 || fleet.Class(err) != "other" {
			t.Errorf("%d connections, class %s", conns, fleet.Class(err))
		}
	})
}

func TestAddressesThatAreNone(t *testing.T) {
	s := &sshd{}
	c := newSSHD(t, s)
	for _, a := range []fleet.Address{
		{},
		{IP: "guest.example", HostKey: s.address.HostKey},
		{IP: "10.1.2.3"},
		{IP: "10.1.2.3", HostKey: "ssh-ed25519"},
		{IP: "10.1.2.3", HostKey: "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="},
	} {
		if _, err := c.Status(t.Context(), a); err == nil {
			t.Errorf("%+v was taken", a)
		}
	}
	if conns, _ := s.count(); conns != 0 {
		t.Errorf("%d connections", conns)
	}
}

func TestCancel(t *testing.T) {
	stuck := func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.ReadAll(ch); return -1 }
	for name, c := range map[string]struct {
		server *sshd
		class  string
	}{
		"waiting for the banner": {&sshd{banner: time.Minute}, "other"},
		"between tries":          {&sshd{refuse: 9}, "other"},
		"with the order sent":    {&sshd{run: stuck}, "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := newSSHD(t, c.server)
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				began := time.Now()
				_, err := client.Start(ctx, c.server.address, order())
				if !errors.Is(err, context.DeadlineExceeded) || fleet.Class(err) != c.class || time.Since(began) != 1500*time.Millisecond {
					t.Errorf("%v (class %s) after %v", err, fleet.Class(err), time.Since(began))
				}
			})
		})
	}
}

// Whatever a guest answers, the secret is in no error and no log line, whole, in another form or in part.
func TestSecretIsNeverShown(t *testing.T) {
	forms := []string{secret, secret[:40], secret[30:], base64.StdEncoding.EncodeToString([]byte(secret)), strings.ReplaceAll(secret, "=", "%3D")}
	for _, form := range forms {
		for _, lead := range []string{"", strings.Repeat("x", 100), strings.Repeat("x", 4000), strings.Repeat("x", 8150)} {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int {
					_, _ = ch.Write(wire.Line{What: wire.HappenedFatal, Code: 43, Message: lead + form + " and so on"}.Encode())
					_, _ = ch.Write(wire.Line{What: wire.HappenedExit, Code: 43}.Encode())
					_, _ = io.WriteString(ch.Stderr(), lead+form+"\n"+form)
					return 43
				}}
				c := newSSHD(t, s, func(c *guest.Config) {
					c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				_, err := c.Start(t.Context(), s.address, order())
				if err == nil {
					t.Fatal("no error")
				}
				for name, text := range map[string]string{"error": err.Error(), "log": log.String()} {
					for _, form := range forms {
						for i := range len(form) - 16 {
							if strings.Contains(text, form[i:i+16]) {
								t.Fatalf("the %s shows %q: %s", name, form[i:i+16], text)
							}
						}
					}
				}
				if lead == "" && !strings.Contains(err.Error(), "and so on") {
					t.Errorf("nothing is left of the message: %v", err)
				}
				if len(err.Error()) > 1500 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
			})
		}
	}
}

func TestOddSecretsAreNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sshd{run: func(string, ssh.Channel, func()) int { t.Error("it ran a command"); return 0 }}
		c := newSSHD(t, s)
		o := order()
		o.Secret = "two\nlines"
		if _, err := c.Start(t.Context(), s.address, o); !errors.Is(err, wire.ErrBadOrder) || strings.Contains(err.Error(), "two") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConfig(t *testing.T) {
	signer, _ := pair(t, "c")
	for name, change := range map[string]func(*guest.Config){
		"no user": func(c *guest.Config) { c.User = "" },
		"no key":  func(c *guest.Config) { c.Signer = nil },
		"port":    func(c *guest.Config) { c.Port = 65536 },
		"quotes":  func(c *guest.Config) { c.Command = `"C:\Program Files\mayfly-guest.exe"` },
		"shell":   func(c *guest.Config) { c.Command = `C:\a.exe&calc` },
		"proxy":   func(c *guest.Config) { c.Via = "socks5://" + secret + "@h:1" },
		"tries":   func(c *guest.Config) { c.Tries = -1 },
	} {
		c := guest.Config{User: "u", Signer: signer}
		change(&c)
		_, err := guest.NewSSH(c)
		if !errors.Is(err, fleet.ErrConfig) {
			t.Errorf("%s: %v, want ErrConfig", name, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v shows a secret", name, err)
		}
	}
}

func TestProxy(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string // in the error; "" none
	}{
		"good":             {"HTTP/1.1 200 Connection established\r\n\r\n", ""},
		"with headers":     {"HTTP/1.1 200 OK\r\nVia: 1.1 x\r\nContent-Length: 5\r\n\r\n", ""},
		"forbidden":        {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "it answers 403 to CONNECT 10.1.2.3:22"},
		"no HTTP":          {"SSH-2.0-what\r\n", "malformed"},
		"nothing":          {"", "EOF"},
		"an endless head":  {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10_000), "malformed"},
		"an endless line":  {"HTTP/1.1 200 " + strings.Repeat("x", 100_000), "EOF"},
		"not even a close": {"HTTP/1.1 200", "no SSH handshake within 25s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &sshd{run: func(_ string, ch ssh.Channel, _ func()) int { _, _ = io.WriteString(ch, listening); return 0 }}
				client := newSSHD(t, s, func(cfg *guest.Config) {
					cfg.Via = "http://proxy.test:3128"
					cfg.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
						if addr != "proxy.test:3128" {
							t.Errorf("dialled %s", addr)
						}
						return s.proxied(ctx, c.answer, name != "not even a close")
					}
				})
				_, err := client.Status(t.Context(), s.address)
				if c.want == "" && err != nil || c.want != "" && !strings.Contains(fmt.Sprint(err), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
		})
	}
}
