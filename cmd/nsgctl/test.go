package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/report"
	"github.com/nsgd/nsgd/cmd/nsgctl/testfile"
	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/spf13/cobra"
)

func init() { addVerb(newTest) }

// testFlags are the flags of test.
type testFlags struct {
	init      bool
	maxStates int
	from      source
}

// testAnswer is what became of all tests.
type testAnswer struct {
	Tests []testOutcome `json:"tests"`
}

// testOutcome is what became of one test.
type testOutcome struct {
	Name   string `json:"name"`
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
	*ask.TestResult
}

func newTest(g *global) *cobra.Command {
	var f testFlags
	c := &cobra.Command{
		Use:         "test FILE... | --init PATH...",
		Short:       "Hold a policy to tests, each for all packets of its set",
		Annotations: reportFormats(),
		Long: `Hold a policy to tests, each for all packets of its set.

A test file names the policy, relative to the file, and tests in YAML: who sends (from), who receives (to),
protocol, ports and except, and whether every such packet is allowed or denied (expect). The whole path is
judged: routes, translation, and the rules of both ends and of appliances between them. A test that fails shows a
packet that breaks it, which verify --path confirms, and which rules decide about it.

--init prints tests that hold what a policy does now. They all pass: keep those that are meant.

Exit codes: 0 all tests hold, 1 one does not, 2 wrong use or a fault of a test file.`,
		Example: `  nsgctl test web.test.yaml
  nsgctl test tests/*.yaml -o junit
  nsgctl test --init policy > web.test.yaml`,
		Args: func(c *cobra.Command, paths []string) error {
			switch {
			case len(paths) == 0 && f.init:
				return usageError{errors.New("test: --init needs at least one file or folder of a policy")}
			case len(paths) == 0:
				return usageError{errors.New("test: at least one test file is needed")}
			case f.maxStates < 0:
				return usageError{fmt.Errorf("test: --max-states %d: allowed are numbers above 0", f.maxStates)}
			}
			return existing(c, "", paths)
		},
		RunE: func(c *cobra.Command, paths []string) error {
			if f.init {
				return f.write(c, paths)
			}
			return f.run(c, g, paths)
		},
	}
	c.Flags().BoolVar(&f.init, "init", false, "print tests that hold what the policy of PATH... does now")
	c.Flags().IntVar(&f.maxStates, "max-states", 0, "bound on the work for each pair of ends (default 500000)")
	c.Flags().StringVar(&f.from.serviceTags, "service-tags", "", "Microsoft's service tag file, in place of the test files'")
	f.from.policyFlags(c)
	return c
}

func (f *testFlags) run(c *cobra.Command, g *global, paths []string) error {
	files, err := readTests(c, paths)
	if err != nil {
		return refused(c, g, err)
	}
	answer, err := interruptible(c.Context(), func() (*testAnswer, error) { return f.outcomes(c.Context(), files) })
	if err != nil {
		return refused(c, g, err)
	}
	if err := showReport(c, g, answer, testTable, testEntries); err != nil {
		return err
	}
	if slices.ContainsFunc(answer.Tests, func(t testOutcome) bool { return t.Result != ask.TestPass }) {
		return errNegative
	}
	return nil
}

// outcomes are those of all tests of files.
func (f *testFlags) outcomes(ctx context.Context, files []*testfile.File) (*testAnswer, error) {
	answer := &testAnswer{Tests: []testOutcome{}}
	policies := map[string]*ask.Between{}
	for _, file := range files {
		b, err := f.policyOf(file, policies)
		if err != nil {
			return nil, err
		}
		for i := range file.Tests {
			if err := context.Cause(ctx); err != nil {
				return nil, fmt.Errorf("test: %w", err)
			}
			t := &file.Tests[i]
			answer.Tests = append(answer.Tests, testOutcome{Name: t.Name, File: file.Path, Line: t.Line, Column: t.Column, TestResult: b.Test(t.Question())})
		}
	}
	return answer, nil
}

// readTests reads all files. The error has the faults of all.
func readTests(c *cobra.Command, paths []string) (files []*testfile.File, err error) {
	var faults []error
	for _, path := range paths {
		file, err := testfile.Read(path)
		var text yamlfile.Faults
		switch {
		case errors.As(err, &text):
			faults = append(faults, err)
		case err != nil:
			faults = append(faults, fmt.Errorf("test: %w", err))
		default:
			t := &file.Templates
			files := slices.DeleteFunc(append(slices.Clone(t.Parameters), file.ServiceTags, t.Runtime), func(p string) bool { return p == "" || arm.IsAssignment(p) })
			if err := existing(c, path+": ", slices.Concat(file.Policy, files)); err != nil {
				faults = append(faults, err)
			}
		}
		files = append(files, file)
	}
	if len(faults) > 0 {
		return nil, usageError{errors.Join(faults...)}
	}
	return files, nil
}

// policyOf opens the policy of a test file, once for files with the same. Flags hold over what the file says.
func (f *testFlags) policyOf(file *testfile.File, policies map[string]*ask.Between) (*ask.Between, error) {
	key := fmt.Sprintf("%q %q %q", file.Policy, file.ServiceTags, file.Templates)
	if b := policies[key]; b != nil {
		return b, nil
	}
	from, t := f.from, &file.Templates
	from.policy = file.Policy
	d := &from.deployment
	d.Parameters = slices.Concat(t.Parameters, d.Parameters)
	for _, field := range []struct {
		into *string
		from string
	}{{&from.serviceTags, file.ServiceTags}, {&d.Subscription, t.Subscription}, {&d.ResourceGroup, t.ResourceGroup}, {&d.Location, t.Location}, {&d.Runtime, t.Runtime}} {
		*field.into = cmp.Or(*field.into, field.from)
	}
	loaded, err := from.open()
	if err != nil {
		return nil, err
	}
	b := ask.NewBetween(loaded.Snapshot, f.maxStates)
	policies[key] = b
	return b, nil
}

// write prints tests of what a policy does. The paths are as they were given: the file belongs into the
// working directory.
func (f *testFlags) write(c *cobra.Command, paths []string) error {
	file := &testfile.File{Policy: paths}
	b, err := interruptible(c.Context(), func() (*ask.Between, error) { return f.policyOf(file, map[string]*ask.Between{}) })
	if err != nil {
		return err
	}
	var leftOut []string
	tests, err := interruptible(c.Context(), func() (tests []ask.NamedTest, err error) {
		tests, leftOut, err = b.TestsOf()
		return tests, err
	})
	if err != nil {
		return fmt.Errorf("test: --init: %w", err)
	}
	for _, name := range leftOut {
		fmt.Fprintf(c.ErrOrStderr(), "warning: left out: %s\n", printable(name))
	}
	switch {
	case len(tests) == 0 && len(leftOut) > 0:
		return errors.New("test: --init: every test is left out")
	case len(tests) == 0:
		return errors.New("test: --init: the policy has no subnet with a network interface")
	}
	d := &f.from.deployment
	file.ServiceTags = f.from.serviceTags
	file.Templates = testfile.Templates{Parameters: d.Parameters, Subscription: d.Subscription, ResourceGroup: d.ResourceGroup, Location: d.Location, Runtime: d.Runtime}
	return testfile.Write(c.OutOrStdout(), file, tests)
}

// testTable prints a line a test, and for each that does not hold what breaks it.
func testTable(w io.Writer, a *testAnswer) error {
	count := map[string]int{}
	for i := range a.Tests {
		t := &a.Tests[i]
		count[t.Result]++
		if t.Result == ask.TestPass {
			fmt.Fprintf(w, "pass   %s\n", printable(t.Name))
			continue
		}
		fmt.Fprintf(w, "%-5s  %s\n", map[string]string{ask.TestFail: "FAIL", ask.TestError: "ERROR"}[t.Result], printable(t.Name))
		for _, line := range t.lines() {
			fmt.Fprintf(w, "       %-9s %s\n", line[0], printable(line[1]))
		}
	}
	parts := []string{fmt.Sprintf("%d passed", count[ask.TestPass])}
	if n := count[ask.TestFail]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", n))
	}
	if n := count[ask.TestError]; n > 0 {
		parts = append(parts, fmt.Sprintf("%d not decided", n))
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", plural(len(a.Tests), "test"), strings.Join(parts, ", "))
	return err
}

// lines are what there is to say about a test that does not hold: a word and a text each.
func (t *testOutcome) lines() (lines [][2]string) {
	lines = append(lines, [2]string{"file", fmt.Sprintf("%s:%d:%d", t.File, t.Line, t.Column)})
	if t.Witness == nil {
		return append(lines, [2]string{"message", t.Message})
	}
	return append(append(lines, [2]string{"packet", diffWitness(t.Witness)}, [2]string{"why", t.Message}), t.how()...)
}

// how is how it comes about that a packet breaks the test.
func (t *testOutcome) how() (lines [][2]string) {
	add := func(word, format string, args ...any) {
		lines = append(lines, [2]string{word, fmt.Sprintf(format, args...)})
	}
	for i := range t.Stages {
		s := &t.Stages[i]
		if s.Reason == ask.ReasonNoGroup {
			continue // nobody was asked
		}
		add(strings.ToLower(s.Direction), "%s: %s", s.Of, diffDecision(&s.DiffDecision))
	}
	for i := range t.Legs {
		l := &t.Legs[i]
		if text := legText(l); text != "" {
			add("route", "%s", text)
		}
		for j := range l.Translations {
			add("becomes", "%s", translationLine(&l.Translations[j]))
		}
	}
	if t.Others > 0 {
		add("others", "%s of packets, by other rules or ways", plural(t.Others, "further set"))
	}
	return lines
}

// legText is such as "VirtualAppliance of routes, via fw-nic".
func legText(l *ask.TestLeg) string {
	text := l.NextHop
	if l.RouteTable != "" {
		text += " of " + l.RouteTable
	}
	if l.Via != "" {
		text += ", via " + l.Via
	}
	return strings.TrimPrefix(text, ", ")
}

// testEntries are the tests for reports.
func testEntries(a *testAnswer) (entries []report.Entry) {
	for i := range a.Tests {
		t := &a.Tests[i]
		e := report.Entry{Name: t.Name, File: t.File, Line: t.Line, Column: t.Column}
		if t.Result != ask.TestPass {
			e.Level, e.Code = report.Error, "policy-test-"+t.Result
			e.Check = map[string]string{ask.TestFail: "A packet breaks a policy test", ask.TestError: "A policy test is not decided"}[t.Result]
			e.Message = t.Message
			if t.Witness != nil {
				e.Message += ": " + diffWitness(t.Witness)
			}
			for _, line := range t.how() {
				e.Message += "\n" + line[0] + " " + line[1]
			}
		}
		entries = append(entries, e)
	}
	return entries
}
