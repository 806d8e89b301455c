package web

import (
	"context"
	"errors"
	"net/http"

	"mayfly/internal/fleet"
)

// Controls carries out what a person asks for. Each method may be called again; errors carry a
// class of package fleet.
type Controls interface {
	// Drain stops launching and joining; what runs goes on.
	Drain(ctx context.Context) error
	// Resume ends a drain, and gives pools that stopped after failures another try.
	Resume(ctx context.Context) error
	// Retire gives up one runner as soon as it has no job.
	Retire(ctx context.Context, runner string) error
	// Hold keeps one runner's VM after its job, for a person to look into.
	Hold(ctx context.Context, runner string) error
	// Cordon says whether a node takes new runners.
	Cordon(ctx context.Context, node string, cordoned bool) error
}

// addCommands adds the paths that change state. They need the token even where reads are open, and
// refuse what a page of another origin had the browser send.
func (w *Web) addCommands(mux *http.ServeMux) {
	command := func(path string, do func(c Controls, r *http.Request) error) {
		run := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.command(rw, r, do) })
		mux.Handle("POST "+path, http.NewCrossOriginProtection().Handler(withToken(w.token, run)))
	}
	command("/api/v1/drain", func(c Controls, r *http.Request) error { return c.Drain(r.Context()) })
	command("/api/v1/resume", func(c Controls, r *http.Request) error { return c.Resume(r.Context()) })
	command("/api/v1/runners/{name}/retire", func(c Controls, r *http.Request) error {
		return c.Retire(r.Context(), r.PathValue("name"))
	})
	command("/api/v1/runners/{name}/hold", func(c Controls, r *http.Request) error {
		return c.Hold(r.Context(), r.PathValue("name"))
	})
	command("/api/v1/nodes/{name}/cordon", func(c Controls, r *http.Request) error {
		return c.Cordon(r.Context(), r.PathValue("name"), true)
	})
	command("/api/v1/nodes/{name}/uncordon", func(c Controls, r *http.Request) error {
		return c.Cordon(r.Context(), r.PathValue("name"), false)
	})
}

func (w *Web) command(rw http.ResponseWriter, r *http.Request, do func(Controls, *http.Request) error) {
	if w.controls == nil {
		fail(rw, http.StatusNotImplemented, "this Mayfly takes no commands")
		return
	}
	if err := do(w.controls, r); err != nil {
		fail(rw, commandStatus(err), err.Error())
		return
	}
	w.log.Info("command", "path", clean(r.URL.Path, maxText), "from", r.RemoteAddr)
	rw.WriteHeader(http.StatusNoContent)
}

// commandStatus is the HTTP status that says what the caller can do about err.
func commandStatus(err error) int {
	switch {
	case errors.Is(err, fleet.ErrGone):
		return http.StatusNotFound
	case errors.Is(err, fleet.ErrBusy), errors.Is(err, fleet.ErrTaken):
		return http.StatusConflict
	case errors.Is(err, fleet.ErrForeign), errors.Is(err, fleet.ErrHidden):
		return http.StatusForbidden
	case errors.Is(err, fleet.ErrConfig):
		return http.StatusUnprocessableEntity
	case errors.Is(err, fleet.ErrNotReady):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
