package main

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/spf13/cobra"
)

// walk calls visit with each command of ours, the root too.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" { // those are cobra's
			walk(sub, visit)
		}
	}
}

var shellWord = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)

// commandLine checks that nsgctl takes the words behind its name: the command, its flags and their number of
// arguments. It runs nothing.
func commandLine(t *testing.T, line string) {
	t.Helper()
	var words []string
	for _, word := range shellWord.FindAllString(line, -1) {
		words = append(words, strings.Trim(word, `'"`))
	}
	root := newRoot()
	c, rest, err := root.Find(words[1:])
	if err != nil || c == root {
		t.Errorf("%s: no such command: %v", line, err)
		return
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%s: %v", line, err)
		return
	}
	if err := errors.Join(root.PersistentPreRunE(c, nil), c.ValidateArgs(c.Flags().Args())); err != nil && !strings.Contains(err.Error(), "there is no such file") {
		t.Errorf("%s: %v", line, err)
	}
}

func TestEveryCommandHasExamplesThatNsgctlTakes(t *testing.T) {
	walk(newRoot(), func(c *cobra.Command) {
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Example == "" {
				t.Fatal("--help has no example")
			}
			for _, line := range strings.Split(c.Example, "\n") {
				if !strings.HasPrefix(line, "  nsgctl ") {
					t.Errorf("%q does not begin with two spaces and nsgctl", line)
					continue
				}
				if c.HasParent() && !strings.HasPrefix(line, "  "+c.CommandPath()) {
					t.Errorf("%q is of another command", line)
				}
				commandLine(t, line)
			}
		})
	})
}

// Wrong use ends with 2 in every verb, with or without a daemon: 1 is for what was found.
func TestWrongUseEndsWithTwo(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	lines := []string{
		"", "nosuch", "help nosuch", "completion nosuch", "completion bash more",
		"capture", "capture -w x.pcapng --count -1", "capture -w x.pcapng -o json",
		"diagnose", "diagnose --nic a --direction Inbound --protocol TPC --source * --destination * --port 80", "diagnose --nic a --queries @nowhere",
		"diff", "diff policy", "diff policy nowhere", "diff policy policy --fail-on opened", "diff --git -x policy", "diff policy policy --max-states -1",
		"effective", "effective --nic a b", "effective --nic a --service-tags F", "effective --nic a --policy nowhere", "effective-routes", "effective-routes --nic a b",
		"flows --limit 0", "flows --limit many", "flows --address nowhere", "flows --protocol TPC", "flows more",
		"lint", "lint nowhere", "lint policy --fail-on some", "lint policy --service-tags nowhere", "lint policy --internet-prefixes 10.0.0.1/8",
		"next-hop", "next-hop --nic a --source-ip 10.0.0.4", "next-hop --nic a --source-ip x --dest-ip 10.0.0.4",
		"reload more", "replay", "replay x.pcap", "replay --policy policy", "replay --policy policy nowhere.pcap", "replay --policy policy --top -1 x.pcap", "replay --policy nowhere x.pcap",
		"rules --policy policy --unused", "rules more", "rules --policy policy --runtime nowhere", "security-group-view more", "status more",
		"tags", "tags nosuch", "tags list A B", "tags show", "tags show A B", "tags diff a", "tags diff nowhere nowhere",
		"top more", "top --once --view nics", "top --once --interval 1ms", "trace host x", "trace --sample -1",
		"validate", "validate nowhere", "validate policy --strict=perhaps", "verify", "verify --requests nowhere",
		"verify --policy policy --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4 --remote 203.0.113.10:5",
		"verify --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4:80 --remote 203.0.113.10:5 --expect perhaps", "version more", "man", "man a b",
	}
	walk(newRoot(), func(c *cobra.Command) {
		verb := strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "nsgctl"), " ")
		lines = append(lines, verb+" --nosuch", verb+" -o nosuch", verb+" --query [")
		for _, flag := range fileFlags {
			if c.Flags().Lookup(flag) != nil {
				lines = append(lines, verb+" --"+flag+" nowhere")
			}
		}
	})
	for _, line := range lines {
		t.Run("nsgctl "+line, func(t *testing.T) {
			var stderr strings.Builder
			args := append(strings.Fields(line), "--socket", "none.sock")
			code := execute(context.Background(), args, strings.NewReader(""), io.Discard, &stderr)
			if code != exitUsage || !strings.HasPrefix(stderr.String(), "nsgctl: ") || strings.HasPrefix(stderr.String(), "nsgctl: nsgctl") {
				t.Errorf("exit code %d, want %d: %s", code, exitUsage, stderr.String())
			}
		})
	}
}

// Of verbs that find something: 0 is nothing, 1 something, 2 wrong use, whatever --fail-on or --expect says.
func TestExitCodesOfVerbsThatFind(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	if err := os.CopyFS("wider", os.DirFS("policy")); err != nil {
		t.Fatal(err)
	}
	const rules = "wider/nsg1.json"
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rules, []byte(strings.Replace(string(text), `"destinationPortRange": "80"`, `"destinationPortRange": "*"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("tests.yaml", []byte("policy: [policy]\ntests:\n- {name: web, from: 203.0.113.10, to: nic:vm1-nic, protocol: TCP, ports: [80], expect: allow}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]int{
		"lint policy --fail-on never": 0, "lint policy --fail-on error": 0, "lint policy": exitNegative, "lint policy --fail-on info": exitNegative,
		"lint policy nowhere --fail-on never": exitUsage, "lint policy --fail-on never --waivers nowhere": exitUsage, "lint policy --fail-on": exitUsage,
		"diff policy policy --fail-on any": 0, "diff policy wider": 0, "diff policy wider --fail-on narrowed": 0, "diff policy wider --fail-on widened": exitNegative,
		"diff wider policy --fail-on narrowed": exitNegative, "diff policy wider --fail-on any": exitNegative, "diff policy nowhere --fail-on any": exitUsage,
		"diff --terraform-plan nowhere --fail-on any": exitUsage, "diff policy policy --parameters nowhere --fail-on any": exitUsage,
		"explain 203.0.113.10 vm1-nic:80/tcp --policy policy --expect allow": 0, "explain 203.0.113.10 vm1-nic:80/tcp --policy policy": 0,
		"explain 203.0.113.10 vm1-nic:80/tcp --policy policy --expect deny": exitNegative, "explain 203.0.113.10 vm1-nic:80/tcp --policy nowhere --expect deny": exitUsage,
		"explain 203.0.113.10 vm1-nic:80/tcp --policy policy --expect perhaps": exitUsage,
		"reach --to vm1-nic:80 --policy policy":                                0, "reach --from 203.0.113.10 --to vm1-nic:81 --policy policy": 0, "reach --to vm1-nic:80 --policy nowhere": exitUsage,
		"reach --to vm1-nic:80/tpc --policy policy": exitUsage, "reach --to vm1-nic:/tcp --policy policy": exitUsage, "explain internet vm1-nic: --policy policy": exitUsage, "test tests.yaml": 0, "test nowhere.yaml": exitUsage, "validate policy": 0, "validate nowhere": exitUsage,
	} {
		t.Run("nsgctl "+line, func(t *testing.T) {
			var stderr strings.Builder
			if code := execute(context.Background(), strings.Fields(line), strings.NewReader(""), io.Discard, &stderr); code != want {
				t.Errorf("exit code %d, want %d: %s", code, want, stderr.String())
			}
		})
	}
}

func TestANearNameIsTold(t *testing.T) {
	tests := []struct {
		name, line, want string
	}{
		{"of a verb", "statsu", `unknown command "statsu"; did you mean status?`},
		{"of several verbs", "effective-nsgs", `unknown command "effective-nsgs"` + "\n"},
		{"of the beginning of verbs", "effe", `did you mean effective or effective-routes?`},
		{"of a verb below a verb", "tags lst", `unknown command "lst"; did you mean list?`},
		{"of a verb to help with", "help tags shwo", `unknown command "shwo"; did you mean show?`},
		{"of a flag", "lint policy --fail-onn error", "lint: unknown flag: --fail-onn; did you mean --fail-on?"},
		{"of a flag of every verb", "status --sokcet x", "status: unknown flag: --sokcet; did you mean --socket?"},
		{"a value that is no number", "flows --limit many", `flows: --limit "many": allowed is a whole number`},
		{"of no flag", "status --frobnicate", "status: unknown flag: --frobnicate\n"},
		{"of no letter", "status -x", "status: unknown shorthand flag: 'x' in -x\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr strings.Builder
			code := execute(context.Background(), strings.Fields(tt.line), strings.NewReader(""), io.Discard, &stderr)
			if code != exitUsage || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr.String(), exitUsage, tt.want)
			}
		})
	}
}
