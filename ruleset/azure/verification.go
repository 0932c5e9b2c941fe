package azure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// VerificationIPFlowParameters is a question to IP flow verify as Azure names its
// fields. ParseFlow checks it.
type VerificationIPFlowParameters struct {
	// TargetResourceID is the id or name of a virtual machine or of a NIC. A name that fits
	// both means the NIC.
	TargetResourceID string `json:"targetResourceId,omitempty"`
	Direction        string `json:"direction"` // Inbound or Outbound
	// Protocol is TCP, UDP, ICMP, ESP, AH or a number. Azure itself takes TCP and UDP only.
	Protocol        string `json:"protocol"`
	LocalPort       string `json:"localPort,omitempty"`
	RemotePort      string `json:"remotePort,omitempty"`
	LocalIPAddress  string `json:"localIPAddress"`
	RemoteIPAddress string `json:"remoteIPAddress"`
	// TargetNicResourceID is the NIC's id or name.
	TargetNicResourceID string `json:"targetNicResourceId,omitempty"`
}

// VerificationIPFlowResult answers a question with Azure's access and ruleName, and says
// how the verdict came about.
type VerificationIPFlowResult struct {
	Access               string `json:"access"`
	RuleName             string `json:"ruleName"` // empty when no NSG is on the way
	RuleID               string `json:"ruleId"`   // of a user rule; empty for a default rule
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Reason               string `json:"reason"`
	PlatformService      string `json:"platformService,omitempty"` // the service that the flow asks for
	// Translations are the changes of the flow's addresses on its way, the destination's
	// first. Absent when nothing is translated.
	Translations []Translation       `json:"translations,omitempty"`
	Stages       []VerificationStage `json:"stages"` // as evaluated; not nil
}

// Translation is one change of an address and port. The source's rules see the flow
// before the change, the destination's rules after it.
type Translation struct {
	Side string `json:"side"` // source or destination
	// By is publicIPAddress, natGateway, loadBalancingRule, inboundNatRule, outboundRule or
	// defaultOutboundAccess. Empty when the policy does not tell.
	By string `json:"by"`
	// Resource is the name of the public IP address, NAT gateway or load balancer. Empty for
	// default outbound access.
	Resource string `json:"resource,omitempty"`
	Rule     string `json:"rule,omitempty"` // of the load balancer
	// From and To are IP, or IP:PORT where a port counts. To has no port when the port is
	// chosen as the flow begins.
	From string `json:"from"`
	To   string `json:"to"`
	// NetworkInterface is the NIC that has the private address.
	NetworkInterface string `json:"networkInterface,omitempty"`
	// FloatingIP means that the packet is not changed: rules and NIC see the load
	// balancer's address and port.
	FloatingIP bool `json:"floatingIP,omitempty"`
}

// VerificationStage is one NSG's part in a verdict.
type VerificationStage struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Association          string `json:"association"` // subnet, networkInterface or networkManager
	Direction            string `json:"direction"`
	RuleName             string `json:"ruleName"`
	Access               string `json:"access"`
	Priority             int    `json:"priority"`
}

// Flow is a checked question.
type Flow struct {
	Direction ruleset.Direction
	Protocol  uint8 // IANA number; ICMP between IPv6 addresses is 58
	// Local is the NIC's address, of the same family as Remote.
	Local, Remote netip.Addr
	// The ports are 0 for protocols without ports, and for the source port "*".
	LocalPort, RemotePort uint16
	// NetworkInterface is the NIC's name or id, or the virtual machine's when the question
	// names no NIC. Empty: the local address says which NIC it is. See policy.Set.Target.
	NetworkInterface string
	// VirtualMachine is the virtual machine that the question names beside its NIC, or empty.
	VirtualMachine string
}

// ParseFlow reads one question. An unknown key is an error. Enumerations are taken in
// any case.
//
// TCP and UDP need both ports. The source port is the remote one inbound and the local
// one outbound. It may be "*", which is judged as port 0: in practice only rules for all
// source ports cover that. Ports of other protocols are checked and ignored, since
// Azure's clients always send some. IPv6 is accepted, though Azure's service refuses it.
func ParseFlow(line []byte) (*Flow, error) {
	var p VerificationIPFlowParameters
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		return nil, requestError(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value on a line")
	}
	return p.Flow()
}

// requestError gives the decoder's errors the wording of this package.
func requestError(err error) error {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		if wrongType.Field == "" {
			return fmt.Errorf("a request is a JSON object, not of type %s", wrongType.Value)
		}
		return fmt.Errorf("%s: a %s: allowed is a string", wrongType.Field, wrongType.Value)
	}
	if key, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("unknown key %s: allowed are targetResourceId, targetNicResourceId, direction, protocol, localIPAddress, localPort, remoteIPAddress and remotePort", key)
	}
	return fmt.Errorf("not a JSON object: %w", err)
}

// Flow checks the question.
func (p *VerificationIPFlowParameters) Flow() (*Flow, error) {
	f := &Flow{}
	var err error
	if f.Direction, err = direction(p.Direction); err != nil {
		return nil, err
	}
	if f.NetworkInterface, f.VirtualMachine, err = p.target(); err != nil {
		return nil, err
	}
	if f.Local, err = flowAddress("localIPAddress", p.LocalIPAddress); err != nil {
		return nil, err
	}
	if f.Remote, err = flowAddress("remoteIPAddress", p.RemoteIPAddress); err != nil {
		return nil, err
	}
	if f.Local.Is4() != f.Remote.Is4() {
		return nil, fmt.Errorf("remoteIPAddress %q: not of the same address family as localIPAddress %q", p.RemoteIPAddress, p.LocalIPAddress)
	}
	if f.Protocol, err = flowProtocol(p.Protocol, f.Local.Is6()); err != nil {
		return nil, err
	}
	inbound := f.Direction == ruleset.Inbound
	if f.LocalPort, err = flowPort("localPort", p.LocalPort, f.Protocol, !inbound); err != nil {
		return nil, err
	}
	if f.RemotePort, err = flowPort("remotePort", p.RemotePort, f.Protocol, inbound); err != nil {
		return nil, err
	}
	return f, nil
}

// target says which NIC the question means, and which virtual machine it names beside it.
func (p *VerificationIPFlowParameters) target() (nic, machine string, err error) {
	vm := policy.IsVirtualMachineID(p.TargetResourceID)
	switch {
	case p.TargetNicResourceID != "" && vm:
		return p.TargetNicResourceID, p.TargetResourceID, nil
	case p.TargetNicResourceID != "":
		return p.TargetNicResourceID, "", nil
	case p.TargetResourceID == "":
		return "", "", nil
	case vm, isTarget(p.TargetResourceID):
		return p.TargetResourceID, "", nil
	}
	return "", "", fmt.Errorf("targetResourceId %q: allowed are a virtual machine and a network interface", p.TargetResourceID)
}

// isTarget reports whether id is a name, or the id of a virtual machine or NIC.
func isTarget(id string) bool {
	if !strings.Contains(id, "/") || policy.IsVirtualMachineID(id) {
		return true
	}
	_, name, found := strings.Cut(strings.ToLower(id), "/providers/microsoft.network/networkinterfaces/")
	return found && !strings.Contains(name, "/")
}
