package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/flowtuple"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// FlowLogs sums up flow logs. A row is about one end of a flow: a flow between two ends that are logged has rows of
// both, and each end's own rules are asked.
type FlowLogs struct {
	Records uint64 `json:"records"`
	Rows    uint64 `json:"rows"`
	// Begun and Denied are rows with which a flow begins, or with which a packet is denied. The others go on.
	Begun  uint64 `json:"begun"`
	Denied uint64 `json:"denied"`
	// Packets and Bytes are of both directions. Those of absurd rows stop at the largest number.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Skipped are rows that were not judged, by reason; reasons without one are absent.
	Skipped map[string]uint64 `json:"skipped"`
	// Malformed is the first row that was not understood; empty when all were. MalformedBy counts all of them by the field that
	// is to blame.
	Malformed   string            `json:"malformed,omitempty"`
	MalformedBy map[string]uint64 `json:"malformedBy,omitempty"`
	// RecordedDiffers counts the judged rows of which the policy says otherwise than they record. It is then not the
	// policy that was in force, or the record tells of more than rules.
	RecordedDiffers uint64 `json:"recordedDiffers"`
	// Missing is what the rows do not tell, and how they were judged without it.
	Missing []string `json:"missing"`
}

// The reasons of FlowLogs.Skipped.
const (
	skipMalformed  = "malformed"
	skipAddress    = "other_addresses"   // of no network interface or subnet of the policy, or not of the chosen ones
	skipAmbiguous  = "ambiguous_address" // several virtual networks have it, and the MAC address does not tell
	skipEncryption = "encryption"        // denied by encryption, which rules say nothing of
	skipNotThere   = "not_in_other_policy"
)

// missing is what no flow log tells.
var missing = []string{
	"TCP flags: a row of TCP is judged as a SYN, even when a connection goes on",
	"the other end: the rules of the row's own end decide, which is the source of O and the destination of I",
	"ICMP, ESP, AH and the platform's services: Azure logs none of them",
}

// logs is what the replay knows of flow logs.
type logs struct {
	seen  FlowLogs
	sides []*logSide // the policy, then the other one; made for the first flow log
}

// logSide is a policy that rows are judged by.
type logSide struct {
	snapshot *topology.Snapshot
	byMAC    map[string][]*policy.NetworkInterface
	decision verdict.Decision
}

func (l *logs) result() *FlowLogs {
	if len(l.sides) == 0 {
		return nil
	}
	l.seen.Missing = missing
	return &l.seen
}

// isFlowLog reports a file that begins as JSON does.
func isFlowLog(in *pcap.Stream) bool {
	for n := 1; n <= 64; n++ {
		b, err := in.Peek(n)
		if err != nil {
			return false
		}
		switch b[n-1] {
		case ' ', '\t', '\r', '\n':
		default:
			return b[n-1] == '{'
		}
	}
	return false
}

// openLogs makes the snapshots that rows are judged by.
func (r *Replay) openLogs() error {
	sets := []*policy.Set{r.o.Policy}
	if r.o.Against != nil {
		sets = append(sets, r.o.Against)
	}
	r.logs.seen.Skipped = map[string]uint64{}
	for _, set := range sets {
		options := r.o.Topology
		options.Isolated = false
		s, err := options.Build(set, nil, topology.NewRegistry())
		if err != nil {
			return err
		}
		s.BlockSMTP = r.o.Subscription.BlocksSMTP()
		side := &logSide{snapshot: s, byMAC: map[string][]*policy.NetworkInterface{}}
		for _, nic := range set.NetworkInterfaces {
			if nic.MACAddress != "" {
				mac := flowtuple.Hardware(nic.MACAddress)
				side.byMAC[mac] = append(side.byMAC[mac], nic)
			}
		}
		r.logs.sides = append(r.logs.sides, side)
	}
	return nil
}

// readFlowLog judges the rows of a flow log.
func (r *Replay) readFlowLog(ctx context.Context, in *pcap.Stream) error {
	if len(r.logs.sides) == 0 {
		if err := r.openLogs(); err != nil {
			return err
		}
	}
	reader := flowtuple.NewReader(in)
	var row flowtuple.Row
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := reader.Next(&row)
		r.logs.seen.Records += uint64(reader.Records()) - r.file.Records
		r.file.Records = uint64(reader.Records())
		var malformed *flowtuple.Malformed
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &malformed):
			if r.logs.seen.Malformed == "" {
				r.logs.seen.Malformed = fmt.Sprintf("%s: %v", r.file.File, malformed)
				r.logs.seen.MalformedBy = map[string]uint64{}
			}
			r.logs.seen.MalformedBy[malformed.Kind]++
			r.countRow(&flowtuple.Row{})
			r.logs.seen.Skipped[skipMalformed]++
		case err != nil && r.file.Rows > 0:
			return fmt.Errorf("after row %d: %w", r.file.Rows, err)
		case err != nil:
			return err
		default:
			r.countRow(&row)
			skip, err := r.row(&row)
			if err != nil {
				return err
			}
			if skip != "" {
				r.logs.seen.Skipped[skip]++
			}
		}
	}
}

func (r *Replay) countRow(row *flowtuple.Row) {
	l := &r.logs.seen
	l.Rows++
	r.file.Rows++
	switch row.State {
	case flowtuple.Begin:
		l.Begun++
	case flowtuple.Denied:
		l.Denied++
	}
	l.Packets = sum(l.Packets, row.Packets[0], row.Packets[1])
	l.Bytes = sum(l.Bytes, row.Bytes[0], row.Bytes[1])
}

// row judges one row; skip is why it was not judged. The error is that of Options.Began.
func (r *Replay) row(row *flowtuple.Row) (skip string, err error) {
	if row.Rule == flowtuple.Unspecified {
		return skipEncryption, nil
	}
	sides := r.logs.sides
	end, skip := sides[0].end(row)
	if skip != "" || !r.chosen(end) {
		return cmp.Or(skip, skipAddress), nil
	}
	if r.o.Began != nil {
		return "", r.beganRow(row, end)
	}
	recorded, opinion := recordedOpinion(row), sides[0].judge(end, row)
	if (recorded.Access == Allow) != (opinion.Access == Allow) {
		r.logs.seen.RecordedDiffers++
	}
	old, new := recorded, opinion
	if len(sides) > 1 {
		other, missing := sides[1].end(row)
		if missing != "" {
			return skipNotThere, nil
		}
		old, new = opinion, sides[1].judge(other, row)
	}
	if (old.Access == Allow) == (new.Access == Allow) {
		return "", nil
	}
	k := flowKey{Tuple: row.Tuple, end: nameOf(end), direction: directionOf(row)}
	f := r.changes.begin(k, old, new, row.Time, row.State == flowtuple.Begin || row.State == flowtuple.Denied)
	r.changes.count(f, sum(row.Packets[:]...), sum(row.Bytes[:]...), row.Time)
	return "", nil
}

// chosen reports an end of the network interfaces that are asked about; all when none is named.
func (r *Replay) chosen(end *topology.Endpoint) bool {
	return len(r.o.NetworkInterfaces) == 0 || slices.ContainsFunc(r.o.NetworkInterfaces, func(nic *policy.NetworkInterface) bool {
		return end.NetworkInterface == nic
	})
}

func nameOf(end *topology.Endpoint) string {
	if end.NetworkInterface != nil {
		return end.NetworkInterface.Name
	}
	return end.Subnet.VirtualNetwork.Name + "/" + end.Subnet.Name
}

func directionOf(row *flowtuple.Row) string {
	if row.Outbound {
		return "Outbound"
	}
	return "Inbound"
}

// end finds who a row is about: by the MAC address, or else whoever alone has the address.
func (l *logSide) end(row *flowtuple.Row) (end *topology.Endpoint, skip string) {
	own := row.Dst.Netip()
	if row.Outbound {
		own = row.Src.Netip()
	}
	for _, nic := range l.byMAC[row.MAC] {
		if e := l.snapshot.Endpoint(nic, own); e != nil {
			return e, ""
		}
	}
	switch e := l.snapshot.Owner(own); {
	case e == nil && !l.snapshot.Foreign(own):
		return nil, skipAmbiguous
	case e == nil || e.Subnet == nil:
		return nil, skipAddress
	default:
		return e, ""
	}
}

// judge asks the end's own chain about the first packet of a row's flow.
func (l *logSide) judge(end *topology.Endpoint, row *flowtuple.Row) (o Opinion) {
	p := packet.Packet{Tuple: row.Tuple, Segments: 1}
	switch p.Proto {
	case packet.ProtoTCP:
		p.TCPFlags = packet.SYN
	case packet.ProtoICMP:
		p.ICMPType = packet.ICMPv4EchoRequest
	case packet.ProtoICMPv6:
		p.ICMPType = packet.ICMPv6EchoRequest
	}
	d := &l.decision
	var drop packet.Drop
	if row.Outbound {
		drop = d.Sends(l.snapshot, end, &p)
	} else {
		way := topology.Way{To: end, Arrives: p.Tuple, Closed: l.snapshot.ClosedTo(end, row.Src.Netip())}
		drop = d.Receives(l.snapshot, &way, &p)
	}
	o = Opinion{Access: Allow, Reason: "noNetworkSecurityGroup"}
	if v := &d.Verdict; v.N > 0 {
		last := &v.Stages[v.N-1]
		o.Reason, o.NetworkSecurityGroup, o.Rule = "rule", last.Stage.Group.Label, last.SecurityRule().Name
	}
	switch drop {
	case packet.NotDropped:
	case packet.DropRule:
		o.Access, o.Reason = Deny, drop.String()
	default:
		o = Opinion{Access: Dropped, Reason: drop.String()}
	}
	return o
}

// recordedOpinion is what a row says itself.
func recordedOpinion(row *flowtuple.Row) Opinion {
	o := Opinion{Access: Allow, Reason: "recorded", NetworkSecurityGroup: row.ACL}
	if row.State == flowtuple.Denied {
		o.Access = Deny
	}
	if row.Version != 4 {
		o.NetworkSecurityGroup = row.Resource[strings.LastIndexByte(row.Resource, '/')+1:]
	}
	_, name, prefixed := strings.Cut(row.Rule, "_")
	if o.Rule = row.Rule; prefixed {
		o.Rule = name
	}
	return o
}
