package proxmox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"mayfly/internal/fleet"
)

// A failure is what came of a request or of a task that did not go well.
type failure struct {
	call   string
	status int    // HTTP's; 0: no answer, or a task's end
	text   string // Proxmox' words
	fields map[string]string
	cause  cause
	class  error // one of fleet's; nil: wait and try again
	err    error // of the connection or the context; nil when Proxmox answered
}

// Error names the call, what was said and, where a person must act, what to mend.
func (f *failure) Error() string {
	var b strings.Builder
	b.WriteString(f.call)
	b.WriteString(": ")
	if f.status != 0 {
		fmt.Fprintf(&b, "%d ", f.status)
	}
	if f.text != "" {
		b.WriteString(printable(f.text))
	}
	for i, k := range slices.Sorted(maps.Keys(f.fields)) {
		if i == maxFields {
			break
		}
		fmt.Fprintf(&b, " %s: %s;", printable(k), printable(f.fields[k]))
	}
	if f.err != nil {
		b.WriteString(printable(f.err.Error()))
	}
	if m := f.cause.mend(); m != "" && errors.Is(f.class, fleet.ErrConfig) {
		fmt.Fprintf(&b, " (%s)", m)
	}
	said := strings.TrimRight(b.String(), "; ")
	if f.class != nil {
		said += ": " + f.class.Error()
	}
	return said
}

// Unwrap returns the class and the cause below.
func (f *failure) Unwrap() []error {
	var all []error
	if f.class != nil {
		all = append(all, f.class)
	}
	if f.err != nil {
		all = append(all, f.err)
	}
	return all
}

// causeOf returns why err failed; other if it is no failure of a request.
func causeOf(err error) cause {
	var f *failure
	if errors.As(err, &f) {
		return f.cause
	}
	return other
}

const (
	maxText   = 400
	maxFields = 8
)

// printable is a text of Proxmox or a guest as errors and logs may show it: one line, bounded.
// A failed start tells the whole kvm command line, several KB of it.
func printable(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	// The end tells why, the beginning what.
	head, tail := s[:maxText/2], s[len(s)-maxText/2:]
	return strings.ToValidUTF8(head, "") + " … " + strings.ToValidUTF8(tail, "")
}

// errorText reads what an answer that is no 200 says: the JSON body's message and errors
// (since pve-http-server 5.2.0), else the reason phrase. A 401 and a 59x have no body; the
// server layer's own errors have a plain one that repeats the status line.
func errorText(reason string, body []byte) (message string, fields map[string]string) {
	var b struct {
		Message text                       `json:"message"`
		Errors  map[string]json.RawMessage `json:"errors"`
	}
	if json.Unmarshal(body, &b) == nil {
		message = strings.TrimSpace(string(b.Message))
		for k, raw := range b.Errors {
			var t text
			if t.UnmarshalJSON(raw) != nil {
				continue
			}
			if fields == nil {
				fields = map[string]string{}
			}
			fields[k] = strings.TrimSpace(string(t))
		}
	}
	if message == "" {
		message = strings.TrimSpace(reason)
	}
	return message, fields
}
