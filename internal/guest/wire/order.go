package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Modes of an Order: how the runner gets its registration.
const (
	ModeJIT   = "jit"   // it is made; JIT holds it
	ModeToken = "token" // the runner makes it, with Token
)

// An Order asks a guest to start one runner. It holds a secret: it formats as its id only.
type Order struct {
	V        int       `json:"v"`   // Version
	ID       string    `json:"id"`  // the same id again starts nothing and only reports
	Now      time.Time `json:"now"` // the sender's clock, for guests whose own is wrong
	Mode     string    `json:"mode"`
	JIT      string    `json:"jit,omitempty"`
	Token    string    `json:"token,omitempty"`
	URL      string    `json:"url,omitempty"`
	Name     string    `json:"name,omitempty"`
	Labels   []string  `json:"labels,omitempty"`
	Deadline int64     `json:"deadline_s,omitempty"` // seconds that the runner may live; 0: no limit
	PowerOff bool      `json:"poweroff,omitempty"`   // when the runner has ended
}

var (
	// ErrNoOrder: nothing came, or more than MaxOrder. The helper exits with ExitNoOrder.
	ErrNoOrder = errors.New("no order")
	// ErrBadOrder: what came is no order of this version. The helper exits with ExitBadOrder.
	ErrBadOrder = errors.New("bad order")
)

// String names the order without its secrets.
func (o Order) String() string { return "order " + o.ID }

// GoString names the order without its secrets.
func (o Order) GoString() string { return o.String() }

// Check returns an ErrBadOrder that says what is wrong, and never what a secret is.
func (o Order) Check() error {
	switch {
	case o.V != Version:
		return fmt.Errorf("%w: version %d, this end speaks %d", ErrBadOrder, o.V, Version)
	case !nameLike(o.ID):
		return fmt.Errorf("%w: the id is not 1 to 64 of letters, digits, '.', '_', '-'", ErrBadOrder)
	case o.Mode == ModeJIT && !secretLike(o.JIT):
		return fmt.Errorf("%w: the JIT configuration is missing or has a form that none has", ErrBadOrder)
	case o.Mode == ModeToken && !secretLike(o.Token):
		return fmt.Errorf("%w: the token is missing or has a form that none has", ErrBadOrder)
	case o.Mode != ModeJIT && o.Mode != ModeToken:
		return fmt.Errorf("%w: the mode is neither jit nor token", ErrBadOrder)
	case o.Mode == ModeToken && (!nameLike(o.Name) || !strings.HasPrefix(o.URL, "https://")):
		return fmt.Errorf("%w: token mode needs a name and an https URL", ErrBadOrder)
	case o.Deadline < 0:
		return fmt.Errorf("%w: the deadline is negative", ErrBadOrder)
	}
	return nil
}

// secretLike tells whether s can go into an environment variable of Windows, whose
// value ends at 32,767 characters.
func secretLike(s string) bool {
	if s == "" || len(s) > 32000 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// EncodeOrder returns o as one ASCII line of JSON with its line end; ErrBadOrder if it fails Check
// or is longer than MaxOrder.
func EncodeOrder(o Order) ([]byte, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(o)
	if err != nil { // a time outside the years 0 to 9999 is all that can be
		return nil, fmt.Errorf("%w: it has no JSON form", ErrBadOrder)
	}
	line := append(ascii(text), '\n')
	if len(line) > MaxOrder {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrBadOrder, MaxOrder)
	}
	return line, nil
}

// ReadOrder reads one order, up to its line end or r's end. ErrNoOrder, ErrBadOrder; no error shows any of the text.
func ReadOrder(r io.Reader) (Order, error) {
	line, err := bufio.NewReader(io.LimitReader(r, MaxOrder+1)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return Order{}, fmt.Errorf("%w: %w", ErrNoOrder, err)
	}
	if len(line) > MaxOrder {
		return Order{}, fmt.Errorf("%w: more than %d bytes", ErrNoOrder, MaxOrder)
	}
	line = bytes.TrimSpace(line)
	if len(line) == 0 {
		return Order{}, ErrNoOrder
	}
	var o Order
	if json.Unmarshal(line, &o) != nil { // its error may quote the text
		return Order{}, fmt.Errorf("%w: not a JSON object of the expected form", ErrBadOrder)
	}
	if err := o.Check(); err != nil {
		return Order{}, err
	}
	return o, nil
}
