package ask

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane/enginetest"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

func build(t *testing.T, set *policy.Set) *topology.Snapshot {
	t.Helper()
	s, err := topology.Build(set, nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

type asked = azure.NetworkConfigurationDiagnosticProfile

func asking(direction, protocol, source, destination, port string) asked {
	return asked{Direction: direction, Protocol: protocol, Source: source, Destination: destination, DestinationPort: port}
}

func ask(t *testing.T, s *topology.Snapshot, target, level string, p asked) (*azure.NetworkSecurityGroupResult, error) {
	t.Helper()
	response, err := Diagnose(s, &azure.NetworkConfigurationDiagnosticParameters{TargetResourceID: target, VerbosityLevel: level, Profiles: []asked{p}})
	if err != nil {
		return nil, err
	}
	if len(response.Results) != 1 || response.Results[0].Profile != p {
		t.Fatalf("got %+v", response)
	}
	return &response.Results[0].NetworkSecurityGroupResult, nil
}

// table prints a result the way that tests compare: a line a rule, - for a field that
// does not hold.
func table(r *azure.NetworkSecurityGroupResult) []string {
	lines := []string{r.SecurityRuleAccessResult}
	for i := range r.EvaluatedNetworkSecurityGroups {
		g := &r.EvaluatedNetworkSecurityGroups[i]
		lines = append(lines, fmt.Sprintf("%s on %s: %s %s, partly %v", filepath.Base(g.NetworkSecurityGroupID), filepath.Base(g.AppliedTo),
			g.MatchedRule.Action, g.MatchedRule.RuleName, g.PartlyMatchedRules))
		for _, e := range g.RulesEvaluationResult {
			marks := ""
			for _, f := range []struct {
				matched bool
				mark    string
			}{{e.ProtocolMatched, "P"}, {e.SourceMatched, "S"}, {e.SourcePortMatched, "s"}, {e.DestinationMatched, "D"}, {e.DestinationPortMatched, "d"}} {
				if !f.matched {
					f.mark = "-"
				}
				marks += f.mark
			}
			lines = append(lines, marks+" "+e.Name)
		}
	}
	return lines
}

func TestDiagnose(t *testing.T) {
	s := build(t, figureOfTheSeed())
	tests := []struct {
		name, target, level string
		profile             asked
		want                []string
	}{
		{"inbound, the subnet's NSG and then the NIC's", "vm1-nic", "", asking("Inbound", "TCP", world, addr1, "80"), []string{"Allow",
			"NSG1 on Subnet1: Allow UserRule_AllowHttpInBound, partly []", "PSsDd UserRule_AllowHttpInBound",
			"NSG2 on vm1-nic: Allow UserRule_AllowHttpInBound, partly []", "PSsDd UserRule_AllowHttpInBound"}},
		{"no NSG behind one that denies, and every rule up to the match", "VM1-nic", "normal", asking("inbound", "tcp", world, addr1, "22"), []string{"Deny",
			"NSG1 on Subnet1: Deny DefaultRule_DenyAllInBound, partly []", "PSsD- UserRule_AllowHttpInBound", "P-sDd DefaultRule_AllowVnetInBound",
			"P-sDd DefaultRule_AllowAzureLoadBalancerInBound", "PSsDd DefaultRule_DenyAllInBound"}},
		{"without the rules' fields", "vm1-nic", "Minimum", asking("Inbound", "TCP", world, addr1, "22"), []string{"Deny",
			"NSG1 on Subnet1: Deny DefaultRule_DenyAllInBound, partly []"}},
		{"the rules behind the match too", "vm2-nic", "Full", asking("Inbound", "UDP", addr1, addr2, "53"), []string{"Allow",
			"NSG1 on Subnet1: Allow DefaultRule_AllowVnetInBound, partly []", "--sD- UserRule_AllowHttpInBound", "PSsDd DefaultRule_AllowVnetInBound",
			"P-sDd DefaultRule_AllowAzureLoadBalancerInBound", "PSsDd DefaultRule_DenyAllInBound"}},
		{"outbound, the NIC's NSG first", "vm1-nic", "Minimum", asking("Outbound", "TCP", addr1, world, "443"), []string{"Allow",
			"NSG2 on vm1-nic: Allow DefaultRule_AllowInternetOutBound, partly []", "NSG1 on Subnet1: Allow DefaultRule_AllowInternetOutBound, partly []"}},
		{"a rule without ports holds for ICMP, one for a port does not", "vm2-nic", "", asking("Inbound", "ICMP", world, addr2, "*"), []string{"Deny",
			"NSG1 on Subnet1: Deny DefaultRule_DenyAllInBound, partly []", "-SsD- UserRule_AllowHttpInBound", "P-sDd DefaultRule_AllowVnetInBound",
			"P-sDd DefaultRule_AllowAzureLoadBalancerInBound", "PSsDd DefaultRule_DenyAllInBound"}},
		{"any source is what no rule holds a part of", "vm2-nic", "", asking("Inbound", "TCP", "*", addr2, "80"), []string{"Deny",
			"NSG1 on Subnet1: Deny DefaultRule_DenyAllInBound, partly [UserRule_AllowHttpInBound DefaultRule_AllowVnetInBound]", // the load balancer's address is the internet's too
			"P-sDd UserRule_AllowHttpInBound", "P-sDd DefaultRule_AllowVnetInBound", "P-sDd DefaultRule_AllowAzureLoadBalancerInBound", "PSsDd DefaultRule_DenyAllInBound"}},
		{"a tag in any case", "vm2-nic", "Minimum", asking("Inbound", "TCP", "internet", addr2, "80"), []string{"Allow",
			"NSG1 on Subnet1: Allow UserRule_AllowHttpInBound, partly []"}},
		{"a prefix as destination", "vm2-nic", "Minimum", asking("Inbound", "*", "10.0.3.0/24", "10.0.1.0/24", "*"), []string{"Allow",
			"NSG1 on Subnet1: Allow DefaultRule_AllowVnetInBound, partly []"}},
		{"any protocol and a port that only one protocol has a rule for", "vm2-nic", "Minimum", asking("Inbound", "Any", world, addr2, "80"), []string{"Deny",
			"NSG1 on Subnet1: Deny DefaultRule_DenyAllInBound, partly [UserRule_AllowHttpInBound]"}},
		{"no NSG on the way", "vm4-nic", "", asking("Inbound", "TCP", world, addr4, "80"), []string{"Allow"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ask(t, s, tt.target, tt.level, tt.profile)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, table(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Diagnose named rules whose part belongs to rules before them, and was headed Deny where one port is open.
func TestDiagnoseNamesTheRulesThatDecideAPart(t *testing.T) {
	deny := allowHTTP()
	deny.Name, deny.Priority, deny.Access, deny.DestinationPorts = "DenyAgain", 110, ruleset.Deny, []ruleset.PortRange{{First: 79, Last: 81}}
	shadowed := allowHTTP()
	shadowed.Name, shadowed.Priority = "Shadowed", 120
	tests := []struct {
		name      string
		rules     []ruleset.Rule
		partly    string
		otherwise bool
	}{
		{"a rule whose part rules before it have decides nothing", []ruleset.Rule{allowHTTP(), deny, shadowed}, "[UserRule_AllowHttpInBound UserRule_DenyAgain]", true},
		{"a part with the same access is no other", []ruleset.Rule{deny, shadowed}, "[UserRule_DenyAgain]", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ask(t, build(t, figure(tt.rules, nil)), "vm2-nic", "Minimum", asking("Inbound", "TCP", world, addr2, "*"))
			if err != nil {
				t.Fatal(err)
			}
			partly := fmt.Sprint(got.EvaluatedNetworkSecurityGroups[0].PartlyMatchedRules)
			if got.SecurityRuleAccessResult != "Deny" || partly != tt.partly || got.PartlyOtherwise != tt.otherwise {
				t.Errorf("%s, partly %s, otherwise %v; want Deny, %s, %v", got.SecurityRuleAccessResult, partly, got.PartlyOtherwise, tt.partly, tt.otherwise)
			}
		})
	}
}

func TestDiagnoseRefuses(t *testing.T) {
	tcp, udp := allowHTTP(), allowHTTP()
	tcp.Source, udp.Source = ruleset.Peer{Any: true}, ruleset.Peer{Any: true}
	udp.Name, udp.Protocol, udp.Priority = "AllowQuic", ruleset.UDP, 110
	halves := allowHTTP()
	halves.Source = ruleset.Peer{Prefixes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/25"), netip.MustParsePrefix("198.51.100.128/25")}}
	halves.Name, halves.DestinationPorts = "Lower", []ruleset.PortRange{{First: 0, Last: 999}}
	upper := halves
	upper.Name, upper.Priority, upper.DestinationPorts = "Upper", 101, []ruleset.PortRange{{First: 1000, Last: 65535}}
	policy := figure([]ruleset.Rule{tcp, udp}, []ruleset.Rule{halves, upper})
	s := build(t, policy)
	tests := []struct {
		name, target, level string
		profile             asked
		want                string
	}{
		{"an unknown target", "vm9-nic", "", asking("Inbound", "TCP", world, addr1, "80"), `network interface "vm9-nic" not found`},
		{"no target", "", "", asked{}, "targetResourceId is missing"},
		{"another level", "vm1-nic", "Most", asking("Inbound", "TCP", world, addr1, "80"), `verbosityLevel "Most": allowed are Normal, Minimum and Full`},
		{"no direction", "vm1-nic", "", asking("", "TCP", world, addr1, "80"), `direction ""`},
		{"no protocol", "vm1-nic", "", asking("Inbound", "", world, addr1, "80"), `protocol "": allowed are TCP`},
		{"no source", "vm1-nic", "", asking("Inbound", "TCP", "", addr1, "80"), "source is missing"},
		{"host bits", "vm1-nic", "", asking("Inbound", "TCP", "10.0.0.1/24", addr1, "80"), `source "10.0.0.1/24": host bits are set`},
		{"two families", "vm1-nic", "", asking("Inbound", "TCP", "fd00::1", addr1, "80"), "not of the same address family"},
		{"a range of ports", "vm1-nic", "", asking("Inbound", "TCP", world, addr1, "80-90"), `destinationPort "80-90": allowed are 0 to 65535 and *`},
		{"a tag that no rule names", "vm1-nic", "", asking("Inbound", "TCP", "Storage", addr1, "80"), `source "Storage": no rule names a tag of that name`},
		{"protocols that have rules of their own", "vm2-nic", "", asking("Inbound", "*", world, addr2, "80"), `protocol "*": the answer is not one for all protocols, as UserRule_`},
		{"ports that two rules share out", "vm3-nic", "", asking("Inbound", "TCP", "198.51.100.0/24", addr3, "*"),
			"destinationPort: the answer is not one for all that it stands for: UserRule_Lower, UserRule_Upper divide it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ask(t, s, tt.target, tt.level, tt.profile)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v; want an error with %q", got, err, tt.want)
			}
		})
	}
	t.Run("a bad profile among others is named", func(t *testing.T) {
		good := asking("Inbound", "TCP", world, addr1, "80")
		_, err := Diagnose(s, &azure.NetworkConfigurationDiagnosticParameters{TargetResourceID: "vm1-nic", Profiles: []asked{good, {}}})
		if err == nil || !strings.HasPrefix(err.Error(), "profiles[1]: ") {
			t.Error(err)
		}
		if _, err = Diagnose(s, &azure.NetworkConfigurationDiagnosticParameters{TargetResourceID: "vm1-nic"}); err == nil {
			t.Error("no profile at all was accepted")
		}
	})
}

// questionFrom reads a profile, and the NIC that it is for.
func questionFrom(c *packettest.Choices) (target string, p asked) {
	nic := c.Next(4)
	ipv6 := c.Next(2) == 1
	address := func(h enginetest.Host) string {
		if ipv6 {
			return h.V6
		}
		return h.V4
	}
	end := func(usual string) string {
		switch c.Next(8) {
		case 0:
			return "*"
		case 1:
			return packettest.Pick(c, "VirtualNetwork", "Internet")
		case 2:
			for {
				if p := packettest.Pick(c, enginetest.Prefixes...); p.Addr().Is6() == ipv6 {
					return p.String()
				}
				if len(*c) == 0 {
					return usual
				}
			}
		}
		return usual
	}
	local, remote := address(enginetest.Hosts[nic]), address(enginetest.Hosts[c.Next(12)])
	p = asked{Direction: "Outbound", Protocol: packettest.Pick(c, "TCP", "UDP", "ICMP", "ESP", "AH", "47", "*", "TCP"), Source: end(local), Destination: end(remote),
		DestinationPort: packettest.Pick(c, "80", "*", "79", "1024", "8", "0", "65535", "81")}
	if c.Next(2) == 1 {
		p.Direction, p.Source, p.Destination = "Inbound", end(remote), end(local)
	}
	return fmt.Sprintf("vm%d-nic", nic+1), p
}

// samples are addresses of a profile's side: the borders of all that rules name, and hosts.
func samples(s *topology.Snapshot, text string, ipv6 bool) (list []netip.Addr) {
	if a, err := netip.ParseAddr(text); err == nil {
		return []netip.Addr{a}
	}
	in := everyAddress
	if p, err := netip.ParsePrefix(text); err == nil {
		in = []netip.Prefix{p}
	} else if text != "*" {
		in, _ = s.ExpandTag(s.Policy.VirtualNetworks[0].Subnets[0], text)
	}
	var all []netip.Addr
	for _, p := range enginetest.Prefixes {
		all = append(all, p.Addr(), netipx.PrefixLastIP(p), netipx.PrefixLastIP(p).Next())
	}
	for _, h := range enginetest.Hosts[:7] { // the platform answers for itself
		all = append(all, netip.MustParseAddr(h.V4), netip.MustParseAddr(h.V6))
	}
	for _, a := range all {
		if a.IsValid() && a.Is6() == ipv6 && slices.ContainsFunc(in, func(p netip.Prefix) bool { return p.Contains(a) }) {
			list = append(list, a)
		}
	}
	return list
}

// The fields of a rule all hold for exactly the rule that the engine says matched first;
// for a profile of one packet the verdict is that of verify; and where no rule is said to
// hold a part of a profile, every packet of it has the same verdict by the same rules. Where no part
// is said to have the other access, none has.
func TestDiagnoseAgreesWithTheEngine(t *testing.T) {
	random := rand.New(rand.NewPCG(3, rand.Uint64()))
	answered, refused, sampled := 0, 0, 0
	for range 2500 {
		bytes := make([]byte, 400)
		for i := range bytes {
			bytes[i] = byte(random.Uint32())
		}
		c := packettest.Choices(bytes)
		set := enginetest.PolicyFrom(&c)
		s, err := topology.Build(set, nil, topology.NewRegistry())
		if err != nil {
			continue
		}
		for range 8 {
			for i := range bytes {
				bytes[i] = byte(random.Uint32())
			}
			c = packettest.Choices(bytes)
			target, p := questionFrom(&c)
			got, err := ask(t, s, target, "", p)
			if err != nil {
				refused++
				continue
			}
			answered++
			partly := checkFields(t, got)
			sampled += checkPackets(t, s, target, &p, got, partly)
			if t.Failed() {
				t.Fatalf("%s: %+v: %v", target, p, table(got))
			}
		}
	}
	t.Logf("%d answered, %d refused, %d packets", answered, refused, sampled)
	if answered < 5000 || sampled < 5000 {
		t.Errorf("%d answered, %d refused, %d packets: this tests too little", answered, refused, sampled)
	}
}

func checkFields(t *testing.T, got *azure.NetworkSecurityGroupResult) (partly bool) {
	t.Helper()
	partly = len(got.PartlyMatchedBefore) > 0
	for i := range got.EvaluatedNetworkSecurityGroups {
		g := &got.EvaluatedNetworkSecurityGroups[i]
		partly = partly || len(g.PartlyMatchedRules) > 0
		for j, e := range g.RulesEvaluationResult {
			all := e.ProtocolMatched && e.SourceMatched && e.SourcePortMatched && e.DestinationMatched && e.DestinationPortMatched
			last := j == len(g.RulesEvaluationResult)-1
			if all != last || last && e.Name != g.MatchedRule.RuleName {
				t.Errorf("%+v: matched is %s", e, g.MatchedRule.RuleName)
			}
		}
	}
	return partly
}

// checkPackets asks verify about packets of a profile and returns their number.
func checkPackets(t *testing.T, s *topology.Snapshot, target string, p *asked, got *azure.NetworkSecurityGroupResult, partly bool) int {
	t.Helper()
	if p.Protocol == "*" {
		return 0
	}
	nic, err := s.Policy.NetworkInterface(target)
	if err != nil {
		t.Fatal(err)
	}
	ipv6 := strings.Contains(p.Source+p.Destination, ":")
	ports := []string{p.DestinationPort}
	if p.DestinationPort == "*" {
		ports = []string{"0", "79", "80", "81", "82", "1023", "1024", "65535"}
	}
	n := 0
	for _, src := range samples(s, p.Source, ipv6) {
		for _, dst := range samples(s, p.Destination, ipv6) {
			for _, port := range ports {
				number, _ := strconv.ParseUint(port, 10, 16)
				traffic, err := p.Traffic()
				if err != nil {
					t.Fatal(err)
				}
				q := &azure.Flow{NetworkInterface: target, Direction: traffic.Direction, Protocol: traffic.Protocol(ipv6),
					Local: src, Remote: dst, RemotePort: uint16(number)}
				if q.Direction == ruleset.Inbound {
					q.Local, q.LocalPort, q.Remote, q.RemotePort = dst, uint16(number), src, 0
				}
				if s.Endpoint(nic, q.Local) == nil {
					continue // verify answers for the NIC's own addresses alone
				}
				n++
				want, err := Verify(s, q, false)
				if err != nil {
					t.Fatal(err)
				}
				if partly {
					if want.Access != got.SecurityRuleAccessResult && !got.PartlyOtherwise {
						t.Errorf("%+v: verify says %+v, and diagnose says that no part has the other access", q, want)
					}
					continue
				}
				same := want.Access == got.SecurityRuleAccessResult && len(want.Stages) == len(got.EvaluatedNetworkSecurityGroups)
				for i := 0; same && i < len(want.Stages); i++ {
					_, name, _ := strings.Cut(want.Stages[i].RuleName, "/")
					_, matched, _ := strings.Cut(got.EvaluatedNetworkSecurityGroups[i].MatchedRule.RuleName, "_")
					same = name == matched
				}
				if !same {
					t.Errorf("%+v: verify says %+v", q, want)
				}
			}
		}
	}
	return n
}

func TestATargetIsAVirtualMachineToo(t *testing.T) {
	set := figureOfTheSeed()
	vm := "/subscriptions/s/resourceGroups/r/providers/Microsoft.Compute/virtualMachines/VM"
	set.NetworkInterfaces[0].VirtualMachineID, set.NetworkInterfaces[1].VirtualMachineID = vm, strings.ToUpper(vm)
	set.NetworkInterfaces[3].VirtualMachineID = strings.Replace(vm, "VM", "other", 1)
	s := build(t, set)
	flow := func(nic, beside, local string) *azure.Flow {
		return &azure.Flow{NetworkInterface: nic, VirtualMachine: beside, Direction: ruleset.Inbound, Protocol: 6,
			Local: netip.MustParseAddr(local), LocalPort: 80, Remote: netip.MustParseAddr(world)}
	}
	for _, tt := range []struct {
		name string
		flow *azure.Flow
		want string // the last NSG, or a part of the error
		fail bool
	}{
		{"by id", flow(vm, "", addr1), "NSG2", false},
		{"by name, the NIC that has the address", flow("vm", "", addr2), "NSG1", false},
		{"by the end of its id", flow("virtualMachines/vm", "", addr2), "NSG1", false},
		{"beside its NIC", flow("vm1-nic", "virtualMachines/vm", addr1), "NSG2", false},
		{"beside another's NIC", flow("vm4-nic", vm, addr4), "belongs to virtual machine", true},
		{"an address of none of its NICs", flow("vm", "", addr4), "its network interfaces are vm1-nic, vm2-nic", true},
		{"an unknown one", flow("virtualMachines/vm7", "", addr1), `virtual machine "vm7" not found: the policy has VM, other`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Verify(s, tt.flow, false)
			switch {
			case tt.fail && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %+v, %v", got, err)
			case !tt.fail && (err != nil || got.NetworkSecurityGroup != tt.want):
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	t.Run("one that forwards needs its NIC named", func(t *testing.T) {
		set.NetworkInterfaces[1].EnableIPForwarding = true
		if _, err := Verify(build(t, set), flow(vm, "", addr1), false); err == nil || !strings.Contains(err.Error(), "targetNicResourceId is needed; they are vm1-nic, vm2-nic") {
			t.Error(err)
		}
	})
}

// slowCover is cover by asking every address.
func slowCover(list, set []netip.Prefix) coverage {
	in, out := 0, 0
	holds := func(list []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	for a := range 256 {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(a)})
		switch {
		case !holds(set, addr):
		case holds(list, addr):
			in++
		default:
			out++
		}
	}
	switch {
	case in > 0 && out == 0:
		return everything
	case in > 0:
		return some
	}
	return nothing
}

func TestSetsAreWhatTheirPrefixesHold(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	prefixes := func() (list []netip.Prefix) {
		for range random.IntN(6) {
			p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(256))}).Prefix(24 + random.IntN(9))
			list = append(list, p)
		}
		return list
	}
	for range 5000 {
		list, set := prefixes(), prefixes()
		held, of := addressesOf(list, false), addressesOf(set, false)
		want := slowCover(list, set)
		if got := cover(held, of); got != want {
			t.Fatalf("%v cover %v of %v, want %v", list, got, set, want)
		}
		a, ok := firstOutside(of, held)
		if ok != (len(set) > 0 && want != everything) {
			t.Fatalf("%v outside %v: %v, %v", set, list, a, ok)
		}
		contains := func(p netip.Prefix) bool { return p.Contains(a) }
		if ok && (!slices.ContainsFunc(set, contains) || slices.ContainsFunc(list, contains)) {
			t.Fatalf("%v is not in %v without %v", a, set, list)
		}
	}
	for _, p := range everyAddress {
		if _, ok := firstOutside(addressesOf(everyAddress, p.Addr().Is6()), addressesOf(everyAddress, p.Addr().Is6())); ok {
			t.Errorf("something is outside %v", p)
		}
	}
}
