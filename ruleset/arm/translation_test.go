package arm

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// edge is a policy that translates, in the REST API's form: a public address, a NAT
// gateway, a load balancer with every kind of rule, and two NICs that name them.
const edge = `[
  {"type": "Microsoft.Network/virtualNetworks", "name": "v", "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]},
    "subnets": [{"name": "s", "properties": {"addressPrefix": "10.0.0.0/24", "defaultOutboundAccess": false, "natGateway": {"id": "gw"}}},
                {"name": "t", "properties": {"addressPrefix": "10.0.1.0/24"}}]}},
  {"type": "Microsoft.Network/publicIPAddresses", "name": "vm", "sku": {"name": "Standard"}, "properties": {"ipAddress": "203.0.113.4", "publicIPAddressVersion": "IPv4", "idleTimeoutInMinutes": 10}},
  {"type": "Microsoft.Network/publicIPAddresses", "name": "front", "sku": {"name": "Standard"}, "properties": {"ipAddress": "203.0.113.5"}},
  {"type": "Microsoft.Network/publicIPAddresses", "name": "out", "sku": {"name": "standardv2"}, "properties": {"ipAddress": "203.0.113.6"}},
  {"type": "Microsoft.Network/publicIPPrefixes", "name": "range", "sku": {"name": "Standard"}, "properties": {"ipPrefix": "203.0.113.16/30"}},
  {"type": "Microsoft.Network/natGateways", "name": "gw", "sku": {"name": "StandardV2"}, "properties": {"idleTimeoutInMinutes": 120,
    "publicIpAddresses": [{"id": "out"}], "publicIpPrefixes": [{"id": "range"}]}},
  {"type": "Microsoft.Network/networkInterfaces", "name": "a", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"},
    "publicIPAddress": {"id": "vm"}, "loadBalancerBackendAddressPools": [{"id": "lb/pool"}], "loadBalancerInboundNatRules": [{"id": "lb/ssh"}]}}]}},
  {"type": "Microsoft.Network/networkInterfaces", "name": "b", "properties": {"ipConfigurations": [{"name": "c", "properties": {"privateIPAddress": "10.0.0.5", "subnet": {"id": "v/s"}}}]}},
  {"type": "Microsoft.Network/loadBalancers", "name": "lb", "sku": {"name": "Standard"}, "properties": {
    "frontendIPConfigurations": [{"name": "public", "properties": {"publicIPAddress": {"id": "front"}}}, {"name": "inside", "properties": {"subnet": {"id": "v/t"}, "privateIPAddress": "10.0.1.9"}}],
    "backendAddressPools": [{"name": "pool", "properties": {"backendIPConfigurations": [{"id": "networkInterfaces/b/ipConfigurations/c"}]}}],
    "probes": [{"name": "alive", "properties": {"protocol": "Http", "port": 80, "requestPath": "/ok", "intervalInSeconds": 5, "numberOfProbes": 2}}],
    "loadBalancingRules": [
      {"name": "web", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "backendAddressPool": {"id": "lb/pool"}, "probe": {"id": "lb/alive"}, "protocol": "Tcp", "frontendPort": 80, "backendPort": 8080,
        "loadDistribution": "SourceIP", "enableTcpReset": true, "idleTimeoutInMinutes": 15, "disableOutboundSnat": true}},
      {"name": "all", "properties": {"frontendIPConfiguration": {"id": "lb/inside"}, "backendAddressPool": {"id": "lb/pool"}, "protocol": "All", "frontendPort": 0, "backendPort": 0, "enableFloatingIP": true}}],
    "inboundNatRules": [
      {"name": "ssh", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "protocol": "Tcp", "frontendPort": 2200, "backendPort": 22}},
      {"name": "rdp", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "protocol": "Tcp", "frontendPortRangeStart": 5000, "frontendPortRangeEnd": 5009, "backendPort": 3389, "backendAddressPool": {"id": "lb/pool"}}}],
    "outboundRules": [{"name": "out", "properties": {"frontendIPConfigurations": [{"id": "lb/public"}], "backendAddressPool": {"id": "lb/pool"}, "protocol": "All", "allocatedOutboundPorts": 8000}}]}}
]`

// flattened is a document as az shows it: properties among the other fields.
func flattened(document string) string {
	const begin = `"properties": {`
	for {
		i := strings.LastIndex(document, begin)
		if i < 0 {
			return document
		}
		depth, end := 1, i+len(begin)
		for ; depth > 0; end++ {
			switch document[end] {
			case '{':
				depth++
			case '}':
				depth--
			}
		}
		document = document[:i] + document[i+len(begin):end-1] + document[end:]
	}
}

func TestTranslationInEveryForm(t *testing.T) {
	shouting := strings.NewReplacer("frontendPort\"", "FRONTENDPORT\"", "ipAddress\"", "IPADDRESS\"", "\"Tcp\"", "\"TCP\"", "lb/pool", "LB/POOL", "loadBalancingRules\"", "LoadBalancingRules\"",
		"natGateway\"", "NatGateway\"")
	otherSide := strings.NewReplacer(`"publicIPAddress": {"id": "vm"}, `, "", `"publicIPAddressVersion": "IPv4", `, `"ipConfiguration": {"id": "networkInterfaces/a/ipConfigurations/c"}, `,
		`, "natGateway": {"id": "gw"}`, "", `"publicIpAddresses": [`, `"subnets": [{"id": "v/s"}], "publicIpAddresses": [`,
		`"loadBalancerBackendAddressPools": [{"id": "lb/pool"}], "loadBalancerInboundNatRules": [{"id": "lb/ssh"}]`, `"primary": true`,
		`[{"id": "networkInterfaces/b/ipConfigurations/c"}]`, `[{"id": "networkInterfaces/b/ipConfigurations/c"}, {"id": "networkInterfaces/a/ipConfigurations/c"}]`,
		`"frontendPort": 2200,`, `"backendIPConfiguration": {"id": "a/c"}, "frontendPort": 2200,`)
	tests := []struct{ name, document string }{
		{"REST", edge},
		{"az", flattened(edge)},
		{"any case", shouting.Replace(edge)},
		{"references from the other side", otherSide.Replace(edge)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if len(d.Faults)+len(d.Unresolved)+len(d.Warnings) > 0 {
				t.Fatalf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
			}
			checkEdge(t, d.Set)
		})
	}
}

func checkEdge(t *testing.T, set *policy.Set) {
	t.Helper()
	addr := netip.MustParseAddr
	vm, gw, lb := set.PublicIPAddresses[0], set.NATGateways[0], set.LoadBalancers[0]
	s := set.VirtualNetworks[0].Subnets[0]
	if vm.Address != addr("203.0.113.4") || vm.SKU != policy.SKUStandard || vm.IdleTimeout != 10*time.Minute || set.NetworkInterfaces[0].IPConfigurations[0].PublicIPAddress != vm {
		t.Errorf("public address %+v of %+v", vm, set.NetworkInterfaces[0])
	}
	if s.NATGateway != gw || !s.DisableDefaultOutbound || gw.IdleTimeout != 2*time.Hour || gw.SKU != policy.SKUStandardV2 || gw.Unknown {
		t.Errorf("NAT gateway %+v of %+v", gw, s)
	}
	if got := fmt.Sprint(gw.PublicAddresses()); got != "[203.0.113.6 203.0.113.16 203.0.113.17 203.0.113.18 203.0.113.19]" {
		t.Errorf("addresses of the gateway %s", got)
	}
	var members []string
	for _, b := range lb.Pools[0].Backends {
		members = append(members, b.NetworkInterface.Name+" "+b.Address.String())
	}
	if want := []string{"b 10.0.0.5", "a 10.0.0.4"}; !slices.Equal(members, want) {
		t.Errorf("members %v, want %v: the pool's own first", members, want)
	}
	public, inside, pool := lb.Frontends[0], lb.Frontends[1], lb.Pools[0]
	if !public.Public() || public.Address != addr("203.0.113.5") || inside.Public() || inside.Address != addr("10.0.1.9") {
		t.Errorf("frontends %+v, %+v", public, inside)
	}
	probe := &policy.HealthProbe{Name: "alive", Protocol: "Http", Port: 80, Path: "/ok", Interval: 5 * time.Second, Threshold: 2}
	if !reflect.DeepEqual(lb.Probes, []*policy.HealthProbe{probe}) {
		t.Errorf("probe %+v", lb.Probes[0])
	}
	rules := []policy.LoadBalancingRule{
		{Name: "web", Frontend: public, Pools: []*policy.BackendPool{pool}, Probe: lb.Probes[0], Protocol: policy.TransportTCP, FrontendPort: 80, BackendPort: 8080, Distribution: policy.DistributionSourceIP,
			TCPReset: true, DisableOutboundSNAT: true, IdleTimeout: 15 * time.Minute},
		{Name: "all", Frontend: inside, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportAll, Distribution: policy.DistributionDefault, FloatingIP: true, IdleTimeout: 4 * time.Minute},
	}
	for i := range rules {
		if !reflect.DeepEqual(*lb.Rules[i], rules[i]) {
			t.Errorf("rule %+v, want %+v", *lb.Rules[i], rules[i])
		}
	}
	ssh, rdp, out := lb.NATRules[0], lb.NATRules[1], lb.OutboundRules[0]
	if ssh.Backend == nil || ssh.Backend.Address != addr("10.0.0.4") || ssh.First != 2200 || ssh.Last != 2200 || ssh.BackendPort != 22 || ssh.Pool != nil {
		t.Errorf("NAT rule %+v", ssh)
	}
	if rdp.Backend != nil || rdp.Pool != pool || rdp.First != 5000 || rdp.Last != 5009 || rdp.BackendPort != 3389 {
		t.Errorf("NAT rule %+v", rdp)
	}
	if out.AllocatedPorts != 8000 || out.Pool != pool || out.Protocol != policy.TransportAll || len(out.Frontends) != 1 || out.Frontends[0] != public {
		t.Errorf("outbound rule %+v", out)
	}
}

func TestFaultsOfTranslation(t *testing.T) {
	change := func(pairs ...string) string {
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(edge, pairs[i]) {
				t.Fatalf("the policy has no %s", pairs[i])
			}
		}
		return strings.NewReplacer(pairs...).Replace(edge)
	}
	const lb = "loadBalancers/lb"
	web := `"protocol": "Tcp", "frontendPort": 80, "backendPort": 8080`
	tests := []struct {
		name, document            string
		code, field, value, place string
	}{
		{"a public address that is none", change(`"203.0.113.4"`, `"vm.example.org"`), CodeInvalidIPAddress, "ipAddress", "vm.example.org", "publicIPAddresses/vm"},
		{"a public address of the other version", change(`"publicIPAddressVersion": "IPv4"`, `"publicIPAddressVersion": "IPv6"`), CodePublicAddressFamily, "publicIPAddressVersion", "IPv6", "publicIPAddresses/vm"},
		{"a public IPv6 address of an IPv4 configuration", change(`"ipAddress": "203.0.113.4", "publicIPAddressVersion": "IPv4"`, `"ipAddress": "2001:db8::4"`), CodePublicAddressFamily, "publicIPAddress", "vm", "networkInterfaces/a/ipConfigurations/c"},
		{"one address twice", change(`"203.0.113.5"`, `"203.0.113.4"`), CodePublicAddressTwice, "ipAddress", "203.0.113.4", "publicIPAddresses/front"},
		{"a SKU that there is not", change(`{"name": "StandardV2"}`, `{"name": "Premium"}`), CodeInvalidSKU, "sku", "Premium", "natGateways/gw"},
		{"an idle timeout beyond what a public address has", change(`"idleTimeoutInMinutes": 10`, `"idleTimeoutInMinutes": 31`), CodePublicIdle, "idleTimeoutInMinutes", "31", "publicIPAddresses/vm"},
		{"an idle timeout beyond what a gateway has", change(`"idleTimeoutInMinutes": 120`, `"idleTimeoutInMinutes": 121`), CodeGatewayIdle, "idleTimeoutInMinutes", "121", "natGateways/gw"},
		{"a prefix with host bits", change(`203.0.113.16/30`, `203.0.113.17/30`), CodeInvalidPublicPrefix, "ipPrefix", "203.0.113.17/30", "publicIPPrefixes/range"},
		{"a public address of two owners", change(`"publicIPAddress": {"id": "vm"}`, `"publicIPAddress": {"id": "front"}`), CodePublicAddressInUse, "publicIPAddress", "front", lb + "/frontendIPConfigurations/public"},
		{"a public address that nobody has", change(`"publicIPAddress": {"id": "vm"}`, `"publicIPAddress": {"id": "wm"}`), CodeInvalidResourceReference, "publicIPAddress", "wm", "networkInterfaces/a/ipConfigurations/c"},
		{"a gateway that nobody has", change(`"natGateway": {"id": "gw"}`, `"natGateway": {"id": "gv"}`), CodeInvalidResourceReference, "natGateway", "gv", "virtualNetworks/v/subnets/s"},
		{"a Basic address behind a gateway's subnet", change(`"name": "vm", "sku": {"name": "Standard"}`, `"name": "vm", "sku": {"name": "Basic"}`), CodeGatewayAndBasic, "publicIPAddress", "vm", "networkInterfaces/a/ipConfigurations/c"},
		{"a Basic address of a gateway", change(`"standardv2"`, `"Basic"`), CodeGatewayBasicAddress, "publicIpAddresses", "out", "natGateways/gw"},
		{"more addresses than a gateway has", change(`203.0.113.16/30`, `203.0.113.16/28`), CodeGatewayTooMany, "publicIpAddresses", "17", "natGateways/gw"},
		{"a Basic address of a Standard load balancer", change(`"name": "front", "sku": {"name": "Standard"}`, `"name": "front"`), CodeBalancerSKU, "publicIPAddress", "front", lb + "/frontendIPConfigurations/public"},
		{"a frontend of both kinds", change(`"subnet": {"id": "v/t"}, "privateIPAddress"`, `"subnet": {"id": "v/t"}, "publicIPAddress": {"id": "vm"}, "privateIPAddress"`), CodeFrontendBoth, "subnet", `{"id":"v/t"}`, lb + "/frontendIPConfigurations/inside"},
		{"a frontend of neither kind", change(`"subnet": {"id": "v/t"}, "privateIPAddress"`, `"privateIPAddress"`), CodeFrontendNeither, "", "", lb + "/frontendIPConfigurations/inside"},
		{"an internal frontend outside its subnet", change(`"10.0.1.9"`, `"10.0.2.9"`), CodeAddressNotInSubnet, "privateIPAddress", "10.0.2.9", lb + "/frontendIPConfigurations/inside"},
		{"an internal frontend with a NIC's address", change(`"subnet": {"id": "v/t"}, "privateIPAddress": "10.0.1.9"`, `"subnet": {"id": "v/s"}, "privateIPAddress": "10.0.0.4"`), CodeAddressInUse, "privateIPAddress", "10.0.0.4", lb + "/frontendIPConfigurations/inside"},
		{"a rule's port out of range", change(web, `"protocol": "Tcp", "frontendPort": 65535, "backendPort": 8080`), CodePortRange, "frontendPort", "65535", lb + "/loadBalancingRules/web"},
		{"a rule's protocol that there is not", change(web, `"protocol": "Icmp", "frontendPort": 80, "backendPort": 8080`), CodeInvalidBalancingRule, "protocol", "Icmp", lb + "/loadBalancingRules/web"},
		{"every port at a public frontend", change(web, `"protocol": "All", "frontendPort": 0, "backendPort": 0`), CodeInvalidBalancingRule, "protocol", "All", lb + "/loadBalancingRules/web"},
		{"every port of one protocol", change(web, `"protocol": "Tcp", "frontendPort": 0, "backendPort": 0`), CodeInvalidBalancingRule, "frontendPort", "0", lb + "/loadBalancingRules/web"},
		{"a rule of a frontend that is not there", change(`{"id": "lb/public"}, "backendAddressPool": {"id": "lb/pool"}, "probe"`, `{"id": "lb/pubic"}, "backendAddressPool": {"id": "lb/pool"}, "probe"`), CodeInvalidResourceReference, "frontendIPConfiguration", "lb/pubic", lb + "/loadBalancingRules/web"},
		{"a rule of another load balancer's probe", change(`"lb/alive"`, `"other/alive"`), CodeInvalidResourceReference, "probe", "other/alive", lb + "/loadBalancingRules/web"},
		{"a frontend port twice", change(`"frontendPort": 2200`, `"frontendPort": 80`), CodeSameFrontendPort, "frontendPort", "80", lb + "/inboundNatRules/ssh"},
		{"NAT ranges that overlap", change(`"frontendPort": 2200, "backendPort": 22`, `"frontendPortRangeStart": 4000, "frontendPortRangeEnd": 5000, "backendPort": 22, "backendAddressPool": {"id": "lb/pool"}`, `, "loadBalancerInboundNatRules": [{"id": "lb/ssh"}]`, ""),
			CodeSameFrontendPort, "frontendPort", "5000", lb + "/inboundNatRules/rdp"},
		{"a NAT range smaller than its pool", change(`"frontendPortRangeEnd": 5009`, `"frontendPortRangeEnd": 5000`), CodeInvalidInboundNATRule, "frontendPortRangeEnd", "5000", lb + "/inboundNatRules/rdp"},
		{"a NAT range that begins above all ports", change(`"frontendPortRangeStart": 5000`, `"frontendPortRangeStart": 65535`), CodePortRange, "frontendPortRangeStart", "65535", lb + "/inboundNatRules/rdp"},
		{"a NAT range that ends before it begins", change(`"frontendPortRangeEnd": 5009`, `"frontendPortRangeEnd": 4999`), CodeInvalidInboundNATRule, "frontendPortRangeEnd", "4999", lb + "/inboundNatRules/rdp"},
		{"an ipConfiguration behind a range", change(`"loadBalancerInboundNatRules": [{"id": "lb/ssh"}]`, `"loadBalancerInboundNatRules": [{"id": "lb/rdp"}]`), CodeInvalidInboundNATRule, "loadBalancerInboundNatRules", "rdp", "networkInterfaces/a/ipConfigurations/c"},
		{"outbound ports that are no multiple of eight", change(`"allocatedOutboundPorts": 8000`, `"allocatedOutboundPorts": 1001`), CodeInvalidOutboundRule, "allocatedOutboundPorts", "1001", lb + "/outboundRules/out"},
		{"more outbound ports than there are", change(`"allocatedOutboundPorts": 8000`, `"allocatedOutboundPorts": 40000`), CodeInvalidOutboundRule, "allocatedOutboundPorts", "40000", lb + "/outboundRules/out"},
		{"an outbound rule of an internal frontend", change(`[{"id": "lb/public"}]`, `[{"id": "lb/inside"}]`), CodeInvalidOutboundRule, "frontendIPConfigurations", "inside", lb + "/outboundRules/out"},
		{"a rule that leaves SNAT to an outbound rule's frontend", change(`, "disableOutboundSnat": true`, ""), CodeMustDisableSNAT, "disableOutboundSnat", "false", lb + "/loadBalancingRules/web"},
		{"a probe without a path", change(`"requestPath": "/ok", `, ""), CodeInvalidProbe, "requestPath", "", lb + "/probes/alive"},
		{"a probe that is too often", change(`"intervalInSeconds": 5`, `"intervalInSeconds": 4`), CodeProbeInterval, "intervalInSeconds", "4", lb + "/probes/alive"},
		{"a member that the load balancer has no pool for", change(`"loadBalancerBackendAddressPools": [{"id": "lb/pool"}]`, `"loadBalancerBackendAddressPools": [{"id": "lb/pol"}]`), CodeInvalidResourceReference, "loadBalancerBackendAddressPools", "lb/pol", "networkInterfaces/a/ipConfigurations/c"},
		{"a backend address in no subnet", change(`"backendIPConfigurations": [{"id": "networkInterfaces/b/ipConfigurations/c"}]`, `"loadBalancerBackendAddresses": [{"name": "x", "properties": {"ipAddress": "10.0.9.4", "virtualNetwork": {"id": "v"}}}]`),
			CodeInvalidBackend, "ipAddress", "10.0.9.4", lb + "/backendAddressPools/pool/loadBalancerBackendAddresses/x"},
		{"two rules of one backend port and pool", change(`"inboundNatRules"`, `"loadBalancingRules2": [], "inboundNatRules"`, `{"name": "all",`, `{"name": "again", "properties": {"frontendIPConfiguration": {"id": "lb/public"}, "backendAddressPool": {"id": "lb/pool"}, "protocol": "Tcp", "frontendPort": 81, "backendPort": 8080, "disableOutboundSnat": true}}, {"name": "all",`),
			CodeSameBackendPort, "backendPort", "8080", lb + "/loadBalancingRules/again"},
		{"a backend of the other family", change(`"privateIPAddress": "10.0.0.5"`, `"privateIPAddress": "fd00::5"`, `["10.0.0.0/16"]`, `["10.0.0.0/16", "fd00::/48"]`, `"addressPrefix": "10.0.0.0/24"`, `"addressPrefixes": ["10.0.0.0/24", "fd00::/64"]`),
			CodeBackendFamily, "backendAddressPool", "fd00::5", lb + "/loadBalancingRules/web"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			for _, f := range d.Faults {
				if f.Code == tt.code && f.Field == tt.field && f.Value == tt.value && f.Resource == tt.place && f.File == "test.json" && f.Message != "" {
					return
				}
			}
			t.Errorf("faults %v; want %s of %s, %s %q", d.Faults, tt.code, tt.place, tt.field, tt.value)
		})
	}
}

// A policy that lacks what translation needs still loads.
func TestWhatIsNotKnownOfTranslationIsNoted(t *testing.T) {
	nic := func(more string) string {
		return small(`{"type": "Microsoft.Network/networkInterfaces", "name": "n", "ipConfigurations": [{"name": "c", "privateIPAddress": "10.0.0.4", "subnet": {"id": "v/s"}` + more + `}]}`)
	}
	with := func(document string, more ...string) string {
		return strings.TrimSuffix(document, "]") + "," + strings.Join(more, ",") + "]"
	}
	tests := []struct {
		name, document, code, place, field string
	}{
		{"a dynamic address", with(nic(`, "publicIPAddress": {"id": "p"}`), `{"type": "Microsoft.Network/publicIPAddresses", "name": "p", "properties": {"publicIPAllocationMethod": "Dynamic"}}`),
			CodePublicNotAssigned, "publicIPAddresses/p", "ipAddress"},
		{"public addresses that are in other documents", nic(`, "publicIPAddress": {"id": "p"}`), CodeNotTranslated, "networkInterfaces/n/ipConfigurations/c", "publicIPAddress"},
		{"load balancers that are in other documents", nic(`, "loadBalancerBackendAddressPools": [{"id": "lb/p"}]`), CodeNotTranslated, "networkInterfaces/n/ipConfigurations/c", "loadBalancerBackendAddressPools"},
		{"an expression", nic(`, "publicIPAddress": {"id": "[parameters('p')]"}`), CodeTemplateExpression, "networkInterfaces/n/ipConfigurations/c", "publicIPAddress"},
		{"a rule that is open", with(nic(""), `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "properties": {"loadBalancingRules": [{"name": "r", "properties": "[variables('r')]"}]}}`),
			CodeTemplateExpression, "loadBalancers/lb/loadBalancingRules/r", "properties"},
		{"a load balancer whose name is open", with(nic(""), `{"type": "Microsoft.Network/loadBalancers", "name": "[parameters('n')]", "properties": {"loadBalancingRules": [{"name": "r", "properties": {"frontendIPConfiguration": {"id": "x/f"}}}]}}`),
			CodeTemplateExpression, "loadBalancers/[parameters('n')]", "name"},
		{"a frontend whose address Azure chooses", with(nic(""), `{"type": "Microsoft.Network/loadBalancers", "name": "lb", "properties": {"frontendIPConfigurations": [{"name": "f", "properties": {"subnet": {"id": "v/s"}}}]}}`),
			CodeAddressNotAssigned, "virtualNetworks/v/subnets/s", "privateIPAddress"},
		{"a NAT rule of a load balancer that is in other documents", with(nic(""), `{"type": "Microsoft.Network/loadBalancers/inboundNatRules", "name": "lb/r", "properties": {}}`),
			CodeParentNotFound, "loadBalancers/lb/inboundNatRules/r", "name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Parse("test.json", []byte(tt.document))
			if len(d.Faults)+len(d.Unresolved) > 0 || len(d.Set.NetworkInterfaces) != 1 {
				t.Errorf("faults %v, unresolved %v, %d network interfaces", d.Faults, d.Unresolved, len(d.Set.NetworkInterfaces))
			}
			if w := d.Warnings; len(w) != 1 || w[0].Code != tt.code || w[0].Resource != tt.place || w[0].Field != tt.field || w[0].File != "test.json" {
				t.Errorf("warnings %v, want %s of %s, %s", w, tt.code, tt.place, tt.field)
			}
		})
	}
}

// A template may have a pool inside its load balancer and, with members, as a separate
// resource.
func TestAPoolGivenTwiceIsOne(t *testing.T) {
	set := parse(t, strings.TrimSuffix(edge, "]")+`, {"type": "Microsoft.Network/loadBalancers/backendAddressPools", "name": "lb/pool", "properties": {
		"virtualNetwork": {"id": "v"}, "loadBalancerBackendAddresses": [{"name": "x", "properties": {"ipAddress": "10.0.1.77"}}]}}]`)
	pools := set.LoadBalancers[0].Pools
	if len(pools) != 1 || len(pools[0].Backends) != 3 {
		t.Fatalf("pools %+v", pools[0])
	}
	if b := pools[0].Backends[1]; b.NetworkInterface != nil || b.Address != netip.MustParseAddr("10.0.1.77") || b.VirtualNetwork != set.VirtualNetworks[0] {
		t.Errorf("backend %+v", b)
	}
}

// state is what "terraform show -json" prints.
func state(kind string, resources ...string) string {
	return `{"format_version": "1.0", "terraform_version": "1.9.0", "` + kind + `": {"root_module": {"resources": [` + strings.Join(resources, ",") + `]}}`
}

func stated(kind, name, values string) string {
	return fmt.Sprintf(`{"address": "%[1]s.%[2]s", "mode": "managed", "type": %[1]q, "name": %[2]q, "values": {"resource_group_name": "rg", %[3]s}}`, kind, name, values)
}

func TestTranslationFromTerraform(t *testing.T) {
	const rg = "/subscriptions/S/resourceGroups/rg/providers/Microsoft.Network/"
	id := func(path string) string { return `"id": "` + rg + path + `"` }
	document := state("values",
		stated("azurerm_virtual_network", "v", id("virtualNetworks/v")+`, "name": "v", "address_space": ["10.0.0.0/16"]`),
		stated("azurerm_subnet", "s", id("virtualNetworks/v/subnets/s")+`, "name": "s", "virtual_network_name": "v", "address_prefixes": ["10.0.0.0/24"], "default_outbound_access_enabled": false`),
		stated("azurerm_subnet", "t", id("virtualNetworks/v/subnets/t")+`, "name": "t", "virtual_network_name": "v", "address_prefixes": ["10.0.1.0/24"]`),
		stated("azurerm_public_ip", "vm", id("publicIPAddresses/vm")+`, "name": "vm", "sku": "Standard", "ip_address": "203.0.113.4", "ip_version": "IPv4", "idle_timeout_in_minutes": 10`),
		stated("azurerm_public_ip", "front", id("publicIPAddresses/front")+`, "name": "front", "sku": "Standard", "ip_address": "203.0.113.5"`),
		stated("azurerm_public_ip", "out", id("publicIPAddresses/out")+`, "name": "out", "sku": "StandardV2", "ip_address": "203.0.113.6"`),
		stated("azurerm_public_ip_prefix", "range", id("publicIPPrefixes/range")+`, "name": "range", "sku": "Standard", "ip_prefix": "203.0.113.16/30"`),
		stated("azurerm_nat_gateway", "gw", id("natGateways/gw")+`, "name": "gw", "sku_name": "StandardV2", "idle_timeout_in_minutes": 120`),
		stated("azurerm_nat_gateway_public_ip_association", "a", `"nat_gateway_id": "`+rg+`natGateways/gw", "public_ip_address_id": "`+rg+`publicIPAddresses/out"`),
		stated("azurerm_nat_gateway_public_ip_prefix_association", "a", `"nat_gateway_id": "`+rg+`natGateways/gw", "public_ip_prefix_id": "`+rg+`publicIPPrefixes/range"`),
		stated("azurerm_subnet_nat_gateway_association", "a", `"nat_gateway_id": "`+rg+`natGateways/gw", "subnet_id": "`+rg+`virtualNetworks/v/subnets/s"`),
		stated("azurerm_network_interface", "a", id("networkInterfaces/a")+`, "name": "a", "ip_configuration": [{"name": "c", "private_ip_address": "10.0.0.4", "subnet_id": "`+rg+`virtualNetworks/v/subnets/s", "public_ip_address_id": "`+rg+`publicIPAddresses/vm"}]`),
		stated("azurerm_network_interface", "b", id("networkInterfaces/b")+`, "name": "b", "ip_configuration": [{"name": "c", "private_ip_address": "10.0.0.5", "subnet_id": "`+rg+`virtualNetworks/v/subnets/s"}]`),
		stated("azurerm_lb", "lb", id("loadBalancers/lb")+`, "name": "lb", "sku": "Standard", "frontend_ip_configuration": [{"name": "public", "public_ip_address_id": "`+rg+`publicIPAddresses/front", "subnet_id": ""},
			{"name": "inside", "subnet_id": "`+rg+`virtualNetworks/v/subnets/t", "private_ip_address": "10.0.1.9", "public_ip_address_id": null}]`),
		stated("azurerm_lb_backend_address_pool", "pool", id("loadBalancers/lb/backendAddressPools/pool")+`, "name": "pool", "loadbalancer_id": "`+rg+`loadBalancers/lb"`),
		stated("azurerm_lb_probe", "alive", id("loadBalancers/lb/probes/alive")+`, "name": "alive", "loadbalancer_id": "`+rg+`loadBalancers/lb", "protocol": "Http", "port": 80, "request_path": "/ok", "interval_in_seconds": 5, "number_of_probes": 2`),
		stated("azurerm_lb_rule", "web", id("loadBalancers/lb/loadBalancingRules/web")+`, "name": "web", "loadbalancer_id": "`+rg+`loadBalancers/lb", "frontend_ip_configuration_name": "public", "backend_address_pool_ids": ["`+rg+`loadBalancers/lb/backendAddressPools/pool"],
			"probe_id": "`+rg+`loadBalancers/lb/probes/alive", "protocol": "Tcp", "frontend_port": 80, "backend_port": 8080, "load_distribution": "SourceIP", "tcp_reset_enabled": true, "idle_timeout_in_minutes": 15, "disable_outbound_snat": true`),
		stated("azurerm_lb_rule", "all", id("loadBalancers/lb/loadBalancingRules/all")+`, "name": "all", "loadbalancer_id": "`+rg+`loadBalancers/lb", "frontend_ip_configuration_name": "inside", "backend_address_pool_ids": ["`+rg+`loadBalancers/lb/backendAddressPools/pool"],
			"protocol": "All", "frontend_port": 0, "backend_port": 0, "enable_floating_ip": true`),
		stated("azurerm_lb_nat_rule", "ssh", id("loadBalancers/lb/inboundNatRules/ssh")+`, "name": "ssh", "loadbalancer_id": "`+rg+`loadBalancers/lb", "frontend_ip_configuration_name": "public", "protocol": "Tcp", "frontend_port": 2200, "backend_port": 22`),
		stated("azurerm_lb_nat_rule", "rdp", id("loadBalancers/lb/inboundNatRules/rdp")+`, "name": "rdp", "loadbalancer_id": "`+rg+`loadBalancers/lb", "frontend_ip_configuration_name": "public", "protocol": "Tcp", "frontend_port": 0, "frontend_port_start": 5000, "frontend_port_end": 5009,
			"backend_port": 3389, "backend_address_pool_id": "`+rg+`loadBalancers/lb/backendAddressPools/pool"`),
		stated("azurerm_lb_outbound_rule", "out", id("loadBalancers/lb/outboundRules/out")+`, "name": "out", "loadbalancer_id": "`+rg+`loadBalancers/lb", "frontend_ip_configuration": [{"name": "public"}], "protocol": "All", "allocated_outbound_ports": 8000,
			"backend_address_pool_id": "`+rg+`loadBalancers/lb/backendAddressPools/pool"`),
		stated("azurerm_network_interface_backend_address_pool_association", "b", `"network_interface_id": "`+rg+`networkInterfaces/b", "ip_configuration_name": "c", "backend_address_pool_id": "`+rg+`loadBalancers/lb/backendAddressPools/pool"`),
		stated("azurerm_network_interface_backend_address_pool_association", "a", `"network_interface_id": "`+rg+`networkInterfaces/a", "ip_configuration_name": "c", "backend_address_pool_id": "`+rg+`loadBalancers/lb/backendAddressPools/pool"`),
		stated("azurerm_network_interface_nat_rule_association", "a", `"network_interface_id": "`+rg+`networkInterfaces/a", "ip_configuration_name": "c", "nat_rule_id": "`+rg+`loadBalancers/lb/inboundNatRules/ssh"`),
	) + "}"
	d := Parse("state.json", []byte(document))
	if len(d.Faults)+len(d.Unresolved)+len(d.Warnings) > 0 {
		t.Fatalf("faults %v, unresolved %v, warnings %v", d.Faults, d.Unresolved, d.Warnings)
	}
	slices.Reverse(d.Set.LoadBalancers[0].Pools[0].Backends) // associations come in the order of network interfaces
	checkEdge(t, d.Set)
}
