// Command compare runs the benchmarks of two trees in turn and prints how they differ: `make bench-compare BASE=REF`.
// The base is a commit; the other tree is the working one. What disturbs a machine disturbs both alike, so that the
// ratio within each round says more than two medians.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// options are the flags.
type options struct {
	base, bench, benchtime string
	rounds                 int
	packages               []string
}

// defaultBench is the path of a packet: a live flow's, a new one's, a denied one, and the lookup of a rule.
const defaultBench = `^BenchmarkEstablished$|^BenchmarkFirstMatch$/^table$/^rules=(10|1000|4000)$|^BenchmarkCarry$/^(established-TCP|established-UDP|new-flow-allowed|denied)$/^rules=10$/^workers=1$`

func main() {
	var o options
	flag.StringVar(&o.base, "base", "", "the `commit` to compare the working tree with")
	flag.StringVar(&o.bench, "bench", defaultBench, "the benchmarks, as `regexp`")
	flag.StringVar(&o.benchtime, "benchtime", "200ms", "of a benchmark in a round")
	flag.IntVar(&o.rounds, "rounds", 10, "how often each tree runs")
	flag.Parse()
	if o.packages = flag.Args(); len(o.packages) == 0 {
		o.packages = []string{"./dataplane", "./ruleset/classifier"}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func (o *options) check() error {
	switch {
	case o.base == "":
		return errors.New("give a commit: make bench-compare BASE=REF")
	case o.rounds < 1:
		return fmt.Errorf("-rounds %d: allowed are 1 and more", o.rounds)
	}
	return nil
}

// tree is a version of the sources, with a test binary for each package that it has.
type tree struct {
	dir      string
	binaries map[string]string // by package; one that the tree lacks is not there
}

func run(ctx context.Context, o *options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nsgd-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	base := &tree{dir: filepath.Join(dir, "base")}
	if err := command(ctx, ".", nil, "git", "worktree", "add", "--quiet", "--detach", base.dir, o.base); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, command(context.WithoutCancel(ctx), ".", nil, "git", "worktree", "remove", "--force", base.dir))
	}()
	head := &tree{dir: "."}
	for _, t := range []*tree{base, head} {
		if err := t.compile(ctx, o.packages, dir); err != nil {
			return err
		}
	}
	r := newResults()
	for round := range o.rounds {
		order := []*tree{base, head}
		if round%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, name := range o.packages {
			for _, t := range order {
				if err := t.bench(ctx, o, name, r.side(t == head)); err != nil {
					return err
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
	}
	return r.print(os.Stdout, o.base)
}

// compile builds the test binaries with the profile that the tree's daemon is built with.
func (t *tree) compile(ctx context.Context, packages []string, dir string) error {
	t.binaries = map[string]string{}
	absolute, err := filepath.Abs(t.dir)
	if err != nil {
		return err
	}
	profile := filepath.Join(absolute, "cmd/nsgd/default.pgo")
	if _, err := os.Stat(profile); err != nil {
		profile = "off"
	}
	for _, name := range packages {
		if _, err := os.Stat(filepath.Join(t.dir, name)); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			continue
		}
		out := filepath.Join(dir, strings.NewReplacer("/", "-", ".", "").Replace(filepath.Base(absolute)+name)+".test")
		if err := command(ctx, t.dir, nil, "go", "test", "-c", "-trimpath", "-pgo="+profile, "-o", out, name); err != nil {
			return err
		}
		t.binaries[name] = out
	}
	return nil
}

// bench runs a package's benchmarks once.
func (t *tree) bench(ctx context.Context, o *options, name string, to *side) error {
	binary, ok := t.binaries[name]
	if !ok {
		return nil
	}
	var out strings.Builder
	if err := command(ctx, filepath.Join(t.dir, name), &out, binary, "-test.run", "^$", "-test.bench", o.bench, "-test.benchtime", o.benchtime, "-test.benchmem"); err != nil {
		return err
	}
	return to.add(name, out.String())
}

// command runs a program in a folder; what it says goes to out, or into the error.
func command(ctx context.Context, dir string, out *strings.Builder, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	var said strings.Builder
	c.Dir, c.Stdout, c.Stderr = dir, &said, &said
	if out != nil {
		c.Stdout = out
	}
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}
