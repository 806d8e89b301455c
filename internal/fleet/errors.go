package fleet

import "errors"

// Errors name what the caller can do. An edge wraps one of them with what was being
// done and what the other side said; any other error means: wait and try again.
var (
	// ErrFull: this node or storage cannot take it; another may.
	ErrFull = errors.New("full")
	// ErrBusy: leave it, somebody works with it (a lock, a runner in a job).
	ErrBusy = errors.New("busy")
	// ErrGone: it does not seem to exist. Of a VM that is a hint, never a fact.
	ErrGone = errors.New("gone")
	// ErrHidden: it exists, and we may not see what it is. Do nothing to it.
	ErrHidden = errors.New("hidden")
	// ErrForeign: it is not ours. Never touch it.
	ErrForeign = errors.New("foreign")
	// ErrTaken: the id or name belongs to somebody, perhaps to an earlier try of ours. Touch nothing, take another.
	ErrTaken = errors.New("taken")
	// ErrConfig: it will fail again until a person changes something.
	ErrConfig = errors.New("configuration")
	// ErrUnknown: it was sent, and whether it was done is not known. Never send it again blindly.
	ErrUnknown = errors.New("outcome unknown")
	// ErrNotReady: the guest is still being set up; ask again.
	ErrNotReady = errors.New("not ready")
)

// Class returns the short name of err's class, for metrics and records: full, busy, gone,
// hidden, foreign, taken, config, unknown, not_ready or other; "" for nil.
func Class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range []struct {
		err  error
		name string
	}{
		{ErrConfig, "config"},
		{ErrUnknown, "unknown"},
		{ErrTaken, "taken"},
		{ErrForeign, "foreign"},
		{ErrHidden, "hidden"},
		{ErrFull, "full"},
		{ErrBusy, "busy"},
		{ErrGone, "gone"},
		{ErrNotReady, "not_ready"},
	} {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "other"
}
