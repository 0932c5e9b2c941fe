package lab

import (
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
)

// clientPort stands for the port that a client's kernel chooses. No rule of the lab
// matches it.
const clientPort = 49152

// ExplainBy explains probes by a policy, over the whole path between both ends, for Options.Explain.
func ExplainBy(s *topology.Snapshot) func(Result) (networkSecurityGroup, rule string, allowed bool) {
	return func(r Result) (string, string, bool) {
		flow := azure.Flow{Protocol: protocolNumber(r.Protocol, r.Source.Family())}
		source, destination := ownerOf(s, r.Source.Address), ownerOf(s, r.Destination.Address)
		local, remote := r.Source.Address, r.Destination.Address
		flow.Direction, flow.NetworkInterface = ruleset.Outbound, source
		flow.LocalPort, flow.RemotePort = clientPort, r.Port
		if source == "" { // the internet has no NIC: ask for the other end
			local, remote = remote, local
			flow.Direction, flow.NetworkInterface = ruleset.Inbound, destination
			flow.LocalPort, flow.RemotePort = r.Port, clientPort
		}
		flow.Local, flow.Remote = local, remote
		result, err := ask.Verify(s, &flow, true)
		if err != nil {
			return "", err.Error(), false
		}
		if result.RuleName == "" {
			return "", result.Reason, result.Access == ruleset.Allow.String()
		}
		return result.NetworkSecurityGroup, result.RuleName, result.Access == ruleset.Allow.String()
	}
}

func protocolNumber(p Protocol, f Family) uint8 {
	switch {
	case p == TCP:
		return packet.ProtoTCP
	case p == UDP:
		return packet.ProtoUDP
	case f == IPv6:
		return packet.ProtoICMPv6
	}
	return packet.ProtoICMP
}

// ownerOf returns the id of the NIC that has an address; empty when none has.
func ownerOf(s *topology.Snapshot, address netip.Addr) string {
	for _, nic := range s.Policy.NetworkInterfaces {
		for i := range nic.IPConfigurations {
			if nic.IPConfigurations[i].Address == address {
				return nic.ID
			}
		}
	}
	return ""
}
