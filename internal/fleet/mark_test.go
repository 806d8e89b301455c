package fleet_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mayfly/internal/fleet"
)

func TestMarkIsReadAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := fleet.Mark{
			Instance: rapid.StringMatching(`[a-z0-9]{1,12}`).Draw(t, "instance"),
			Name:     rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,61}[a-z0-9]`).Draw(t, "name"),
			Born:     time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "born"), 0),
		}
		before := rapid.SampledFrom([]string{"", "\n", "made by hand\n", "a\r\n\r\n"}).Draw(t, "before")
		after := rapid.SampledFrom([]string{"", "\n", "\r\n", "\nnotes: keep\n"}).Draw(t, "after")
		got, ok := fleet.ParseMark(before + m.String() + after)
		if !ok || got.Instance != m.Instance || got.Name != m.Name || !got.Born.Equal(m.Born) {
			t.Fatalf("%q is read as %+v, %v", m.String(), got, ok)
		}
	})
}

func TestMarkOfNobody(t *testing.T) {
	const mark = "mayfly k3f9 k3f9-win-0a1b2c3d born=2026-05-04T12:00:00Z"
	if _, ok := fleet.ParseMark(mark); !ok {
		t.Fatalf("%q is no mark", mark)
	}
	for what, description := range map[string]string{
		"nothing":                       "",
		"two marks":                     mark + "\n" + mark,
		"two instances":                 mark + "\n" + strings.ReplaceAll(mark, "k3f9", "zzzz"),
		"within a sentence":             "cloned from " + mark,
		"with more behind it":           mark + " and edited",
		"in two lines":                  strings.Replace(mark, " born", "\nborn", 1),
		"capital letters":               strings.ToUpper(mark),
		"no birth":                      "mayfly k3f9 k3f9-win-0a1b2c3d",
		"a birth that is no time":       "mayfly k3f9 k3f9-win-0a1b2c3d born=yesterday",
		"an instance that is too long":  "mayfly k3f9k3f9k3f9k k3f9-win-0a1b2c3d born=2026-05-04T12:00:00Z",
		"a name that is too long":       "mayfly k3f9 " + strings.Repeat("a", 64) + " born=2026-05-04T12:00:00Z",
		"a name with a dot":             "mayfly k3f9 k3f9.example born=2026-05-04T12:00:00Z",
		"another kind of blank":         strings.ReplaceAll(mark, " ", "\u00a0"),
		"two blanks":                    strings.Replace(mark, " ", "  ", 1),
		"a NUL":                         mark + "\x00",
		"a line separator of Unicode":   mark + "\u2028" + mark,
		"a carriage return within":      "mayfly k3f9\rk3f9-win-0a1b2c3d born=2026-05-04T12:00:00Z",
		"URL-encoded, as PVE stores it": "mayfly%20k3f9%20k3f9-win-0a1b2c3d%20born=2026-05-04T12%3A00%3A00Z",
		"a letter that looks the same":  strings.Replace(mark, "mayfly", "m\u0430yfly", 1),
	} {
		if m, ok := fleet.ParseMark(description); ok {
			t.Errorf("%s: %q is read as %+v", what, description, m)
		}
	}
}

// A description is a stranger's text: whatever it is, reading it ends and what is read is well-formed.
func FuzzParseMark(f *testing.F) {
	f.Add("mayfly k3f9 k3f9-win-0a1b2c3d born=2026-05-04T12:00:00Z\nx")
	f.Add("mayfly a b born=2026-05-04T12:00:00+01:00\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if m, ok := fleet.ParseMark(s); ok {
			again, ok := fleet.ParseMark(m.String())
			if !ok || again.Name != m.Name || again.Instance != m.Instance {
				t.Errorf("%q gives %+v, which is no mark", s, m)
			}
		}
	})
}

func TestPoolOf(t *testing.T) {
	for _, c := range []struct{ instance, name, pool string }{
		{"k3f9", "k3f9-win-0a1b2c3d", "win"},
		{"k3f9", "k3f9-win-2022-0a1b2c3d", "win-2022"},
		{"k3f9", "k3f9-win-12345678", "win"},
		{"k3f9", "k3f9-a-b-c-00000000", "a-b-c"},
		{"k3f9", "k3f9-win-0a1b2c3d-2", ""}, // a registration's name, not a VM's
		{"k3f9", "zzzz-win-0a1b2c3d", ""},
		{"k3f9", "k3f99-win-0a1b2c3d", ""},
		{"k3f9", "k3f9-0a1b2c3d", ""},
		{"k3f9", "k3f9--0a1b2c3d", ""},
		{"k3f9", "k3f9-win-0a1b2c3g", ""}, // not hex
		{"k3f9", "k3f9-win-0A1B2C3D", ""},
		{"k3f9", "k3f9-win-0a1b2c3", ""},
		{"k3f9", "k3f9", ""},
		{"k3f9", "", ""},
	} {
		if got := fleet.PoolOf(c.instance, c.name); got != c.pool {
			t.Errorf("PoolOf(%q, %q) = %q, want %q", c.instance, c.name, got, c.pool)
		}
	}
}

func TestOwnerOf(t *testing.T) {
	for _, c := range []struct{ registration, owner string }{
		{"k3f9-win-0a1b2c3d", "k3f9-win-0a1b2c3d"},
		{"k3f9-win-0a1b2c3d-2", "k3f9-win-0a1b2c3d"},
		{"k3f9-win-0a1b2c3d-17", "k3f9-win-0a1b2c3d"},
		{"k3f9-win-12345678", "k3f9-win-12345678"}, // a hash of digits is no number of a try
		{"k3f9-win-12345678-2", "k3f9-win-12345678"},
		{"k3f9-win-2022-12345678", "k3f9-win-2022-12345678"},
		{"k3f9-win-2022-12345678-5", "k3f9-win-2022-12345678"},
		// Names that we never give are nobody's but their own.
		{"build-7", "build-7"},
		{"win-2022", "win-2022"},
		{"k3f9-win-0a1b2c3d-", "k3f9-win-0a1b2c3d-"},
		{"k3f9-win-0a1b2c3d-x", "k3f9-win-0a1b2c3d-x"},
		{"k3f9-win-0a1b2c3d-1", "k3f9-win-0a1b2c3d-1"},
		{"k3f9-win-0a1b2c3d-02", "k3f9-win-0a1b2c3d-02"},
		{"k3f9-win-0a1b2c3d-2-2", "k3f9-win-0a1b2c3d-2-2"},
		{"-2", "-2"},
		{"-", "-"},
		{"", ""},
	} {
		if got := fleet.OwnerOf(c.registration); got != c.owner {
			t.Errorf("OwnerOf(%q) = %q, want %q", c.registration, got, c.owner)
		}
	}
}

// A VM's registrations are its own, whatever pool and hash it got.
func TestOwnerOfEveryRegistration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		vm := rapid.StringMatching(`[a-z0-9]{1,12}-[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?-[0-9a-f]{8}`).Draw(t, "vm")
		suffix := rapid.SampledFrom([]string{"", "-2", "-3", "-9", "-12", "-999"}).Draw(t, "suffix")
		if got := fleet.OwnerOf(vm + suffix); got != vm {
			t.Fatalf("OwnerOf(%q) = %q", vm+suffix, got)
		}
	})
}
