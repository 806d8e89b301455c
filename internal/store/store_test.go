package store_test

import (
	"context"
	"path/filepath"
	"testing"

	"mayfly/internal/fleet"
	"mayfly/internal/store"
	"mayfly/internal/store/storetest"
)

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Open {
		path := filepath.Join(t.TempDir(), "mayfly.db")
		return func(ctx context.Context, hear ...fleet.Hearer) (storetest.Store, error) {
			return store.Open(ctx, path, store.Options{Fast: true, Hear: hear})
		}
	})
}

func mustOpen(t testing.TB, path string, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustClose(t testing.TB, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
