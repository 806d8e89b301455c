package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"mayfly/internal/config"
	"mayfly/internal/controller"
	"mayfly/internal/fleet"
	"mayfly/internal/github"
	"mayfly/internal/guest"
	"mayfly/internal/proxmox"
	"mayfly/internal/store"
	"mayfly/internal/web"
)

// outside is what the demo and tests put in place of the network, the disk's slowness and the clockwork. Its zero
// value is the real thing.
type outside struct {
	proxmox *http.Client
	github  *http.Client
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	hear    []fleet.Hearer
	wrap    func(controller.Parts) controller.Parts
	count   func(system, call, outcome string, took time.Duration)
	fast    bool // the store does not wait for the disk
	// Listeners already made; nil: made from the config.
	page, hook net.Listener
}

// app is a wired Mayfly.
type app struct {
	cfg     *config.Config
	out     outside
	log     *slog.Logger
	store   *store.Store
	cluster *proxmox.Client
	hub     *github.Client
	guests  *guest.SSH
	control *controller.Controller
	web     *web.Web
	hook    http.Handler
	hangups <-chan os.Signal // each gives stopped pools another try; nil: none come
}

// build wires a Mayfly and opens its store. close must be called.
func build(ctx context.Context, cfg *config.Config, out outside, log *slog.Logger) (*app, error) {
	a, err := connect(cfg, out, log)
	if err != nil {
		return nil, err
	}
	if err := a.open(ctx); err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

// connect makes the edges to the outside. Nobody has been asked for anything yet, and nothing is on the disk.
func connect(cfg *config.Config, out outside, log *slog.Logger) (_ *app, err error) {
	a := &app{cfg: cfg, out: out, log: log}
	count := func(system string) func(call, outcome string, took time.Duration) {
		return func(call, outcome string, took time.Duration) {
			if a.web != nil {
				a.web.ObserveCall(system, call, outcome, took)
			}
			if out.count != nil {
				out.count(system, call, outcome, took)
			}
		}
	}
	if a.cluster, err = newProxmox(cfg, out, count("proxmox"), log); err != nil {
		return nil, err
	}
	if a.hub, err = github.New(github.Config{
		URL: cfg.GitHub.URL, API: cfg.GitHub.API, Token: cfg.GitHub.Token, Group: cfg.GitHub.RunnerGroup,
		HTTP: out.github, Observe: count("github"), Log: log, Speed: cfg.Simulation.Speed,
	}); err != nil {
		return nil, err
	}
	if a.guests, err = guest.NewSSH(guest.Config{
		User: cfg.SSH.User, Signer: cfg.SSH.Signer, Port: cfg.SSH.Port, Command: cfg.SSH.Command, Dial: out.dial, Via: cfg.SSH.Via,
		Observe: count("guest"), Log: log, Speed: cfg.Simulation.Speed,
	}); err != nil {
		return nil, err
	}
	return a, nil
}

// open opens the store and wires what rests on it.
func (a *app) open(ctx context.Context) (err error) {
	cfg, log := a.cfg, a.log
	// Events reach the web once it is there; the store tells none before.
	hear := append(slices.Clone(a.out.hear), func(e fleet.Event) { a.web.Hear(e) }, logEvent(log))
	if a.store, err = store.Open(ctx, cfg.Store.Path, store.Options{Fast: a.out.fast, Hear: hear, Holder: "mayfly serve, instance " + cfg.Instance}); err != nil {
		return err
	}
	parts := controller.Parts{Cluster: a.cluster, Maker: a.cluster, Ender: a.cluster, Hub: a.hub, Guests: a.guests, Store: a.store}
	if a.out.wrap != nil {
		parts = a.out.wrap(parts)
	}
	a.control = controller.New(controller.Config{
		Instance: cfg.Instance, FirstID: cfg.Proxmox.VMIDs.From, LastID: cfg.Proxmox.VMIDs.To, Pools: cfg.FleetPools(),
		URL: a.hub.URL(), Speed: cfg.Simulation.Speed, Log: log,
	}, parts)
	past, err := a.store.Events(ctx, 200)
	if err != nil {
		return err
	}
	slices.Reverse(past)
	a.web = web.New(web.Config{
		Source: a.control, Instance: cfg.Instance, Version: version, Token: cfg.Web.Token, Past: past, History: a.store.JobEvents, Log: log,
		OpenReads: isLoopback(cfg.Listen),
	})
	a.hook = github.NewWebhook(cfg.Webhook.Secrets, a.store, a.control.Poke, github.WebhookOptions{Log: log, Observe: a.web.ObserveDelivery})
	return nil
}

func newProxmox(cfg *config.Config, out outside, count func(call, outcome string, took time.Duration), log *slog.Logger) (*proxmox.Client, error) {
	p := cfg.Proxmox
	memory, most := map[string]fleet.Bytes{}, map[string]int{}
	var cordoned []string
	for name, n := range p.Nodes {
		if n.Memory > 0 {
			memory[name] = n.Memory
		}
		if n.MaxRunners > 0 {
			most[name] = n.MaxRunners
		}
		if n.Cordoned {
			cordoned = append(cordoned, name)
		}
	}
	var templates []int
	for _, pool := range cfg.FleetPools() {
		for _, t := range pool.Templates {
			templates = append(templates, t)
		}
	}
	slices.Sort(templates)
	return proxmox.New(proxmox.Config{
		Endpoints: p.Endpoints, Token: p.TokenID, Secret: p.Secret, CA: p.CA, Fingerprint: p.Fingerprint,
		Instance: cfg.Instance, Pool: p.Pool, IDs: proxmox.Range{From: p.VMIDs.From, To: p.VMIDs.To}, Templates: slices.Compact(templates),
		Reserve: p.Reserve, NodeMemory: memory, NodeMaxRunners: most, Cordoned: cordoned, StorageWatermark: p.StorageWatermark,
		Gates: proxmox.Gates{Clone: p.Gates.Clone, Destroy: p.Gates.Destroy, Agent: p.Gates.Agent, Rate: float64(p.Gates.Rate)},
		Speed: cfg.Simulation.Speed, FirstPing: p.FirstPing, HostKeyPath: cfg.SSH.HostKeyPath,
		HTTP: out.proxmox, Observe: count, Log: log,
	})
}

// preflight asks both sides once, so that what a person must mend is said at the start and in one line.
func (a *app) preflight(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	sight, err := a.cluster.Look(ctx)
	at := strings.Join(a.cfg.Proxmox.Endpoints, ", ")
	switch {
	case errors.Is(err, fleet.ErrConfig):
		return fmt.Errorf("cannot work with Proxmox at %s: %w", at, err)
	case err != nil:
		return fmt.Errorf("cannot work with Proxmox at %s (is proxmox.endpoints right, and may this machine connect there?): %w", at, err)
	}
	nodes := map[string]bool{}
	for _, n := range sight.Nodes {
		nodes[n.Name] = true
	}
	for _, p := range a.cfg.FleetPools() {
		for node, id := range p.Templates {
			if !nodes[node] {
				return fmt.Errorf("pool %s: the cluster has no node %q; mend pools.templates or pools.nodes in the config", p.Name, node)
			}
			if _, seen := sight.Templates[id]; !seen {
				return fmt.Errorf("pool %s: template %d is not to be seen on node %s: make it a template there, or grant the token PVETemplateUser on /vms/%d", p.Name, id, node, id)
			}
		}
	}
	if _, err := a.hub.Roster(ctx); errors.Is(err, fleet.ErrConfig) {
		return fmt.Errorf("cannot work with GitHub at %s (mend github.url, or what github.token_file or token_env hold): %w", a.cfg.GitHub.URL, err)
	} else if err != nil {
		a.log.Warn("GitHub cannot be seen yet", "err", err)
	}
	return nil
}

// listen makes the listeners that the config asks for.
func (a *app) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	for _, l := range []struct {
		to        *net.Listener
		key, addr string
	}{{&a.out.page, "listen", a.cfg.Listen}, {&a.out.hook, "webhook.listen", a.cfg.Webhook.Listen}} {
		if *l.to != nil || l.addr == "" {
			continue
		}
		if *l.to, err = lc.Listen(ctx, "tcp", l.addr); err != nil {
			mend := "write another address there"
			if errors.Is(err, syscall.EADDRINUSE) {
				mend = "stop the program that has it, or write another port there"
			}
			return fmt.Errorf("%s: cannot listen on %s: %w: %s", l.key, l.addr, innermost(err), mend)
		}
	}
	return nil
}

// serve runs until ctx ends, then lets what is under way reach its next stored step.
func (a *app) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range []struct {
		on      net.Listener
		handler http.Handler
	}{{a.out.page, a.web.Handler()}, {a.out.hook, a.hook}} {
		if s.on == nil {
			continue
		}
		srv := &http.Server{
			Handler: s.handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 60 * time.Second, WriteTimeout: 60 * time.Second,
			IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		}
		g.Go(func() error {
			if err := srv.Serve(s.on); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", s.on.Addr(), err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			// What is being answered may be answered; a webhook that is not yet stored must not be told 2xx.
			out, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := srv.Shutdown(out); err != nil {
				return errors.Join(srv.Close())
			}
			return nil
		})
	}
	g.Go(func() error { return a.control.Run(ctx) })
	g.Go(func() error { return a.prune(ctx) })
	g.Go(func() error { return a.pardon(ctx) })
	return g.Wait()
}

// kept is how long history stays; tombstones of jobs must outlive GitHub's redeliveries (3 days) by far.
const kept = 14 * 24 * time.Hour

// pardon gives pools that stopped for their configuration another try at each SIGHUP.
func (a *app) pardon(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.hangups:
			a.log.Info("SIGHUP: stopped pools get another try")
			if err := a.control.Pardon(ctx); err != nil {
				a.log.Error("stopped pools", "err", err)
			}
		}
	}
}

func (a *app) prune(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if err := a.store.Prune(ctx, now.Add(-kept)); err != nil && ctx.Err() == nil {
				a.log.Warn("history could not be pruned", "err", err)
			}
		}
	}
}

func (a *app) close() error {
	for _, l := range []net.Listener{a.out.page, a.out.hook} {
		if l != nil {
			_ = l.Close() // closed already when it was served on
		}
	}
	a.cluster.Close()
	if a.store == nil {
		return nil
	}
	return a.store.Close()
}

// isLoopback tells whether addr (host:port) is reached from this machine only.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// logEvent is the hearer that writes events to the log.
func logEvent(log *slog.Logger) fleet.Hearer {
	return func(e fleet.Event) {
		level := slog.LevelInfo
		switch e.Kind {
		case fleet.Failed, fleet.VolumeLeaked, fleet.Quarantined, fleet.LookFailed:
			level = slog.LevelWarn
		}
		attrs := []slog.Attr{slog.String("kind", string(e.Kind))}
		for _, a := range []struct{ key, value string }{{"runner", e.Runner}, {"pool", e.Pool}, {"node", e.Node}, {"class", e.Class}, {"note", e.Note}} {
			if a.value != "" {
				attrs = append(attrs, slog.String(a.key, a.value))
			}
		}
		if e.VMID != 0 {
			attrs = append(attrs, slog.Int("vmid", e.VMID))
		}
		if e.Job != 0 {
			attrs = append(attrs, slog.Int64("job", e.Job))
		}
		if e.Took != 0 {
			attrs = append(attrs, slog.Duration("took", e.Took))
		}
		log.LogAttrs(context.Background(), level, web.Sentence(e), attrs...)
	}
}
