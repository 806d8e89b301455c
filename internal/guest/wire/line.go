package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// A Happening is the kind of a Line.
type Happening string

// The kinds of lines.
const (
	HappenedPhase Happening = "phase" // a step of setting up: Step, Outcome, Milliseconds
	HappenedReady Happening = "ready" // the runner listens: Version, PID
	HappenedState Happening = "state" // State
	HappenedFatal Happening = "fatal" // the command fails: Code, Message
	HappenedExit  Happening = "exit"  // the last line: Code
)

// A Line is one line of a helper's output.
type Line struct {
	At           time.Time `json:"t,omitzero"`
	What         Happening `json:"ev"`
	Step         string    `json:"phase,omitempty"`
	Outcome      string    `json:"st,omitempty"` // start, ok or fail
	Milliseconds int64     `json:"ms,omitempty"`
	Version      string    `json:"version,omitempty"`
	PID          int       `json:"pid,omitempty"`
	Code         int       `json:"code,omitempty"` // one of the Exit codes
	Message      string    `json:"msg,omitempty"`
	State        *State    `json:"state,omitempty"`
}

// ErrTooMuch: a command wrote more than MaxOutput.
var ErrTooMuch = errors.New("too much output")

// Encode returns l as one line of ASCII JSON with its line end, never longer than MaxLine:
// too long a message is cut, and if that is not enough all but its kind, code and state are left out.
func (l Line) Encode() []byte {
	for {
		text, err := json.Marshal(l)
		line := append(ascii(text), '\n')
		switch {
		case err == nil && len(line) <= MaxLine:
			return line
		case len(l.Message) > 0:
			l.Message = l.Message[:len(l.Message)/2]
		default: // a time that JSON has no form for, or absurd texts
			least := Line{What: HappenedFatal, Code: l.Code}
			if l.What.known() {
				least.What = l.What
			}
			if l.State != nil && l.State.valid() {
				least.State = l.State
			}
			text, _ = json.Marshal(least)
			return append(ascii(text), '\n')
		}
	}
}

// ParseLine reads one line of output; ok is false for anything that is not a valid line of a
// kind known here, which a reader passes over.
func ParseLine(line []byte) (l Line, ok bool) {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] != '{' || len(line) > MaxLine {
		return Line{}, false
	}
	if json.Unmarshal(line, &l) != nil || !l.What.known() {
		return Line{}, false
	}
	if (l.What == HappenedState && l.State == nil) || (l.State != nil && !l.State.valid()) {
		return Line{}, false
	}
	return l, true
}

// ReadLines gives each line that ParseLine knows to each, until r ends. Lines may end in CR LF, as they do
// from Windows programs. ErrTooMuch after MaxOutput bytes; otherwise r's error.
func ReadLines(r io.Reader, each func(Line)) error {
	limited := &io.LimitedReader{R: r, N: MaxOutput + 1}
	lines := bufio.NewReaderSize(limited, MaxLine+1)
	for long := false; ; {
		part, err := lines.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		if !long && !full {
			if l, ok := ParseLine(part); ok {
				each(l)
			}
		}
		long = full
		switch {
		case err == nil, full:
		case limited.N <= 0:
			return fmt.Errorf("%w: more than %d bytes", ErrTooMuch, MaxOutput)
		case errors.Is(err, io.EOF):
			return nil
		default:
			return err
		}
	}
}

func (h Happening) known() bool {
	switch h {
	case HappenedPhase, HappenedReady, HappenedState, HappenedFatal, HappenedExit:
		return true
	}
	return false
}

// ascii writes JSON text in ASCII: a Windows console program may pass its output through an OEM code page.
func ascii(text []byte) []byte {
	out := make([]byte, 0, len(text)+1)
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		text = text[n:]
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}
