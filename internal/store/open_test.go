package store_test

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"mayfly/internal/fleet"
	"mayfly/internal/store"
)

func TestSecondOpenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mayfly.db")
	s := mustOpen(t, path, store.Options{Holder: "mayfly k3f9"})
	_, err := store.Open(t.Context(), path, store.Options{})
	if !errors.Is(err, fleet.ErrBusy) {
		t.Fatalf("got %v, want busy", err)
	}
	host, _ := os.Hostname()
	for _, part := range []string{path, "mayfly k3f9", fmt.Sprint("pid ", os.Getpid()), host, "since 20", "stop that one"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	mustClose(t, s)
	mustClose(t, mustOpen(t, path, store.Options{}))
}

func TestFilesAreOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd name?#%20&x=1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "mayfly.db")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path, store.Options{})
	defer mustClose(t, s)
	if err := s.Create(t.Context(), []fleet.Runner{{Name: "a", VMID: 1, Phase: fleet.Idle}}); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 || info.Size() == 0 || !strings.HasPrefix(f.Name(), "mayfly.db") {
			t.Errorf("%s: %s, %d bytes", f.Name(), info.Mode(), info.Size())
		}
	}
	if len(files) != 4 { // the database, its log, its index, our lock
		t.Errorf("%d files: %v", len(files), files)
	}
}

func TestOpenSaysTheMend(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := filepath.Join(dir, "other.db")
	db, err := sql.Open("sqlite", other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`CREATE TABLE theirs (x)`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.db")
	mustClose(t, mustOpen(t, newer, store.Options{}))
	if db, err = sql.Open("sqlite", newer); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`PRAGMA user_version = 99`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	for path, mend := range map[string]string{
		filepath.Join(dir, "no", "mayfly.db"):          "install -d -m 0700",
		filepath.Join(write("file", "x"), "mayfly.db"): "choose another store.path",
		dir:                                "choose another store.path",
		"/proc/mayfly.db":                  "choose another store.path",
		write("text.db", "this is a text"): "move it away",
		other:                              "give store.path a file of its own",
		newer:                              "run that one",
	} {
		s, err := store.Open(t.Context(), path, store.Options{})
		if err == nil {
			mustClose(t, s)
		}
		if !errors.Is(err, fleet.ErrConfig) || !strings.Contains(err.Error(), mend) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant one line with %q", path, err, mend)
		}
	}
}

// A store that cannot be opened must not stay locked.
func TestFailedOpenFreesTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mayfly.db")
	if err := os.WriteFile(path, []byte("this is a text, longer than a header of SQLite's, which has one hundred bytes in all, and no less....."), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), path, store.Options{}); err == nil {
		t.Fatal("a text was opened as a database")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, path, store.Options{}))
}

const childPath = "MAYFLY_STORE_TEST_CHILD"

// TestKilled kills a process in the middle of its writes: what it was told is stored is there, each
// write is there with its event or not at all, and the lock is gone.
func TestKilled(t *testing.T) {
	if path := os.Getenv(childPath); path != "" {
		recordForEver(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "mayfly.db")
	acknowledged := map[int64]bool{}
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), childPath+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			id, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				continue // half a line, or the test framework's
			}
			acknowledged[id] = true
			if n++; n == 300 {
				if _, err := store.Open(t.Context(), path, store.Options{}); !errors.Is(err, fleet.ErrBusy) {
					t.Errorf("opened while the child works: %v", err)
				}
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the child ended by itself")
		}
	}
	s := mustOpen(t, path, store.Options{})
	defer mustClose(t, s)
	events, err := s.Events(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	told := map[int64]int{}
	for _, e := range events {
		told[e.Job]++
	}
	books, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	jobs := map[int64]bool{}
	for _, j := range books.Jobs {
		if jobs[j.ID] = true; told[j.ID] != 1 {
			t.Errorf("job %d has %d events", j.ID, told[j.ID])
		}
	}
	if len(jobs) != len(told) || len(acknowledged) < 900 {
		t.Errorf("%d jobs, %d events, %d acknowledged", len(jobs), len(told), len(acknowledged))
	}
	for id := range acknowledged {
		if !jobs[id] {
			t.Errorf("job %d was acknowledged and is lost", id)
		}
	}
}

func recordForEver(t *testing.T, path string) {
	s := mustOpen(t, path, store.Options{})
	var wg sync.WaitGroup
	base := time.Now().UnixNano()
	for c := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := base + int64(i*8+c)
				if _, err := s.Record(t.Context(), fmt.Sprint(id), fleet.Job{ID: id, Status: fleet.StatusQueued}, fleet.Event{Kind: fleet.JobQueued, Job: id}); err != nil {
					return
				}
				fmt.Println(id)
			}
		})
	}
	wg.Wait()
}

// A bubble ends only when every goroutine of it has: Close leaves none behind.
func TestInBubble(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mayfly.db")
	synctest.Test(t, func(t *testing.T) {
		s := mustOpen(t, path, store.Options{Fast: true})
		if err := s.Create(t.Context(), []fleet.Runner{{Name: "a", VMID: 1, Phase: fleet.Idle, Born: time.Now()}}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait() // nothing of the store runs while nobody calls
		b, err := s.Load(t.Context())
		if err != nil || len(b.Runners) != 1 || time.Since(b.Runners[0].Born) != time.Hour {
			t.Errorf("%+v, %v", b, err)
		}
		mustClose(t, s)
	})
}
