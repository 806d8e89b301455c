package web

import (
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A real browser shows the page with its style, as the policy of its header allows it, and need
// not be scrolled sideways on a phone.
func TestInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed")
	}
	now := time.Now()
	server := httptest.NewServer(New(Config{Source: day(now), Instance: "m1", Past: story(now)}).Handler())
	defer server.Close()

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium), chromedp.NoSandbox)
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	ctx, end := chromedp.NewContext(allocator)
	defer end()
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(390, 900), chromedp.Navigate(server.URL+"/?refresh=0")); err != nil {
		t.Fatalf("opening the page: %v", err)
	}
	for script, want := range map[string]string{
		`document.title`: "(4) Mayfly · m1",
		`getComputedStyle(document.querySelector("header")).display`:                        "flex",
		`String(document.scripts.length + document.images.length)`:                          "0",
		`String(document.documentElement.scrollWidth <= window.innerWidth)`:                 "true",
		`getComputedStyle(document.querySelector("table.runners th")).position`:             "sticky",
		`document.querySelector("table.jobs tbody tr:nth-child(4) b").textContent`:          "<script>alert('x')</script>",
		`String(document.querySelector("svg.bar .part").getBoundingClientRect().width > 0)`: "true",
	} {
		if got, err := chromedp.Run(ctx, chromedp.Evaluate[string](script)); err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", script, got, want, err)
		}
	}
}
