package dhcp

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

const (
	// The lifetimes of an address as machines in Azure show them.
	preferredLifetime = 100 * 24 * time.Hour
	validLifetime     = 200 * 24 * time.Hour
	// maxAssociations and maxNamed bound what one message may ask for, and so the answer: identity associations, and
	// addresses in one.
	maxAssociations, maxNamed = 4, 4
	maxClientID               = 2 + 128 // bytes: RFC 8415, section 11.1
)

// serverID is the platform's DUID.
var serverID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: gatewayMAC}

// answer6 answers a DHCPv6 message; nil: not at all. RFC 8415, section 16 says which messages have which identifiers.
func (s *settings) answer6(q *dhcpv6.Message) *dhcpv6.Message {
	client, to := q.GetOneOption(dhcpv6.OptionClientID), q.GetOneOption(dhcpv6.OptionServerID)
	ours := to != nil && bytes.Equal(to.ToBytes(), serverID.ToBytes())
	if !s.address6.IsValid() || to != nil && !ours || client != nil && len(client.ToBytes()) > maxClientID {
		return nil
	}
	kind := dhcpv6.MessageTypeReply
	switch q.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if to != nil {
			return nil
		}
		if q.GetOneOption(dhcpv6.OptionRapidCommit) == nil {
			kind = dhcpv6.MessageTypeAdvertise
		}
	case dhcpv6.MessageTypeRebind, dhcpv6.MessageTypeConfirm:
		if to != nil {
			return nil
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if !ours {
			return nil
		}
	case dhcpv6.MessageTypeInformationRequest:
		return s.parameters6(reply6(q, kind, client))
	default:
		return nil
	}
	if client == nil {
		return nil
	}
	a := reply6(q, kind, client)
	switch q.MessageType {
	case dhcpv6.MessageTypeConfirm:
		return s.confirm(q, a)
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		// The policy keeps the address for the NIC.
		a.AddOption(&dhcpv6.OptStatusCode{StatusCode: iana.StatusSuccess})
		return a
	case dhcpv6.MessageTypeSolicit:
		if kind == dhcpv6.MessageTypeReply {
			dhcpv6.WithRapidCommit(a)
		}
	}
	s.associate(q, a)
	return s.parameters6(a)
}

func reply6(q *dhcpv6.Message, kind dhcpv6.MessageType, client dhcpv6.Option) *dhcpv6.Message {
	a := &dhcpv6.Message{MessageType: kind, TransactionID: q.TransactionID}
	if client != nil {
		a.AddOption(client)
	}
	a.AddOption(dhcpv6.OptServerID(serverID))
	return a
}

// associate answers the identity associations: the first one gets the NIC's address, the others get none, and
// prefixes are delegated to nobody.
func (s *settings) associate(q, a *dhcpv6.Message) {
	for i, asked := range q.Options.IANA() {
		if i == maxAssociations {
			break
		}
		given := &dhcpv6.OptIANA{IaId: asked.IaId}
		if i > 0 {
			given.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})
			a.AddOption(given)
			continue
		}
		given.T1, given.T2 = preferredLifetime/2, preferredLifetime*4/5
		given.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: s.address6.Addr().AsSlice(), PreferredLifetime: preferredLifetime, ValidLifetime: validLifetime})
		if q.MessageType == dhcpv6.MessageTypeRenew || q.MessageType == dhcpv6.MessageTypeRebind {
			for _, stale := range named(asked) {
				if stale != s.address6.Addr() { // an end to what the NIC no longer has
					given.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: stale.AsSlice()})
				}
			}
		}
		a.AddOption(given)
	}
	for i, asked := range q.Options.IAPD() {
		if i == maxAssociations {
			break
		}
		none := &dhcpv6.OptIAPD{IaId: asked.IaId}
		none.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoPrefixAvail})
		a.AddOption(none)
	}
}

// named are the addresses of an association, as many as are read.
func named(asked *dhcpv6.OptIANA) (list []netip.Addr) {
	for _, o := range asked.Options.Get(dhcpv6.OptionIAAddr) {
		address, ok := o.(*dhcpv6.OptIAAddress)
		if !ok || len(list) == maxNamed {
			break
		}
		if a, ok := netip.AddrFromSlice(address.IPv6Addr); ok {
			list = append(list, a)
		}
	}
	return list
}

// confirm says whether all addresses that a machine has still are the NIC's. Without one there is no answer: RFC 8415,
// section 18.3.3.
func (s *settings) confirm(q, a *dhcpv6.Message) *dhcpv6.Message {
	status, any := iana.StatusSuccess, false
	for i, asked := range q.Options.IANA() {
		if i == maxAssociations {
			break
		}
		for _, address := range named(asked) {
			any = true
			if address != s.address6.Addr() {
				status = iana.StatusNotOnLink
			}
		}
	}
	if !any {
		return nil
	}
	a.AddOption(&dhcpv6.OptStatusCode{StatusCode: status})
	return a
}

func (s *settings) parameters6(a *dhcpv6.Message) *dhcpv6.Message {
	if servers := s.dns(true); len(servers) > 0 {
		a.AddOption(dhcpv6.OptDNS(servers...))
	}
	a.AddOption(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: []string{s.domain}}))
	return a
}
