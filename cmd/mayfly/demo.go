package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"mayfly/internal/fleet"
	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/web"
)

// demoOptions are the flags of demo.
type demoOptions struct {
	jobs   int // 0: they keep arriving until Ctrl-C
	seed   uint64
	speed  float64
	nodes  int
	ready  int
	burst  bool
	listen string
	out    output
}

func demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A day on an embedded Proxmox, GitHub and Windows guests; nothing to install",
		Long: `demo runs the orchestrator against a simulated world in the same process: the same
wiring as serve, other addresses. Clones, boots and jobs take as long as they would,
divided by --speed. Jobs keep arriving until Ctrl-C, unless --jobs says how many.`,
		Example: `  mayfly demo
  mayfly demo --ready 2
  mayfly demo --jobs 20 --seed 1 --speed 200 -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := o.out.json()
			if err != nil {
				return err
			}
			if o.jobs < 0 || o.speed <= 0 || o.nodes < 1 || o.ready < 0 {
				return usageError{errors.New("--jobs and --ready must not be negative; --speed and --nodes must be positive")}
			}
			if asJSON && o.jobs == 0 {
				return usageError{errors.New("-o json needs --jobs N: it prints one object at the end")}
			}
			return demo(cmd.Context(), o, asJSON, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.jobs, "jobs", 0, "end after so many jobs; 0: jobs keep arriving until Ctrl-C")
	f.Uint64Var(&o.seed, "seed", 0, "of everything random in the world; 0: a new one")
	f.Float64Var(&o.speed, "speed", 20, "how many times faster than life")
	f.IntVar(&o.nodes, "nodes", 2, "Proxmox nodes")
	f.IntVar(&o.ready, "ready", 0, "spare ready VMs that the pool keeps")
	f.BoolVar(&o.burst, "burst", false, "all jobs at once (with --jobs)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8080", "where the page is; another free port if it is taken")
	o.out.add(cmd)
	return cmd
}

func demo(ctx context.Context, o demoOptions, asJSON bool, stdout, stderr io.Writer) (err error) {
	if o.seed == 0 {
		o.seed = rand.Uint64N(1 << 32)
	}
	dir, err := os.MkdirTemp("", "mayfly-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stage, err := newStage(ctx, o, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.close()) }()
	if !asJSON {
		fmt.Fprintf(stdout, "mayfly demo: %g times faster than life, seed %d. The page: http://%s\n", o.speed, o.seed, stage.page.Addr())
		fmt.Fprintln(stdout, "Ctrl-C ends it with a summary.")
	}
	tell := func(fleet.Event) {}
	if !asJSON {
		tell = teller(stdout, time.Now(), o.speed)
	}
	report, err := stage.play(ctx, o, tell)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(stdout, report)
	}
	report.print(stdout)
	return nil
}

// teller prints the events that a person would care for, with the time in the world.
func teller(to io.Writer, began time.Time, speed float64) fleet.Hearer {
	boring := map[fleet.Kind]bool{fleet.Planned: true, fleet.Found: true, fleet.Registered: true, fleet.Started: true}
	return func(e fleet.Event) {
		if boring[e.Kind] {
			return
		}
		at := time.Duration(float64(e.At.Sub(began)) * speed).Round(time.Second)
		fmt.Fprintf(to, "%9s  %s\n", at, web.Sentence(inWorldTime(e, speed)))
	}
}

// inWorldTime undoes the demo's speed in what an event says that something took. What our own work took is not sped up.
func inWorldTime(e fleet.Event, speed float64) fleet.Event {
	if e.Kind != fleet.CloneAsked && e.Kind != fleet.Registered {
		e.Took = time.Duration(float64(e.Took) * speed)
	}
	e.Waited = time.Duration(float64(e.Waited) * speed)
	return e
}

// stage is a simulated world with a Mayfly in it, on loopback.
type stage struct {
	world      *sim.World
	app        *app
	tally      *tally
	page, hook net.Listener
	servers    []*http.Server
	events     chan fleet.Event
}

func newStage(ctx context.Context, o demoOptions, dir string) (_ *stage, err error) {
	s := &stage{tally: &tally{}, events: make(chan fleet.Event, 4096)}
	var open []net.Listener
	defer func() {
		if err != nil {
			for _, l := range open {
				err = errors.Join(err, l.Close())
			}
		}
	}()
	listen := func(addr string) net.Listener {
		if err != nil {
			return nil
		}
		var l net.Listener
		if l, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			err = fmt.Errorf("listen on %s: %w", addr, err)
			return nil
		}
		open = append(open, l)
		return l
	}
	if s.page = listen(o.listen); err != nil {
		err = nil
		s.page = listen("127.0.0.1:0")
	}
	hook, pve, hub := listen("127.0.0.1:0"), listen("127.0.0.1:0"), listen("127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.hook = hook
	place := simPlace{
		Speed: o.speed, Instance: "demo", Listen: s.page.Addr().String(), WebhookListen: hook.Addr().String(),
		Proxmox: "http://" + pve.Addr().String(), GitHub: "http://" + hub.Addr().String(), Template: sim.Template,
		Labels: "self-hosted, windows, x64", Max: 40, Ready: o.ready, Store: "mayfly.db",
	}
	if err := place.secrets(dir); err != nil {
		return nil, err
	}
	s.world = sim.New(sim.Config{
		Seed: o.seed, Speed: o.speed, Nodes: o.nodes, OOBE: true, AuthorizedKey: place.AuthorizedKey,
		WebhookURL: "http://" + hook.Addr().String() + "/webhook", WebhookSecret: place.WebhookSecret,
	})
	place.Nodes = s.world.Nodes
	path, err := place.write()
	if err != nil {
		return nil, err
	}
	cfg, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	s.serve(pve, s.world.PVE.Handler())
	s.serve(hub, s.world.GitHub.Handler())
	s.app, err = build(ctx, cfg, outside{
		dial: s.world.Guests.Dial, page: s.page, hook: hook, count: s.tally.count,
		hear: []fleet.Hearer{s.tally.hear, s.hear},
	}, slog.New(slog.DiscardHandler))
	return s, err
}

// hear hands events to whoever prints them; a full channel loses the line, never the event.
func (s *stage) hear(e fleet.Event) {
	select {
	case s.events <- e:
	default:
	}
}

func (s *stage) serve(on net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	s.servers = append(s.servers, srv)
	go func() { _ = srv.Serve(on) }() // ends with close
}

func (s *stage) close() error {
	var errs []error
	if s.world != nil {
		s.world.Close()
	}
	for _, srv := range s.servers {
		errs = append(errs, srv.Close())
	}
	if s.app != nil {
		errs = append(errs, s.app.close())
	}
	return errors.Join(errs...)
}

// play runs Mayfly and the world's jobs until all are done and nothing is left, or until ctx ends.
func (s *stage) play(ctx context.Context, o demoOptions, tell fleet.Hearer) (*report, error) {
	if err := s.app.preflight(ctx); err != nil && ctx.Err() == nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { defer close(served); served <- s.app.serve(ctx) }()
	arrivals := make(chan struct{})
	go func() { defer close(arrivals); s.submit(ctx, o) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case e := <-s.events:
			tell(e)
			continue
		case err := <-served:
			if err != nil {
				return nil, err
			}
			done = true
		case <-tick.C:
			done = o.jobs > 0 && s.quiet(o)
		}
	}
	cancel()
	<-arrivals
	r := s.report(o)
	return r, <-served
}

// submit lets jobs arrive: o.jobs of them, or for ever.
func (s *stage) submit(ctx context.Context, o demoOptions) {
	rng := rand.New(rand.NewPCG(o.seed, 7))
	if o.ready > 0 { // let the wished-for VMs become ready first
		for s.readyNow() < o.ready && ctx.Err() == nil {
			pause(ctx, 20*time.Millisecond)
		}
	}
	for i := 0; (o.jobs == 0 || i < o.jobs) && ctx.Err() == nil; i++ {
		s.world.GitHub.Submit(github.JobSpec{
			Repo: "octo-org/app", Name: fmt.Sprintf("build %d", i+1), Labels: []string{"self-hosted", "Windows", "X64"},
			Length: time.Minute + time.Duration(rng.Int64N(int64(4*time.Minute))),
		})
		if !o.burst {
			pause(ctx, time.Duration(rng.ExpFloat64()*float64(20*time.Second)/o.speed))
		}
	}
}

func (s *stage) readyNow() int {
	w, _ := s.app.control.Last()
	n := 0
	for _, r := range w.Runners {
		if r.Phase == fleet.Ready {
			n++
		}
	}
	return n
}

// quiet tells whether all jobs have ended and nothing is left that will end: spare ready VMs stay.
func (s *stage) quiet(o demoOptions) bool {
	st := s.world.GitHub.Stats()
	w, _ := s.app.control.Last()
	rows := 0
	for _, r := range w.Runners {
		if r.Phase != fleet.Ready {
			rows++
		}
	}
	return st.Submitted >= o.jobs && st.Queued == 0 && st.Running == 0 && rows == 0 && len(s.world.PVE.VMs()) <= o.ready
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// writeJSON prints v as people and programs can read it.
func writeJSON(to io.Writer, v any) error {
	enc := json.NewEncoder(to)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}
