package github

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"time"

	"mayfly/internal/fleet"
)

// A Ledger keeps what is told of jobs.
type Ledger interface {
	// Record merges the job and the delivery's GUID in one transaction, forward only, durable
	// when it returns, and the events with them if the job was news: changed tells so.
	Record(ctx context.Context, guid string, job fleet.Job, ev ...fleet.Event) (changed bool, err error)
}

// WebhookOptions are the webhook's optional wishes.
type WebhookOptions struct {
	// Observe is told the result of every request to /webhook: recorded, unchanged, ignored, unsigned,
	// forged, malformed, too_large, busy, store_failed. It must not block.
	Observe func(result string)
	// Log hears of failures; nil means silence.
	Log *slog.Logger
	// InFlight is how many deliveries may be read, and how many may be stored, at once; 0 means 512.
	// More get 503.
	InFlight int
	// RecordTimeout bounds the ledger; 0 means 8 s: GitHub waits 10 s for an answer.
	RecordTimeout time.Duration
}

// results of a request to /webhook.
const (
	recorded    = "recorded"
	unchanged   = "unchanged"
	ignored     = "ignored"
	unsigned    = "unsigned"
	forged      = "forged"
	malformed   = "malformed"
	tooLarge    = "too_large"
	busy        = "busy"
	storeFailed = "store_failed"
)

type webhook struct {
	secrets []fleet.Secret
	ledger  Ledger
	poke    func()
	observe func(string)
	log     *slog.Logger
	timeout time.Duration
	callers *callers

	// Places, taken without waiting.
	slots    chan struct{} // at work in the ledger
	readers  chan struct{} // being read and verified
	suspects chan struct{} // the same, of callers who keep failing
	large    chan struct{} // with more than smallBody
}

const (
	defaultInFlight = 512
	defaultTimeout  = 8 * time.Second
	maxGUID         = 64
)

// NewWebhook returns the handler that serves POST /webhook and nothing else. A delivery is
// verified against any of the secrets, so that one can replace another; without a secret
// every delivery is refused. The job is in the ledger before GitHub hears 202, and poke,
// which must not block, is called when it was news.
//
// GitHub never sends a delivery again by itself, so nothing that is signed rightly is ever
// held back by what others send; only failing callers are slowed down.
// The server around it sets the time-outs of reading and writing.
func NewWebhook(secrets []fleet.Secret, ledger Ledger, poke func(), o WebhookOptions) http.Handler {
	h := &webhook{
		secrets: slices.DeleteFunc(slices.Clone(secrets), func(s fleet.Secret) bool { return s == "" }),
		ledger:  ledger, poke: poke, observe: o.Observe, log: o.Log, timeout: o.RecordTimeout,
		callers: newCallers(),
	}
	if o.InFlight <= 0 {
		o.InFlight = defaultInFlight
	}
	h.slots, h.readers = make(chan struct{}, o.InFlight), make(chan struct{}, o.InFlight)
	h.suspects, h.large = make(chan struct{}, suspectsAtOnce), make(chan struct{}, largeAtOnce)
	if h.timeout <= 0 {
		h.timeout = defaultTimeout
	}
	if h.poke == nil {
		h.poke = func() {}
	}
	if h.observe == nil {
		h.observe = func(string) {}
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	return h
}

func (h *webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	received := time.Now()
	if r.URL.Path != "/webhook" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	status, result := h.answer(w, r, received)
	h.observe(result)
	w.WriteHeader(status)
}

func (h *webhook) answer(w http.ResponseWriter, r *http.Request, received time.Time) (status int, result string) {
	body, status, result := h.verified(w, r)
	if status != 0 {
		return status, result
	}
	switch r.Header.Get("X-GitHub-Event") {
	case "workflow_job":
	default: // ping too: an error would only fill GitHub's log of failures
		return http.StatusAccepted, ignored
	}
	body, status = content(r.Header.Get("Content-Type"), body)
	if status != 0 {
		return status, malformed
	}
	var in struct {
		Action string       `json:"action"`
		Job    *workflowJob `json:"workflow_job"`
		Repo   struct {
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	guid := r.Header.Get("X-GitHub-Delivery")
	if json.Unmarshal(body, &in) != nil || in.Job == nil || !goodGUID(guid) {
		return http.StatusBadRequest, malformed
	}
	job, err := in.Job.job(in.Repo.FullName, in.Action)
	switch {
	case errors.Is(err, errNotOurs):
		return http.StatusAccepted, ignored
	case err != nil:
		return http.StatusBadRequest, malformed
	}
	if !enter(h.slots) {
		return http.StatusServiceUnavailable, busy
	}
	defer leave(h.slots)
	job.Received, job.Changed = received, received
	// GitHub hanging up must not undo what it told us: it would not tell it again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), h.timeout)
	defer cancel()
	changed, err := h.ledger.Record(ctx, guid, job, in.Job.event(job, received)...)
	if err != nil {
		h.log.LogAttrs(ctx, slog.LevelError, "webhook not stored", slog.Int64("job", job.ID), slog.String("guid", guid), slog.Any("error", err))
		return http.StatusServiceUnavailable, storeFailed
	}
	if !changed {
		return http.StatusAccepted, unchanged
	}
	h.poke()
	return http.StatusAccepted, recorded
}

// content is the JSON in a body of a type that a hook can be set to; else a status to answer.
func content(contentType string, body []byte) ([]byte, int) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, http.StatusUnsupportedMediaType
	}
	switch kind {
	case "application/json":
		return body, 0
	case "application/x-www-form-urlencoded":
		for field := range bytes.SplitSeq(body, []byte("&")) {
			value, ok := bytes.CutPrefix(field, []byte("payload="))
			if !ok {
				continue
			}
			payload, err := url.QueryUnescape(string(value))
			if err != nil {
				return nil, http.StatusBadRequest
			}
			return []byte(payload), 0
		}
		return nil, http.StatusBadRequest
	}
	return nil, http.StatusUnsupportedMediaType
}

// goodGUID tells whether s looks like a delivery's GUID: it is stored and logged.
func goodGUID(s string) bool {
	if s == "" || len(s) > maxGUID {
		return false
	}
	for _, r := range s {
		if !alphanumeric(r) && r != '-' {
			return false
		}
	}
	return true
}
