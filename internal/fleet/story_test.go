package fleet_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"mayfly/internal/fleet"
)

var update = flag.Bool("update", false, "write what Decide says now into testdata")

// Each archive in testdata tells one story: why, a world, and the plan that it must give.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d stories, want 30 or more (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { story(t, file) })
	}
}

func story(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(archive.Files) != 2 || archive.Files[0].Name != "world" || archive.Files[1].Name != "plan" || len(archive.Comment) == 0 {
		t.Fatal("a story is a comment, a world and a plan")
	}
	got := writePlan(fleet.Decide(readWorld(t, string(archive.Files[0].Data))))
	if *update {
		archive.Files[1].Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(string(archive.Files[1].Data), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s\nplan (-want +got):\n%s", archive.Comment, diff)
	}
}
