package web

import (
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"mayfly/internal/fleet"
)

// other is the label value of everything that is not in a label's fixed set.
const other = "other"

// maxCalls bounds the call names of one system. The edges name their calls themselves,
// in code; the bound holds if one of them ever lets a path or an id slip in.
const maxCalls = 64

// Buckets, in seconds: of what a machine does, of what our own decision takes, of one request.
var (
	deedBuckets    = []float64{1, 2.5, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900}
	quickBuckets   = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	requestBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	jobBuckets     = []float64{10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400}
)

// metrics count what events and calls tell. What the world holds is read at each scrape: see worldCollector.
type metrics struct {
	registry *prometheus.Registry

	creation, boot, ready, listening *prometheus.HistogramVec
	cloneAsked, gateWait, registered *prometheus.HistogramVec
	jobTime                          *prometheus.HistogramVec
	jobs, launches, events           *prometheus.CounterVec
	requests                         *prometheus.CounterVec
	requestTime                      *prometheus.HistogramVec
	deliveries                       *prometheus.CounterVec

	instance string
	mu       sync.Mutex
	calls    map[string]map[string]bool // system → call names seen
	pools    map[string]bool            // that our own events named
}

func newMetrics(world prometheus.Collector, instance, version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(), instance: instance,
		calls: make(map[string]map[string]bool), pools: make(map[string]bool),
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.creation = histogram("mayfly_vm_creation_seconds",
		"VM creation time: from the accepted clone request to the end of its task.", deedBuckets, "pool", "node")
	m.boot = histogram("mayfly_boot_seconds",
		"Boot time: from the start task's end until the guest agent told the address.", deedBuckets, "pool", "node")
	m.ready = histogram("mayfly_runner_ready_seconds",
		"Time from the decision to launch until the guest answered ready.", deedBuckets, "pool", "node")
	m.listening = histogram("mayfly_runner_listening_seconds",
		"Time from the decision to launch until the runner listened for a job.", deedBuckets, "pool", "node")
	m.cloneAsked = histogram("mayfly_queue_to_clone_seconds",
		"Time from the demand until the clone was asked for, waits at our own gates left out.", quickBuckets, "pool")
	m.gateWait = histogram("mayfly_gate_wait_seconds",
		"Time that a clone waited at our own gates before it was asked for.", quickBuckets, "pool", "node")
	m.registered = histogram("mayfly_registration_seconds",
		"Time from a ready guest to the registration request sent, for runners that joined at once.", quickBuckets, "pool")
	m.jobTime = histogram("mayfly_job_seconds",
		"Time from a job's start to its end.", jobBuckets, "pool")
	m.jobs = counter("mayfly_jobs_total", "Jobs that ended, by result; the pool is empty for a job that no runner of ours ran.", "pool", "result")
	m.launches = counter("mayfly_launches_total",
		"Launches that ended: ok when the guest answered ready, else the class of the failure.", "pool", "outcome")
	m.events = counter("mayfly_events_total", "Events of any kind.", "kind")
	m.requests = counter("mayfly_requests_total",
		"Requests to Proxmox, GitHub and guests, by call and outcome.", "system", "call", "outcome")
	m.requestTime = histogram("mayfly_request_seconds",
		"Time that requests to Proxmox, GitHub and guests took.", requestBuckets, "system")
	m.deliveries = counter("mayfly_webhooks_total", "Requests to the webhook, by result.", "result")

	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mayfly_build_info", Help: "Always 1; its labels say which Mayfly this is.",
		ConstLabels: prometheus.Labels{"version": version, "instance_id": instance},
	})
	build.Set(1)
	m.registry.MustRegister(build, world, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, ErrorHandling: promhttp.ContinueOnError,
	})
}

// hear counts one event.
func (m *metrics) hear(e fleet.Event) {
	pool, node := place(m.poolOf(e)), place(e.Node)
	m.events.WithLabelValues(kindLabel(e.Kind)).Inc()
	switch e.Kind {
	case fleet.CloneAsked:
		m.cloneAsked.WithLabelValues(pool).Observe(e.Took.Seconds())
		m.gateWait.WithLabelValues(pool, node).Observe(e.Waited.Seconds())
	case fleet.Cloned:
		m.creation.WithLabelValues(pool, node).Observe(e.Took.Seconds())
	case fleet.Found:
		m.boot.WithLabelValues(pool, node).Observe(e.Took.Seconds())
	case fleet.RunnerReady:
		m.ready.WithLabelValues(pool, node).Observe(e.Took.Seconds())
		m.launches.WithLabelValues(pool, "ok").Inc()
	case fleet.Registered:
		// Only a runner that joined at once has this time; a spare one waited for its job instead.
		if e.Took > 0 {
			m.registered.WithLabelValues(pool).Observe(e.Took.Seconds())
		}
	case fleet.Listening:
		m.listening.WithLabelValues(pool, node).Observe(e.Took.Seconds())
	case fleet.JobEnded:
		m.jobs.WithLabelValues(pool, oneOf(e.Class, results)).Inc()
		if e.Took > 0 {
			m.jobTime.WithLabelValues(pool).Observe(e.Took.Seconds())
		}
	case fleet.Failed:
		m.launches.WithLabelValues(pool, oneOf(e.Class, classes)).Inc()
	}
}

// maxPools bounds the pools that are remembered; a config has far fewer.
const maxPools = 1000

// poolOf is the pool of an event. GitHub does not know pools, so its events of a job name at most a
// runner. Anybody may give a runner a name like ours, so only a pool that our own events named counts.
func (m *metrics) poolOf(e fleet.Event) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Pool != "" {
		if len(m.pools) < maxPools {
			m.pools[e.Pool] = true
		}
		return e.Pool
	}
	if pool := fleet.PoolOf(m.instance, fleet.OwnerOf(e.Runner)); m.pools[pool] {
		return pool
	}
	return ""
}

// observe counts one request.
func (m *metrics) observe(system, call, outcome string, took time.Duration) {
	system = oneOf(system, systems)
	m.requests.WithLabelValues(system, m.call(system, call), outcomeLabel(outcome)).Inc()
	m.requestTime.WithLabelValues(system).Observe(took.Seconds())
}

var callName = regexp.MustCompile(`^[A-Za-z][A-Za-z_./{} -]{0,59}$`)

// call is the label of a call: a name without digits, and of the first maxCalls of its system.
func (m *metrics) call(system, call string) string {
	if !callName.MatchString(call) {
		return other
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.calls[system]
	if known == nil {
		known = make(map[string]bool)
		m.calls[system] = known
	}
	if !known[call] && len(known) >= maxCalls {
		return other
	}
	known[call] = true
	return call
}

// The fixed sets of label values.
var (
	systems = []string{"proxmox", "github", "guest", "store"}
	// results are the conclusions of a job that GitHub documents.
	results = []string{"success", "failure", "cancelled", "skipped", "timed_out", "neutral", "action_required"}
	// classes are those of fleet.Class.
	classes  = []string{"full", "busy", "gone", "hidden", "foreign", "taken", "config", "unknown", "not_ready"}
	outcomes = append([]string{"ok", "canceled", "timeout", "limited", "error"}, classes...)
	// deliveryResults are what the webhook answers to.
	deliveryResults = []string{
		"recorded", "unchanged", "ignored", "unsigned", "forged", "malformed", "too_large", "busy", "store_failed",
	}
	kinds = []fleet.Kind{
		fleet.JobQueued, fleet.JobStarted, fleet.JobEnded, fleet.Planned, fleet.CloneAsked, fleet.Cloned, fleet.Started,
		fleet.Found, fleet.RunnerReady, fleet.Registered, fleet.Listening, fleet.RunnerBusy, fleet.RunnerLeaving,
		fleet.RunnerGone, fleet.Failed, fleet.Adopted, fleet.GhostRemoved, fleet.ForeignSeen, fleet.HiddenSeen,
		fleet.Quarantined, fleet.VolumeLeaked, fleet.LookFailed, fleet.LookHealed,
	}
)

func oneOf(value string, set []string) string {
	if slices.Contains(set, value) {
		return value
	}
	return other
}

var statusCode = regexp.MustCompile(`^[1-5][0-9][0-9]$`)

// outcomeLabel is an outcome's label: of the fixed set, or an HTTP status code.
func outcomeLabel(outcome string) string {
	if statusCode.MatchString(outcome) {
		return outcome
	}
	return oneOf(outcome, outcomes)
}

func kindLabel(k fleet.Kind) string {
	if slices.Contains(kinds, k) {
		return string(k)
	}
	return other
}

var placeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$`)

// place is the label of a pool or a node: the config and the cluster's administrator write
// them, so the shape alone is checked. "" stays: a job of no pool.
func place(name string) string {
	if name == "" || placeName.MatchString(name) {
		return name
	}
	return other
}
