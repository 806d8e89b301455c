package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mayfly/internal/fleet"
)

// The keys of table meta.
const (
	metaLastVMID   = "last_vmid"
	metaTroubles   = "troubles"   // JSON, an array of fleet.Trouble by pool and node
	metaQuarantine = "quarantine" // JSON, VMID → reason
)

// maxText bounds, in bytes, a text for people: some of it comes from elsewhere.
const maxText = 2048

// Note stores troubles, by pool and node (Count 0 clears one), and the ids that nobody may use, with
// the reason ("" gives one free). What is not named stays as it is.
func (s *Store) Note(ctx context.Context, troubles []fleet.Trouble, quarantine map[int]string, ev ...fleet.Event) error {
	return s.do(ctx, func(t *tx) error {
		if err := t.note(troubles, quarantine); err != nil {
			return fmt.Errorf("storing troubles and quarantined ids: %w", err)
		}
		return t.tell(ev)
	})
}

func (t *tx) note(troubles []fleet.Trouble, quarantine map[int]string) error {
	if len(troubles) > 0 {
		var known []fleet.Trouble
		if err := t.meta(metaTroubles, &known); err != nil {
			return err
		}
		if err := t.setMetaJSON(metaTroubles, withTroubles(known, troubles)); err != nil {
			return err
		}
	}
	if len(quarantine) > 0 {
		known := map[int]string{}
		if err := t.meta(metaQuarantine, &known); err != nil {
			return err
		}
		for id, reason := range quarantine {
			known[id] = clip(reason)
		}
		maps.DeleteFunc(known, func(_ int, reason string) bool { return reason == "" })
		return t.setMetaJSON(metaQuarantine, known)
	}
	return nil
}

func withTroubles(known, news []fleet.Trouble) []fleet.Trouble {
	for _, n := range news {
		known = slices.DeleteFunc(known, func(k fleet.Trouble) bool { return k.Pool == n.Pool && k.Node == n.Node })
		if n.Count > 0 {
			n.Text, n.Last = clip(n.Text), fromNanos(nanos(n.Last))
			known = append(known, n)
		}
	}
	slices.SortFunc(known, func(a, b fleet.Trouble) int {
		return cmp.Or(strings.Compare(a.Pool, b.Pool), strings.Compare(a.Node, b.Node))
	})
	return known
}

// meta reads a JSON value; what is not there leaves v as it is.
func (t *tx) meta(key string, v any) error {
	var text string
	found, err := t.scan(`SELECT value FROM meta WHERE key = ?`, []any{key}, []any{&text})
	if err != nil || !found {
		return err
	}
	return json.Unmarshal([]byte(text), v)
}

func (t *tx) setMetaJSON(key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.setMeta(key, string(text))
}

func (t *tx) setMeta(key, value string) error {
	t.touchMeta()
	return t.exec(`INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
}

// clip bounds a text and makes it valid UTF-8.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}
