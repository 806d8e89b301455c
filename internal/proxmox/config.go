package proxmox

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"mayfly/internal/fleet"
)

// Config says which Proxmox we speak to, as whom, and within which bounds.
type Config struct {
	Endpoints   []string       // base URLs, https://pve1:8006; the first that answers is used. http:// is for the simulator
	Token       string         // USER@REALM!ID
	Secret      fleet.Secret   // of the token
	CA          *x509.CertPool // the cluster's CA; nil: the system's
	Fingerprint string         // SHA-256 of the endpoint's certificate, hex with or without colons; "" none

	Instance  string // of this Mayfly; stands in every mark
	Pool      string // the Proxmox pool of all our VMs
	IDs       Range  // the VMIDs that are ours to give
	Templates []int  // VMIDs of the templates that we clone

	Reserve        fleet.Bytes            // memory of each node that is not ours to give
	NodeMemory     map[string]fleet.Bytes // memory of a node for our runners, where the token may not see it or a person says less
	NodeMaxRunners map[string]int         // bounds our runners on a node; 2 where its memory is not known
	Cordoned       []string               // nodes that take no new runner

	StorageWatermark float64  // used fraction from which a storage takes no new runner; 0: never
	Storages         []string // the storages that count for the watermark; none: every visible one for images
	SharedStorage    string   // the one storage of all runners if it is shared by the nodes: clones and destroys then share one gate

	Gates       Gates
	Speed       float64       // divides polls, pings and pauses, never time-outs; 0 is 1
	FirstPing   time.Duration // from the VM's start to the first guest-agent ping, until boots have taught better; 0 is 20 s
	HostKeyPath string        // the guest's Ed25519 public host key; "" is where Windows' OpenSSH has it

	HTTP    *http.Client                                          // replaces our own client and its TLS settings; for tests
	Observe func(call string, outcome string, took time.Duration) // hears of each request; both texts are from small fixed sets
	Log     *slog.Logger                                          // one debug line a request; nil: none
}

// A Range is VMIDs, both ends included.
type Range struct{ From, To int }

// Has tells whether id is in the range.
func (r Range) Has(id int) bool { return r.From <= id && id <= r.To }

// Gates bound what we ask of Proxmox at once. Zero fields take the default.
type Gates struct {
	Clone   int     // clones and destroys at once on one storage of a node; 6
	Destroy int     // destroys at once in the cluster; 8
	Agent   int     // guest-agent calls at once on one node; 2 of its 3 pvedaemon workers
	Rate    float64 // requests a second, all together; 50
}

const (
	defaultFirstPing   = 20 * time.Second
	defaultHostKeyPath = `C:\ProgramData\ssh\ssh_host_ed25519_key.pub`
	defaultMaxRunners  = 2
)

var (
	tokenName    = regexp.MustCompile(`^[^\s:/=]+@[^\s:/=!]+![A-Za-z][A-Za-z0-9.\-_]+$`)
	instanceName = regexp.MustCompile(`^[a-z0-9]{1,12}$`)
)

// checked returns the config with its defaults, or what is wrong with it (ErrConfig).
func (cfg Config) checked() (Config, error) {
	var wrong []error
	bad := func(format string, a ...any) { wrong = append(wrong, fmt.Errorf(format, a...)) }
	if len(cfg.Endpoints) == 0 {
		bad("no endpoint")
	}
	ends := make([]string, len(cfg.Endpoints))
	for i, e := range cfg.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			bad("endpoint %d is not like https://pve1:8006", i+1)
			continue
		}
		ends[i] = u.Scheme + "://" + u.Host
	}
	cfg.Endpoints = ends
	if !tokenName.MatchString(cfg.Token) {
		bad("token %q is not like user@realm!name", cfg.Token)
	}
	if s := cfg.Secret.Reveal(); s == "" || strings.ContainsAny(s, " \t\r\n") {
		bad("the token's secret is empty or has blanks")
	}
	if !instanceName.MatchString(cfg.Instance) {
		bad("instance %q is not 1-12 of a-z0-9", cfg.Instance)
	}
	if cfg.Pool == "" {
		bad("no Proxmox pool: without one no VM can be proved ours")
	}
	if cfg.IDs.From < 100 || cfg.IDs.To > 999999999 || cfg.IDs.From > cfg.IDs.To {
		bad("VMID range %d-%d is not within 100-999999999", cfg.IDs.From, cfg.IDs.To)
	}
	if cfg.Speed < 0 || cfg.StorageWatermark < 0 || cfg.StorageWatermark > 1 {
		bad("speed or storage watermark is out of bounds")
	}
	g := &cfg.Gates
	if g.Clone < 0 || g.Destroy < 0 || g.Agent < 0 || g.Rate < 0 {
		bad("a gate is negative")
	}
	if err := errors.Join(wrong...); err != nil {
		return cfg, fmt.Errorf("proxmox: %w: %w", fleet.ErrConfig, err)
	}
	setDefault(&g.Clone, 6)
	setDefault(&g.Destroy, 8)
	setDefault(&g.Agent, 2)
	setDefault(&g.Rate, 50)
	setDefault(&cfg.Speed, 1)
	setDefault(&cfg.FirstPing, defaultFirstPing)
	setDefault(&cfg.HostKeyPath, defaultHostKeyPath)
	return cfg, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
