package proxmox

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
)

func TestFreeAndPower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		c := s.newClient()
		s.on("GET /cluster/nextid", inUseID)
		if ok, err := c.Free(t.Context(), 700); ok || err != nil {
			t.Error("taken:", ok, err)
		}
		s.on("GET /cluster/nextid", free)
		if ok, err := c.Free(t.Context(), 700); !ok || err != nil {
			t.Error("free:", ok, err)
		}
		for _, data := range []string{`"701"`, `null`, `{}`} {
			s.says("GET /cluster/nextid", data)
			if ok, err := c.Free(t.Context(), 700); ok || err == nil {
				t.Error(data, ok, err)
			}
		}
		s.fails("GET /cluster/nextid", 400, "Parameter verification failed.")
		if ok, err := c.Free(t.Context(), 700); ok || !errors.Is(err, fleet.ErrConfig) {
			t.Error("another 400:", ok, err)
		}
		const current = "GET /nodes/pve1/qemu/700/status/current"
		for data, want := range map[string]fleet.Power{
			`{"status":"stopped"}`:                      fleet.PowerOff,
			`{"status":"stopped","lock":"suspended"}`:   fleet.PowerUnknown,
			`{"status":"running","qmpstatus":"paused"}`: fleet.PowerOn,
			`{"status":"running","lock":"backup"}`:      fleet.PowerOn,
			`{"status":"novel"}`:                        fleet.PowerUnknown,
			`{}`:                                        fleet.PowerUnknown,
		} {
			s.says(current, data)
			if got, err := c.Power(t.Context(), "pve1", 700); got != want || err != nil {
				t.Errorf("%s: %s %v", data, got, err)
			}
		}
		for status, want := range map[int]error{403: fleet.ErrHidden, 595: nil, 596: nil} {
			s.fails(current, status, "Permission check failed (/vms/700, VM.Audit)")
			if got, err := c.Power(t.Context(), "pve1", 700); got != fleet.PowerUnknown || err == nil || want != nil && !errors.Is(err, want) {
				t.Error(status, got, err)
			}
		}
	})
}

func TestProversShareAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		s.ours()
		s.on("GET /cluster/resources", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			give(w, ourRow)
		})
		c := s.newClient()
		var wg sync.WaitGroup
		first, cancel := context.WithCancel(t.Context())
		for i := range 20 {
			wg.Go(func() {
				ctx := t.Context()
				if i%10 == 0 {
					ctx = first
				}
				asked := time.Now()
				p, err := c.Prove(ctx, runner())
				if ctx == first {
					return // may be cut short
				}
				if err != nil || p.Whose != fleet.Ours {
					t.Error(p, err)
				}
				if lists := s.requests("GET /cluster/resources"); lists[len(lists)-1].at.Before(asked) {
					t.Error("proved by a list from before")
				}
			})
			synctest.Sleep(10 * time.Millisecond)
		}
		cancel()
		wg.Wait()
		if n := len(s.requests("GET /cluster/resources")); n > 6 {
			t.Errorf("%d lists for 20 provers", n)
		}
	})
}

func TestEndpointsFailOver(t *testing.T) {
	var calls []string
	s := newServer(t)
	s.says("GET /cluster/resources", `[{"type":"node","node":"pve1","status":"online"}]`)
	dead := roundTripper(func(r *http.Request) (*http.Response, error) {
		calls = append(calls, r.URL.Host)
		if r.URL.Host == "dead" {
			return nil, errors.New("dial tcp: no route to host")
		}
		return s.client.Transport.RoundTrip(r)
	})
	c := s.newClient(func(cfg *Config) {
		cfg.Endpoints = []string{"http://dead", s.url}
		cfg.HTTP = &http.Client{Transport: dead}
	})
	for range 3 {
		if _, err := c.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(calls) != 4 || calls[0] != "dead" {
		t.Errorf("asked %v: the one that works is kept", calls)
	}
	c = s.newClient(func(cfg *Config) {
		cfg.Endpoints = []string{"http://dead"}
		cfg.HTTP = &http.Client{Transport: dead}
	})
	c.templates.give("pve1 9000")
	if got, err := c.Clone(t.Context(), runner(), fleet.Pool{}); fleet.Class(err) != "other" || !got.Sent.IsZero() {
		t.Error("what was never sent is not unknown:", got, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnswersAreBounded(t *testing.T) {
	s := newServer(t)
	s.on("GET /cluster/resources", func(w http.ResponseWriter, _ *http.Request) {
		line := bytes.Repeat([]byte(" "), 1<<20)
		for range 20 {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
	})
	if _, err := s.newClient().Look(t.Context()); err == nil || !strings.Contains(err.Error(), "16 MiB") {
		t.Error(err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	s := newServer(t)
	s.on("GET /cluster/resources", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusMovedPermanently)
	})
	if _, err := s.newClient().Look(t.Context()); !errors.Is(err, fleet.ErrConfig) || len(s.requests("")) != 1 {
		t.Error(err, s.requests(""))
	}
}

func TestEachRequestIsObserved(t *testing.T) {
	s := newServer(t)
	s.fails("GET /cluster/resources", 401, "")
	var heard []string
	c := s.newClient(func(cfg *Config) {
		cfg.Observe = func(call, outcome string, _ time.Duration) { heard = append(heard, call+" "+outcome) }
	})
	c.Look(t.Context())
	s.says("GET /cluster/resources", `[{"type":"node","node":"pve1"}]`)
	c.Look(t.Context())
	if strings.Join(heard, ", ") != "look config, look ok" {
		t.Error(heard)
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		give(w, `[{"type":"node","node":"pve1","status":"online"}]`)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	defer srv.Close()
	leaf := srv.Certificate()
	ca := x509.NewCertPool()
	ca.AddCert(leaf)
	sum := sha256.Sum256(leaf.Raw)
	finger := hex.EncodeToString(sum[:])
	wrong := strings.Repeat("00", 32)
	for name, tc := range map[string]struct {
		ca     *x509.CertPool
		finger string
		ok     bool
	}{
		"neither":                  {nil, "", false},
		"CA":                       {ca, "", true},
		"fingerprint":              {nil, strings.ToUpper(finger), true},
		"wrong fingerprint":        {nil, wrong, false},
		"CA and wrong fingerprint": {ca, wrong, false},
		"both":                     {ca, finger, true},
	} {
		c, err := New(Config{
			Endpoints: []string{srv.URL}, Token: "a@pve!bc", Secret: secret, Instance: "k3f9", Pool: "runners", IDs: Range{600, 799},
			CA: tc.ca, Fingerprint: tc.finger,
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Look(t.Context())
		c.Close()
		if (err == nil) != tc.ok || !tc.ok && !errors.Is(err, fleet.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Endpoints: []string{"https://pve1:8006/"}, Token: "a@pve!bc", Secret: secret, Instance: "k3f9", Pool: "runners", IDs: Range{600, 799}}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no endpoint":       func(c *Config) { c.Endpoints = nil },
		"endpoint":          func(c *Config) { c.Endpoints = []string{"pve1:8006"} },
		"endpoint's scheme": func(c *Config) { c.Endpoints = []string{"ftp://pve1"} },
		"endpoint's path":   func(c *Config) { c.Endpoints = []string{"https://pve1:8006/api2/json"} },
		"token":             func(c *Config) { c.Token = "root@pam" },
		"token with secret": func(c *Config) { c.Token = "a@pve!bc=" + secret },
		"secret":            func(c *Config) { c.Secret = "" },
		"secret's line end": func(c *Config) { c.Secret += "\n" },
		"instance":          func(c *Config) { c.Instance = "K3" },
		"pool":              func(c *Config) { c.Pool = "" },
		"ids":               func(c *Config) { c.IDs = Range{700, 600} },
		"low ids":           func(c *Config) { c.IDs = Range{1, 600} },
		"fingerprint":       func(c *Config) { c.Fingerprint = "aa:bb" },
		"gate":              func(c *Config) { c.Gates.Agent = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := New(cfg); !errors.Is(err, fleet.ErrConfig) || strings.Contains(fmt.Sprint(err), secret[:20]) && name != "token with secret" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheSecretIsNotPrinted looks at everything that a person may see.
func TestTheSecretIsNotPrinted(t *testing.T) {
	s := newServer(t)
	for _, status := range []int{401, 403, 500, 501, 596} {
		s.fails("GET /cluster/resources", status, "x")
		_, err := s.newClient().Look(t.Context())
		if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, secret) {
			t.Errorf("%d: %s", status, text)
		}
	}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(io.Writer(&b), nil)).Info("x", "config", Config{Secret: secret}.Secret)
	if strings.Contains(b.String(), secret) {
		t.Error(b.String())
	}
}

// needs is what the controller needs of us, by method names: package controller is not imported.
type needs interface {
	Look(context.Context) (fleet.Sight, error)
	Prove(context.Context, fleet.Runner) (fleet.Proof, error)
	Power(context.Context, string, int) (fleet.Power, error)
	Free(context.Context, int) (bool, error)
	Admit(context.Context, string) (func(), error)
	Clone(context.Context, fleet.Runner, fleet.Pool) (fleet.Clone, error)
	Wait(context.Context, string) error
	Fit(context.Context, fleet.Runner, fleet.Pool) (string, error)
	Start(context.Context, fleet.Runner) error
	Find(context.Context, fleet.Runner) (fleet.Address, error)
	Destroy(context.Context, fleet.Runner) ([]string, error)
}

var _ needs = (*Client)(nil)

func TestLooseTypes(t *testing.T) {
	for raw, want := range map[string]resource{
		`{"vmid":"105","template":"0","maxmem":"1024","name":7}`: {VMID: 105, MaxMem: 1024, Name: "7"},
		`{"vmid":105,"template":"1","node":null}`:                {VMID: 105, Template: true},
		`{"vmid":{"x":1},"template":false,"node":["a"]}`:         {},
		`{"vmid":"x","template":""}`:                             {},
	} {
		var got resource
		if err := decode([]byte(`{"data":`+raw+`}`), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v", raw, got, err)
		}
	}
	for n, want := range map[number]int{1.5: 0, 1e300: 0, -3: -3, 105: 105} {
		if got := n.whole(); got != want {
			t.Errorf("%v: %d", n, got)
		}
	}
}
