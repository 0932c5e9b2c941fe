// Package testfile reads the files of nsgctl test: what packets a policy has to allow and to deny.
package testfile

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"go.yaml.in/yaml/v3"
)

// File is a test file.
type File struct {
	// Path is the file's.
	Path string
	// Policy are files and folders of ARM JSON, templates or Terraform plans, relative to the file.
	Policy []string `yaml:"policy"`
	// ServiceTags is Microsoft's service tag file, relative to the file.
	ServiceTags string `yaml:"serviceTags"`
	// Templates is what ARM templates of the policy are evaluated with.
	Templates Templates `yaml:"templates"`
	Tests     []Test    `yaml:"tests"`
}

// Templates are the keys of templates in nsgd.yaml that say something about a policy.
type Templates struct {
	// Parameters are parameters files, relative to the test file, or NAME=VALUE; the last value of a name holds.
	Parameters    []string `yaml:"parameters"`
	Subscription  string   `yaml:"subscription"`
	ResourceGroup string   `yaml:"resourceGroup"`
	Location      string   `yaml:"location"`
	// Runtime is a file of what only Azure knows, relative to the test file.
	Runtime string `yaml:"runtime"`
}

// Test is one case. It holds for every packet of its set, or fails.
type Test struct {
	yamlfile.Position
	Name string `yaml:"name"`
	From Ends   `yaml:"from"`
	To   Ends   `yaml:"to"`
	// Protocol are names or IANA's numbers; none: every protocol.
	Protocol Texts `yaml:"protocol"`
	// Ports are destination ports of TCP and UDP at which packets arrive at To: numbers, ranges, or names of services;
	// none: every port. See ask.TestPackets.
	Ports  Texts `yaml:"ports"`
	Expect Text  `yaml:"expect"`
	// Except are packets that the test says nothing about.
	Except []Except `yaml:"except"`
	// Rule and NetworkSecurityGroup must be among what decides; empty: whichever does.
	Rule                 string `yaml:"rule"`
	NetworkSecurityGroup string `yaml:"networkSecurityGroup"`
	// Via are the virtual appliances that all packets pass, in this order; none: whichever do.
	Via Ends `yaml:"via"`
}

// Except are packets. What is left out is as in the test.
type Except struct {
	yamlfile.Position
	From     Ends  `yaml:"from"`
	To       Ends  `yaml:"to"`
	Protocol Texts `yaml:"protocol"`
	Ports    Texts `yaml:"ports"`
}

// The values of Test.Expect.
const (
	allow = "allow"
	deny  = "deny"
)

// Text is a text with its position.
type Text struct {
	yamlfile.Position
	Value string
}

// UnmarshalYAML reads any scalar.
func (t *Text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return yamlfile.PositionOf(n).Errorf("allowed is a text")
	}
	*t = Text{yamlfile.PositionOf(n), n.Value}
	return nil
}

// Texts are one text, or a list of at least one: what is absent means all, and an empty list looks like none.
type Texts []Text

// UnmarshalYAML reads a scalar, or a list of scalars.
func (t *Texts) UnmarshalYAML(n *yaml.Node) error {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		if nodes = n.Content; len(nodes) == 0 {
			return emptyList(n)
		}
	}
	*t = make(Texts, len(nodes))
	for i, one := range nodes {
		if err := (*t)[i].UnmarshalYAML(one); err != nil {
			return err
		}
	}
	return nil
}

func emptyList(n *yaml.Node) *yamlfile.Fault {
	return yamlfile.PositionOf(n).Errorf("an empty list: leave the key out for all, or list at least one")
}

// Ends are who sends or receives: each as KIND:NAME, an address, a prefix or a name.
type Ends []Text

// EndKinds are the kinds that an end may name.
var EndKinds = []string{"nic", "vm", "subnet", "vnet", "asg", "tag", "publicIP", "address"}

// UnmarshalYAML reads a text such as internet, a mapping such as {asg: web} or {asg: [web, app]}, or a list
// of these.
func (e *Ends) UnmarshalYAML(n *yaml.Node) error {
	switch n.Kind {
	case yaml.SequenceNode:
		if len(n.Content) == 0 {
			return emptyList(n)
		}
		for _, one := range n.Content {
			if one.Kind == yaml.SequenceNode {
				return yamlfile.PositionOf(one).Errorf("a list in a list: allowed are texts and mappings such as {asg: web}")
			}
			if err := e.UnmarshalYAML(one); err != nil {
				return err
			}
		}
		return nil
	case yaml.MappingNode:
		return e.mapping(n)
	}
	var t Text
	if err := t.UnmarshalYAML(n); err != nil {
		return yamlfile.PositionOf(n).Errorf("allowed are a text such as internet, a mapping such as {asg: web}, or a list of these")
	}
	*e = append(*e, t)
	return nil
}

func (e *Ends) mapping(n *yaml.Node) error {
	if len(n.Content) != 2 {
		return yamlfile.PositionOf(n).Errorf("%d keys: allowed is one kind, such as {asg: web}; several ends are a list", len(n.Content)/2)
	}
	kind, names := n.Content[0], []*yaml.Node{n.Content[1]}
	if !slices.Contains(EndKinds, kind.Value) {
		near := ruleset.NewNearMiss(kind.Value)
		for _, k := range EndKinds {
			near.Try(k, strings.ToLower(k), false)
		}
		return yamlfile.PositionOf(kind).Errorf("unknown key %q: allowed are %s%s", ruleset.Clip(kind.Value), strings.Join(EndKinds, ", "), near.Hint())
	}
	if names[0].Kind == yaml.SequenceNode {
		if names = names[0].Content; len(names) == 0 {
			return yamlfile.PositionOf(n.Content[1]).Errorf("%s: an empty list: list at least one name", kind.Value)
		}
	}
	for _, name := range names {
		var t Text
		if err := t.UnmarshalYAML(name); err != nil {
			return err
		}
		if kind.Value != "address" {
			t.Value = kind.Value + ":" + t.Value
		}
		*e = append(*e, t)
	}
	return nil
}

// Read reads and checks a test file. The error is yamlfile.Faults when the file's text is to blame.
func Read(path string) (*File, error) {
	f := &File{}
	if err := yamlfile.Read(path, f); err != nil {
		return nil, err
	}
	f.Path = path
	c := checker{names: map[string]int{}}
	c.file(f)
	if len(c.faults) > 0 {
		return nil, c.faults.In(path)
	}
	f.resolve(filepath.Dir(path))
	return f, nil
}

// resolve makes paths relative to the working directory.
func (f *File) resolve(folder string) {
	under := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(folder, path)
	}
	for i := range f.Policy {
		f.Policy[i] = under(f.Policy[i])
	}
	f.ServiceTags, f.Templates.Runtime = under(f.ServiceTags), under(f.Templates.Runtime)
	for i, p := range f.Templates.Parameters {
		if !arm.IsAssignment(p) {
			f.Templates.Parameters[i] = under(p)
		}
	}
}

// The bounds of a file. A test has ask.MaxTestPorts ranges of ports.
const (
	maxTests     = 5000
	maxEnds      = 1000 // in a list
	maxExcept    = 256
	maxProtocols = 256
)

// checker collects what is wrong with a file's values.
type checker struct {
	names  map[string]int // the line of each name
	faults yamlfile.Faults
}

func (c *checker) fail(at yamlfile.Position, format string, args ...any) {
	c.faults = append(c.faults, at.Errorf(format, args...))
}

func (c *checker) file(f *File) {
	if len(f.Policy) == 0 {
		c.fail(yamlfile.Position{}, "policy is missing: allowed are files and folders, relative to this file")
	}
	switch n := len(f.Tests); {
	case n == 0:
		c.fail(yamlfile.Position{}, "tests are missing")
	case n > maxTests:
		c.fail(f.Tests[maxTests].Position, "tests: %d of them: allowed are %d in a file", n, maxTests)
		return
	}
	for i := range f.Tests {
		c.test(&f.Tests[i])
	}
}

func (c *checker) test(t *Test) {
	if t.Name == "" {
		c.fail(t.Position, "name is missing")
	} else if line := c.names[t.Name]; line > 0 {
		c.fail(t.Position, "name %q: the test of line %d has it", ruleset.Clip(t.Name), line)
	}
	c.names[t.Name] = t.Line
	if len(t.From) == 0 {
		c.fail(t.Position, "from is missing: allowed are internet, KIND:NAME with one of %s, addresses and prefixes", strings.Join(EndKinds, ", "))
	}
	if len(t.To) == 0 {
		c.fail(t.Position, "to is missing: allowed is what from allows")
	}
	switch {
	case t.Expect.Value == "":
		c.fail(t.Position, "expect is missing: allowed are allow and deny")
	case t.Expect.Value != allow && t.Expect.Value != deny:
		c.fail(t.Expect.Position, "expect %q: allowed are allow and deny", ruleset.Clip(t.Expect.Value))
	}
	if len(t.Via) > 0 && t.Expect.Value == deny {
		c.fail(t.Via[0].Position, "via: it goes with expect: allow; a denied packet has no way")
	}
	if n := len(t.Except); n > maxExcept {
		c.fail(t.Except[maxExcept].Position, "except: %d of them: allowed are %d in a test", n, maxExcept)
		return
	}
	for _, list := range []Ends{t.From, t.To, t.Via} {
		c.ends(list)
	}
	c.services(t.Protocol, t.Ports)
	for i := range t.Except {
		e := &t.Except[i]
		if len(e.From)+len(e.To)+len(e.Protocol)+len(e.Ports) == 0 {
			c.fail(e.Position, "except: all packets are left out: allowed are from, to, protocol and ports")
		}
		c.ends(e.From)
		c.ends(e.To)
		c.services(e.Protocol, e.Ports)
	}
}

func (c *checker) ends(list Ends) {
	if n := len(list); n > maxEnds {
		c.fail(list[maxEnds].Position, "%d ends: allowed are %d in a list; a subnet, a network or a prefix is one", n, maxEnds)
	}
}

// services finds the first text that is to blame.
func (c *checker) services(protocols, ports Texts) {
	if n := len(protocols); n > maxProtocols {
		c.fail(protocols[maxProtocols].Position, "%d protocols: allowed are %d in a list", n, maxProtocols)
		return
	}
	if _, err := ask.ServicesOf(nil, values(ports)); err != nil {
		c.ports(ports, err)
		return
	}
	for _, p := range protocols {
		if _, err := ask.ServicesOf([]string{p.Value}, values(ports)); err != nil {
			c.fail(p.Position, "%v", err)
			return
		}
	}
}

// ports blames the first of some ports that is wrong by itself, or the list for an error of all.
func (c *checker) ports(ports Texts, all error) {
	for _, p := range ports {
		if _, err := ask.ServicesOf(nil, []string{p.Value}); err != nil {
			c.fail(p.Position, "%v", err)
			return
		}
	}
	c.fail(ports[0].Position, "%v", all)
}

func values(texts []Text) (list []string) {
	for _, t := range texts {
		list = append(list, t.Value)
	}
	return list
}

// Question is the test as package ask takes it.
func (t *Test) Question() *ask.PolicyTest {
	q := &ask.PolicyTest{TestPackets: packets(t.From, t.To, t.Protocol, t.Ports), Rule: t.Rule, NetworkSecurityGroup: t.NetworkSecurityGroup,
		Via: values(t.Via), Expect: ruleset.Allow}
	if t.Expect.Value == deny {
		q.Expect = ruleset.Deny
	}
	for i := range t.Except {
		e := &t.Except[i]
		q.Except = append(q.Except, packets(e.From, e.To, e.Protocol, e.Ports))
	}
	for i := range q.Except { // what is left out is as in the test
		if e := &q.Except[i]; e.Services == nil {
			e.Services = q.Services
		}
	}
	return q
}

// packets are valid: Read has checked them.
func packets(from, to Ends, protocols, ports Texts) ask.TestPackets {
	services, err := ask.ServicesOf(values(protocols), values(ports))
	if err != nil {
		panic(err)
	}
	return ask.TestPackets{From: values(from), To: values(to), Services: services}
}
