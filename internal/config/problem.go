package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"mayfly/internal/fleet"
)

// A place is a line and a column of the file, from 1; line 0 is no place.
type place struct{ line, column int }

// A problem is one thing that a person must change.
type problem struct {
	place
	text string
}

// An Error is everything that is wrong with a file, each in one line that names its place and its mend, with the line of
// the file below it. Its class is fleet.ErrConfig.
type Error struct {
	file     string
	lines    []string
	problems []problem
}

// Unwrap gives the class.
func (e *Error) Unwrap() error { return fleet.ErrConfig }

// Error lists the problems in the order of the file.
func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.file)
		if p.line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.line, p.column)
		}
		b.WriteString(": ")
		b.WriteString(p.text)
		b.WriteString(e.excerpt(p.place))
	}
	return b.String()
}

// excerpt shows the line with a caret under the place; "" where there is none to show.
func (e *Error) excerpt(p place) string {
	if p.line < 1 || p.line > len(e.lines) {
		return ""
	}
	line := []rune(e.lines[p.line-1])
	if p.column < 1 || p.column > len(line)+1 || len(line) > 200 {
		return ""
	}
	caret := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, string(line[:p.column-1]))
	return fmt.Sprintf("\n  %4d | %s\n         %s^", p.line, conceal(string(line)), caret)
}

var (
	// secretKey finds what looks like a secret written in the file itself, against the rules.
	secretKey = regexp.MustCompile(`(?i)^(.*?\b[a-z_]*(?:secret|token|password|passphrase|key|secret_env|token_env)\b["']?\s*[:=]\s*)(\S.*)$`)
	// userInfo is a user and password in a URL.
	userInfo = regexp.MustCompile(`//[^/\s]*@`)
)

// conceal keeps secrets that should not be in the file out of messages and logs. The id of a Proxmox token is none.
func conceal(line string) string {
	line = userInfo.ReplaceAllLiteralString(line, "//***@")
	m := secretKey.FindStringSubmatch(line)
	if m == nil || tokenID.MatchString(m[2]) {
		return line
	}
	return m[1] + "***"
}

// A report collects problems.
type report struct {
	places   map[string]place // of each path that the file has
	problems []problem
}

// maxProblems is how many are told at once.
const maxProblems = 20

// at adds a problem at a place.
func (r *report) at(p place, format string, args ...any) {
	r.problems = append(r.problems, problem{p, fmt.Sprintf(format, args...)})
}

// bad adds a problem with the value at path, placed there or at the nearest thing around it that the file has.
func (r *report) bad(path, format string, args ...any) {
	r.at(r.place(path), "%s: %s", path, fmt.Sprintf(format, args...))
}

func (r *report) place(path string) place {
	for path != "" {
		if p, ok := r.places[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return place{}
}

func (r *report) err(file string, text []byte) error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	if more := len(r.problems) - maxProblems; more > 0 {
		r.problems = append(r.problems[:maxProblems], problem{text: fmt.Sprintf("and %d more", more)})
	}
	return &Error{file: file, lines: strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), problems: r.problems}
}
