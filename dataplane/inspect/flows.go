package inspect

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
)

const (
	// DefaultFlowLimit is used when FlowFilter.Limit is 0.
	DefaultFlowLimit = 1000
	// MaxFlowLimit bounds what one answer holds in memory, some tens of megabytes.
	MaxFlowLimit = 100_000
)

// FlowList holds live flows, in no particular order.
type FlowList struct {
	Flows []Flow `json:"flows"`
	// Truncated is set when more flows match than the limit let through.
	Truncated bool `json:"truncated"`
}

// Flow is one live flow. Source is the side that began it.
type Flow struct {
	Protocol string `json:"protocol"`
	Source   string `json:"source"`
	// SourcePort is the identifier for ICMP.
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
	// Translated is the flow as its destination and the rules there see it; absent when
	// nothing is translated.
	Translated *FlowTuple `json:"translated,omitempty"`
	// DeliveredTo is the backend's address where the packets keep the load balancer's address
	// (floating IP); absent for others.
	DeliveredTo string `json:"deliveredTo,omitempty"`
	// From and To are the attachments of source and destination. A flow whose answers take
	// another way has a record at each end, and each leaves the other end's name empty.
	From             string `json:"from"`
	To               string `json:"to"`
	State            string `json:"state"`
	AgeMilliseconds  int64  `json:"ageMilliseconds"`
	IdleMilliseconds int64  `json:"idleMilliseconds"`
	// ExpiresInMilliseconds is when the flow ends if no packet comes.
	ExpiresInMilliseconds int64  `json:"expiresInMilliseconds"`
	PacketsSent           uint64 `json:"packetsSent"` // by the source
	BytesSent             uint64 `json:"bytesSent"`
	PacketsReceived       uint64 `json:"packetsReceived"` // by the source
	BytesReceived         uint64 `json:"bytesReceived"`
	// Rules allowed the flow, in the order of evaluation.
	Rules []FlowRule `json:"rules"`
	// PlatformService is the service of the platform for which the flow passed, whatever the
	// NSGs say; absent for others.
	PlatformService string `json:"platformService,omitempty"`
	// Generation is that of the policy that last judged the flow, or left its judgement standing.
	Generation uint32 `json:"generation"`
}

// FlowTuple holds the addresses and ports of a packet or a flow.
type FlowTuple struct {
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort"`
}

// String is SOURCE>DESTINATION; ports that are 0 are left out.
func (t *FlowTuple) String() string {
	return Endpoint(t.Source, t.SourcePort) + ">" + Endpoint(t.Destination, t.DestinationPort)
}

// Endpoint is ADDRESS:PORT, or the address alone where the port is 0.
func Endpoint(address string, port uint16) string {
	if port == 0 {
		return address
	}
	return net.JoinHostPort(address, strconv.Itoa(int(port)))
}

// Arrives says how the destination sees the flow; empty where that is as it was sent.
func (f *Flow) Arrives() string {
	if t := f.Translated; t != nil {
		return Endpoint(t.Source, t.SourcePort) + " > " + Endpoint(t.Destination, t.DestinationPort)
	}
	if f.DeliveredTo != "" {
		return "the same, at " + f.DeliveredTo
	}
	return ""
}

// FlowRule names a rule that allowed a flow. The policy in force may lack the rule.
type FlowRule struct {
	NetworkSecurityGroup string `json:"networkSecurityGroup"`
	Direction            string `json:"direction"`
	Name                 string `json:"name"`
}

// FlowFilter chooses flows; the zero value takes all, up to DefaultFlowLimit.
type FlowFilter struct {
	// NetworkInterface is a NIC, by name or id, at either end.
	NetworkInterface string
	// Address is an address or a prefix at either end.
	Address string
	// Protocol is a name such as TCP, or a number.
	Protocol string
	// Limit is how many flows are listed at most, 1 to MaxFlowLimit.
	Limit int
}

// flowMatch is a filter made ready.
type flowMatch struct {
	ends     map[flowEnd]bool // nil: any
	prefix   netip.Prefix     // invalid: any
	protocol func(uint8) bool // nil: any
}

type flowEnd struct {
	zone    uint16
	address packet.Addr
}

// Check says what no daemon could make of the filter. The error begins with the field.
func (f *FlowFilter) Check() error {
	_, err := f.parse()
	return err
}

func (f *FlowFilter) parse() (m flowMatch, err error) {
	if f.Limit < 0 || f.Limit > MaxFlowLimit {
		return m, fmt.Errorf("limit: %q: allowed are 1 to %d", strconv.Itoa(f.Limit), MaxFlowLimit)
	}
	if f.Address != "" {
		if m.prefix, err = parsePrefix(f.Address); err != nil {
			return m, err
		}
	}
	if f.Protocol != "" {
		m.protocol, err = parseProtocol(f.Protocol)
	}
	return m, err
}

// compile also looks up the names of the filter.
func (f *FlowFilter) compile(s *topology.Snapshot) (flowMatch, error) {
	m, err := f.parse()
	if err != nil || f.NetworkInterface == "" {
		return m, err
	}
	nic, err := s.Policy.NetworkInterface(f.NetworkInterface)
	if err != nil {
		return m, err
	}
	m.ends = map[flowEnd]bool{}
	for i := range nic.IPConfigurations {
		if e := s.Endpoint(nic, nic.IPConfigurations[i].Address); e != nil && e.Attachment >= 0 {
			m.ends[flowEnd{uint16(e.Attachment), packet.AddrFrom(nic.IPConfigurations[i].Address)}] = true
		}
	}
	return m, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("address: %q: allowed is an IP address or a prefix such as 10.0.0.0/24", text)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// parseProtocol reads a protocol's name or number. ICMP means both families'.
func parseProtocol(text string) (func(uint8) bool, error) {
	if strings.EqualFold(text, "ICMP") {
		return func(p uint8) bool { return p == packet.ProtoICMP || p == packet.ProtoICMPv6 }, nil
	}
	if n, err := strconv.ParseUint(text, 10, 8); err == nil {
		return func(p uint8) bool { return p == uint8(n) }, nil
	}
	for _, known := range []uint8{packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMPv6, packet.ProtoGRE, packet.ProtoESP, packet.ProtoAH} {
		if strings.EqualFold(text, packet.ProtocolName(known)) {
			return func(p uint8) bool { return p == known }, nil
		}
	}
	return nil, fmt.Errorf("protocol: %q: allowed are TCP, UDP, ICMP, ICMPv6, GRE, ESP, AH and a number from 0 to 255", text)
}

func (m *flowMatch) matches(f *conntrack.FlowInfo) bool {
	k := &f.Key
	if m.protocol != nil && !m.protocol(k.Proto) {
		return false
	}
	if m.prefix.IsValid() && !m.touches(&k.Tuple) && !m.touches(&f.ReplyKey.Tuple) && !m.prefix.Contains(f.Receiver.Netip()) {
		return false
	}
	return m.ends == nil || m.ends[flowEnd{k.Zone, k.Src}] || m.ends[flowEnd{f.ReplyKey.Zone, f.Receiver}]
}

func (m *flowMatch) touches(t *packet.Tuple) bool {
	return m.prefix.Contains(t.Src.Netip()) || m.prefix.Contains(t.Dst.Netip())
}

// Flows lists live flows. It walks the flow table without stopping it: a flow that
// begins or ends meanwhile may be listed or not.
func (s *Service) Flows(filter FlowFilter) (*FlowList, error) {
	e := s.options.Engine
	snapshot := e.Snapshot()
	match, err := filter.compile(snapshot)
	if err != nil {
		return nil, err
	}
	limit := filter.Limit
	if limit == 0 {
		limit = DefaultFlowLimit
	}
	list := &FlowList{Flows: []Flow{}}
	keys := e.Registry().Keys()
	e.Flows().Flows(func(f *conntrack.FlowInfo) bool {
		if !match.matches(f) {
			return true
		}
		if len(list.Flows) == limit {
			list.Truncated = true
			return false
		}
		list.Flows = append(list.Flows, DescribeFlow(e, snapshot, keys, f))
		return true
	})
	return list, nil
}

// DescribeFlow describes a flow of an engine. keys are the engine's rules by slot.
func DescribeFlow(e *dataplane.Engine, s *topology.Snapshot, keys []topology.RuleKey, f *conntrack.FlowInfo) Flow {
	shown := Flow{
		Protocol: packet.ProtocolName(f.Key.Proto),
		Source:   f.Key.Src.String(), SourcePort: f.Key.SrcPort,
		Destination: f.Key.Dst.String(), DestinationPort: f.Key.DstPort,
		From: attachmentName(e, s, f.Key.Zone), To: attachmentName(e, s, f.ReplyKey.Zone),
		State:                 f.State(),
		AgeMilliseconds:       f.Age.Milliseconds(),
		IdleMilliseconds:      f.Idle.Milliseconds(),
		ExpiresInMilliseconds: f.ExpiresIn.Milliseconds(),
		PacketsSent:           f.Packets[conntrack.Original],
		BytesSent:             f.Bytes[conntrack.Original],
		PacketsReceived:       f.Packets[conntrack.Reply],
		BytesReceived:         f.Bytes[conntrack.Reply],
		Rules:                 []FlowRule{},
		Generation:            f.Generation,
	}
	if f.Marks&conntrack.Translated != 0 {
		seen := f.ReplyKey.Reverse()
		shown.Translated = &FlowTuple{seen.Src.String(), seen.SrcPort, seen.Dst.String(), seen.DstPort}
	}
	if f.Marks&conntrack.Floating != 0 {
		shown.DeliveredTo = f.Receiver.String()
	}
	for slots := f.Slots; slots.More(); slots = slots.Rest() {
		slot := slots.First()
		if service := topology.ServiceOfSlot(slot); service != topology.NoService {
			shown.PlatformService = service.String()
			continue
		}
		if int(slot) >= len(keys) {
			break
		}
		k := &keys[slot]
		shown.Rules = append(shown.Rules, FlowRule{k.NetworkSecurityGroup, k.Direction.String(), k.Rule})
	}
	return shown
}

// attachmentName names the attachment of a flow's end; empty where this record is of the other
// end only.
func attachmentName(e *dataplane.Engine, s *topology.Snapshot, zone uint16) string {
	index, whole := e.Room().Attachment(zone)
	if !whole || index >= len(s.Attachments) { // or it came after the snapshot
		return ""
	}
	return s.Attachments[index].Name
}
