package azure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// VerificationIPFlowParameters is a question of Azure's IP flow verify in its own
// names. ParseFlow checks it.
type VerificationIPFlowParameters struct {
	// TargetResourceID is the virtual machine, by its id or name, or the NIC itself. A name
	// is a NIC's first.
	TargetResourceID string `json:"targetResourceId,omitempty"`
	Direction        string `json:"direction"` // Inbound or Outbound
	// Protocol is TCP, UDP, ICMP, ESP, AH or a number; Azure knows the first two.
	Protocol        string `json:"protocol"`
	LocalPort       string `json:"localPort,omitempty"`
	RemotePort      string `json:"remotePort,omitempty"`
	LocalIPAddress  string `json:"localIPAddress"`
	RemoteIPAddress string `json:"remoteIPAddress"`
	// TargetNicResourceID is the NIC's id or name.
	TargetNicResourceID string `json:"targetNicResourceId,omitempty"`
}

// VerificationIPFlowResult answers a question: Azure's access and ruleName, and
// how the verdict came about.
type VerificationIPFlowResult struct {
	Access               string `json:"access"`
	RuleName             string `json:"ruleName"` // empty when no NSG is on the way
	RuleID               string `json:"ruleId"`   // always empty, as in what is recorded of Azure
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Reason               string `json:"reason"`
	PlatformService      string `json:"platformService,omitempty"` // that the flow asks for
	// Translations are what changes the flow's addresses on its way, the destination's first; absent
	// where nothing does.
	Translations []Translation       `json:"translations,omitempty"`
	Stages       []VerificationStage `json:"stages"` // as evaluated; not nil
}

// Translation is one change of an address and port. Rules of the source's end see the flow before
// it, rules of the destination's end after it.
type Translation struct {
	Side string `json:"side"` // source or destination
	// By is publicIPAddress, natGateway, loadBalancingRule, inboundNatRule, outboundRule,
	// defaultOutboundAccess, or empty where the policy does not tell.
	By string `json:"by"`
	// Resource is the name of the public IP address, NAT gateway or load balancer; empty for
	// default outbound access.
	Resource string `json:"resource,omitempty"`
	Rule     string `json:"rule,omitempty"` // of the load balancer
	// From and To are IP, or IP:PORT where a port counts. Of a source whose port is chosen when the
	// flow begins To has none.
	From string `json:"from"`
	To   string `json:"to"`
	// NetworkInterface is the NIC that has the private address.
	NetworkInterface string `json:"networkInterface,omitempty"`
	// FloatingIP says that the packet is not changed: the rules see the load balancer's address and
	// port, and the NIC gets it.
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
	// The ports are 0 for protocols without and for a source port "*".
	LocalPort, RemotePort uint16
	// NetworkInterface is the NIC's name or id; the virtual machine's when only that is
	// given; empty when the local address is to tell. See Set.Target.
	NetworkInterface string
	// VirtualMachine is the virtual machine that is named beside its NIC, or empty.
	VirtualMachine string
}

// ParseFlow reads one question, strictly: an unknown key is an error. Enumerations
// are taken in any case.
//
// TCP and UDP need both ports. The source port, which is the remote one inbound
// and the local one outbound, may be "*": it is judged as port 0, which no rule
// but one for all source ports covers in practice. Ports of other protocols are
// checked and ignored, since Azure's clients always send some. IPv6 is accepted,
// which Azure's service refuses.
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

// requestError words the decoder's errors as the rest of the package does.
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
	switch strings.ToLower(p.Direction) {
	case "inbound":
		f.Direction = ruleset.Inbound
	case "outbound":
		f.Direction = ruleset.Outbound
	default:
		return nil, fmt.Errorf("direction %q: allowed are Inbound and Outbound", p.Direction)
	}
	var err error
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

// target is what is asked about.
func (p *VerificationIPFlowParameters) target() (nic, beside string, err error) {
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

// isTarget reports a name, or the id of what diagnostics can look at.
func isTarget(id string) bool {
	if !strings.Contains(id, "/") || policy.IsVirtualMachineID(id) {
		return true
	}
	_, name, found := strings.Cut(strings.ToLower(id), "/providers/microsoft.network/networkinterfaces/")
	return found && !strings.Contains(name, "/")
}

func flowAddress(field, text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s %q: allowed is an IPv4 or IPv6 address", field, text)
	}
	return a, nil
}

// IANA's numbers of the protocols that have a name here.
const (
	protocolICMP   = 1
	protocolTCP    = 6
	protocolUDP    = 17
	protocolESP    = 50
	protocolAH     = 51
	protocolICMPv6 = 58
)

func flowProtocol(text string, ipv6 bool) (uint8, error) {
	switch strings.ToUpper(text) {
	case "TCP":
		return protocolTCP, nil
	case "UDP":
		return protocolUDP, nil
	case "ICMP":
		if ipv6 {
			return protocolICMPv6, nil
		}
		return protocolICMP, nil
	case "ESP":
		return protocolESP, nil
	case "AH":
		return protocolAH, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: allowed are TCP, UDP, ICMP, ESP, AH and 0 to 255", text)
	}
	return uint8(n), nil
}

// flowPort reads a port; source reports that it is the flow's source port.
func flowPort(field, text string, protocol uint8, source bool) (uint16, error) {
	needed := protocol == protocolTCP || protocol == protocolUDP
	switch {
	case text == "" && !needed, text == "*" && (source || !needed):
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil && source:
		return 0, fmt.Errorf("%s %q: allowed are 0 to 65535 and *", field, text)
	case err != nil:
		return 0, fmt.Errorf("%s %q: allowed are 0 to 65535", field, text)
	case !needed:
		return 0, nil
	}
	return uint16(n), nil
}
