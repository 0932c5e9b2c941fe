package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// questionsPerForm are asked of each policy in each form.
const questionsPerForm = 20

// Each random policy is written in every form that is read, and all give the same answers. The policies are others in
// each run, unless NSGD_CONFORMANCE_SEED says which; NSGD_CONFORMANCE_POLICIES=100000 takes more of them.
func TestEveryFormOfAPolicyGivesTheSameAnswers(t *testing.T) {
	policies, seed := randomSize(t)
	if os.Getenv(seedEnv) == "" {
		seed = rand.Uint64()
	}
	const parts = 16
	t.Run("policies", func(t *testing.T) {
		for part := range parts {
			t.Run(strconv.Itoa(part), func(t *testing.T) {
				t.Parallel()
				for i := part; i < policies && !t.Failed(); i += parts {
					compareForms(t, seed, uint64(i))
				}
			})
		}
	})
	t.Logf("%s=%d: %d policies, %d questions in each form", seedEnv, seed, policies, policies*questionsPerForm)
}

func compareForms(t *testing.T, seed, i uint64) {
	t.Helper()
	// Forms differ in what is around rules more than in how many there are, and small policies are many more in the same time.
	most := large
	if i%16 > 0 {
		most = small
	}
	g := generate(rand.New(rand.NewPCG(seed, i)), most)
	m := modelOf(g)
	flows := questions(t, g)
	want := m.answers(t, "arm.json", m.arm(), flows)
	for _, form := range []struct {
		name string
		text []byte
	}{
		{"az", m.az()}, {"PowerShell", m.powerShell()}, {"template", m.template(false)}, {"export", m.template(true)}, {"plan", m.plan()},
	} {
		got := m.answers(t, form.name+".json", form.text, flows)
		if !slices.Equal(got, want) {
			for j := range got {
				if j < len(want) && got[j] != want[j] {
					t.Errorf("%s: %+v: got %s, want %s", form.name, *flows[j], got[j], want[j])
				}
			}
			t.Errorf("policy %d of %s=%d differs as %s:\n%s\nof\n%s", i, seedEnv, seed, form.name, form.text, m.arm())
			return
		}
	}
}

// questions are questions about a policy.
func questions(t *testing.T, g *generated) []*azure.Flow {
	t.Helper()
	flows := make([]*azure.Flow, questionsPerForm)
	for i := range flows {
		q := g.question()
		flow, err := azure.ParseFlow(requestOf(&q))
		if err != nil {
			t.Fatal(err)
		}
		flows[i] = flow
	}
	return flows
}

// answers reads a policy and answers questions about it.
func (m *model) answers(t *testing.T, name string, text []byte, questions []*azure.Flow) []string {
	t.Helper()
	d := arm.Parse(name, text)
	if len(d.Faults)+len(d.Unresolved) > 0 {
		t.Errorf("%s: faults %v, unresolved %v", name, d.Faults, d.Unresolved)
		return nil
	}
	return m.answersOf(t, d, questions)
}

func (m *model) answersOf(t *testing.T, d *arm.Documents, questions []*azure.Flow) (answers []string) {
	t.Helper()
	d.Set.ServiceTags = map[string][]netip.Prefix{}
	for _, group := range d.Set.NetworkSecurityGroups {
		for i := range group.Rules {
			for _, peer := range []*ruleset.Peer{&group.Rules[i].Source, &group.Rules[i].Destination} {
				d.Set.ServiceTags[peer.Tag] = m.tags[strings.ToLower(peer.Tag)]
			}
		}
	}
	s, err := topology.Build(d.Set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, flow := range questions {
		r, err := ask.Verify(s, flow, false)
		if err != nil {
			answers = append(answers, "error")
			continue
		}
		answers = append(answers, fmt.Sprintf("%s %s of %s", r.Access, r.RuleName, r.NetworkSecurityGroup))
	}
	return answers
}

// model is a policy that all forms are made of.
type model struct {
	r         *rand.Rand
	resources []part
	tags      map[string][]netip.Prefix // by name in lower case
}

// part is a resource or a child in a list of one.
type part struct {
	kind, name string
	properties map[string]any // lists of children are []part
}

// childLists are the properties that are lists of children.
var childLists = []string{"securityRules", "subnets", "ipConfigurations"}

func modelOf(g *generated) *model {
	var resources []map[string]any
	if err := json.Unmarshal(g.document(), &resources); err != nil {
		panic(err) // it was written from such values
	}
	m := &model{r: g.r, tags: map[string][]netip.Prefix{}}
	for name, prefixes := range g.tags {
		for _, p := range prefixes {
			m.tags[strings.ToLower(name)] = append(m.tags[strings.ToLower(name)], netip.MustParsePrefix(p))
		}
	}
	for _, r := range resources {
		m.resources = append(m.resources, partOf(r, strings.TrimPrefix(r["type"].(string), "Microsoft.Network/")))
	}
	return m
}

func partOf(o map[string]any, kind string) part {
	p := part{kind: kind, name: o["name"].(string), properties: map[string]any{}}
	fields := o
	if inner, ok := o["properties"].(map[string]any); ok {
		fields = inner
	}
	for name, v := range fields {
		switch {
		case name == "name" || name == "id" || name == "type" || name == "defaultSecurityRules":
		case slices.Contains(childLists, name):
			var children []part
			for _, e := range v.([]any) {
				children = append(children, partOf(e.(map[string]any), kind+"/"+name))
			}
			p.properties[name] = children
		default:
			p.properties[name] = v
		}
	}
	return p
}

// form writes parts: each as wrap does, with references as refer does.
type form struct {
	wrap  func(p part, path []string, properties map[string]any) map[string]any
	refer func(kind string, names []string) any
}

// write writes a part with those that it lists.
func (f *form) write(p part, path []string) map[string]any {
	path = append(slices.Clone(path), p.name)
	properties := map[string]any{}
	for name, v := range p.properties {
		if children, ok := v.([]part); ok {
			list := []any{}
			for _, c := range children {
				list = append(list, f.write(c, path))
			}
			properties[name] = list
			continue
		}
		properties[name] = f.value(v)
	}
	return f.wrap(p, path, properties)
}

// value writes a property: references are {"id": ...}, alone and in lists.
func (f *form) value(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if id, ok := v["id"].(string); ok {
			kind, names := splitID(id)
			return map[string]any{"id": f.refer(kind, names)}
		}
		out := map[string]any{}
		for name, e := range v {
			out[name] = f.value(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = f.value(e)
		}
		return out
	}
	return v
}

// splitID splits an id into the type and the names.
func splitID(id string) (kind string, names []string) {
	segments := strings.Split(id, "/")[7:]
	var types []string
	for i, s := range segments {
		if i%2 == 0 {
			types = append(types, s)
		} else {
			names = append(names, s)
		}
	}
	return strings.Join(types, "/"), names
}

// idOf is the id of a part: types and names take turns.
func idOf(kind string, names []string) string {
	types := strings.Split(kind, "/")
	path := ""
	for i := range types {
		path += "/" + types[i] + "/" + names[i]
	}
	return "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network" + path
}

func refersByID(kind string, names []string) any { return idOf(kind, names) }

// list writes all resources, in any order.
func (m *model) list(f *form) []any {
	var list []any
	for _, p := range m.resources {
		list = append(list, f.write(p, nil))
	}
	m.r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// arm is the REST API's form.
func (m *model) arm() []byte {
	return mustJSON(map[string]any{"value": m.list(&form{refer: refersByID, wrap: func(p part, path []string, properties map[string]any) map[string]any {
		return map[string]any{"name": p.name, "id": idOf(p.kind, path), "type": "Microsoft.Network/" + p.kind, "etag": "e", "properties": properties}
	}})})
}

// az is the form of az: properties one level up, and all fields of a rule.
func (m *model) az() []byte {
	return mustJSON(m.list(&form{refer: refersByID, wrap: func(p part, path []string, properties map[string]any) map[string]any {
		out := map[string]any{"provisioningState": "Succeeded", "resourceGroup": "r"}
		if strings.HasSuffix(p.kind, "/securityRules") {
			for _, end := range []string{"source", "destination"} {
				out[end+"AddressPrefix"], out[end+"AddressPrefixes"], out[end+"PortRange"], out[end+"PortRanges"] = "", []any{}, nil, []any{}
			}
		}
		for name, v := range properties {
			out[name] = v
		}
		out["name"], out["id"], out["type"] = p.name, idOf(p.kind, path), "Microsoft.Network/"+p.kind
		return out
	}}))
}

// powerShell is the form of ConvertTo-Json: capitals, and lists for what may be several.
func (m *model) powerShell() []byte {
	return mustJSON(m.list(&form{refer: refersByID, wrap: func(p part, path []string, properties map[string]any) map[string]any {
		out := map[string]any{"Name": p.name, "Id": idOf(p.kind, path), "Etag": "e", "ProvisioningState": "Succeeded"}
		for name, v := range properties {
			singular := strings.TrimSuffix(name, "es")
			if strings.HasSuffix(name, "PortRanges") {
				singular = strings.TrimSuffix(name, "s")
			}
			ofRule := strings.HasSuffix(p.kind, "/securityRules") && (strings.HasSuffix(singular, "AddressPrefix") || strings.HasSuffix(singular, "PortRange"))
			list, several := v.([]any)
			switch {
			case ofRule && several && len(list) == 0: // the other field has it
			case ofRule && several:
				out[capital(singular)] = list
			case ofRule:
				out[capital(singular)] = []any{v}
			default:
				out[capital(name)] = v
			}
		}
		return capitals(out).(map[string]any)
	}}))
}

func capital(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

func capitals(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, e := range v {
			out[capital(name)] = capitals(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = capitals(e)
		}
		return out
	}
	return v
}

// template is an ARM template whose names are parameters. As the portal exports it, rules and
// subnets are there twice: inside, and as resources of their own.
func (m *model) template(export bool) []byte {
	parameters, resources := map[string]any{}, []any{}
	quoted := func(kind string, names []string) string {
		list := []string{"parameters('" + parameterOf(kind, names[0]) + "')"}
		for _, name := range names[1:] {
			list = append(list, "'"+name+"'")
		}
		return strings.Join(list, ", ")
	}
	refer := func(kind string, names []string) any {
		return "[resourceId('Microsoft.Network/" + kind + "', " + quoted(kind, names) + ")]"
	}
	var children []any
	f := &form{refer: refer, wrap: func(p part, path []string, properties map[string]any) map[string]any {
		out := map[string]any{"name": p.name, "properties": properties}
		if len(path) == 1 {
			parameters[parameterOf(p.kind, p.name)] = map[string]any{"type": "String", "defaultValue": p.name}
			out["type"], out["apiVersion"], out["name"] = "Microsoft.Network/"+p.kind, "2023-09-01", "["+quoted(p.kind, path)+"]"
			return out
		}
		if !export {
			return out
		}
		out["id"], out["type"] = refer(p.kind, path), "Microsoft.Network/"+p.kind
		if !strings.HasPrefix(p.kind, "networkInterfaces") {
			parent, _ := filepath.Split(p.kind)
			children = append(children, map[string]any{
				"type": "Microsoft.Network/" + p.kind, "apiVersion": "2023-09-01", "name": "[concat(" + quoted(p.kind, path[:1]) + ", '/" + p.name + "')]",
				"dependsOn": []any{refer(strings.TrimSuffix(parent, "/"), path[:1])}, "properties": properties,
			})
		}
		return out
	}}
	resources = append(resources, m.list(f)...)
	resources = append(resources, children...)
	m.r.Shuffle(len(resources), func(i, j int) { resources[i], resources[j] = resources[j], resources[i] })
	return mustJSON(map[string]any{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
		"parameters": parameters, "resources": resources})
}

// parameterOf is the parameter with the name of a resource, as the portal calls it.
func parameterOf(kind, name string) string {
	kind, _, _ = strings.Cut(kind, "/")
	return strings.ToLower(kind + "_" + name + "_name")
}

// plan is a Terraform plan of resources that do not exist yet. Its references are in the
// configuration, and its resources in any order. Names of virtual networks are known only
// after apply.
func (m *model) plan() []byte {
	p := &plan{unknownNames: m.r.IntN(2) == 0}
	for _, r := range m.resources {
		switch r.kind {
		case "networkSecurityGroups":
			p.group(r, m.r.IntN(2) == 0)
		case "virtualNetworks":
			p.network(r)
		case "networkInterfaces":
			p.networkInterface(r)
		case "applicationSecurityGroups":
			p.add("azurerm_application_security_group", r.name, &block{known: map[string]any{"name": r.name}})
		}
	}
	var planned, changes, configured []any
	m.r.Shuffle(len(p.resources), func(i, j int) { p.resources[i], p.resources[j] = p.resources[j], p.resources[i] })
	for _, r := range p.resources {
		head := func(field string, v any) map[string]any {
			return map[string]any{"address": r.kind + "." + r.name, "mode": "managed", "type": r.kind, "name": r.name, field: v}
		}
		planned = append(planned, head("values", r.known))
		r.unknown["id"] = true
		changes = append(changes, head("change", map[string]any{"actions": []any{"create"}, "after_unknown": r.unknown}))
		configured = append(configured, head("expressions", r.expressions))
	}
	return mustJSON(map[string]any{
		"format_version": "1.2", "terraform_version": "1.9.5", "resource_changes": changes,
		"planned_values": map[string]any{"root_module": map[string]any{"resources": planned}},
		"configuration":  map[string]any{"root_module": map[string]any{"resources": configured}},
	})
}

type plan struct {
	resources    []*planned
	unknownNames bool
}

type planned struct {
	kind, name string
	*block
}

// block is a resource of a plan or a block in it.
type block struct{ known, unknown, expressions map[string]any }

func (p *plan) add(kind, name string, b *block) {
	b.complete()
	b.known["resource_group_name"] = "r"
	p.resources = append(p.resources, &planned{kind, name, b})
}

// complete makes constants of the known values.
func (b *block) complete() {
	if b.unknown == nil {
		b.unknown = map[string]any{}
	}
	if b.expressions == nil {
		b.expressions = map[string]any{}
	}
	for name, v := range b.known {
		if b.expressions[name] == nil {
			b.expressions[name] = map[string]any{"constant_value": v}
		}
	}
}

// refer makes a field known only after apply.
func (b *block) refer(field, attribute string, addresses ...string) {
	if b.unknown == nil {
		b.unknown, b.expressions = map[string]any{}, map[string]any{}
	}
	var references []any
	for _, a := range addresses {
		references = append(references, a+attribute, a)
	}
	b.unknown[field], b.expressions[field] = true, map[string]any{"references": references}
}

// referenced are the addresses of {"id": ...} in the model, in one or a list.
func referenced(v any, kind string) (addresses []string) {
	list, several := v.([]any)
	if !several && v != nil {
		list = []any{v}
	}
	for _, e := range list {
		_, names := splitID(e.(map[string]any)["id"].(string))
		addresses = append(addresses, kind+"."+strings.ToLower(strings.Join(names, "_")))
	}
	return addresses
}

const (
	planGroup  = "azurerm_network_security_group"
	planASG    = "azurerm_application_security_group"
	planSubnet = "azurerm_subnet"
)

func (p *plan) group(g part, inline bool) {
	out := &block{known: map[string]any{"name": g.name}}
	var known, unknown, expressions []any
	rules, _ := g.properties["securityRules"].([]part)
	for _, r := range rules {
		b := &block{known: map[string]any{"name": r.name}}
		for name, v := range r.properties {
			if !strings.HasSuffix(name, "ApplicationSecurityGroups") {
				b.known[snake(name)] = v
				continue
			}
			b.refer(strings.TrimSuffix(snake(name), "s")+"_ids", ".id", referenced(v, planASG)...)
		}
		if inline {
			b.complete()
			known, unknown, expressions = append(known, b.known), append(unknown, b.unknown), append(expressions, b.expressions)
			continue
		}
		b.refer("network_security_group_name", ".name", planGroup+"."+g.name)
		p.add("azurerm_network_security_rule", g.name+"_"+r.name, b)
	}
	if inline {
		out.known["security_rule"], out.unknown, out.expressions = known, map[string]any{"security_rule": unknown}, map[string]any{"security_rule": expressions}
	}
	p.add(planGroup, g.name, out)
}

func (p *plan) network(v part) {
	b := &block{known: map[string]any{"name": v.name, "address_space": v.properties["addressSpace"].(map[string]any)["addressPrefixes"]}}
	if p.unknownNames {
		delete(b.known, "name")
		b.refer("name", ".id", "random_pet."+v.name)
	}
	p.add("azurerm_virtual_network", v.name, b)
	for _, s := range v.properties["subnets"].([]part) {
		own := v.name + "_" + s.name
		b := &block{known: map[string]any{"name": s.name, "address_prefixes": s.properties["addressPrefixes"]}}
		b.refer("virtual_network_name", ".name", "azurerm_virtual_network."+v.name)
		p.add(planSubnet, own, b)
		if group := s.properties["networkSecurityGroup"]; group != nil {
			a := &block{known: map[string]any{}}
			a.refer("subnet_id", ".id", planSubnet+"."+own)
			a.refer("network_security_group_id", ".id", referenced(group, planGroup)...)
			p.add("azurerm_subnet_network_security_group_association", own, a)
		}
	}
}

func (p *plan) networkInterface(n part) {
	var known, unknown, expressions []any
	for _, c := range n.properties["ipConfigurations"].([]part) {
		address := c.properties["privateIPAddress"].(string)
		version := "IPv4"
		if strings.Contains(address, ":") {
			version = "IPv6"
		}
		b := &block{known: map[string]any{"name": c.name, "private_ip_address": address, "private_ip_address_version": version, "primary": c.properties["primary"]}}
		b.refer("subnet_id", ".id", referenced(c.properties["subnet"], planSubnet)[0])
		if groups := referenced(c.properties["applicationSecurityGroups"], planASG); groups != nil {
			b.refer("application_security_group_ids", ".id", groups...)
		}
		b.complete()
		known, unknown, expressions = append(known, b.known), append(unknown, b.unknown), append(expressions, b.expressions)
	}
	b := &block{known: map[string]any{"name": n.name, "ip_configuration": known}, unknown: map[string]any{"ip_configuration": unknown}, expressions: map[string]any{"ip_configuration": expressions}}
	p.add("azurerm_network_interface", n.name, b)
	if group := n.properties["networkSecurityGroup"]; group != nil {
		a := &block{known: map[string]any{}}
		a.refer("network_interface_id", ".id", "azurerm_network_interface."+n.name)
		a.refer("network_security_group_id", ".id", referenced(group, planGroup)...)
		p.add("azurerm_network_interface_security_group_association", n.name, a)
	}
}

// snake spells a name of ARM as Terraform does.
func snake(name string) string {
	var b strings.Builder
	for _, r := range name {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToLower(b.String())
}

// Documents of a folder say the same as one: groups, their rules once more, and networks.
func TestAFolderOfListsGivesTheSameAnswers(t *testing.T) {
	_, seed := randomSize(t)
	for i := range uint64(20) {
		g := generate(rand.New(rand.NewPCG(seed, i)), large)
		m := modelOf(g)
		var all []map[string]any
		if err := json.Unmarshal(m.az(), &all); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		lists := map[string][]any{}
		for _, r := range all {
			kind := filepath.Base(r["type"].(string))
			lists[kind] = append(lists[kind], r)
			for _, name := range childLists[:2] {
				children, _ := r[name].([]any)
				lists[name] = append(lists[name], children...)
			}
		}
		for name, list := range lists {
			write(t, filepath.Join(dir, name+".json"), mustJSON(list))
		}
		flows := questions(t, g)
		want := m.answers(t, "arm.json", m.arm(), flows)
		d := arm.Load(dir)
		if len(d.Faults)+len(d.Unresolved) > 0 {
			t.Fatalf("policy %d of %s=%d: faults %v, unresolved %v", i, seedEnv, seed, d.Faults, d.Unresolved)
		}
		if got := m.answersOf(t, d, flows); !slices.Equal(got, want) {
			t.Errorf("policy %d of %s=%d: got %q, want %q", i, seedEnv, seed, got, want)
		}
	}
}
