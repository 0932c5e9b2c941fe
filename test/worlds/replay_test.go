package worlds

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/dataplane/replay"
	"github.com/nsgd/nsgd/dataplane/topology"
)

// replays holds a replay against what the engine did: a capture of all packets that attachments
// sent. A capture does not say what is behind a gateway, so a world with one has no replay.
func (b *built) replays(legs []leg) (list []opinion) {
	if len(legs) == 0 || slices.ContainsFunc(b.specs, func(s topology.Spec) bool { return s.Kind == topology.Gateway }) {
		return nil
	}
	i := 0
	r, err := replay.New(replay.Options{Policy: b.policy, Topology: b.topology(), Subscription: b.subscription(), Flows: b.flows(), Each: func(p *replay.Packet) error {
		list = append(list, b.replayed(&legs[i], p))
		i++
		return nil
	}})
	if err == nil {
		err = r.File(context.Background(), "world.pcapng", bytes.NewReader(b.capture(legs)))
	}
	if err != nil || i != len(legs) {
		list = append(list, opinion{who: "replay", says: fmt.Sprintf("%d packets of %d, %v", i, len(legs), err), different: true})
	}
	return list
}

// capture is a capture of the packets that attachments sent.
func (b *built) capture(legs []leg) []byte {
	var file bytes.Buffer
	var interfaces []pcap.Interface
	for _, a := range b.snapshot.Attachments {
		interfaces = append(interfaces, pcap.Interface{Name: a.Name})
	}
	w, err := pcap.NewWriter(&file, "worlds", 0, interfaces)
	for i := range legs {
		if l := &legs[i]; err == nil {
			err = w.Write(l.from, &pcap.Packet{Time: l.at, Data: l.packet, Length: len(l.packet)})
		}
	}
	if err != nil {
		panic(err) // nothing in memory fails
	}
	return file.Bytes()
}

// replayed holds one packet of a replay against the engine's.
func (b *built) replayed(l *leg, p *replay.Packet) opinion {
	var rules []string
	for _, r := range p.Rules {
		rules = append(rules, fmt.Sprintf("%s %s %s", r.NetworkSecurityGroup, r.Direction, r.Name))
	}
	verdict, reason, to := replay.Allow, p.Reason, ""
	switch l.drop {
	case packet.NotDropped:
		to = b.snapshot.Attachments[l.to].Name
	case packet.DropRule:
		verdict, reason = replay.Deny, l.drop.String()
	default:
		verdict, reason = replay.Dropped, l.drop.String()
	}
	return opinion{who: "replay", says: fmt.Sprintf("%s %s to %q by %v", p.Verdict, p.Reason, p.To, rules),
		different: p.Verdict != verdict || p.Reason != reason || p.To != to || !slices.Equal(rules, l.rules)}
}
