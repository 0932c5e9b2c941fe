package fabric

// names are those of the counters in struct counts of programs.c, in its order. From dropsFrom on they are
// reasons why a program dropped a packet.
var names = [...]string{
	sent: "sent", received: "received",
	dropsFrom: "malformed", "group", "no_route", "too_big", "no_tunnel", "unknown_vni", "unknown_source", "own_source", "forged_source",
}

const (
	sent = iota
	received
	dropsFrom
)

// noVNI counts packets that no tunnel has.
const noVNI = ^uint32(0)

// counts is struct counts.
type counts [len(names)]uint64

// Count is what passed through a tunnel and what was dropped there, since the tunnel was made. A superpacket counts once.
type Count struct {
	Sent, Received uint64
	// Dropped are the packets by their reason. Absent: none.
	Dropped map[string]uint64
}

// Counts are those of the fabric.
type Counts struct {
	// Tunnels are by VNI.
	Tunnels map[uint32]Count
	// Unknown is what belongs to no tunnel.
	Unknown Count
	// Strangers are packets of hosts that are not known, at the underlay. Past are those that would have reached this
	// host past the programs. Both begin again when somebody removes the table.
	Strangers, Past uint64
}

// Sum adds up all tunnels and what belongs to none. dropped has every reason, strangers and past among them.
func (c *Counts) Sum() (sent, received uint64, dropped map[string]uint64) {
	dropped = map[string]uint64{"stranger": c.Strangers, "past": c.Past}
	for _, name := range names[dropsFrom:] {
		dropped[name] = 0
	}
	add := func(one Count) {
		sent, received = sent+one.Sent, received+one.Received
		for reason, n := range one.Dropped {
			dropped[reason] += n
		}
	}
	add(c.Unknown)
	for _, one := range c.Tunnels {
		add(one)
	}
	return sent, received, dropped
}

// count adds up the processors' shares.
func count(perCPU []counts) Count {
	var total counts
	for _, c := range perCPU {
		for i, n := range c {
			total[i] += n
		}
	}
	sum := Count{Sent: total[sent], Received: total[received], Dropped: map[string]uint64{}}
	for i, n := range total[dropsFrom:] {
		if n > 0 {
			sum.Dropped[names[dropsFrom+i]] = n
		}
	}
	return sum
}
