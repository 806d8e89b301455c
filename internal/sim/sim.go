// Package sim is a small world to run against: a Proxmox, a GitHub and Windows guests, wired together.
//
// Everything outside it is reached by wire protocols only: HTTP for Proxmox and GitHub, SSH for guests,
// webhooks from GitHub. So what is tested against it is the code that meets the real ones.
package sim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"mayfly/internal/sim/github"
	"mayfly/internal/sim/guest"
	"mayfly/internal/sim/pve"
)

// Token and scope that the world knows.
const (
	ProxmoxToken  = "mayfly@pve!mayfly"
	ProxmoxSecret = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
	ProxmoxPool   = "mayfly"
	GitHubToken   = "github_pat_simulated"
	Scope         = "octo-org"
	Template      = 9000 // on the first node; 9001 on the second, …
)

// Config describes a world. Zero fields take the defaults.
type Config struct {
	Seed    uint64
	Speed   float64 // divides every simulated delay; 0 is 1
	Nodes   int     // pve1, pve2, …; 1
	Memory  int64   // of each node, bytes; 512 GiB
	Size    int64   // memory of the template, bytes; 8 GiB
	Profile Profile // Linked
	OOBE    bool    // guests reboot once before they are ready, as sysprep'd clones do
	Version string  // of Proxmox: 9.2 (default), 8.4

	AuthorizedKey string // the orchestrator's public SSH key
	WebhookURL    string // where GitHub's deliveries go; "" none
	WebhookSecret string
	Deliver       func(*http.Request) (*http.Response, error) // of deliveries; nil: a plain HTTP client

	// Webhook chances by action; see sim/github.
	Lose, Double, Reorder, Late map[string]float64
	LateBy                      github.Range
	IdleDrop                    time.Duration // a listening runner without a job is removed; 0 means never
	Guests                      guest.Faults
}

// A Profile is how fast a site is.
type Profile string

// The profiles: a site with linked clones, and one that tests wait less for.
const (
	Linked Profile = "linked"
	Fast   Profile = "fast"
)

// A World is running as soon as it is made. Close ends it.
type World struct {
	PVE    *pve.Cluster
	GitHub *github.GitHub
	Guests *guest.Farm
	Nodes  []string
}

// New makes a world.
func New(c Config) *World {
	if c.Nodes == 0 {
		c.Nodes = 1
	}
	if c.Memory == 0 {
		c.Memory = 512 << 30
	}
	if c.Size == 0 {
		c.Size = 8 << 30
	}
	w := &World{}
	w.GitHub = github.New(github.Config{
		Seed: c.Seed, Scope: Scope, Token: GitHubToken, Speed: c.Speed,
		WebhookURL: c.WebhookURL, WebhookSecret: c.WebhookSecret, Deliver: c.Deliver,
		WebhookDelay: github.Range{From: 100 * time.Millisecond, To: time.Second},
		Lose:         c.Lose, Double: c.Double, Reorder: c.Reorder, Late: c.Late, LateBy: c.LateBy, IdleDrop: c.IdleDrop,
	})
	farm := guest.Config{
		Seed: c.Seed, Speed: c.Speed, OOBE: c.OOBE, AuthorizedKey: c.AuthorizedKey, Hub: hub{w.GitHub}, Faults: c.Guests,
	}
	delays := pve.Linked()
	if c.Profile == Fast {
		s := time.Second
		delays = pve.Delays{Clone: pve.Range{Min: s, Max: 2 * s}, Start: pve.Range{Min: s, Max: s}, Stop: pve.Range{Min: s, Max: s}, Destroy: pve.Range{Min: s, Max: s}}
		farm.Boot, farm.Agent, farm.SSH, farm.Register = guest.Range{Min: 2 * s, Max: 4 * s}, guest.Range{Min: s, Max: 2 * s}, guest.Range{Min: s, Max: 2 * s}, guest.Range{Min: s, Max: 2 * s}
	}
	w.Guests = guest.New(farm)
	cluster := pve.Config{
		Seed: c.Seed, Token: ProxmoxToken, Secret: ProxmoxSecret, Pool: ProxmoxPool, Version: c.Version,
		Delays: delays, Speed: c.Speed,
		Boot: func(m pve.Machine) pve.Guest { return machine{w.Guests.Boot(m.ID, m.Name, m.MAC, m.PowerOff)} },
	}
	for i := range c.Nodes {
		name := fmt.Sprintf("pve%d", i+1)
		w.Nodes = append(w.Nodes, name)
		cluster.Nodes = append(cluster.Nodes, pve.NodeSpec{Name: name, Memory: c.Memory, Cores: 64})
		cluster.Templates = append(cluster.Templates, pve.TemplateSpec{
			ID: Template + i, Node: name, Name: "win11", Memory: c.Size, Cores: 4, Storage: "local-lvm",
		})
	}
	w.PVE = pve.New(cluster)
	return w
}

// Close ends everything and waits for it.
func (w *World) Close() {
	w.PVE.Close()
	w.Guests.Close()
	w.GitHub.Close()
}

// machine is a guest as Proxmox sees it.
type machine struct{ *guest.Guest }

func (m machine) Interfaces() []pve.NIC {
	var nics []pve.NIC
	for _, n := range m.Guest.Interfaces() {
		nics = append(nics, pve.NIC{Name: n.Name, MAC: n.MAC, IPs: n.IPs})
	}
	return nics
}

// hub is GitHub as runners see it.
type hub struct{ g *github.GitHub }

func (h hub) Connect(jit string) (guest.Session, error) {
	s, err := h.g.Connect(jit)
	if errors.Is(err, github.ErrConflict) {
		return nil, errors.Join(err, guest.ErrConflict)
	}
	if err != nil {
		return nil, err
	}
	return session{s}, nil
}

type session struct{ *github.Session }

func (s session) Next(ctx context.Context) (guest.Job, error) {
	j, err := s.Session.Next(ctx)
	return guest.Job{ID: j.ID, Length: j.Length, Conclusion: j.Conclusion, Cancelled: j.Cancelled}, err
}

func (s session) Done(job int64, conclusion string) {
	_ = s.Session.Done(job, conclusion) // GitHub ended the job already: nothing is left to say
}
