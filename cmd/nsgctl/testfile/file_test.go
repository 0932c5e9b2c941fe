package testfile

import (
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/deploy/schema/schematest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
)

const schema = "../../../deploy/schema/nsgctl-test.schema.json"

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// whole has every key.
const whole = `policy: [policy/, /abs/nsg.json]
serviceTags: tags.json
templates:
  parameters: [prod.parameters.json, location=northeurope]
  subscription: 00000000-0000-0000-0000-000000000001
  resourceGroup: rg
  location: northeurope
  runtime: runtime.json
tests:
- name: the internet reaches the web tier
  from: internet
  to: [{asg: [web, app]}, "subnet:vnet1/db", {address: 10.0.0.4}]
  protocol: [TCP]
  ports: [443, https, 8000-8010]
  expect: allow
  rule: AllowWeb
  networkSecurityGroup: web-nsg
  via: {nic: fw-nic}
  except:
  - {from: 10.0.0.0/8, protocol: UDP, ports: 53}
  - to: {publicIP: shop}
`

func TestReadTakesEveryKey(t *testing.T) {
	path := write(t, whole)
	f, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(path)
	if d := cmp.Diff([]string{filepath.Join(folder, "policy"), "/abs/nsg.json"}, f.Policy); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Templates{Parameters: []string{filepath.Join(folder, "prod.parameters.json"), "location=northeurope"},
		Subscription: "00000000-0000-0000-0000-000000000001", ResourceGroup: "rg", Location: "northeurope", Runtime: filepath.Join(folder, "runtime.json")}, f.Templates); d != "" {
		t.Error(d)
	}
	test := &f.Tests[0]
	if want := (yamlfile.Position{Line: 10, Column: 3}); test.Position != want {
		t.Errorf("the test is at %v, want %v", test.Position, want)
	}
	q := test.Question()
	services := []analysis.Service{{Protocol: packet.ProtoTCP, Ports: []ruleset.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 8010}}}}
	want := &ask.PolicyTest{
		TestPackets: ask.TestPackets{From: []string{"internet"}, To: []string{"asg:web", "asg:app", "subnet:vnet1/db", "10.0.0.4"}, Services: services},
		Expect:      ruleset.Allow, Rule: "AllowWeb", NetworkSecurityGroup: "web-nsg", Via: []string{"nic:fw-nic"},
		Except: []ask.TestPackets{
			{From: []string{"10.0.0.0/8"}, Services: []analysis.Service{{Protocol: packet.ProtoUDP, Ports: []ruleset.PortRange{{First: 53, Last: 53}}}}},
			{To: []string{"publicIP:shop"}, Services: services},
		},
	}
	if d := cmp.Diff(want, q); d != "" {
		t.Error(d)
	}
	if err := schematest.Validate(schema, []byte(whole)); err != nil {
		t.Error(err)
	}
}

func TestTheSchemaHasEveryKeyAndNoOther(t *testing.T) {
	for _, problem := range schematest.Compare(schema, reflect.TypeFor[File]()) {
		t.Error(problem)
	}
}

// everyOther is every second port of a range.
func everyOther(first, end int) string {
	var ports []string
	for n := first; n < end; n += 2 {
		ports = append(ports, strconv.Itoa(n))
	}
	return strings.Join(ports, ",")
}

func TestReadNamesWhatIsWrong(t *testing.T) {
	const head = "policy: policy\ntests:\n- name: n\n  from: internet\n  to: {asg: web}\n  expect: allow\n"
	tests := []struct {
		name, text, want string
		valid            bool // to the schema, which knows less
	}{
		{"a misspelled key", strings.Replace(head, "expect", "expcet", 1), `6:3: tests[0]: unknown key "expcet": allowed are name, from, to, protocol, ports, expect, except, rule, networkSecurityGroup, via; near are except, expect`, false},
		{"a misspelled kind of end", strings.Replace(head, "asg", "ags", 1), `5:8: tests[0].to: unknown key "ags": allowed are nic, vm, subnet, vnet, asg, tag, publicIP, address; near are asg, tag`, false},
		{"an end of two kinds", strings.Replace(head, "asg: web", "asg: web, vnet: v", 1), "5:7: tests[0].to: 2 keys: allowed is one kind, such as {asg: web}; several ends are a list", false},
		{"a test without ends and name", "policy: p\ntests: {expect: deny}", "2:8: name is missing", false},
		{"an answer that there is not", strings.Replace(head, "allow", "maybe", 1), `6:11: expect "maybe": allowed are allow and deny`, false},
		{"a name that another test has", head + strings.TrimPrefix(head, "policy: policy\ntests:\n"), `7:3: name "n": the test of line 3 has it`, true},
		{"a port that there is not", head + "  ports: [70000]", `7:11: port "70000": allowed are 0 to 65535, FIRST-LAST and the name of a service such as https`, false},
		{"a range that runs backwards", head + "  ports: 20-10", `7:10: port "20-10": allowed are 0 to 65535`, true},
		{"a protocol that there is not", head + "  protocol: [GREE]", `7:14: protocol "GREE": allowed are *, TCP, UDP, ICMP, ESP, AH and 0 to 255`, false},
		{"ports of a protocol without", head + "  protocol: ICMP\n  ports: 8", "7:13: protocol ICMP has no ports: allowed with ports are TCP and UDP", true},
		{"ports of every protocol", head + "  protocol: '*'\n  ports: 8", `7:13: protocol "*" has no ports: allowed with ports are TCP and UDP`, true},
		{"an exception of everything", head + "  except: [{}]", "7:12: except: all packets are left out", false},
		{"a way of what is denied", strings.Replace(head, "allow", "deny", 1) + "  via: nic:fw", "7:8: via: it goes with expect: allow", true},
		{"a list of no ports", head + "  ports: []", "7:10: tests[0].ports: an empty list: leave the key out for all, or list at least one", false},
		{"a list of no protocols", head + "  protocol: []", "7:13: tests[0].protocol: an empty list", false},
		{"a list of no ends", strings.Replace(head, "internet", "[]", 1), "4:9: tests[0].from: an empty list", false},
		{"a list of no names", strings.Replace(head, "web", "[]", 1), "5:13: tests[0].to: asg: an empty list: list at least one name", false},
		{"too many tests", "policy: p\ntests:\n" + strings.Repeat("- {}\n", maxTests+1), "5003:3: tests: 5001 of them: allowed are 5000 in a file", false},
		{"too many ends", strings.Replace(head, "internet", "["+strings.Repeat("10.0.0.4,", maxEnds+1)+"]", 1), ": 1001 ends: allowed are 1000 in a list; a subnet, a network or a prefix is one", true},
		{"too many exceptions", head + "  except: [" + strings.Repeat("{ports: 80},", maxExcept+1) + "]", ": except: 257 of them: allowed are 256 in a test", true},
		{"too many protocols", head + "  protocol: [" + strings.Repeat("TCP,", maxProtocols+1) + "]", ": 257 protocols: allowed are 256 in a list", true},
		{"too many ranges of ports", head + "  ports: [" + everyOther(0, 2*ask.MaxTestPorts+2) + "]", "7:11: 1001 ranges of ports: allowed are 1000", true},
		{"a file without tests", "policy: p", "web.yaml: tests are missing", false},
		{"a file without a policy", strings.TrimPrefix(head, "policy: policy\n"), "web.yaml: policy is missing", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(write(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
			if err := schematest.Validate(schema, []byte(tt.text)); (err == nil) != tt.valid {
				t.Errorf("the schema says %v", err)
			}
		})
	}
}
