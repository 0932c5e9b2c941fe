package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// errSurvived says that the tests were green with a broken guard.
var errSurvived = errors.New("survived")

const (
	// bound is how long the tests of a guard may take. One that Hangs gets less, because it
	// takes all of it.
	bound      = 90 * time.Second
	boundHangs = 20 * time.Second
	// grace is what a test binary gets to report that its own time is up.
	grace = 10 * time.Second
)

// bench runs tests with and without a guard.
type bench struct {
	root, scratch string // scratch holds what is built

	mu       sync.Mutex
	binaries map[string]*once // sound test binaries, by package and how it is built
	sound    map[string]*once // runs of them, by binary and tests
}

// once is what several guards need and one does.
type once struct {
	do   sync.Once
	path string // of a binary
	err  error
}

func newBench(root, scratch string) *bench {
	return &bench{root: root, scratch: scratch, binaries: map[string]*once{}, sound: map[string]*once{}}
}

// shared returns the entry of a map of b, made if it is not there.
func (b *bench) shared(m map[string]*once, key string) *once {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m[key] == nil {
		m[key] = &once{path: filepath.Join(b.scratch, fmt.Sprintf("sound%d.test", len(m)))}
	}
	return m[key]
}

// try breaks guard number i and names the first test that noticed. The error is errSurvived when
// none did; any other says that the entry doesn't fit.
func (b *bench) try(ctx context.Context, i int, g *guard) (killer string, err error) {
	broken, err := g.broken(b.root)
	if err != nil {
		return "", err
	}
	if err := b.soundRun(ctx, g); err != nil {
		return "", err
	}
	base := filepath.Join(b.scratch, fmt.Sprint(i))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(b.root, g.File): base + ".go"}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(base+".go", broken, 0o600), os.WriteFile(base+".json", overlay, 0o600)); err != nil {
		return "", err
	}
	binary := base + ".test"
	if err := b.compile(ctx, g, binary, "-overlay", base+".json"); err != nil {
		return "", err
	}
	defer os.Remove(binary)
	output, hung, err := b.test(ctx, g, binary)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err == nil:
		return "", errSurvived
	case !hung && !errors.As(err, &exit):
		return "", err
	case hung && !g.Hangs:
		return "", fmt.Errorf("the tests don't end, which the entry does not expect:\n%s", output)
	case hung:
		return "a test that hangs", nil
	}
	if m := failed.FindStringSubmatch(output); m != nil {
		return m[1], nil
	}
	return "a crash", nil
}

var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// soundRun makes sure that the guard's tests exist and are green while it is whole.
func (b *bench) soundRun(ctx context.Context, g *guard) error {
	build := fmt.Sprint(g.Package, g.Race, g.Tags)
	binary := b.shared(b.binaries, build)
	binary.do.Do(func() { binary.err = b.compile(ctx, g, binary.path) })
	if binary.err != nil {
		return binary.err
	}
	tests := b.shared(b.sound, fmt.Sprint(build, g.Run, g.Env))
	tests.do.Do(func() {
		output, _, err := b.test(ctx, g, binary.path)
		switch {
		case err != nil:
			tests.err = fmt.Errorf("%s %s is red with the guard whole: %w\n%s", g.Package, g.Run, err, output)
		case strings.Contains(output, "no tests to run"):
			tests.err = fmt.Errorf("%s has no test %s", g.Package, g.Run)
		}
	})
	return tests.err
}

// compile builds the guard's test binary.
func (b *bench) compile(ctx context.Context, g *guard, binary string, arguments ...string) error {
	arguments = append([]string{"test", "-c", "-o", binary, "-ldflags=-s -w"}, arguments...)
	if g.Race {
		arguments = append(arguments, "-race")
	}
	if len(g.Tags) > 0 {
		arguments = append(arguments, "-tags", strings.Join(g.Tags, ","))
	}
	command := exec.CommandContext(ctx, "go", append(arguments, g.Package)...)
	command.Dir = b.root
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("does not compile: %w\n%s", err, output)
	}
	return nil
}

// test runs the guard's tests where go test would. It reports whether they used up their time.
func (b *bench) test(ctx context.Context, g *guard, binary string) (output string, hung bool, err error) {
	limit := bound
	if g.Hangs {
		limit = boundHangs
	}
	ctx, cancel := context.WithTimeout(ctx, limit+grace)
	defer cancel()
	command := exec.CommandContext(ctx, binary, "-test.run="+g.Run, "-test.short", "-test.timeout="+limit.String())
	command.Dir = filepath.Join(b.root, g.Package)
	command.Env = slices.Concat(os.Environ(), g.Env)
	command.WaitDelay = grace
	raw, err := command.CombinedOutput()
	output = string(raw)
	return output, ctx.Err() != nil || strings.Contains(output, "panic: test timed out after"), err
}
