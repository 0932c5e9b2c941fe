package ask

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

func TestVerify(t *testing.T) {
	q := func(nic string, d ruleset.Direction, proto uint8, local string, lport uint16, remote string, rport uint16) azure.Flow {
		return azure.Flow{NetworkInterface: nic, Direction: d, Protocol: proto, Local: netip.MustParseAddr(local), LocalPort: lport,
			Remote: netip.MustParseAddr(remote), RemotePort: rport}
	}
	stage := func(nsg, association, direction, rule, access string, priority int) azure.VerificationStage {
		return azure.VerificationStage{NetworkSecurityGroup: nsg, Association: association, Direction: direction, RuleName: rule, Access: access, Priority: priority}
	}
	tests := []struct {
		name string
		flow azure.Flow
		path bool
		want azure.VerificationIPFlowResult
	}{
		{"both NSGs allow: the last one names the result",
			q("vm1-nic", ruleset.Inbound, 6, addr1, 80, world, 40000), false,
			azure.VerificationIPFlowResult{Access: "Allow", RuleName: "securityRules/AllowHttpInBound", RuleID: "/nsg/NSG2/securityRules/AllowHttpInBound", NetworkSecurityGroup: "NSG2", Reason: "rule",
				Stages: []azure.VerificationStage{
					stage("NSG1", "subnet", "Inbound", "securityRules/AllowHttpInBound", "Allow", 100),
					stage("NSG2", "networkInterface", "Inbound", "securityRules/AllowHttpInBound", "Allow", 100)}}},
		{"the first deny names the result and ends the walk",
			q("vm1-nic", ruleset.Inbound, 6, addr1, 22, world, 40000), false,
			azure.VerificationIPFlowResult{Access: "Deny", RuleName: "defaultSecurityRules/DenyAllInBound", NetworkSecurityGroup: "NSG1", Reason: "rule",
				Stages: []azure.VerificationStage{stage("NSG1", "subnet", "Inbound", "defaultSecurityRules/DenyAllInBound", "Deny", 65500)}}},
		{"outbound asks the NIC's NSG first",
			q("vm1-nic", ruleset.Outbound, 17, addr1, 1, world, 53), false,
			azure.VerificationIPFlowResult{Access: "Allow", RuleName: "defaultSecurityRules/AllowInternetOutBound", NetworkSecurityGroup: "NSG1", Reason: "rule",
				Stages: []azure.VerificationStage{
					stage("NSG2", "networkInterface", "Outbound", "defaultSecurityRules/AllowInternetOutBound", "Allow", 65001),
					stage("NSG1", "subnet", "Outbound", "defaultSecurityRules/AllowInternetOutBound", "Allow", 65001)}}},
		{"no NSG on the way", q("vm4-nic", ruleset.Inbound, 6, addr4, 1, world, 1), false,
			azure.VerificationIPFlowResult{Access: "Allow", Reason: "noNetworkSecurityGroup", Stages: []azure.VerificationStage{}}},
		{"the path adds the other end's chain", q("vm4-nic", ruleset.Outbound, 1, addr4, 0, addr2, 0), true,
			azure.VerificationIPFlowResult{Access: "Allow", RuleName: "defaultSecurityRules/AllowVnetInBound", NetworkSecurityGroup: "NSG1", Reason: "rule",
				Stages: []azure.VerificationStage{stage("NSG1", "subnet", "Inbound", "defaultSecurityRules/AllowVnetInBound", "Allow", 65000)}}},
		{"the path without a route", q("vm4-nic", ruleset.Outbound, 1, addr4, 0, "192.168.0.1", 0), true,
			azure.VerificationIPFlowResult{Access: "Deny", Reason: "noRoute", Stages: []azure.VerificationStage{}}},
	}
	s, err := topology.Build(figureOfTheSeed(), nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Verify(s, &tt.flow, tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// verify --path said Allow where a running engine has nowhere to write the packet to. A policy alone
// says nothing of attachments.
func TestThePathEndsWhereNothingIsAttached(t *testing.T) {
	nic := topology.Spec{Kind: topology.NetworkInterface, Reference: "vm4-nic"}
	for _, tt := range []struct {
		name           string
		attachments    []topology.Spec
		access, reason string
	}{
		{"a policy alone", nil, "Allow", ReasonRule},
		{"nothing at the other end", []topology.Spec{nic}, "Deny", "noRoute"},
		{"both ends", []topology.Spec{nic, {Kind: topology.NetworkInterface, Reference: "vm2-nic"}}, "Allow", ReasonRule},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := topology.Build(figureOfTheSeed(), tt.attachments, topology.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			r, err := Verify(s, &azure.Flow{NetworkInterface: "vm4-nic", Direction: ruleset.Outbound, Protocol: packet.ProtoICMP,
				Local: netip.MustParseAddr(addr4), Remote: netip.MustParseAddr(addr2)}, true)
			if err != nil || r.Access != tt.access || r.Reason != tt.reason {
				t.Errorf("%+v, %v; want %s, %s", r, err, tt.access, tt.reason)
			}
		})
	}
}

func TestVerifyNamesWhatItDoesNotKnow(t *testing.T) {
	s, err := topology.Build(figureOfTheSeed(), nil, topology.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	flow := azure.Flow{NetworkInterface: "vm9-nic", Local: netip.MustParseAddr(addr1), Remote: netip.MustParseAddr(addr2), Protocol: 6}
	if _, err := Verify(s, &flow, false); err == nil || !strings.Contains(err.Error(), "vm9-nic") {
		t.Errorf("unknown NIC: %v", err)
	}
	flow.NetworkInterface, flow.Local = "vm1-nic", netip.MustParseAddr(addr2)
	if _, err := Verify(s, &flow, false); err == nil || !strings.Contains(err.Error(), addr1) {
		t.Errorf("another NIC's address: %v", err)
	}
}

// ICMP over IPv6 got the answer of ICMPv6, which the wire does not give it.
func TestVerifyClassifiesAsTheDecoderDoes(t *testing.T) {
	v4, v6 := make([]byte, 28), make([]byte, 48)
	v4[0], v4[3], v4[8] = 0x45, 28, 64
	copy(v4[12:], []byte{10, 0, 1, 4, 10, 0, 2, 4})
	v6[0], v6[5], v6[7] = 0x60, 8, 64
	v6[8], v6[23], v6[24], v6[39] = 0xfd, 4, 0xfd, 5
	for _, tt := range []struct {
		name     string
		packet   []byte
		protocol uint8
		message  uint8 // echo request, where it is one
	}{
		{"ICMP over IPv4", v4, packet.ProtoICMP, packet.ICMPv4EchoRequest},
		{"ICMPv6 over IPv4", v4, packet.ProtoICMPv6, packet.ICMPv6EchoRequest},
		{"ICMP over IPv6", v6, packet.ProtoICMP, packet.ICMPv4EchoRequest},
		{"ICMPv6 over IPv6", v6, packet.ProtoICMPv6, packet.ICMPv6EchoRequest},
		{"ESP over IPv4", v4, packet.ProtoESP, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := slices.Clone(tt.packet)
			if b[0]>>4 == 4 {
				b[9], b[20] = tt.protocol, tt.message
			} else {
				b[6], b[40] = tt.protocol, tt.message
			}
			var d packet.Decoder
			var p packet.Packet
			if drop := d.Decode(b, 0, &p); drop != packet.NotDropped {
				t.Fatalf("dropped: %v", drop)
			}
			var scratch [2]packet.Tuple
			want := *p.Classification(&p.Tuple, &scratch[0])
			first := packet.Packet{Tuple: packet.Tuple{Src: p.Src, Dst: p.Dst, SrcPort: 7, DstPort: 7, Proto: tt.protocol}}
			asFirst(&first)
			if got := *first.Classification(&first.Tuple, &scratch[1]); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
