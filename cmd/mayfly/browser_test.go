package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"mayfly/internal/web"
)

// TestBrowser looks at a busy Mayfly with a real browser. `go test -artifacts -outputdir DIR` keeps the pictures.
func TestBrowser(t *testing.T) {
	t.Parallel()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	w := newTown(t, "--speed", "20", "--nodes", "2", "--max", "4", "--ready", "1")
	w.open()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox)
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	ctx, end := chromedp.NewContext(allocator)
	defer end()
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start chromium: %v", err)
	}

	w.tell("/jobs", `{"labels":["self-hosted","windows","x64"],"count":6,"length":"4m"}`)
	w.tell("/jobs", `{"labels":["self-hosted","macos"]}`)
	w.tell("/vms", `{"id":100009,"name":"fileserver","node":"pve1"}`)
	var s web.Status
	until(t, "some runners are busy", func() bool {
		s = w.status()
		busy := 0
		for _, r := range s.Runners {
			if r.Phase == "busy" {
				busy++
			}
		}
		return busy >= 2 && len(s.Jobs) >= 5
	})
	text := ""
	for _, c := range []struct {
		name          string
		width, height int64
	}{{"wide", 1280, 1000}, {"phone", 390, 844}} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(c.width, c.height), chromedp.Navigate(w.page+"/?refresh=0")); err != nil {
			t.Fatalf("%s: open the page: %v", c.name, err)
		}
		if text, err = chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText")); err != nil {
			t.Fatal(err)
		}
		if sideways, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("document.documentElement.scrollWidth > window.innerWidth")); err != nil || sideways {
			t.Errorf("%s: the page must be scrolled sideways (%v)", c.name, err)
		}
		picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(t.ArtifactDir(), c.name+".png"), picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"instance sim", "win", "busy", "of max 4", "no pool has all of its labels: self-hosted, macos", "pve1", "pve2", "Proxmox", "GitHub"}
	for _, r := range s.Runners {
		want = append(want, r.Name)
	}
	for _, want := range want {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}
