package control

import (
	"fmt"
	"net/http"
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

func errLimit(text string) error {
	return fmt.Errorf("limit: %q: allowed are 1 to %d", text, MaxFlowLimit)
}

func (f *FlowFilter) compile(s *topology.Snapshot) (m flowMatch, err error) {
	if f.Limit < 0 || f.Limit > MaxFlowLimit {
		return m, badRequest(errLimit(strconv.Itoa(f.Limit)))
	}
	if f.NetworkInterface != "" {
		nic, err := s.Policy.NetworkInterface(f.NetworkInterface)
		if err != nil {
			return m, asError(err, http.StatusNotFound)
		}
		m.ends = map[flowEnd]bool{}
		for i := range nic.IPConfigurations {
			if e := s.Endpoint(nic, nic.IPConfigurations[i].Address); e != nil && e.Attachment >= 0 {
				m.ends[flowEnd{uint16(e.Attachment), packet.AddrFrom(nic.IPConfigurations[i].Address)}] = true
			}
		}
	}
	if f.Address != "" {
		if m.prefix, err = parsePrefix(f.Address); err != nil {
			return m, badRequest(err)
		}
	}
	if f.Protocol != "" {
		if m.protocol, err = parseProtocol(f.Protocol); err != nil {
			return m, badRequest(err)
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
		list.Flows = append(list.Flows, showFlow(e, snapshot, keys, f))
		return true
	})
	return list, nil
}

func showFlow(e *dataplane.Engine, s *topology.Snapshot, keys []topology.RuleKey, f *conntrack.FlowInfo) Flow {
	shown := Flow{
		Protocol: packet.ProtocolName(f.Key.Proto),
		Source:   f.Key.Src.String(), SourcePort: f.Key.SrcPort,
		Destination: f.Key.Dst.String(), DestinationPort: f.Key.DstPort,
		From: attachment(e, s, f.Key.Zone), To: attachment(e, s, f.ReplyKey.Zone),
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

// attachment names the attachment of a flow's end; empty where the flow is known at its other
// end only.
func attachment(e *dataplane.Engine, s *topology.Snapshot, zone uint16) string {
	index, whole := e.Attachment(zone)
	if !whole {
		return ""
	}
	return s.Attachments[index].Name
}

func flowUse(t *conntrack.Table) FlowUse {
	s := t.Stats()
	return FlowUse{Live: s.Flows, Limit: s.Limit, Created: s.Created, Translated: s.Translated}
}

func dropReason(reason int) string { return packet.Drop(reason).String() }
