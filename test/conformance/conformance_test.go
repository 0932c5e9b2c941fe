package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/azure"
)

var update = flag.Bool("update", false, "rewrite FACTS.md")

// tool is the built nsgctl.
var tool string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runWithTool(m))
}

func runWithTool(m *testing.M) int {
	dir, err := os.MkdirTemp("", "nsgd-conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	tool = filepath.Join(dir, "nsgctl")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", tool, "../../cmd/nsgctl")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "conformance: build of nsgctl:", err)
		return 1
	}
	return m.Run()
}

// eachCase runs f for every case that the filter takes.
func eachCase(t *testing.T, has func(*Case) bool, f func(*testing.T, *Case)) {
	t.Helper()
	files, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	cases, checks := 0, 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(file.Name, ".yaml"), func(t *testing.T) {
			for _, c := range file.Cases {
				if !has(c) {
					continue
				}
				cases, checks = cases+1, checks+c.Checks()
				t.Run(c.Name, func(t *testing.T) { f(t, c) })
			}
		})
	}
	if cases == 0 {
		t.Error("no case")
	}
	t.Logf("%d cases with %d expectations", cases, checks)
}

// onDisk writes a policy to files for nsgctl and the daemon. tags is empty when there is no
// service tag file.
func onDisk(t *testing.T, p *Policy) (policy, tags string) {
	t.Helper()
	document, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	policy = filepath.Join(dir, "policy.json")
	write(t, policy, document)
	if text := p.TagFileText(); text != "" {
		tags = filepath.Join(dir, "ServiceTags.json")
		write(t, tags, []byte(text))
	}
	return policy, tags
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs nsgctl and returns what it prints and its exit code.
func run(t *testing.T, stdin []byte, args ...string) (stdout []byte, stderr string, code int) {
	t.Helper()
	command := exec.Command(tool, args...)
	var out, errs bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(stdin), &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.Bytes(), errs.String(), command.ProcessState.ExitCode()
}

// sourceFlags name a policy for nsgctl.
func sourceFlags(policy, tags string) []string {
	flags := []string{"--policy", policy}
	if tags != "" {
		flags = append(flags, "--service-tags", tags)
	}
	return flags
}

func hasVerdicts(c *Case) bool { return len(c.Verdicts)+len(c.Path) > 0 }

func TestTheCompiledPolicyAnswersEveryVerdict(t *testing.T) {
	eachCase(t, hasVerdicts, func(t *testing.T, c *Case) {
		policy, tags := onDisk(t, &c.Policy)
		set, err := inspect.NewPolicyFiles(tags, policy).Load()
		if err != nil {
			t.Fatal(err)
		}
		snapshot, err := topology.Rebuild(nil, set, nil, topology.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		for path, verdicts := range map[bool][]Verdict{false: c.Verdicts, true: c.Path} {
			for i := range verdicts {
				v := &verdicts[i]
				question, err := azure.ParseFlow(v.Request())
				if err != nil {
					t.Errorf("%s: %v", v.Text, err)
					continue
				}
				result, err := ask.Verify(snapshot, question, path)
				if err != nil {
					t.Errorf("%s: %v", v.Text, err)
					continue
				}
				answered := Answered{Access: result.Access, RuleName: result.RuleName,
					NetworkSecurityGroup: result.NetworkSecurityGroup, Reason: result.Reason}
				if difference := v.Differs(&answered); difference != "" {
					t.Error(difference)
				}
			}
		}
	})
}

func TestNsgctlVerifyAnswersEveryVerdict(t *testing.T) {
	eachCase(t, hasVerdicts, func(t *testing.T, c *Case) {
		policy, tags := onDisk(t, &c.Policy)
		flags := append([]string{"verify", "-o", "json", "--requests", "-"}, sourceFlags(policy, tags)...)
		compareVerify(t, c.Verdicts, flags)
		compareVerify(t, c.Path, append(flags, "--path"))
	})
}

func compareVerify(t *testing.T, verdicts []Verdict, args []string) {
	t.Helper()
	if len(verdicts) == 0 {
		return
	}
	var requests []byte
	for i := range verdicts {
		requests = append(requests, verdicts[i].Request()...)
	}
	answers := verify(t, requests, args...)
	if len(answers) != len(verdicts) {
		t.Fatalf("%d answers to %d requests", len(answers), len(verdicts))
	}
	for i := range verdicts {
		if difference := verdicts[i].Differs(&answers[i]); difference != "" {
			t.Error(difference)
		}
	}
}

// verify runs nsgctl verify on requests, one a line.
func verify(t *testing.T, requests []byte, args ...string) []Answered {
	t.Helper()
	stdout, stderr, code := run(t, requests, args...)
	if code != 0 {
		t.Errorf("nsgctl %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	var answers []Answered
	for line := range bytes.Lines(stdout) {
		var a Answered
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		answers = append(answers, a)
	}
	return answers
}

func TestNsgctlGivesEveryAnswer(t *testing.T) {
	eachCase(t, func(c *Case) bool { return len(c.Answers) > 0 }, func(t *testing.T, c *Case) {
		policy, tags := onDisk(t, &c.Policy)
		for _, a := range c.Answers {
			args := append(strings.Fields(a.Run), "-o", "json")
			if strings.HasPrefix(a.Run, "validate") {
				args = append(args, policy)
			} else {
				args = append(args, sourceFlags(policy, tags)...)
			}
			stdout, stderr, code := run(t, nil, args...)
			if code != a.Exit {
				t.Fatalf("nsgctl %s: exit code %d, want %d: %s", a.Run, code, a.Exit, stderr)
			}
			if a.JSON == nil {
				continue
			}
			var got any
			if err := json.Unmarshal(stdout, &got); err != nil {
				t.Fatalf("nsgctl %s: %v\n%s", a.Run, err, stdout)
			}
			if missing := lacks(got, plain(t, a.JSON), ""); missing != "" {
				t.Errorf("nsgctl %s: %s\n%s", a.Run, missing, stdout)
			}
		}
	})
}

// plain is a YAML value in JSON's types.
func plain(t *testing.T, v any) (out any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// lacks says which part of want is missing in got, see Answer.
func lacks(got, want any, at string) string {
	switch want := want.(type) {
	case map[string]any:
		if among, ok := want["has"].([]any); ok {
			return lacksAmong(got, among, at)
		}
		object, ok := got.(map[string]any)
		if !ok {
			return fmt.Sprintf("%s is %v, want an object", at, got)
		}
		for key, v := range want {
			field, there := object[key]
			if !there {
				return fmt.Sprintf("%s.%s is missing", at, key)
			}
			if missing := lacks(field, v, at+"."+key); missing != "" {
				return missing
			}
		}
		return ""
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Sprintf("%s is %v, want a list of %d", at, got, len(want))
		}
		for i := range want {
			if missing := lacks(list[i], want[i], fmt.Sprintf("%s[%d]", at, i)); missing != "" {
				return missing
			}
		}
		return ""
	}
	if got != want {
		return fmt.Sprintf("%s is %v, want %v", at, got, want)
	}
	return ""
}

func lacksAmong(got any, among []any, at string) string {
	list, _ := got.([]any)
	for _, want := range among {
		found := false
		for _, v := range list {
			found = found || lacks(v, want, at) == ""
		}
		if !found {
			return fmt.Sprintf("%s has no %v", at, want)
		}
	}
	return ""
}
