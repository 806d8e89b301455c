package wire

// State is what a guest says of itself and of its one runner.
type State struct {
	Ready  bool   `json:"ready"`            // set up: a runner can be started
	Phase  Phase  `json:"phase"`            // where the runner is
	ID     string `json:"id,omitempty"`     // of the order worked on, now or before
	Result string `json:"result,omitempty"` // of the job, when the runner told one: succeeded, failed, canceled, …
	// Exit is Runner.Listener's exit code once Phase is PhaseEnded. It may be 0 without
	// any job done, and 100 to 105 for a job's result (runner 2.336.0, TaskResultUtil).
	Exit int `json:"exit"`
}

// A Phase is where the runner in a guest is.
type Phase string

// The phases, in the order of a runner's life.
const (
	PhaseNone      Phase = "none"
	PhaseStarting  Phase = "starting"
	PhaseListening Phase = "listening"
	PhaseBusy      Phase = "busy"
	PhaseEnded     Phase = "ended"
)

// Known tells whether p is a phase of this protocol version.
func (p Phase) Known() bool {
	switch p {
	case PhaseNone, PhaseStarting, PhaseListening, PhaseBusy, PhaseEnded:
		return true
	}
	return false
}

// valid tells whether s can be shown and stored as it stands.
func (s State) valid() bool {
	return s.Phase.Known() && (s.ID == "" || nameLike(s.ID)) && (s.Result == "" || nameLike(s.Result))
}

// nameLike tells whether s is 1 to 64 of the characters that a runner's name may have.
func nameLike(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
