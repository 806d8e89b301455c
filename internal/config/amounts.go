package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"mayfly/internal/fleet"
)

var errAmount = errors.New("not an amount")

// units by their names, longest first so that none hides another.
var units = []struct {
	name string
	size float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
}

// parseBytes reads 8GiB, 1.5 GiB or 512MB. A bare number is refused, for nobody knows its unit; but for 0.
func parseBytes(s string) (fleet.Bytes, error) {
	if s == "0" {
		return 0, nil
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(f >= 0) || f*u.size >= math.MaxInt64 {
			return 0, errAmount
		}
		return fleet.Bytes(f * u.size), nil
	}
	return 0, errAmount
}

// formatBytes is what parseBytes reads, exactly; an amount of no whole kibibytes loses less than one.
func formatBytes(b fleet.Bytes) string {
	switch {
	case b == 0:
		return "0"
	case b%fleet.GiB == 0:
		return fmt.Sprintf("%dGiB", b/fleet.GiB)
	case b%fleet.MiB == 0:
		return fmt.Sprintf("%dMiB", b/fleet.MiB)
	case b%1_000_000 == 0:
		return fmt.Sprintf("%dMB", b/1_000_000)
	}
	return fmt.Sprintf("%dKiB", b>>10)
}

func parseVMIDs(s string) (VMIDs, error) {
	first, last, ok := strings.Cut(s, "-")
	from, err1 := strconv.Atoi(strings.TrimSpace(first))
	to, err2 := strconv.Atoi(strings.TrimSpace(last))
	if !ok || err1 != nil || err2 != nil {
		return VMIDs{}, errors.New("not a range")
	}
	return VMIDs{from, to}, nil
}

// String is the range as the file has it.
func (v VMIDs) String() string { return fmt.Sprintf("%d-%d", v.From, v.To) }

// Has tells whether an id is in the range.
func (v VMIDs) Has(id int) bool { return v.From <= id && id <= v.To }
