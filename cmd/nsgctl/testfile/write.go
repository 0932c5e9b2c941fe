package testfile

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"go.yaml.in/yaml/v3"
)

// Schema is the address of the schema of test files, for editors.
const Schema = "https://raw.githubusercontent.com/nsgd/nsgd/main/deploy/schema/nsgctl-test.schema.json"

// Write writes tests as a test file. Files other than the policy's are left to f.
func Write(w io.Writer, f *File, tests []ask.NamedTest) error {
	root := mapping(0)
	if len(f.Policy) > 0 {
		put(root, "policy", texts(f.Policy))
	}
	if f.ServiceTags != "" {
		put(root, "serviceTags", text(f.ServiceTags))
	}
	if t := templates(&f.Templates); len(t.Content) > 0 {
		put(root, "templates", t)
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range tests {
		list.Content = append(list.Content, testNode(&tests[i]))
	}
	put(root, "tests", list)
	var b bytes.Buffer
	fmt.Fprintf(&b, "# yaml-language-server: $schema=%s\n", Schema)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	_, err := b.WriteTo(w)
	return err
}

func templates(t *Templates) *yaml.Node {
	n := mapping(0)
	if len(t.Parameters) > 0 {
		put(n, "parameters", texts(t.Parameters))
	}
	for _, field := range []struct{ key, value string }{
		{"subscription", t.Subscription}, {"resourceGroup", t.ResourceGroup}, {"location", t.Location}, {"runtime", t.Runtime},
	} {
		if field.value != "" {
			put(n, field.key, text(field.value))
		}
	}
	return n
}

func testNode(t *ask.NamedTest) *yaml.Node {
	n := mapping(0)
	put(n, "name", text(t.Name))
	packetNode(n, &t.TestPackets)
	expect := allow
	if t.Expect == ruleset.Deny {
		expect = deny
	}
	put(n, "expect", text(expect))
	if len(t.Except) > 0 {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range t.Except {
			e := mapping(yaml.FlowStyle)
			packetNode(e, &t.Except[i])
			list.Content = append(list.Content, e)
		}
		put(n, "except", list)
	}
	return n
}

// packetNode adds the keys of packets. Their services have equal ports.
func packetNode(n *yaml.Node, p *ask.TestPackets) {
	if p.From != nil {
		put(n, "from", ends(p.From))
	}
	if p.To != nil {
		put(n, "to", ends(p.To))
	}
	if len(p.Services) == 0 {
		return
	}
	var protocols, ports []string
	for _, s := range p.Services {
		if name := packet.ProtocolName(s.Protocol); s.Protocol != packet.ProtoICMPv6 { // ICMP stands for both
			protocols = append(protocols, name)
		}
	}
	for _, r := range p.Services[0].Ports {
		ports = append(ports, analysis.PortRange(r))
	}
	if len(ports) == 0 || !slices.Equal(protocols, []string{"TCP", "UDP"}) {
		put(n, "protocol", texts(protocols))
	}
	if len(ports) > 0 {
		put(n, "ports", texts(ports))
	}
}

// ends are written as mappings of their kinds: {subnet: [v/a, v/b]}.
func ends(list []string) *yaml.Node {
	var nodes []*yaml.Node
	kinds := map[string]*yaml.Node{}
	names := map[string][]string{}
	for _, end := range list {
		kind, name, qualified := strings.Cut(end, ":")
		if !qualified || !slices.Contains(EndKinds, kind) {
			nodes = append(nodes, text(end))
			continue
		}
		if kinds[kind] == nil {
			kinds[kind] = mapping(yaml.FlowStyle)
			nodes = append(nodes, kinds[kind])
		}
		names[kind] = append(names[kind], name)
	}
	for kind, n := range kinds {
		put(n, kind, texts(names[kind]))
	}
	return oneOrList(nodes)
}

func mapping(style yaml.Style) *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Style: style} }

func put(n *yaml.Node, key string, value *yaml.Node) { n.Content = append(n.Content, text(key), value) }

// text is a scalar, quoted where it would be read as something else.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func texts(list []string) *yaml.Node {
	nodes := make([]*yaml.Node, len(list))
	for i, s := range list {
		nodes[i] = text(s)
		if strings.Trim(s, "0123456789") == "" {
			nodes[i].Tag = "!!int" // a port needs no quotes
		}
	}
	return oneOrList(nodes)
}

// oneOrList leaves out the brackets of a list of one.
func oneOrList(nodes []*yaml.Node) *yaml.Node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: nodes}
}
