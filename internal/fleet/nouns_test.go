package fleet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"mayfly/internal/fleet"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "ghp_hunter2"
	secret := fleet.Secret(text)
	permit := fleet.Permit{ID: 7, Name: "n", Secret: secret}
	order := fleet.Order{Secret: secret}
	var shown []string
	for _, v := range []any{secret, &secret, permit, &permit, order, []fleet.Secret{secret}, map[string]fleet.Secret{"jit": secret}, struct{ S fleet.Secret }{secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			shown = append(shown, fmt.Sprintf(verb, v))
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
			slog.New(h).Info("registered", "permit", v)
		}
		shown = append(shown, string(b), fmt.Sprint(v), fmt.Sprintln(v), fmt.Errorf("with %v", v).Error(), log.String())
	}
	hex := fmt.Sprintf("%x", text)
	for _, s := range shown {
		if strings.Contains(s, text) || strings.Contains(strings.ToLower(s), hex) {
			t.Errorf("the secret is shown: %s", s)
		}
	}
	if secret.Reveal() != text {
		t.Error("Reveal does not reveal")
	}
}

func TestBytesAsPeopleWriteThem(t *testing.T) {
	for b, want := range map[fleet.Bytes]string{
		0: "0 MiB", fleet.MiB: "1 MiB", 1023 * fleet.MiB: "1023 MiB", fleet.GiB: "1 GiB", 8 * fleet.GiB: "8 GiB",
		fleet.GiB + fleet.GiB/2: "1.5 GiB", 10 * fleet.GiB: "10 GiB", 1024 * fleet.GiB: "1024 GiB", -2 * fleet.GiB: "-2 GiB", -fleet.MiB: "-1 MiB",
	} {
		if got := b.String(); got != want {
			t.Errorf("%d bytes are %q, want %q", int64(b), got, want)
		}
	}
}

func TestClass(t *testing.T) {
	for class, err := range map[string]error{
		"": nil, "full": fleet.ErrFull, "busy": fleet.ErrBusy, "gone": fleet.ErrGone, "hidden": fleet.ErrHidden, "foreign": fleet.ErrForeign,
		"taken": fleet.ErrTaken, "config": fleet.ErrConfig, "unknown": fleet.ErrUnknown, "not_ready": fleet.ErrNotReady, "other": errors.New("boom"),
	} {
		if got := fleet.Class(err); got != class {
			t.Errorf("%v is %q, want %q", err, got, class)
		}
		if err == nil {
			continue
		}
		if got := fleet.Class(fmt.Errorf("clone VM 100 on pve1: %w", err)); got != class {
			t.Errorf("%v wrapped is %q, want %q", err, got, class)
		}
	}
	// What must not be sent again weighs more than what could be tried elsewhere.
	if got := fleet.Class(errors.Join(fleet.ErrFull, fleet.ErrUnknown)); got != "unknown" {
		t.Errorf("full and unknown is %q", got)
	}
}

func TestTroubleWait(t *testing.T) {
	pace := fleet.DefaultPace()
	for _, c := range []struct {
		class string
		count int
		want  time.Duration
	}{
		{"other", 0, 0},
		{"other", 1, 10 * time.Second},
		{"other", 2, 20 * time.Second},
		{"other", 3, 40 * time.Second},
		{"timeout", 6, 320 * time.Second},
		{"other", 7, 10 * time.Minute},
		{"other", 1 << 40, 10 * time.Minute},
		{"unknown", 1, 0},
		{"unknown", 2, 10 * time.Second},
		{"taken", 1, 0},
		{"taken", 8, 0},
		{"taken", 9, 10 * time.Second},
		{"other", -1, 0},
	} {
		if got := (fleet.Trouble{Class: c.class, Count: c.count}).Wait(pace); got != c.want {
			t.Errorf("%d × %s waits %v, want %v", c.count, c.class, got, c.want)
		}
	}
}

func TestMatch(t *testing.T) {
	pool := []string{"self-hosted", "Windows", "x64"}
	for _, c := range []struct {
		want []string
		ok   bool
	}{
		{[]string{"windows"}, true},
		{[]string{"SELF-HOSTED", "WINDOWS", "X64"}, true},
		{[]string{"windows", "windows"}, true},
		{[]string{"windows", "gpu"}, false},
		{[]string{""}, false},
		{nil, false},
	} {
		if got := fleet.Match(c.want, pool); got != c.ok {
			t.Errorf("Match(%q) = %v", c.want, got)
		}
	}
}

func TestPhasesGoForward(t *testing.T) {
	phases := fleet.Phases()
	for i, p := range phases {
		for j, q := range phases {
			if p.Before(q) != (i < j) {
				t.Errorf("%s before %s: %v", p, q, p.Before(q))
			}
		}
	}
}
