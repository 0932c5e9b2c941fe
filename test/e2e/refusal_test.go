package e2e

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// fault breaks a configuration folder; says is what the refusal must name.
type fault struct {
	name   string
	policy bool // the fault is in the policy, which a reload reads again
	apply  func(t *testing.T, dir string)
	says   []string
}

var faults = []fault{
	{"a policy that is not JSON", true, func(t *testing.T, dir string) {
		writeFile(t, policyFile(dir, "nsg1"), `{"name": "NSG1", "properties": {`)
	}, []string{"nsg1.json"}},
	{"two rules of one priority and direction", true, func(t *testing.T, dir string) {
		twin := allowHTTPIn
		twin.name = "Twin"
		labPolicy().with(nsg1, twin).write(t, dir)
	}, []string{"SecurityRuleConflict", "Twin"}},
	{"a rule with a port that does not exist", true, func(t *testing.T, dir string) {
		wrong := allowHTTPIn
		wrong.port = "66600"
		groups(rules(wrong), nil).write(t, dir)
	}, []string{"SecurityRuleInvalidPortRange", "AllowHttpInBound", "66600"}},
	{"a network interface that names a missing group", true, func(t *testing.T, dir string) {
		editDocument(t, dir, "vm1-nic", func(properties map[string]any) {
			group := properties["networkSecurityGroup"].(map[string]any)
			group["id"] = strings.Replace(group["id"].(string), nsg2, "NSG9", 1)
		})
	}, []string{"vm1-nic", "NSG9"}},
	{"an unknown key in the configuration", false, func(t *testing.T, dir string) {
		appendConfig(t, dir, "flowz: {max: 1}\n")
	}, []string{"nsgd.yaml", "flowz"}},
	{"an attachment of an unknown network interface", false, func(t *testing.T, dir string) {
		appendAttachment(t, dir, "- networkInterface: vm9-nic\n  netns: nsgd-vm9\n  create: true\n  device: eth0\n")
	}, []string{"vm9-nic"}},
}

func appendConfig(t *testing.T, dir, text string) {
	t.Helper()
	file := filepath.Join(dir, lab.ConfigName)
	writeFile(t, file, readFile(t, file)+text)
}

func appendAttachment(t *testing.T, dir, text string) {
	t.Helper()
	file := filepath.Join(dir, lab.ConfigName)
	before, after, found := strings.Cut(readFile(t, file), "metrics:")
	if !found {
		t.Fatalf("%s has no metrics after its attachments", file)
	}
	writeFile(t, file, before+text+"metrics:"+after)
}

func TestBadInputIsRefusedAtTheStart(t *testing.T) {
	needWorld(t)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			dir := configure(t, labPolicy())
			f.apply(t, dir)
			for _, verb := range []string{"check", "run"} {
				a := execute(t, "nsgd", verb, "--config", filepath.Join(dir, lab.ConfigName))
				if a.code != 1 {
					t.Errorf("nsgd %s: exit %d, want 1", verb, a.code)
				}
				mustName(t, "nsgd "+verb, a, f.says)
			}
			nothingLeft(t)
		})
	}
}

func TestBadPolicyIsRefusedByAReloadAndTheRunningOneUntouched(t *testing.T) {
	for _, f := range faults {
		if !f.policy {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			d := start(t, labPolicy())
			d.expectErrors = true // a refused reload is one, to whoever reads the log
			open := map[family]net.Conn{}
			for _, f := range families {
				serveTCP(t, f.vm1, 80)
				open[f] = mustConnect(t, f.internet, f.vm1, 80)
			}
			generation := scrape(t)["nsgd_policy_generation"]

			f.apply(t, d.dir)
			a := execute(t, "nsgctl", "reload")
			if a.code != 1 {
				t.Errorf("nsgctl reload: exit %d, want 1", a.code)
			}
			mustName(t, "nsgctl reload", a, f.says)

			after := scrape(t)
			if after["nsgd_policy_generation"] != generation {
				t.Errorf("generation went from %v to %v", generation, after["nsgd_policy_generation"])
			}
			if after[sampleKey("nsgd_policy_reloads_total", map[string]string{"result": "failure"})] != 1 {
				t.Error("the failed reload is not counted")
			}
			eachFamily(t, func(t *testing.T, f family) {
				mustEcho(t, open[f])
				mustConnect(t, f.internet, f.vm1, 80)
				mustNotConnect(t, f.internet, f.vm1, 8080)
			})
		})
	}
}

func mustName(t *testing.T, what string, a answer, says []string) {
	t.Helper()
	for _, word := range says {
		if !strings.Contains(a.stdout+a.stderr, word) {
			t.Errorf("%s does not name %q: %v", what, word, a)
		}
	}
}
