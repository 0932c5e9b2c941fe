package dataplane

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// translationLab is the policy of deploy/lab/translation, with nobody attached.
func translationLab(t *testing.T) *topology.Snapshot {
	t.Helper()
	documents := arm.Load("../deploy/lab/translation")
	if err := documents.Faults.Err(); err != nil {
		t.Fatal(err)
	}
	s, err := topology.Options{DefaultOutbound: netip.MustParseAddr("198.51.100.99")}.Build(documents.Set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerifyTakesAddressesAsTheOutsideSeesThem(t *testing.T) {
	const in, out = ruleset.Inbound, ruleset.Outbound
	tests := []struct {
		name          string
		nic           string
		direction     ruleset.Direction
		local, remote string
		path          bool
		access, rule  string // the rule, or the reason where none decides
		translations  []string
	}{
		{"a public IP", "", in, "198.51.100.20:80", "203.0.113.10:5000", false, "Allow", "securityRules/AllowHttpToPrivateInBound",
			[]string{"destination publicIPAddress vm-ip 198.51.100.20:80 10.1.2.4:80 vm-nic"}},
		{"a public IP, with the whole path", "vm-nic", in, "198.51.100.20:80", "203.0.113.10:5000", true, "Allow", "securityRules/AllowHttpToPrivateInBound",
			[]string{"destination publicIPAddress vm-ip 198.51.100.20:80 10.1.2.4:80 vm-nic"}},
		{"the private address of the same NIC is nothing's translation", "vm-nic", in, "10.1.2.4:80", "203.0.113.10:5000", false, "Allow", "securityRules/AllowHttpToPrivateInBound", nil},
		{"and no way leads from the internet to it", "vm-nic", in, "10.1.2.4:80", "203.0.113.10:5000", true, "Deny", "", nil},
		{"a load balancer's rule, for the backend that is named", "web1-nic", in, "198.51.100.10:80", "203.0.113.10:5000", false, "Allow", "securityRules/AllowHttpInBound",
			[]string{"destination loadBalancingRule shop-lb http 198.51.100.10:80 10.1.1.4:8080 web1-nic"}},
		{"the same rule, for the other one", "web2-nic", in, "198.51.100.10:80", "203.0.113.10:5000", false, "Allow", "securityRules/AllowHttpInBound",
			[]string{"destination loadBalancingRule shop-lb http 198.51.100.10:80 10.1.1.5:8080 web2-nic"}},
		{"an inbound NAT rule", "", in, "198.51.100.10:2202", "203.0.113.10:5000", false, "Allow", "securityRules/AllowSshInBound",
			[]string{"destination inboundNatRule shop-lb ssh-web2 198.51.100.10:2202 10.1.1.5:22 web2-nic"}},
		{"a frontend without a rule", "", in, "198.51.100.10:81", "203.0.113.10:5000", false, "Deny", "noFrontend", nil},
		{"a Standard public IP without an NSG", "", in, "198.51.100.50:80", "203.0.113.10:5000", false, "Deny", "closed",
			[]string{"destination publicIPAddress closed-ip 198.51.100.50:80 10.1.4.5:80 closed-nic"}},
		{"a Basic one", "", in, "198.51.100.40:80", "203.0.113.10:5000", true, "Allow", "noNetworkSecurityGroup",
			[]string{"destination publicIPAddress basic-ip 198.51.100.40:80 10.1.4.4:80 basic-nic"}},
		{"from a public IP of the policy's own", "", in, "198.51.100.20:80", "198.51.100.40:5000", true, "Allow", "securityRules/AllowHttpToPrivateInBound",
			[]string{"destination publicIPAddress vm-ip 198.51.100.20:80 10.1.2.4:80 vm-nic", "source publicIPAddress basic-ip 10.1.4.4:5000 198.51.100.40:5000 basic-nic"}},
		{"to a public IP of the policy's own", "", out, "10.1.4.6:5000", "198.51.100.20:80", true, "Allow", "securityRules/AllowHttpToPrivateInBound",
			[]string{"destination publicIPAddress vm-ip 198.51.100.20:80 10.1.2.4:80 vm-nic", "source defaultOutboundAccess 10.1.4.6:5000 198.51.100.99 plain-nic"}},
		{"out through a NAT gateway", "app-nic", out, "10.1.3.4:5000", "203.0.113.10:80", false, "Allow", "defaultSecurityRules/AllowInternetOutBound",
			[]string{"source natGateway app-gateway 10.1.3.4:5000 198.51.100.30 app-nic"}},
		{"out through an outbound rule", "web1-nic", out, "10.1.1.4:5000", "203.0.113.10:80", true, "Allow", "defaultSecurityRules/AllowInternetOutBound",
			[]string{"source outboundRule shop-lb out 10.1.1.4:5000 198.51.100.10 web1-nic"}},
		{"out from a public IP: the rules see the private address", "", out, "198.51.100.20:5000", "203.0.113.10:80", false, "Allow", "defaultSecurityRules/AllowInternetOutBound",
			[]string{"source publicIPAddress vm-ip 10.1.2.4:5000 198.51.100.20:5000 vm-nic"}},
		{"within the virtual network nothing is translated", "app-nic", out, "10.1.3.4:5000", "10.1.4.4:80", true, "Allow", "defaultSecurityRules/AllowVnetOutBound", nil},
	}
	s := translationLab(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			local, remote := netip.MustParseAddrPort(tt.local), netip.MustParseAddrPort(tt.remote)
			r, err := ask.Verify(s, &azure.Flow{NetworkInterface: tt.nic, Direction: tt.direction, Protocol: 6, Local: local.Addr(), LocalPort: local.Port(),
				Remote: remote.Addr(), RemotePort: remote.Port()}, tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if rule := r.RuleName; r.Access != tt.access || rule != tt.rule && (rule != "" || r.Reason != tt.rule) {
				t.Errorf("%s by %q, reason %s; want %s by %s", r.Access, rule, r.Reason, tt.access, tt.rule)
			}
			var got []string
			for _, x := range r.Translations {
				got = append(got, strings.Join(strings.Fields(strings.Join([]string{x.Side, x.By, x.Resource, x.Rule, x.From, x.To, x.NetworkInterface}, " ")), " "))
			}
			if strings.Join(got, "\n") != strings.Join(tt.translations, "\n") {
				t.Errorf("translations\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.translations, "\n"))
			}
		})
	}
}

func TestVerifyRefusesAddressesThatTellNoNIC(t *testing.T) {
	s := translationLab(t)
	for _, tt := range []struct {
		nic, local string
		direction  ruleset.Direction
		want       string
	}{
		{"web1-nic", "198.51.100.20", ruleset.Inbound, `public IP address vm-ip, leads this flow to network interface "vm-nic", not to "web1-nic"`},
		{"", "198.51.100.30", ruleset.Outbound, "is NAT gateway app-gateway's, which several may send from"},
		{"", "10.1.1.77", ruleset.Inbound, "targetNicResourceId is missing"},
		{"", "203.0.113.1", ruleset.Outbound, "targetNicResourceId is missing"},
	} {
		_, err := ask.Verify(s, &azure.Flow{NetworkInterface: tt.nic, Direction: tt.direction, Protocol: 6, Local: netip.MustParseAddr(tt.local), LocalPort: 80,
			Remote: netip.MustParseAddr("203.0.113.10"), RemotePort: 80}, false)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s of %q: %v, want %q", tt.local, tt.nic, err, tt.want)
		}
	}
}

func TestVerifyKnowsNoWayToAFrontendOfAnotherNetwork(t *testing.T) {
	h := hubWorld{edit: func(p *policy.Set) {
		v := p.VirtualNetworks[1]
		v.Peerings, p.VirtualNetworks[2].Peerings = nil, nil
		front := &policy.Frontend{Name: "f", Subnet: v.Subnets[0], Address: netip.MustParseAddr("10.1.0.99")}
		pool := &policy.BackendPool{Backends: []policy.Backend{{NetworkInterface: p.NetworkInterfaces[0], VirtualNetwork: v, Address: netip.MustParseAddr(addrA)}}}
		p.LoadBalancers = []*policy.LoadBalancer{{Name: "lb", SKU: policy.SKUStandard, Frontends: []*policy.Frontend{front}, Pools: []*policy.BackendPool{pool},
			Rules: []*policy.LoadBalancingRule{{Frontend: front, Pools: []*policy.BackendPool{pool}, Protocol: policy.TransportTCP, FrontendPort: 80, BackendPort: 80}}}}
	}}
	s := hubRig(t, h).engine.Snapshot()
	for _, path := range []bool{false, true} {
		r, err := ask.Verify(s, &azure.Flow{Direction: ruleset.Inbound, Protocol: 6, Local: netip.MustParseAddr("10.1.0.99"), LocalPort: 80,
			Remote: netip.MustParseAddr(addrB), RemotePort: 5000}, path)
		if err != nil || r.Access != "Deny" || r.Reason != "noRoute" {
			t.Errorf("path %v: %+v, %v; want Deny, %s", path, r, err, "noRoute")
		}
	}
}

// The receiver's rules see a port that the gateway chooses, which is none below 1024.
func TestVerifyShowsTheReceiverAPortThatAGatewayMayChoose(t *testing.T) {
	for _, tt := range []struct {
		ports  ruleset.PortRange
		access string
	}{{ruleset.PortRange{First: 1024, Last: 65535}, "Allow"}, {ruleset.PortRange{First: 0, Last: 1023}, "Deny"}} {
		p := translatedFigure()
		rule := anyRule("in", 100, ruleset.Inbound, ruleset.Allow)
		rule.SourcePorts = []ruleset.PortRange{tt.ports}
		p.NetworkSecurityGroups[0].Rules = []ruleset.Rule{rule, anyRule("none", 200, ruleset.Inbound, ruleset.Deny), anyRule("out", 100, ruleset.Outbound, ruleset.Allow)}
		p.NetworkInterfaces[vm2].NetworkSecurityGroup = p.NetworkSecurityGroups[0]
		r, err := ask.Verify(newRig(t, p, conntrack.Options{Max: 16}).engine.Snapshot(), &azure.Flow{NetworkInterface: "vm4-nic", Direction: ruleset.Outbound, Protocol: 6,
			Local: netip.MustParseAddr(addr4), LocalPort: 99, Remote: netip.MustParseAddr(public2), RemotePort: 80}, true)
		if err != nil || r.Access != tt.access {
			t.Errorf("source ports %v: %+v, %v; want %s", tt.ports, r, err, tt.access)
		}
	}
}
