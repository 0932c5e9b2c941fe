package flowtuple

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// State says where in a flow's life a row stands.
type State byte

// The states. Version 1 has Begin and Denied alone.
const (
	Begin    State = 'B'
	Continue State = 'C'
	End      State = 'E'
	Denied   State = 'D'
)

// Unspecified is the Rule, and in version 4 the ACL, of packets that encryption has denied and no rule.
const Unspecified = "unspecified"

// Row is one flow tuple with the fields around it. It is about one end of a flow.
type Row struct {
	Version int // 1, 2 or 4
	// Resource is the id of the NSG, or in version 4 of what is logged: a virtual network, subnet or network
	// interface. ACL is in version 4 the GUID of the NSG or network manager.
	Resource, ACL string
	MAC           string // of the end, 12 digits in capitals
	Rule          string // UserRule_NAME, DefaultRule_NAME, or Unspecified

	Time time.Time // of whole seconds in versions 1 and 2
	packet.Tuple
	Outbound bool // the end sends what begins the flow
	State    State
	// Packets and Bytes since the flow's last row, from source to destination and back: of Continue and End.
	Packets, Bytes [2]uint64
}

// Malformed is a row that is not understood.
type Malformed struct {
	Record int // from 1
	Tuple  string
	// Kind is the field that is to blame: one of a few words such as address, or fields for their number.
	Kind, Reason string
}

func malformed(kind, format string, args ...any) error {
	return &Malformed{Kind: kind, Reason: fmt.Sprintf(format, args...)}
}

// Error names the record and the row.
func (m *Malformed) Error() string {
	return fmt.Sprintf("record %d: flow tuple %q: %s", m.Record, m.Tuple, m.Reason)
}

const maxFields = 13

// parse reads a tuple of the row's version. The error is a *Malformed:
//
//	1  seconds,source,destination,port,port,T|U,I|O,A|D
//	2  the same, then B|C|E and four counters
//	4  milliseconds,source,destination,port,port,protocol,I|O,B|C|E|D,encryption and four counters
func (r *Row) parse(text string) error {
	var f [maxFields]string
	n := 0
	for rest, more := text, true; more; n++ {
		if n == maxFields {
			return malformed("fields", "more than %d fields", maxFields)
		}
		f[n], rest, more = strings.Cut(rest, ",")
	}
	if want := map[int]int{1: 8, 2: 13, 4: 13}[r.Version]; n != want {
		return malformed("fields", "%d fields, not the %d of version %d", n, want, r.Version)
	}
	if err := r.parseTuple(&f); err != nil {
		return err
	}
	var err error
	switch r.Version {
	case 4:
		err = r.parseState(f[7])
	default:
		switch {
		case f[7] == "D":
			r.State = Denied
		case f[7] != "A":
			return malformed("decision", "decision %q: allowed are A and D", f[7])
		case r.Version == 1:
			r.State = Begin
		default:
			err = r.parseState(f[8])
		}
	}
	if err != nil || r.Version == 1 {
		return err
	}
	for i, text := range f[9:] {
		if text == "" { // Begin and Denied have none
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return malformed("counter", "counter %q: allowed are 0 to %d", text, uint64(math.MaxUint64))
		}
		if i%2 == 0 {
			r.Packets[i/2] = n
		} else {
			r.Bytes[i/2] = n
		}
	}
	return nil
}

func (r *Row) parseState(text string) error {
	if len(text) != 1 || !strings.Contains("BCED", text) {
		return malformed("state", "state %q: allowed are B, C, E and D", text)
	}
	r.State = State(text[0])
	return nil
}

// parseTuple reads the fields up to the direction.
func (r *Row) parseTuple(f *[maxFields]string) error {
	since, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil {
		return malformed("time", "time %q: no number", f[0])
	}
	if r.Time = time.Unix(since, 0).UTC(); r.Version == 4 {
		r.Time = time.UnixMilli(since).UTC()
	}
	for i, to := range []*packet.Addr{&r.Src, &r.Dst} {
		a, err := netip.ParseAddr(f[1+i])
		if err != nil || a.Zone() != "" {
			return malformed("address", "address %q: no IP address", f[1+i])
		}
		*to = packet.AddrFrom(a)
	}
	if r.Src.Is4() != r.Dst.Is4() {
		return malformed("address", "addresses of two families")
	}
	for i, to := range []*uint16{&r.SrcPort, &r.DstPort} {
		n, err := strconv.ParseUint(f[3+i], 10, 16)
		if err != nil {
			return malformed("port", "port %q: allowed are 0 to 65535", f[3+i])
		}
		*to = uint16(n)
	}
	if r.Proto, err = protocol(r.Version, f[5]); err != nil {
		return err
	}
	if r.Outbound = f[6] == "O"; !r.Outbound && f[6] != "I" {
		return malformed("direction", "direction %q: allowed are I and O", f[6])
	}
	return nil
}

func protocol(version int, text string) (uint8, error) {
	switch {
	case version == 4:
		n, err := strconv.ParseUint(text, 10, 8)
		if err != nil {
			return 0, malformed("protocol", "protocol %q: allowed are 0 to 255", text)
		}
		return uint8(n), nil
	case text == "T":
		return packet.ProtoTCP, nil
	case text == "U":
		return packet.ProtoUDP, nil
	}
	return 0, malformed("protocol", "protocol %q: allowed are T and U", text)
}

// Hardware is a MAC address in the form of Row.MAC, whatever is between its digits.
func Hardware(text string) string {
	return strings.ToUpper(strings.NewReplacer("-", "", ":", "", ".", "").Replace(text))
}
