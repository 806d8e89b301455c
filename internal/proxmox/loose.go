package proxmox

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
)

// Proxmox' JSON is Perl's: whether a value comes as a number or a string depends on how it was
// last used there, and a false flag may be 0, "0", "", null or not there at all.

// number is a JSON number, a string that holds one, or 0 for anything else.
type number float64

// UnmarshalJSON never fails: what is not a number is 0, which everywhere means not known.
func (n *number) UnmarshalJSON(b []byte) error {
	*n = 0
	f, err := strconv.ParseFloat(string(bytes.Trim(b, `"`)), 64)
	if err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
		*n = number(f)
	}
	return nil
}

// whole is the number as an int; 0 if it has none.
func (n number) whole() int {
	if n != number(math.Trunc(float64(n))) || math.Abs(float64(n)) > 1<<53 {
		return 0
	}
	return int(n)
}

// amount is the number as bytes, within what an int64 holds and never negative.
func (n number) amount() int64 {
	return int64(min(max(float64(n), 0), 1<<62))
}

// flag is a Perl truth value: 0, "0", "", null, false and absent are false, all else is true.
type flag bool

// UnmarshalJSON never fails: what is not known as false is true.
func (f *flag) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "0", `"0"`, `""`, "null", "false":
		*f = false
	default:
		*f = true
	}
	return nil
}

// text is a string, or a number as it is written.
type text string

// UnmarshalJSON takes scalars; an object or an array becomes "".
func (t *text) UnmarshalJSON(b []byte) error {
	*t = ""
	switch {
	case len(b) == 0 || b[0] == '{' || b[0] == '[' || string(b) == "null":
	case b[0] == '"':
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*t = text(s)
	default:
		*t = text(b)
	}
	return nil
}
