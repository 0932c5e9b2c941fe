package ask

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/azure"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Diagnose answers Azure's NSG diagnostics: for each profile the verdict of the NIC's own
// chain, and which fields of each rule up to the match hold. The verdict is that on one
// packet of the profile; see profile.witness for how a profile of many packets has one.
// The source port, which a profile does not have, is 0, as Verify takes "*".
func Diagnose(s *topology.Snapshot, q *azure.NetworkConfigurationDiagnosticParameters) (*azure.NetworkConfigurationDiagnosticResponse, error) {
	level, err := q.Verbosity()
	if err != nil {
		return nil, err
	}
	if q.TargetResourceID == "" {
		return nil, errors.New("targetResourceId is missing: it names a virtual machine or a network interface")
	}
	nics, err := s.Policy.Target(q.TargetResourceID)
	if err != nil {
		return nil, err
	}
	if len(q.Profiles) == 0 {
		return nil, errors.New("profiles is empty: at least one is needed")
	}
	response := &azure.NetworkConfigurationDiagnosticResponse{}
	for i := range q.Profiles {
		result, err := diagnose(s, nics, &q.Profiles[i], level)
		if err != nil && len(q.Profiles) > 1 {
			err = fmt.Errorf("profiles[%d]: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
		response.Results = append(response.Results, azure.NetworkConfigurationDiagnosticResult{Profile: q.Profiles[i], NetworkSecurityGroupResult: *result})
	}
	return response, nil
}

func diagnose(s *topology.Snapshot, nics []*policy.NetworkInterface, asked *azure.NetworkConfigurationDiagnosticProfile, level string) (*azure.NetworkSecurityGroupResult, error) {
	traffic, err := asked.Traffic()
	if err != nil {
		return nil, err
	}
	end, err := diagnosedEnd(s, nics, traffic)
	if err != nil {
		return nil, err
	}
	p, err := newProfile(s, end, traffic)
	if err != nil {
		return nil, err
	}
	stages := slices.Concat(end.AdminOutbound, end.Outbound)
	if traffic.Direction == ruleset.Inbound {
		stages = slices.Concat(end.AdminInbound, end.Inbound)
	}
	witness, err := p.witness(stages)
	if err != nil {
		return nil, err
	}
	var d verdict.Decision
	drop := p.decide(s, end, &witness, &d)
	v := &d.Verdict
	result := p.explain(end, v, level)
	if v.Service != topology.NoService && v.Access == ruleset.Allow {
		result.Reason = ReasonPlatform
	} else {
		_, services := p.service()
		result.PartlyMatchedBefore = slices.Compact(append(services, p.partlyAdmin(stages, v)...))
	}
	switch {
	case drop == packet.DropSMTP && p.AnyProtocol:
		return nil, errors.New(`protocol "*": the answer is not one for all protocols: TCP port 25 to the internet is blocked for the subscription; ask for each`)
	case drop != packet.NotDropped && drop != packet.DropRule:
		result.SecurityRuleAccessResult, result.Reason = ruleset.Deny.String(), ReasonOf(drop)
	}
	if divided(result) && result.Reason == "" {
		result.PartlyOtherwise = p.otherwise(verdict.NewChains(s).Of(end, traffic.Direction), v.Access)
	}
	return result, nil
}

// divided reports whether some rule decides a part of the profile.
func divided(r *azure.NetworkSecurityGroupResult) bool {
	return len(r.PartlyMatchedBefore) > 0 || slices.ContainsFunc(r.EvaluatedNetworkSecurityGroups,
		func(g azure.EvaluatedNetworkSecurityGroup) bool { return len(g.PartlyMatchedRules) > 0 })
}

// decide asks the end's own chain about the witness.
func (p *profile) decide(s *topology.Snapshot, end *topology.Endpoint, witness *packet.Packet, d *verdict.Decision) packet.Drop {
	if p.Direction == ruleset.Inbound {
		way := topology.Way{To: end, Arrives: witness.Tuple}
		if remote := p.Source.Prefix; remote.IsValid() && remote.IsSingleIP() {
			way.Closed = s.ClosedTo(end, remote.Addr())
		}
		return d.Receives(s, &way, witness)
	}
	if p.AnyProtocol && p.protocol == unnamedProtocol {
		// Protocols without ports have no way out by a shared address; most of the profile has.
		tcp := *witness
		tcp.Proto = packet.ProtoTCP
		if d.Sends(s, end, &tcp) != packet.DropNoOutbound && d.Sends(s, end, witness) == packet.DropNoOutbound {
			return packet.NotDropped
		}
	}
	return d.Sends(s, end, witness)
}

// diagnosedEnd is the endpoint whose chain answers: the one with the local address. For a prefix, or
// an address that the NIC forwards for, it is the NIC's first one of the family.
func diagnosedEnd(s *topology.Snapshot, nics []*policy.NetworkInterface, t *azure.Traffic) (*topology.Endpoint, error) {
	local, remote := &t.Source, &t.Destination
	if t.Direction == ruleset.Inbound {
		local, remote = remote, local
	}
	if local.Prefix.IsValid() && local.Prefix.IsSingleIP() {
		for _, nic := range nics {
			if e := s.Endpoint(nic, local.Prefix.Addr()); e != nil {
				return e, nil
			}
		}
	}
	if len(nics) > 1 {
		return nil, fmt.Errorf("the virtual machine has several network interfaces and none has the local address: name one of %s", nicNames(nics))
	}
	var first *topology.Endpoint
	for i := range nics[0].IPConfigurations {
		c := &nics[0].IPConfigurations[i]
		e := s.Endpoint(nics[0], c.Address)
		if e == nil || !ofFamily(c.Address, local) || !ofFamily(c.Address, remote) {
			continue
		}
		if first == nil || c.Primary {
			first = e
		}
	}
	if first == nil {
		return nil, fmt.Errorf("network interface %q has no address of that family; it has %s", nics[0].Name, addresses(nics[0]))
	}
	return first, nil
}

func ofFamily(a netip.Addr, end *azure.TrafficEnd) bool {
	return !end.Prefix.IsValid() || end.Prefix.Addr().Is6() == a.Is6()
}

// explain shows a verdict, and for each rule that was compared which of its fields hold.
func (p *profile) explain(end *topology.Endpoint, v *verdict.Verdict, level string) *azure.NetworkSecurityGroupResult {
	result := &azure.NetworkSecurityGroupResult{
		SecurityRuleAccessResult: v.Access.String(), EvaluatedNetworkSecurityGroups: []azure.EvaluatedNetworkSecurityGroup{},
	}
	for i := range v.N {
		st := &v.Stages[i]
		rule := st.SecurityRule()
		evaluated := azure.EvaluatedNetworkSecurityGroup{
			NetworkSecurityGroupID: st.Stage.Group.NSG.ID, AppliedTo: appliedTo(end, st.Stage),
			MatchedRule:           azure.MatchedRule{RuleName: rule.PrefixedName(), Action: rule.Access.String()},
			RulesEvaluationResult: []azure.NetworkSecurityRuleEvaluation{},
		}
		rules := st.Stage.Table.Resolved()
		asked := func(j int) bool { return v.Service == topology.NoService || st.Stage.Table.NamesService(j) }
		decides := p.partly(st.Stage.Table, st.Rule, asked)
		for j := range rules {
			if !asked(j) {
				continue // only rules that name the service are asked
			}
			f := p.fields(&rules[j])
			name := st.Stage.Table.Rules[j].PrefixedName()
			if decides[j] && f.least() == some {
				evaluated.PartlyMatchedRules = append(evaluated.PartlyMatchedRules, name)
			}
			if level == azure.VerbosityFull || level == azure.VerbosityNormal && j <= st.Rule {
				evaluated.RulesEvaluationResult = append(evaluated.RulesEvaluationResult, azure.NetworkSecurityRuleEvaluation{
					Name: name, ProtocolMatched: f.protocol == everything,
					SourceMatched: f.source == everything, SourcePortMatched: f.sourcePort == everything,
					DestinationMatched: f.destination == everything, DestinationPortMatched: f.destinationPort == everything,
				})
			}
		}
		result.EvaluatedNetworkSecurityGroups = append(result.EvaluatedNetworkSecurityGroups, evaluated)
	}
	return result
}

// partlyAdmin names the admin rules that hold a part of the profile and would decide that part. Those
// of the rule collection that decides are not among them.
func (p *profile) partlyAdmin(stages []topology.Stage, v *verdict.Verdict) (names []string) {
	var decides *verdict.StageVerdict
	if v.N > 0 && v.Stages[0].Stage.Association == topology.NetworkManagerAssociation {
		decides = &v.Stages[0]
	}
	for i := range stages {
		st := &stages[i]
		if st.Association != topology.NetworkManagerAssociation || decides != nil && decides.Stage.Table == st.Table {
			continue
		}
		rules := st.Table.Resolved()
		for j := range rules {
			if decides != nil && st.Table.Rules[j].Priority > decides.SecurityRule().Priority {
				break
			}
			f := p.fields(&rules[j])
			if f.least() == everything {
				break
			}
			if f.least() == some {
				names = append(names, st.Table.Rules[j].PrefixedName())
			}
		}
	}
	return names
}

// appliedTo is the id of what a stage's NSG, or rule collection, is associated with.
func appliedTo(end *topology.Endpoint, st *topology.Stage) string {
	switch st.Association {
	case topology.NetworkInterfaceAssociation:
		return end.NetworkInterface.ID
	case topology.NetworkManagerAssociation:
		return end.Subnet.VirtualNetwork.ID
	}
	return end.Subnet.ID
}
