package dataplane

import (
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

func packetAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

func adminRule(name string, priority int, d ruleset.Direction, a ruleset.Access) ruleset.Rule {
	r := anyRule(name, priority, d, a)
	r.Admin = true
	return r
}

// withAdmin adds rule collections for the figure's network.
func withAdmin(p *policy.Set, collections ...[]ruleset.Rule) *policy.Set {
	for i, rules := range collections {
		name := []string{"nm/c/first", "nm/c/second"}[i]
		p.AdminCollections = append(p.AdminCollections, &policy.AdminCollection{
			Rules: &ruleset.NSG{Name: name, ID: "/" + name, Admin: true, Rules: rules}, Networks: p.VirtualNetworks})
	}
	return p
}

func TestAdminRulesStandBeforeTheNSGs(t *testing.T) {
	rule := func(a ruleset.Access, priority int) ruleset.Rule {
		return adminRule("admin", priority, ruleset.Inbound, a)
	}
	outbound := adminRule("admin", 1, ruleset.Outbound, ruleset.Deny)
	for _, tt := range []struct {
		name        string
		collections [][]ruleset.Rule
		to          string // VM1 denies port 22, VM4 allows everything
		passes      bool
		group, rule string // that the verdict names
	}{
		{"no collection", nil, addr1, false, "NSG1", "defaultSecurityRules/DenyAllInBound"},
		{"Allow goes on to the NSGs, which deny", [][]ruleset.Rule{{rule(ruleset.Allow, 1)}}, addr1, false, "NSG1", "defaultSecurityRules/DenyAllInBound"},
		{"Allow goes on to no NSG", [][]ruleset.Rule{{rule(ruleset.Allow, 1)}}, addr4, true, "nm/c/first", "securityAdminRules/admin"},
		{"AlwaysAllow asks no NSG", [][]ruleset.Rule{{rule(ruleset.AlwaysAllow, 1)}}, addr1, true, "nm/c/first", "securityAdminRules/admin"},
		{"Deny drops", [][]ruleset.Rule{{rule(ruleset.Deny, 1)}}, addr4, false, "nm/c/first", "securityAdminRules/admin"},
		{"the lowest number decides, whichever collection has it", [][]ruleset.Rule{{rule(ruleset.Deny, 20)}, {rule(ruleset.AlwaysAllow, 10)}}, addr1, true, "nm/c/second", "securityAdminRules/admin"},
		{"of equal numbers the first collection's", [][]ruleset.Rule{{rule(ruleset.Deny, 10)}, {rule(ruleset.AlwaysAllow, 10)}}, addr1, false, "nm/c/first", "securityAdminRules/admin"},
		{"a rule of the other direction is not asked", [][]ruleset.Rule{{outbound}}, addr4, true, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := withAdmin(figure(nil, nil), tt.collections...)
			r := newRig(t, p, conntrack.Options{Max: 1024})
			to, drop := r.send(internet, syn(world, tt.to, 22))
			if (to >= 0) != tt.passes || to < 0 && drop != packet.DropRule.String() {
				t.Fatalf("came out at %d (%s)", to, drop)
			}
			nic := map[string]string{addr1: "vm1-nic", addr4: "vm4-nic"}[tt.to]
			v, err := ask.Verify(r.engine.Snapshot(), &azure.Flow{Direction: ruleset.Inbound, Protocol: packet.ProtoTCP, NetworkInterface: nic,
				Local: packetAddr(tt.to), LocalPort: 22, Remote: packetAddr(world), RemotePort: 40000}, false)
			if err != nil || (v.Access == "Allow") != tt.passes || v.NetworkSecurityGroup != tt.group || v.RuleName != tt.rule {
				t.Errorf("verify: %+v, %v", v, err)
			}
			if len(v.Stages) > 0 && v.Stages[0].RuleName == "securityAdminRules/admin" && v.Stages[0].Association != "networkManager" {
				t.Errorf("stage %+v", v.Stages[0])
			}
			keys := r.engine.Registry().Keys()
			for i, c := range r.engine.Counters().Rules(len(keys)) {
				if keys[i].NetworkSecurityGroup == tt.group && "securityAdminRules/"+keys[i].Rule == tt.rule && c.Hits != 1 {
					t.Errorf("%+v counted %+v", keys[i], c)
				}
			}
		})
	}
}

func TestUnchangedAdminRulesAreNotCompiledAgain(t *testing.T) {
	p := withAdmin(figure(nil, nil), []ruleset.Rule{adminRule("admin", 1, ruleset.Inbound, ruleset.Allow)})
	r := newRig(t, p, conntrack.Options{Max: 16})
	again := withAdmin(figure(nil, nil), []ruleset.Rule{adminRule("admin", 1, ruleset.Inbound, ruleset.Allow)})
	s, err := r.engine.Prepare(again)
	if err != nil {
		t.Fatal(err)
	}
	if before, after := r.engine.Snapshot().Groups[0], s.Groups[0]; !before.NSG.Admin || before.Inbound.Match != after.Inbound.Match {
		t.Error("compiled again")
	}
}
