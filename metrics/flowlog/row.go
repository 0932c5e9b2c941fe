package flowlog

import (
	"strconv"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// state says where in a flow's life a row stands.
type state byte

const (
	stateBegin    state = 'B'
	stateContinue state = 'C'
	stateEnd      state = 'E'
	stateDenied   state = 'D' // no flow: a packet that a rule denied
)

// row is one line of a flow log: a flow tuple in Azure's words.
type row struct {
	time     int64        // milliseconds since 1970
	tuple    packet.Tuple // as this end sees it, from the end that began the flow
	outbound bool         // this end began the flow
	state    state
	// packets and bytes since the flow's last row, by direction; for stateContinue, stateEnd, and repeated denials.
	packets, bytes [2]uint64
}

// logged says whether a protocol is in flow logs. ICMP, ESP and AH are not.
func logged(proto uint8) bool { return proto == packet.ProtoTCP || proto == packet.ProtoUDP }

// appendNSG adds the row in the form of NSG flow logs, version 2. A denied packet is a flow that
// begins with decision D, which has no counters in this form.
func (r *row) appendNSG(b []byte) []byte {
	b = r.appendAddresses(strconv.AppendInt(b, r.time/1000, 10))
	if r.tuple.Proto == packet.ProtoTCP {
		b = append(b, ",T"...)
	} else {
		b = append(b, ",U"...)
	}
	b = r.appendDirection(b)
	switch r.state {
	case stateBegin:
		return append(b, ",A,B,,,,"...)
	case stateDenied:
		return append(b, ",D,B,,,,"...)
	}
	return r.appendCounters(append(b, ',', 'A', ',', byte(r.state)))
}

// notEncrypted is what Azure writes where virtual network encryption is off.
const notEncrypted = "NX"

// appendVNet adds the row in the form of virtual network flow logs, version 4.
func (r *row) appendVNet(b []byte) []byte {
	b = r.appendAddresses(strconv.AppendInt(b, r.time, 10))
	b = append(b, ',')
	b = strconv.AppendUint(b, uint64(r.tuple.Proto), 10)
	b = append(r.appendDirection(b), ',', byte(r.state))
	return r.appendCounters(append(b, ","+notEncrypted...))
}

func (r *row) appendAddresses(b []byte) []byte {
	b = r.tuple.Src.Netip().AppendTo(append(b, ','))
	b = r.tuple.Dst.Netip().AppendTo(append(b, ','))
	b = strconv.AppendUint(append(b, ','), uint64(r.tuple.SrcPort), 10)
	return strconv.AppendUint(append(b, ','), uint64(r.tuple.DstPort), 10)
}

func (r *row) appendDirection(b []byte) []byte {
	if r.outbound {
		return append(b, ",O"...)
	}
	return append(b, ",I"...)
}

func (r *row) appendCounters(b []byte) []byte {
	for _, d := range [...]conntrack.Direction{conntrack.Original, conntrack.Reply} {
		b = strconv.AppendUint(append(b, ','), r.packets[d], 10)
		b = strconv.AppendUint(append(b, ','), r.bytes[d], 10)
	}
	return b
}
