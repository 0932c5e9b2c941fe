package ruleset

import (
	"slices"
	"testing"
)

func TestDefaultRulesAreAzuresSix(t *testing.T) {
	anyone, network := Peer{Any: true}, Peer{Tag: "VirtualNetwork"}
	want := []struct {
		name                string
		description         string
		priority            int
		direction           Direction
		access              Access
		source, destination Peer
	}{
		{"AllowVnetInBound", "Allow inbound traffic from all VMs in VNET", 65000, Inbound, Allow, network, network},
		{"AllowAzureLoadBalancerInBound", "Allow inbound traffic from azure load balancer", 65001, Inbound, Allow, Peer{Tag: "AzureLoadBalancer"}, anyone},
		{"DenyAllInBound", "Deny all inbound traffic", 65500, Inbound, Deny, anyone, anyone},
		{"AllowVnetOutBound", "Allow outbound traffic from all VMs to all VMs in VNET", 65000, Outbound, Allow, network, network},
		{"AllowInternetOutBound", "Allow outbound traffic from all VMs to Internet", 65001, Outbound, Allow, anyone, Peer{Tag: "Internet"}},
		{"DenyAllOutBound", "Deny all outbound traffic", 65500, Outbound, Deny, anyone, anyone},
	}
	got := DefaultRules()
	if len(got) != len(want) {
		t.Fatalf("%d rules, want %d", len(got), len(want))
	}
	for i, w := range want {
		t.Run(w.name, func(t *testing.T) {
			g := got[i]
			if g.Name != w.name || g.Description != w.description || g.Priority != w.priority || g.Direction != w.direction || g.Access != w.access {
				t.Errorf("rule %d is %+v", i, g)
			}
			if !samePeer(g.Source, w.source) || !samePeer(g.Destination, w.destination) {
				t.Errorf("from %+v to %+v, want %+v and %+v", g.Source, g.Destination, w.source, w.destination)
			}
			all := []PortRange{{0, 65535}}
			if g.Protocol != AnyProtocol || !slices.Equal(g.SourcePorts, all) || !slices.Equal(g.DestinationPorts, all) || !g.Default {
				t.Errorf("protocol, ports and Default are %v, %v, %v, %v", g.Protocol, g.SourcePorts, g.DestinationPorts, g.Default)
			}
			if q := g.QualifiedName(); q != "defaultSecurityRules/"+w.name {
				t.Errorf("qualified name %q", q)
			}
		})
	}
}

func samePeer(a, b Peer) bool {
	return a.Any == b.Any && a.Tag == b.Tag && slices.Equal(a.Prefixes, b.Prefixes) &&
		slices.Equal(a.ApplicationSecurityGroups, b.ApplicationSecurityGroups)
}

func TestOrdered(t *testing.T) {
	nsg := &NSG{ID: "/nsg/n", Rules: []Rule{
		{Name: "late", Priority: 4096, Direction: Inbound},
		{Name: "out", Priority: 100, Direction: Outbound},
		{Name: "early", Priority: 100, Direction: Inbound},
	}}
	tests := []struct {
		name      string
		direction Direction
		want      []string
	}{
		{"inbound rules come by priority and the default rules last", Inbound,
			[]string{"early", "late", "AllowVnetInBound", "AllowAzureLoadBalancerInBound", "DenyAllInBound"}},
		{"outbound rules are the others", Outbound, []string{"out", "AllowVnetOutBound", "AllowInternetOutBound", "DenyAllOutBound"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, r := range nsg.Ordered(tt.direction) {
				got = append(got, r.Name)
				if r.Default && r.ID != "/nsg/n/defaultSecurityRules/"+r.Name {
					t.Errorf("id %q", r.ID)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if nsg.Rules[0].Name != "late" {
		t.Error("the NSG's own rules were reordered")
	}
}
