// Command mutate breaks guards one by one and runs the tests that must notice. The guards
// stand in the YAML files beside it. The tree stays untouched: the go command gets each
// broken file as an overlay.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"time"
)

func main() {
	root := flag.String("root", ".", "the module's `folder`")
	pattern := flag.String("run", "", "break only the guards whose name or file matches `regexp`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// run tries every selected guard and reports each as it is done.
func run(ctx context.Context, root, pattern string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	selected, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	guards, err := load(filepath.Join(root, "test", "mutate"))
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	b, t := newBench(root, scratch), &tally{}
	var group sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, g := range guards {
		if !selected.MatchString(g.Name) && !selected.MatchString(g.File) {
			continue
		}
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			began := time.Now()
			killer, err := b.try(ctx, i, g)
			t.report(g, killer, err, time.Since(began).Round(100*time.Millisecond))
		})
	}
	group.Wait()
	switch {
	case t.tried == 0:
		return fmt.Errorf("no guard matches %q", pattern)
	case t.unproven > 0:
		return fmt.Errorf("%d of %d guards are not proven", t.unproven, t.tried)
	}
	fmt.Printf("ok: %d guards broken, every one was noticed\n", t.tried)
	return nil
}

// tally counts what became of guards. Safe for concurrent use.
type tally struct {
	mu              sync.Mutex
	tried, unproven int
}

// report prints a line about a guard.
func (t *tally) report(g *guard, killer string, err error, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tried++
	switch {
	case err == nil:
		fmt.Printf("killed    %s: %s: %s (%v)\n", g.File, g.Name, killer, took)
		return
	case errors.Is(err, errSurvived):
		fmt.Printf("SURVIVED  %s: %s: %s %s stays green (%v)\n", g.File, g.Name, g.Package, g.Run, took)
	default:
		fmt.Printf("ERROR     %s: %s: %v\n", g.File, g.Name, err)
	}
	t.unproven++
}
