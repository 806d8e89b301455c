package web

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"mayfly/internal/fleet"
)

func (w *Web) getStatus(rw http.ResponseWriter, _ *http.Request) {
	answer(rw, http.StatusOK, w.status(time.Now()))
}

func (w *Web) getPlan(rw http.ResponseWriter, _ *http.Request) {
	world, plan := w.source.Last()
	answer(rw, http.StatusOK, planView(world, plan, time.Now()))
}

// getEvents answers the last events; ?limit=N only the N latest.
func (w *Web) getEvents(rw http.ResponseWriter, r *http.Request) {
	events := w.events.all()
	if text := r.URL.Query().Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 {
			fail(rw, http.StatusBadRequest, "limit must be a whole number from 1 up")
			return
		}
		events = events[max(len(events)-limit, 0):]
	}
	answer(rw, http.StatusOK, Events{Events: eventViews(events)})
}

func (w *Web) getJob(rw http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id <= 0 {
		fail(rw, http.StatusBadRequest, "a job's id is a whole number, as in its address at GitHub")
		return
	}
	why, err := w.why(r, id)
	switch {
	case err != nil:
		fail(rw, http.StatusInternalServerError, err.Error())
	case why.Job == nil && len(why.History) == 0:
		fail(rw, http.StatusNotFound, fmt.Sprintf("job %d is not known: no event of it has come, or it ended long ago", id))
	default:
		answer(rw, http.StatusOK, why)
	}
}

// why tells of one job what the ledger, the plan and the events have.
func (w *Web) why(r *http.Request, id int64) (JobWhy, error) {
	v := JobWhy{ID: id}
	world, plan := w.source.Last()
	if i := slices.IndexFunc(world.Jobs, func(j fleet.Job) bool { return j.ID == id }); i >= 0 {
		var wait fleet.Wait
		if k := slices.IndexFunc(plan.Waits, func(w fleet.Wait) bool { return w.Job == id }); k >= 0 {
			wait = plan.Waits[k]
		}
		job := jobView(world.Jobs[i], wait, time.Now())
		v.Job, v.Reason = &job, job.Reason
	}
	last := w.events.all()
	var events []fleet.Event
	if w.history != nil {
		stored, err := w.history(r.Context(), id)
		if err != nil {
			return v, fmt.Errorf("reading the events of job %d: %w", id, err)
		}
		events = stored
	} else {
		events = slices.DeleteFunc(slices.Clone(last), func(e fleet.Event) bool { return e.Job != id })
	}
	// What its runner goes through belongs to the story. Its name is the job's, or stands in an event.
	runner := ""
	if v.Job != nil {
		runner = fleet.OwnerOf(v.Job.Runner)
	}
	for _, e := range events {
		if runner == "" {
			runner = fleet.OwnerOf(e.Runner)
		}
	}
	if runner != "" {
		for _, e := range last {
			if e.Runner == runner && e.Job != id {
				events = append(events, e)
			}
		}
	}
	slices.SortStableFunc(events, func(a, b fleet.Event) int { return a.At.Compare(b.At) })
	v.History = eventViews(events)
	if v.Job == nil && len(events) > 0 {
		v.Reason = "it is not open any more; its events tell what became of it"
	}
	return v, nil
}

// healthz says that the process is alive, and nothing else.
func healthz(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(rw, "ok\n")
}

// readyz says whether Mayfly does its work: 503 and the reason when not.
func (w *Web) readyz(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := w.source.Ready(); err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(rw, clean(err.Error(), maxText)+"\n")
		return
	}
	io.WriteString(rw, "ok\n")
}

func noSuchPath(rw http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		fail(rw, http.StatusMethodNotAllowed, "no such command: "+clean(r.Method+" "+r.URL.Path, maxText))
		return
	}
	fail(rw, http.StatusNotFound, "no such path: "+clean(r.URL.Path, maxText))
}

func fail(rw http.ResponseWriter, status int, text string) {
	answer(rw, status, Problem{Error: clean(text, maxText)})
}

// answer writes v as JSON. The views hold nothing that cannot be encoded, so an error can only be
// that the client has gone.
func answer(rw http.ResponseWriter, status int, v any) {
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.WriteHeader(status)
	enc := json.NewEncoder(rw)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v)
}
