// Package web shows Mayfly to people and machines: a status page, a JSON API, metrics and health.
//
// It reads what the controller decided on last and hears the events; it keeps nothing that
// anybody decides by. Everything that a stranger wrote (names and labels of jobs, error
// texts) is bounded, freed of control characters and escaped where it is shown, and is never
// the label of a metric.
package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"mayfly/internal/fleet"
)

// A Source is what the page is about: the controller.
type Source interface {
	// Last returns the world that was decided on last, and what was decided. Nobody changes
	// them afterwards. Before the first decision both are empty.
	Last() (fleet.World, fleet.Plan)
	// Ready returns nil when Mayfly does its work, else what it lacks.
	Ready() error
}

// Config is what a Web needs. Source is required, everything else may be left out.
type Config struct {
	Source   Source
	Instance string
	Version  string
	// Token is asked for on every path but /healthz and /readyz. Without one, reads are open to
	// requests for this machine itself by a name of loopback, and nothing can be changed.
	Token fleet.Secret
	// OpenReads asks for the Token only where state is changed, and leaves reads as open as
	// without a Token. For a listener on loopback.
	OpenReads bool
	// Past is the last events of an earlier run, oldest first. They are shown and not counted.
	Past []fleet.Event
	// History returns the stored events of a job, oldest first; nil: only the last events of this run are known.
	History func(ctx context.Context, job int64) ([]fleet.Event, error)
	// Controls carries out commands; nil: there are none.
	Controls Controls
	Log      *slog.Logger // nil: silent
}

// A Web serves the page, the API, the metrics and the health of one Mayfly.
type Web struct {
	source            Source
	instance, version string
	token             fleet.Secret
	openReads         bool
	history           func(ctx context.Context, job int64) ([]fleet.Event, error)
	controls          Controls
	log               *slog.Logger
	started           time.Time
	events            ring
	metrics           *metrics
}

// New makes a Web. It starts nothing: serve its Handler.
func New(c Config) *Web {
	w := &Web{
		source: c.Source, instance: c.Instance, version: c.Version,
		token: c.Token, openReads: c.OpenReads || c.Token == "",
		history: c.History, controls: c.Controls, log: c.Log, started: time.Now(),
		metrics: newMetrics(worldCollector{c.Source}, c.Instance, c.Version),
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	for _, e := range c.Past {
		w.metrics.poolOf(e)
		w.remember(e)
	}
	return w
}

// Hear takes one event into the metrics and the last events. It is a fleet.Hearer.
func (w *Web) Hear(e fleet.Event) {
	w.metrics.hear(e)
	w.remember(e)
}

func (w *Web) remember(e fleet.Event) {
	e.Note = clean(e.Note, maxText) // not kept longer than it is shown
	w.events.add(e)
}

// ObserveCall counts one request to proxmox, github, guest or store. Call is the name of the kind of
// request, without ids; outcome is ok, canceled, timeout, limited, error, an HTTP status code or a class of fleet.Class.
// Anything else is counted as other. Safe for concurrent use.
func (w *Web) ObserveCall(system, call, outcome string, took time.Duration) {
	w.metrics.observe(system, call, outcome, took)
}

// ObserveDelivery counts one request to the webhook by its result: recorded, unchanged, ignored, unsigned, forged,
// malformed, too_large, busy or store_failed; anything else is counted as other. Safe for concurrent use.
func (w *Web) ObserveDelivery(result string) {
	w.metrics.deliveries.WithLabelValues(oneOf(result, deliveryResults)).Inc()
}

// maxBody bounds what a request may carry: commands have no body.
const maxBody = 1 << 10

// Handler returns the handler of all paths.
func (w *Web) Handler() http.Handler {
	guarded := http.NewServeMux()
	guarded.HandleFunc("GET /{$}", w.page)
	guarded.HandleFunc("GET /style.css", style)
	guarded.HandleFunc("GET /api/v1/status", w.getStatus)
	guarded.HandleFunc("GET /api/v1/jobs/{id}", w.getJob)
	guarded.HandleFunc("GET /api/v1/plan", w.getPlan)
	guarded.HandleFunc("GET /api/v1/events", w.getEvents)
	guarded.Handle("GET /metrics", w.metrics.handler())
	guarded.HandleFunc("/", noSuchPath)
	w.addCommands(guarded)

	var inner http.Handler = guarded
	if w.openReads {
		inner = localHost(inner)
	} else {
		inner = withToken(w.token, inner)
	}
	all := http.NewServeMux()
	all.HandleFunc("GET /healthz", healthz)
	all.HandleFunc("GET /readyz", w.readyz)
	all.Handle("/", inner)
	return withHeaders(http.MaxBytesHandler(all, maxBody))
}
