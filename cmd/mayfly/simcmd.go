package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"mayfly/internal/sim"
	"mayfly/internal/sim/github"
	"mayfly/internal/sim/pve"
)

// simOptions are the flags of sim.
type simOptions struct {
	dir, listen, webhook, page, labels, version string
	seed                                        uint64
	speed                                       float64
	nodes, max, ready                           int
}

func simCommand() *cobra.Command {
	var o simOptions
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "A simulated Proxmox, GitHub and Windows guests, for trying serve against them",
		Long: `sim serves the world that demo has inside, for a serve in another process. It writes a
ready config with its secrets into --dir, says so, and runs until Ctrl-C.

Its control API (on the address it prints) makes things happen:

  POST /jobs       {"labels":["self-hosted","windows","x64"],"count":3,"length":"2m"}
                   a job at GitHub; "silent":true sends no webhook for queued, "id":7 gives its id
  POST /redeliver  {"job":7,"action":"queued"}
                   sends deliveries of a job again that were not answered with 2xx
  POST /faults     {"where":"proxmox","match":"POST .*/clone","rate":0.5,"count":3,"do":"status","code":596,"text":"Connection timed out"}
                   do: status, drop_before, drop_after, empty; where: proxmox, github
  POST /vms        {"id":100003,"name":"fileserver","node":"pve1"}
                   somebody else's running VM, which must never be touched
  GET  /state      VMs, volumes, jobs, requests, and which VMs of others were touched`,
		Example: `  mayfly sim --dir /tmp/world &
  mayfly serve -c /tmp/world/mayfly.yaml
  curl http://CONTROL/jobs -d '{"labels":["self-hosted","windows","x64"],"count":3}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return simulate(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "where the config, its secrets and the database go (default: a new folder, removed at the end)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "host:port that all its services share the host of")
	f.StringVar(&o.webhook, "webhook", "127.0.0.1:8081", "where serve will listen for webhooks")
	f.StringVar(&o.page, "page", "127.0.0.1:8080", "where serve will have its page and API")
	f.StringVar(&o.labels, "labels", "self-hosted, windows, x64, win11", "labels of the config's pool")
	f.StringVar(&o.version, "pve-version", "9.2", "9.2 or 8.4")
	f.Uint64Var(&o.seed, "seed", 1, "of everything random in the world")
	f.Float64Var(&o.speed, "speed", 1, "how many times faster than life")
	f.IntVar(&o.nodes, "nodes", 1, "Proxmox nodes")
	f.IntVar(&o.max, "max", 10, "max of the config's pool")
	f.IntVar(&o.ready, "ready", 0, "ready of the config's pool")
	return cmd
}

// check says what no world can be made of.
func (o simOptions) check() error {
	switch {
	case !(o.speed >= 1 && o.speed <= 10000):
		return usageError{fmt.Errorf("--speed %g is not from 1 to 10000", o.speed)}
	case o.nodes < 1 || o.nodes > 100:
		return usageError{fmt.Errorf("--nodes %d is not from 1 to 100", o.nodes)}
	case o.version != "9.2" && o.version != "8.4":
		return usageError{fmt.Errorf("--pve-version %q is not 9.2 or 8.4", o.version)}
	}
	for flag, address := range map[string]string{"listen": o.listen, "webhook": o.webhook, "page": o.page} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return usageError{fmt.Errorf("--%s %q is not host:port", flag, address)}
		}
	}
	return nil
}

func simulate(ctx context.Context, o simOptions, stdout io.Writer) (err error) {
	dir := o.dir
	if dir == "" {
		made, err := os.MkdirTemp("", "mayfly-sim-")
		if err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		dir = made
		defer func() { err = errors.Join(err, os.RemoveAll(made)) }() // its secrets are of no use without this world
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("find %s: %w", o.dir, err)
	}
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usageError{fmt.Errorf("--listen %q is not host:port", o.listen)}
	}
	// Proxmox gets the port that was asked for, the others any.
	var on [4]net.Listener
	for i := range on {
		if on[i], err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, port)); err != nil {
			return fmt.Errorf("listen for the simulator: %w", err)
		}
		defer on[i].Close()
		port = "0"
	}
	place := simPlace{
		Speed: o.speed, Instance: "sim", Listen: o.page, WebhookListen: o.webhook, Template: sim.Template, Labels: o.labels,
		Proxmox: "http://" + on[0].Addr().String(), GitHub: "http://" + on[1].Addr().String(), Via: "http://" + on[2].Addr().String(),
		Max: o.max, Ready: o.ready, Store: filepath.Join(dir, "mayfly.db"),
	}
	if err := place.secrets(dir); err != nil {
		return err
	}
	world := sim.New(sim.Config{
		Seed: o.seed, Speed: o.speed, Nodes: o.nodes, OOBE: true, Version: o.version, AuthorizedKey: place.AuthorizedKey,
		WebhookURL: "http://" + o.webhook + "/webhook", WebhookSecret: place.WebhookSecret,
	})
	defer world.Close()
	place.Nodes = world.Nodes
	path, err := place.write()
	if err != nil {
		return err
	}
	if _, err := loadConfig(path); err != nil {
		return fmt.Errorf("these flags make no config that serve can use: %w", err)
	}
	fmt.Fprintf(stdout, "Proxmox %s, GitHub %s, guests by way of %s, %g times faster than life, seed %d.\n", place.Proxmox, place.GitHub, place.Via, o.speed, o.seed)
	fmt.Fprintf(stdout, "Control: http://%s\nThe webhook secret is in %s\n", on[3].Addr(), filepath.Join(dir, "webhook-secret"))
	fmt.Fprintf(stdout, "Now run: mayfly serve -c %s\n", path)

	g, ctx := errgroup.WithContext(ctx)
	for i, h := range []http.Handler{world.PVE.Handler(), world.GitHub.Handler(), world.Guests.Proxy(), control(world)} {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
		g.Go(func() error {
			if err := srv.Serve(on[i]); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the simulator: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return srv.Close()
		})
	}
	return g.Wait()
}

// control is the API with which a person or a test makes things happen in the world.
func control(w *sim.World) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs", func(rw http.ResponseWriter, r *http.Request) {
		var q struct {
			ID     int64    `json:"id"`
			Repo   string   `json:"repo"`
			Name   string   `json:"name"`
			Labels []string `json:"labels"`
			Count  int      `json:"count"`
			Length string   `json:"length"`
			Silent bool     `json:"silent"`
		}
		if !decode(rw, r, &q) {
			return
		}
		length := time.Minute
		if q.Length != "" {
			d, err := time.ParseDuration(q.Length)
			if err != nil || d <= 0 {
				http.Error(rw, "length is a duration like 90s", http.StatusBadRequest)
				return
			}
			length = d
		}
		var ids []int64
		for range max(q.Count, 1) {
			ids = append(ids, w.GitHub.Submit(github.JobSpec{ID: q.ID, Repo: q.Repo, Name: q.Name, Labels: q.Labels, Length: length, Silent: q.Silent}))
		}
		_ = writeJSON(rw, map[string]any{"jobs": ids}) // the caller went away
	})
	mux.HandleFunc("POST /faults", func(rw http.ResponseWriter, r *http.Request) {
		var q struct {
			Where, Match, Do, Text string
			Rate                   float64
			Count, Code            int
		}
		if !decode(rw, r, &q) {
			return
		}
		if err := inject(w, q.Where, q.Match, q.Do, q.Text, q.Rate, q.Count, q.Code); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("POST /redeliver", func(rw http.ResponseWriter, r *http.Request) {
		var q struct {
			Job    int64
			Action string
		}
		if decode(rw, r, &q) {
			_ = writeJSON(rw, map[string]any{"redelivered": redeliver(w.GitHub, q.Job, q.Action)}) // the caller went away
		}
	})
	mux.HandleFunc("POST /vms", func(rw http.ResponseWriter, r *http.Request) {
		var q struct {
			ID         int
			Node, Name string
		}
		if decode(rw, r, &q) {
			w.PVE.AddVM(pve.VMSpec{ID: q.ID, Node: q.Node, Name: q.Name, Running: true, Foreign: true})
		}
	})
	mux.HandleFunc("GET /state", func(rw http.ResponseWriter, _ *http.Request) {
		_ = writeJSON(rw, map[string]any{ // the caller went away
			"vms": w.PVE.VMs(), "volumes": w.PVE.Volumes(), "jobs": w.GitHub.Jobs(), "github": w.GitHub.Stats(), "proxmox_requests": w.PVE.Requests(), "touched": w.PVE.Touched(),
		})
	})
	return mux
}

// redeliver sends the deliveries of a job that were never answered with 2xx once more, or only those of an action; it
// tells how many.
func redeliver(g *github.GitHub, job int64, action string) (n int) {
	last := map[string]github.Delivery{} // of each GUID, the latest try or the one that went well
	var order []string
	for _, d := range g.Deliveries() {
		if d.Job != job || action != "" && d.Action != action {
			continue
		}
		was, seen := last[d.GUID]
		if !seen {
			order = append(order, d.GUID)
		}
		if was.Code/100 != 2 {
			last[d.GUID] = d
		}
	}
	for _, guid := range order {
		d := last[guid]
		pending := d.Code == 0 && d.Err == "" && !d.Lost
		if d.Code/100 != 2 && !pending && g.Redeliver(guid) {
			n++
		}
	}
	return n
}

func inject(w *sim.World, where, match, do, text string, rate float64, count, code int) error {
	if where == "github" {
		effect, ok := map[string]github.Effect{
			"status": github.Status(code, text), "drop_before": github.DropBefore(), "drop_after": github.DropAfter(), "empty": github.Empty(),
		}[do]
		if !ok {
			return fmt.Errorf("do: %q is not status, drop_before, drop_after or empty", do)
		}
		w.GitHub.Inject(github.Fault{Match: match, Rate: rate, Count: count, Do: effect})
		return nil
	}
	effect, ok := map[string]pve.Action{
		"status": pve.Status(code, text), "drop_before": pve.DropBefore(), "drop_after": pve.DropAfter(), "empty": pve.Empty(),
	}[do]
	if !ok || !strings.EqualFold(where, "proxmox") {
		return fmt.Errorf("where is proxmox or github; do is status, drop_before, drop_after or empty")
	}
	w.PVE.Inject(pve.Fault{Match: match, Rate: rate, Count: count, Do: effect})
	return nil
}

func decode(rw http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(v); err != nil {
		http.Error(rw, "the body is not the JSON that is wanted: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}
