package web

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Bounds, in runes, of texts that somebody outside wrote.
const (
	maxName = 80  // of a job, a repository, a node, a runner
	maxText = 300 // of a reason, a note, an error
)

// clean makes a stranger's text fit for one line of a page or a terminal: control,
// format and bidirectional characters are replaced, and it ends after max runes. An
// escape sequence in a job's name must not reach the terminal of whoever looks.
func clean(s string, max int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == max {
			b.WriteRune('…')
			break
		}
		n++
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteRune(' ')
		case !unicode.IsPrint(r):
			b.WriteRune('\uFFFD')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// lasted writes a duration as people say it, with two units at most: "8 ms", "3.2 s",
// "45 s", "3 m 20 s", "2 h 05 m", "4 d 3 h".
func lasted(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	default:
		return age(d)
	}
}

// age is lasted in whole seconds, for what is redrawn every few seconds.
func age(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d m %02d s", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%d h %02d m", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%d d %d h", s/(24*3600), s%(24*3600)/3600)
	}
}

// count writes a number with its noun: "1 runner", "3 runners".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
