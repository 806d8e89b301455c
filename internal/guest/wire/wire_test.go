package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mayfly/internal/guest/wire"
)

var at = time.Date(2026, 11, 23, 10, 1, 2, 0, time.UTC)

func order() wire.Order {
	return wire.Order{
		V: wire.Version, ID: "a1-win-0123abcd", Now: at, Mode: wire.ModeJIT, JIT: strings.Repeat("QUJD", 1200),
		URL: "https://github.com/o/r", Labels: []string{"self-hosted", "größe"}, Deadline: 3600, PowerOff: true,
	}
}

func TestOrderThereAndBack(t *testing.T) {
	line, err := wire.EncodeOrder(order())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
		t.Errorf("an order is one line, got %d line ends", bytes.Count(line, []byte("\n")))
	}
	for _, end := range []string{"\n", "\r\n", ""} {
		got, err := wire.ReadOrder(strings.NewReader(strings.TrimSpace(string(line)) + end))
		if err != nil {
			t.Fatalf("line end %q: %v", end, err)
		}
		if d := cmp.Diff(order(), got); d != "" {
			t.Errorf("line end %q: %s", end, d)
		}
	}
}

func TestOrderRefused(t *testing.T) {
	const secret = "SECRETSECRET"
	with := func(change func(*wire.Order)) wire.Order { o := order(); o.JIT = secret; change(&o); return o }
	for name, o := range map[string]wire.Order{
		"version":  with(func(o *wire.Order) { o.V = 2 }),
		"id":       with(func(o *wire.Order) { o.ID = "a b" }),
		"no id":    with(func(o *wire.Order) { o.ID = "" }),
		"mode":     with(func(o *wire.Order) { o.Mode = secret }),
		"no jit":   with(func(o *wire.Order) { o.JIT = "" }),
		"jit":      with(func(o *wire.Order) { o.JIT = secret + "\n" }),
		"huge jit": with(func(o *wire.Order) { o.JIT = strings.Repeat("A", 32001) }),
		"token":    with(func(o *wire.Order) { o.Mode = wire.ModeToken }),
		"deadline": with(func(o *wire.Order) { o.Deadline = -1 }),
		"year":     with(func(o *wire.Order) { o.Now = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) }),
		"labels":   with(func(o *wire.Order) { o.Labels = []string{strings.Repeat("x", wire.MaxOrder)} }),
	} {
		_, err := wire.EncodeOrder(o)
		if !errors.Is(err, wire.ErrBadOrder) {
			t.Errorf("%s: got %v, want ErrBadOrder", name, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
	for text, want := range map[string]error{
		"":                                      wire.ErrNoOrder,
		"\r\n":                                  wire.ErrNoOrder,
		strings.Repeat(" ", wire.MaxOrder+1):    wire.ErrNoOrder,
		"{\"v\":1,\"jit\":\"" + secret + "\n":   wire.ErrBadOrder,
		"{\"v\":1,\"jit\":" + secret + "}\n":    wire.ErrBadOrder,
		"[\"" + secret + "\"]\n":                wire.ErrBadOrder,
		"{\"v\":\"" + secret + "\"}\n":          wire.ErrBadOrder,
		"{\"v\":1,\"id\":\"" + secret + "\"}\n": wire.ErrBadOrder,
	} {
		_, err := wire.ReadOrder(strings.NewReader(text))
		if !errors.Is(err, want) {
			t.Errorf("%.20q: got %v, want %v", text, err, want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%.20q: the error shows the secret: %v", text, err)
		}
	}
}

func TestOrderIsNotPrinted(t *testing.T) {
	o := order()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(format, o); strings.Contains(text, "QUJD") {
			t.Errorf("%s shows the secret", format)
		}
	}
}

func TestReadLines(t *testing.T) {
	long := `{"ev":"fatal","msg":"` + strings.Repeat("x", wire.MaxLine) + `"}`
	text := "Microsoft Windows [Version 10.0]\r\n" + `{"ev":"phase","phase":"network","st":"ok","ms":812}` + "\r\n" +
		`{"ev":"of another version"}` + "\n" + long + "\n" + `{"ev":"state"}` + "\n" + `{"ev":"state","state":{"phase":"dancing"}}` + "\n" +
		`{"ev":"state","state":{"ready":true,"phase":"busy","id":"<script>"}}` + "\n\n" + long + long + long + "\r\n" +
		`{"ev":"state","state":{"ready":true,"phase":"listening","id":"x-1"}}` + "\n" + `{"ev":"exit","code":7}`
	var got []wire.Line
	if err := wire.ReadLines(strings.NewReader(text), func(l wire.Line) { got = append(got, l) }); err != nil {
		t.Fatal(err)
	}
	want := []wire.Line{
		{What: wire.HappenedPhase, Step: "network", Outcome: "ok", Milliseconds: 812},
		{What: wire.HappenedState, State: &wire.State{Ready: true, Phase: wire.PhaseListening, ID: "x-1"}},
		{What: wire.HappenedExit, Code: 7},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestReadLinesTooMuch(t *testing.T) {
	err := wire.ReadLines(strings.NewReader(strings.Repeat("noise\n", wire.MaxOutput)), func(wire.Line) {})
	if !errors.Is(err, wire.ErrTooMuch) {
		t.Errorf("got %v, want ErrTooMuch", err)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	for name, l := range map[string]wire.Line{
		"message": {What: wire.HappenedFatal, Code: 43, Message: strings.Repeat("€", wire.MaxLine)},
		"step":    {What: wire.HappenedFatal, Code: 43, Step: strings.Repeat("€", wire.MaxLine)},
		"year":    {What: wire.HappenedFatal, Code: 43, At: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		got, ok := wire.ParseLine(l.Encode())
		if !ok || got.Code != 43 || got.What != wire.HappenedFatal {
			t.Errorf("%s: got %+v, %t", name, got, ok)
		}
	}
}

func TestEveryExitCodeHasAMeaning(t *testing.T) {
	for _, code := range []int{0, 1, 2, 3, 4, 10, 11, 12, 13, 20, 21, 30, 31, 32, 33, 40, 41, 42, 43, 50, 60} {
		if wire.Meaning(code) == "" {
			t.Errorf("exit code %d has no meaning", code)
		}
	}
	if wire.Meaning(99) != "" {
		t.Error("99 is not a code of the helper's")
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"t":"2026-01-02T03:04:05Z","ev":"ready","version":"2.336.0","pid":4321}` + "\r\n"))
	f.Add([]byte(`{"ev":"state","state":{"ready":true,"phase":"ended","id":"a-1","result":"succeeded","exit":100}}` + "\n" + `{"ev":"exit"}`))
	f.Add([]byte("noise\n{\"ev\":\"fatal\",\"code\":30,\"msg\":\"\u20ac\U0001f600\xff\"}\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := wire.ReadLines(bytes.NewReader(text), func(l wire.Line) {
			encoded := l.Encode()
			if len(encoded) > wire.MaxLine || bytes.ContainsFunc(encoded, func(r rune) bool { return r >= 0x7f }) {
				t.Fatalf("not an ASCII line within bounds: %q", encoded)
			}
			again, ok := wire.ParseLine(encoded)
			if !ok {
				t.Fatalf("cannot read back %q", encoded)
			}
			if again.What != l.What || again.Code != l.Code || !cmp.Equal(again.State, l.State) {
				t.Fatalf("%+v came back as %+v", l, again)
			}
		})
		if err != nil && !errors.Is(err, wire.ErrTooMuch) {
			t.Fatal(err)
		}
		if o, err := wire.ReadOrder(bytes.NewReader(text)); err == nil {
			line, err := wire.EncodeOrder(o)
			if err != nil {
				t.Skip() // escaping made it longer than the bound
			}
			if again, err := wire.ReadOrder(bytes.NewReader(line)); err != nil || again.ID != o.ID || again.JIT != o.JIT {
				t.Fatalf("%v came back as %v, %v", o, again, err)
			}
		}
	})
}
