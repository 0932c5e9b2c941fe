package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/tracing"
	"github.com/chromedp/chromedp"
)

const (
	consoleURL = "http://127.0.0.1:9646/console/"
	// axeFile is what scripts/setup has fetched: it looks for what keeps people with a disability out.
	axeFile = "/var/cache/nsgd/axe/axe.min.js"
)

// screen is a size of a window in CSS pixels.
type screenSize struct {
	name          string
	width, height int64
}

var (
	desk   = screenSize{"desk", 1280, 800}
	mobile = screenSize{"mobile", 390, 844}
)

// browser is a tab of a Chromium of its own. What a page says to its log fails the test.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// openBrowser starts Chromium.
func openBrowser(t *testing.T, flags ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is missing: scripts/setup installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(2*patience))
	allocated, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), append(options, flags...)...)
	t.Cleanup(cancel)
	ctx, end := chromedp.NewContext(allocated, chromedp.WithErrorf(t.Logf), chromedp.WithListener(func(event any) {
		if thrown, ok := event.(*runtime.EventExceptionThrown); ok {
			t.Errorf("the page fails: %s", mustJSON(t, thrown.ExceptionDetails))
		}
	}))
	t.Cleanup(end)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil { // starts it; its life is that of ctx
		t.Fatal(err)
	}
	return &browser{t, ctx}
}

// act has a browser act in bounded time.
func act[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 2*patience)
	defer cancel()
	result, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return result
}

// open goes to a view in a window of a size.
func (b *browser) open(s screenSize, view string) {
	b.t.Helper()
	size := []chromedp.EmulateViewportOption{chromedp.EmulateScale(1)}
	if s == mobile {
		size = append(size, chromedp.EmulateMobile)
	}
	act(b, chromedp.Steps(chromedp.Navigate("about:blank"), chromedp.EmulateViewport(s.width, s.height, size...), chromedp.Navigate(consoleURL+"#/"+view)))
}

// evaluate is the value of an expression in the page; of a promise, what it becomes.
func evaluate[T any](b *browser, expression string) T {
	b.t.Helper()
	return act(b, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// shows waits until what a selector finds has the words.
func (b *browser) shows(selector string, words ...string) {
	b.t.Helper()
	find := fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => %s.every((w) => e.textContent.includes(w)))`, selector, mustJSON(b.t, words))
	b.waits(selector+" shows "+strings.Join(words, ", "), find)
}

// waits waits until an expression is true.
func (b *browser) waits(what, expression string) {
	b.t.Helper()
	defer func() {
		if b.t.Failed() {
			b.t.Logf("the page: %s", evaluate[string](b, "document.body.innerText"))
		}
	}()
	eventually(b.t, what, func() bool { return evaluate[bool](b, expression) })
}

// click clicks the first element that a selector finds and that has the words.
func (b *browser) click(selector, words string) {
	b.t.Helper()
	b.shows(selector, words)
	// Anchors of SVG have no click().
	if !evaluate[bool](b, fmt.Sprintf(`{ const e = [...document.querySelectorAll(%q)].find((e) => e.textContent.includes(%q)); e.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true, view: window})) }`, selector, words)) {
		b.t.Logf("%s %q: the page has taken the click itself", selector, words)
	}
}

// picture keeps a picture of what is seen among the test's artefacts.
func (b *browser) picture(name string) {
	b.t.Helper()
	shot := act(b, chromedp.CaptureScreenshot())
	if err := os.WriteFile(filepath.Join(artefacts(b.t), name+".png"), shot, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// artefacts is the folder for what a test shows people: NSGD_E2E_ARTEFACTS, or one of the test's own.
func artefacts(t *testing.T) string {
	dir := os.Getenv("NSGD_E2E_ARTEFACTS")
	if dir == "" {
		return t.ArtifactDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// accessible has axe look at the page.
func (b *browser) accessible(what string) {
	b.t.Helper()
	axe, err := os.ReadFile(axeFile)
	if err != nil {
		b.t.Logf("axe does not look at the page: scripts/setup fetches %s", axeFile)
		return
	}
	act(b, chromedp.Evaluate[chromedp.Void](string(axe)))
	type violation struct {
		ID, Impact, Help string
		Nodes            []struct{ HTML, FailureSummary string }
	}
	for _, v := range evaluate[[]violation](b, `axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations)`) {
		for i := range v.Nodes {
			b.t.Errorf("%s: %s (%s): %s: %s: %s", what, v.ID, v.Impact, v.Help, v.Nodes[i].HTML, v.Nodes[i].FailureSummary)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// repeat does something again and again until the test ends.
func repeat(t *testing.T, period time.Duration, do func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticks := time.NewTicker(period)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				do()
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// dark has pages follow a dark desk.
func (b *browser) dark(dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	act(b, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// trace counts the events of the browser's own trace while something is done, by name.
func (b *browser) trace(categories string, do func()) map[string]int {
	b.t.Helper()
	counted, whole := map[string]int{}, make(chan struct{})
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *tracing.EventDataCollected:
			for _, one := range e.Value {
				var named struct{ Name string }
				if json.Unmarshal(one, &named) == nil {
					counted[named.Name]++
				}
			}
		case *tracing.EventTracingComplete:
			close(whole)
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	act(b, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, tracing.Start, tracing.StartParams{TraceConfig: &tracing.TraceConfig{IncludedCategories: strings.Split(categories, ",")}})
		return err
	}))
	do()
	act(b, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, tracing.End, cdp.Empty{})
		return err
	}))
	select {
	case <-whole:
	case <-time.After(2 * patience):
		b.t.Fatal("the trace has no end")
	}
	return counted
}
