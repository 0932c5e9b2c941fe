package dhcp

import (
	"bytes"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

const (
	// forever is the lease of Azure: 4294967295 seconds.
	forever = math.MaxUint32 * time.Second
	// maxMessage4 is what every client takes (RFC 2131, section 2), without the headers.
	maxMessage4 = 576 - 20 - 8
	// maxClientID4 is what one option holds, in bytes. The answer repeats it.
	maxClientID4 = 255
	// optionWireServer tells Azure's agents where the platform's services are.
	optionWireServer = dhcpv4.GenericOptionCode(245)
)

// answer4 answers a DHCPv4 message that came from a hardware address; nil: not at all. Relayed ones get no answer.
func (s *settings) answer4(q *dhcpv4.DHCPv4, from net.HardwareAddr) *dhcpv4.DHCPv4 {
	relayed := !q.GatewayIPAddr.IsUnspecified() || q.HopCount > 0 || q.Options.Has(dhcpv4.OptionRelayAgentInformation)
	if q.OpCode != dhcpv4.OpcodeBootRequest || q.HWType != iana.HWTypeEthernet || !bytes.Equal(q.ClientHWAddr, from) || relayed || !s.address.IsValid() {
		return nil
	}
	if len(q.Options.Get(dhcpv4.OptionClientIdentifier)) > maxClientID4 {
		return nil
	}
	if to := q.Options.Get(dhcpv4.OptionServerIdentifier); to != nil && !bytes.Equal(to, server.AsSlice()) {
		return nil // the client has chosen another server
	}
	client := addressOf(q.ClientIPAddr)
	switch q.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return s.lease(q, dhcpv4.MessageTypeOffer)
	case dhcpv4.MessageTypeRequest:
		wanted := client // of one that renews or rebinds
		if asked := q.Options.Get(dhcpv4.OptionRequestedIPAddress); asked != nil {
			wanted = addressOf(asked)
		}
		switch {
		case wanted == s.address.Addr():
			return s.lease(q, dhcpv4.MessageTypeAck)
		case wanted.IsValid() && !wanted.IsUnspecified():
			return refuse(q)
		}
	case dhcpv4.MessageTypeInform:
		if s.owns(client) {
			return s.inform(q)
		}
	}
	// A release and a declined address change nothing: the policy keeps the address for the NIC.
	return nil
}

// addressOf is an IPv4 address of a message; invalid if it has another length.
func addressOf(b []byte) netip.Addr {
	if four := net.IP(b).To4(); four != nil && len(b) == net.IPv4len {
		return netip.AddrFrom4([4]byte(four))
	}
	return netip.Addr{}
}

// reply4 begins an answer of a type.
func reply4(q *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	a := &dhcpv4.DHCPv4{Options: dhcpv4.Options{}}
	dhcpv4.WithReply(q)(a)
	dhcpv4.WithOptionCopied(q, dhcpv4.OptionClientIdentifier)(a) // RFC 6842
	a.UpdateOption(dhcpv4.OptMessageType(kind))
	a.UpdateOption(dhcpv4.OptServerIdentifier(server.AsSlice()))
	return a
}

// refuse takes back an address that the NIC doesn't have. The client may not be reachable by it: RFC 2131, 4.3.2.
func refuse(q *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	a := reply4(q, dhcpv4.MessageTypeNak)
	a.SetBroadcast()
	return a
}

// lease grants the NIC's primary address.
func (s *settings) lease(q *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	a := reply4(q, kind)
	a.YourIPAddr = s.address.Addr().AsSlice()
	if kind == dhcpv4.MessageTypeAck {
		a.ClientIPAddr = q.ClientIPAddr
	}
	a.UpdateOption(dhcpv4.OptIPAddressLeaseTime(forever))
	a.UpdateOption(dhcpv4.OptRenewTimeValue(forever))
	a.UpdateOption(dhcpv4.OptRebindingTimeValue(forever))
	return s.parameters(a)
}

// inform tells a client that has its address all the rest.
func (s *settings) inform(q *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	a := reply4(q, dhcpv4.MessageTypeAck)
	a.ClientIPAddr = q.ClientIPAddr
	return s.parameters(a)
}

// parameters adds what an answer says besides the lease. Azure sends them whether they were asked for or not.
func (s *settings) parameters(a *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	gateway := net.IP(s.gateway().AsSlice())
	via := func(to netip.Addr, bits int) *dhcpv4.Route {
		return &dhcpv4.Route{Dest: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(bits, 32)}, Router: gateway}
	}
	a.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(s.address.Bits(), 32)))
	a.UpdateOption(dhcpv4.OptRouter(gateway))
	// A client that takes these ignores the router option (RFC 3442), so they begin with the default route.
	a.UpdateOption(dhcpv4.OptClasslessStaticRoute(via(netip.IPv4Unspecified(), 0), via(server, 32), via(imds, 32)))
	if servers := s.dns(false); len(servers) > 0 {
		a.UpdateOption(dhcpv4.OptDNS(servers...))
	}
	if s.mtu != usualMTU {
		a.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, dhcpv4.Uint16(min(s.mtu, math.MaxUint16)).ToBytes()))
	}
	a.UpdateOption(dhcpv4.OptGeneric(optionWireServer, server.AsSlice()))
	a.UpdateOption(dhcpv4.OptDomainName(s.domain))
	if len(a.ToBytes()) > maxMessage4 {
		a.DeleteOption(dhcpv4.OptionDomainName)
	}
	return a
}
