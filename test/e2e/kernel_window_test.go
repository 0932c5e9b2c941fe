package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/conntrack/conntracktest"
	api "github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/watch"
)

// NSGD_E2E_KERNEL_CONNECTIONS is for windows what NSGD_E2E_KERNEL_POLICIES is for rules.
const (
	kernelConnectionsEnv  = "NSGD_E2E_KERNEL_CONNECTIONS"
	segmentsPerConnection = 30
)

// The hosts of the connections. Each connection has an address of the internet's for itself.
var windowHosts = [2]int{0, figureInternet}

// Random segments, in, out and at the edges of their windows, through nsgd and through a router with
// connection tracking that drops what is invalid. Whether a segment counts and what state it leaves must be the same.
//
// The kernel judges windows (nf_conntrack_tcp_be_liberal=0) and takes up connections in mid-stream
// (nf_conntrack_tcp_loose=1), as nsgd does by default: see prepareRouter.
func TestKernelWindowsAndNsgdAgreeOnEverySegmentButForListedDifferences(t *testing.T) {
	needWorld(t)
	needNftables(t)
	connections, seed := comparisonSize(t, kernelConnectionsEnv, 300)
	t.Logf("%d connections, %s=%d", connections, kernelSeedEnv, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	s := &scenario{subnetGroup: [figureSubnets]int{noGroup, noGroup, noGroup}, nicGroup: [figureVMs]int{noGroup, noGroup, noGroup, noGroup}}
	s.place(0)
	startFigure(t, s)
	r := newRouter(t)
	r.apply(s, false)
	c := &windowComparison{t: t, wire: newWire(t, kernelLane(t), nsgdLane(t)), random: random, daemon: api.NewClient(controlSocket),
		met: map[string]int{}, agreed: map[string]int{}}
	defer c.daemon.Close()
	defer c.watch()()
	r.must("conntrack", routerNamespace, func() error {
		socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
		if err != nil {
			return err
		}
		c.sockets = map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}
		return socket.SetReceiveTimeout(&nl.SocketTimeoutTv)
	})
	defer c.sockets[unix.NETLINK_NETFILTER].Close()
	c.marks = [2]string{s.address[windowHosts[0]][0].String(), outside[0][0].String()}
	for n := range connections {
		if c.connection(s, n); c.disagreements >= maxDisagreements || t.Failed() && c.disagreements == 0 {
			break
		}
	}
	c.report(connections, seed)
}

// watch begins the trace of all segments. end ends it.
func (c *windowComparison) watch() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	traced, begun, ended := make(chan *inspect.TracedPacket, 1), make(chan bool, 1), make(chan error)
	c.traced = traced
	go func() {
		ended <- c.daemon.Trace(ctx, inspect.WatchRequest{Filter: "tcp"}, func(line *inspect.Trace) error {
			if line.Packet != nil {
				traced <- line.Packet
			} else {
				select {
				case begun <- true:
				default:
				}
			}
			return nil
		})
	}()
	select {
	case <-begun:
	case err := <-ended:
		c.t.Fatal(err)
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Error(err)
		}
	}
}

// effect is what a segment does in one lane.
type effect int

const (
	dropped effect = iota
	ignored        // it passes, and changes nothing
	taken          // it passes, and keeps its connection alive
)

func (e effect) String() string { return [...]string{"drops it", "ignores it", "takes it"}[e] }

// opinion is what one lane makes of a segment.
type opinion struct {
	effect effect
	state  string // of its connection afterwards, in nsgd's words; none: there is none
}

func (o opinion) String() string { return fmt.Sprintf("%v, %s", o.effect, o.state) }

// windowStep is a segment and what both lanes made of it.
type windowStep struct {
	connection   *windowConnection
	side         int
	segment      packet.Packet
	sacks        bool // it offers selective acknowledgements
	kernel, nsgd opinion
}

// windowConnection is a TCP connection, and what is known of it before a step.
type windowConnection struct {
	address [2]netip.Addr
	port    [2]uint16
	sacks   [2]bool // by side: it has offered selective acknowledgements
	picked  bool    // begun in mid-stream
	opener  int
	state   string // of both lanes
	// kernelState is the kernel's own word.
	kernelState uint8
	sent        [2]uint8 // flags that each side has sent
	lastSYN     *packet.Packet
	lastFlags   uint8 // of the last segment
	model       *conntracktest.Flow
	attempt     *conntracktest.Flow // of a SYN that asks for another connection meanwhile
	moved       bool                // the lanes may have other numbers for what has been sent, see windowDifferences
	synAllows   uint32              // how far the SYN lets the side that answers send
	granted     uint32              // how far ACKs let it send
	attempted   int                 // the side that asks for it
	said        []string
}

type windowComparison struct {
	t       *testing.T
	wire    *wire
	random  *rand.Rand
	daemon  *api.Client
	traced  <-chan *inspect.TracedPacket
	sockets map[int]*nl.SocketHandle // of the router
	marks   [2]string                // addresses of the markers

	segments      int
	agreed        map[string]int // by what both say
	met           map[string]int // differences by name
	disagreements int
}

// connection sends the segments of one connection, until the lanes remember it differently.
func (c *windowComparison) connection(s *scenario, n int) {
	x := &windowConnection{state: "none", port: [2]uint16{uint16(1024 + n/250), 80}}
	x.address[0], x.address[1] = s.address[windowHosts[0]][0], netip.AddrFrom4([4]byte{203, 0, 113, byte(1 + n%250)})
	if c.random.IntN(2) == 0 {
		x.address[0], x.address[1] = s.address[windowHosts[0]][1], netip.MustParseAddr(fmt.Sprintf("2001:db8::1:%x", 1+n%250))
	}
	script := opening(c.random)
	for range segmentsPerConnection {
		side, spec := c.next(x, &script)
		if !c.send(x, side, spec) {
			return
		}
	}
}

// opening is how a connection begins, as segments "side flags".
func opening(r *rand.Rand) []string {
	return slices.Clone(pick(r,
		[]string{"0S", "1SA", "0A"}, []string{"0S", "1SA", "0A"}, []string{"0S", "1SA", "0A"}, []string{"0S", "1SA", "0A"},
		[]string{"0S", "0S", "1SA", "1SA", "0A"}, // sent once more
		[]string{"0S", "1S", "0SA", "1SA", "0A"}, // at the same time
		[]string{"0S", "1RA"},
		[]string{"0S", "1A", "0R", "0S"},                                         // an old connection is still there
		[]string{"0A", "1A"},                                                     // in mid-stream
		[]string{"0S", "1SA", "0A", "0FA", "1A", "1FA", "0A", "0S", "1SA", "0A"}, // its port is used again
		[]string{"0S", "1SA", "0A", "0FA", "1A", "1PA", "0A", "1PA", "0A"},       // half closed
		nil))
}

// next is the next segment: first the script's, then mostly what an honest end goes on with.
func (c *windowComparison) next(x *windowConnection, script *[]string) (side int, s packettest.Spec) {
	r := c.random
	flags, honest, atEnd := "", true, false
	if len(*script) > 0 {
		side, flags = int((*script)[0][0]-'0'), (*script)[0][1:]
		*script = (*script)[1:]
	} else {
		side, honest = r.IntN(2), r.IntN(3) == 0
		flags = pick(r, "A", "A", "A", "A", "A", "PA", "PA", "PA", "A", "FA", pick(r, "A", "A", "S", "SA", "R", "RA"))
	}
	s = packettest.Spec{Src: x.address[side].String(), Dst: x.address[1-side].String(), SrcPort: x.port[side], DstPort: x.port[1-side],
		Flags: flags, Seq: r.Uint32(), Ack: r.Uint32(), Window: pick[uint16](r, 0, 1, 1000, 65535, 65535, 65535), ID: uint16(c.segments)}
	s.NoWindow = s.Window == 0
	syn := strings.Contains(flags, "S")
	if x.model != nil {
		seq, ack := x.model.Edges(x.modelSide(side))
		if !syn || flags == "SA" {
			s.Seq, s.Ack = seq[0], ack[0]
		}
		if flags == "SA" && x.attempt != nil && r.IntN(2) == 0 {
			s.Ack = x.attempt.Numbers(conntracktest.Original).End
		}
		switch {
		case honest || flags == "S" && r.IntN(2) == 0:
		case r.IntN(8) == 0 && len(flags) < 3 && flags != "S": // a keepalive
			s.Seq--
		case r.IntN(8) == 0:
			s.Seq, s.Ack = r.Uint32(), pick(r, ack[0], r.Uint32())
		default:
			edge := uint32(r.IntN(3)) - 1
			if r.IntN(3) > 0 {
				s.Seq, atEnd = pick(r, pick(r, seq[:4]...), pick(r, seq...))+edge, r.IntN(2) == 0
			} else {
				s.Ack = pick(r, pick(r, ack[:3]...), pick(r, ack...)) + edge
			}
		}
	}
	if x.lastSYN != nil && flags == "S" && (honest || r.IntN(3) == 0) && x.sent[side]&packet.SYN != 0 && x.lastSYN.Src == packet.AddrFrom(x.address[side]) {
		s.Seq = x.lastSYN.Seq // sent once more
	}
	if !syn && !strings.Contains(flags, "R") {
		s.Payload = pick(r, 0, 0, 1, 100, 1400)
	}
	if atEnd { // the edge is one of the segment's end
		s.Seq -= uint32(s.Payload)
	}
	s.TCPOptions = c.options(x, side, s, syn)
	return side, s
}

func (c *windowComparison) options(x *windowConnection, side int, s packettest.Spec, syn bool) (list []layers.TCPOption) {
	r := c.random
	switch {
	case syn:
		if r.IntN(4) > 0 {
			list = append(list, layers.TCPOption{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{uint8(r.IntN(15))}})
		}
		if r.IntN(4) > 0 {
			list = append(list, layers.TCPOption{OptionType: layers.TCPOptionKindSACKPermitted, OptionLength: 2})
		}
	case x.model != nil && r.IntN(5) == 0:
		end := x.model.Numbers(x.modelSide(1-side)).End + uint32(r.IntN(5)) - 2
		if r.IntN(3) == 0 {
			end = s.Ack + pick[uint32](r, 1, 1000, 70_000)
		}
		block := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, end-10), end)
		list = append(list, layers.TCPOption{OptionType: layers.TCPOptionKindSACK, OptionLength: 10, OptionData: block})
	}
	return list
}

// send sends one segment through both lanes, and reports whether the connection goes on.
func (c *windowComparison) send(x *windowConnection, side int, s packettest.Spec) bool {
	b := packettest.TCP(s)
	step := &windowStep{connection: x, side: side, sacks: slices.ContainsFunc(s.TCPOptions, func(o layers.TCPOption) bool {
		return o.OptionType == layers.TCPOptionKindSACKPermitted
	})}
	decoder := packet.Decoder{}
	if drop := decoder.Decode(b, 0, &step.segment); drop != packet.NotDropped {
		c.t.Fatalf("%+v: %v", s, drop)
	}
	c.age(x)
	from, to := windowHosts[side], windowHosts[1-side]
	kernel, nsgd, err := c.wire.exchange(from, [][]byte{b}, marker{from, to, packettest.Spec{Src: c.marks[side], Dst: c.marks[1-side]}})
	if err != nil {
		c.t.Fatalf("segment %d: %v", c.segments, err)
	}
	c.segments++
	next := *x
	step.kernel, next.kernelState = c.byKernel(x, len(kernel) > 0)
	step.nsgd = c.byNsgd(x, len(nsgd) > 0)
	p := &step.segment
	x.said = append(x.said, fmt.Sprintf("side %d: [%s] seq %d ack %d window %d length %d SACK +%d scale %d: kernel %v (%d); nsgd %v",
		side, s.Flags, p.Seq, p.Ack, p.Window, s.Payload, p.SACKed, int(p.WindowScale)-1, step.kernel, next.kernelState, step.nsgd))
	name, goesOn := explainWindow(step)
	switch {
	case name != "":
		c.met[name]++
	case step.kernel != step.nsgd:
		c.disagreements++
		c.t.Errorf("no listed difference:\n  %s", strings.Join(x.said, "\n  "))
		goesOn = false
	default:
		c.agreed[step.nsgd.String()]++
	}
	if goesOn {
		x.kernelState = next.kernelState
		x.note(step)
	}
	return goesOn
}

// agedTo is what is left of the kernel's entry before each segment, in seconds. What is taken makes it 600 again.
const agedTo = 60

// ask sends a request about the connection's entry to the kernel. Errors of those that are not there are left out.
func (c *windowComparison) ask(x *windowConnection, what, flags int, more ...*nl.RtAttr) [][]byte {
	request := nl.NewNetlinkRequest(int(netlink.ConntrackTable)<<8|what, flags)
	family, source, destination := uint8(unix.AF_INET), nl.CTA_IP_V4_SRC, nl.CTA_IP_V4_DST
	if x.address[0].Is6() {
		family, source, destination = unix.AF_INET6, nl.CTA_IP_V6_SRC, nl.CTA_IP_V6_DST
	}
	request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	tuple := nl.NewRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_ORIG, nil)
	addresses := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
	addresses.AddRtAttr(source, x.address[x.opener].AsSlice())
	addresses.AddRtAttr(destination, x.address[1-x.opener].AsSlice())
	transport := tuple.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
	transport.AddRtAttr(nl.CTA_PROTO_NUM, []byte{packet.ProtoTCP})
	transport.AddRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(x.port[x.opener]))
	transport.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(x.port[1-x.opener]))
	request.AddData(tuple)
	for _, a := range more {
		request.AddData(a)
	}
	request.Sockets = c.sockets
	answer, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		c.t.Fatal(err)
	}
	return answer
}

// age makes the kernel's entry old.
func (c *windowComparison) age(x *windowConnection) {
	c.ask(x, nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_ACK, nl.NewRtAttr(nl.CTA_TIMEOUT, nl.BEUint32Attr(agedTo)))
}

// entry is the state of the kernel's entry and what is left of it, in seconds; 0: there is none.
func (c *windowComparison) entry(x *windowConnection) (state uint8, left uint32) {
	for _, message := range c.ask(x, nl.IPCTNL_MSG_CT_GET, unix.NLM_F_ACK) {
		// Numbers are big-endian, and types may say that something is nested.
		for _, a := range attributes(c.t, message[nl.SizeofNfgenmsg:]) {
			switch a.Attr.Type &^ unix.NLA_F_NESTED {
			case nl.CTA_TIMEOUT:
				left = binary.BigEndian.Uint32(a.Value)
			case nl.CTA_PROTOINFO:
				state = attributes(c.t, attributes(c.t, a.Value)[0].Value)[0].Value[0]
			}
		}
	}
	return state, left
}

func attributes(t *testing.T, b []byte) []syscall.NetlinkRouteAttr {
	t.Helper()
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// kernelStates are nsgd's words for the kernel's states (nf_conntrack_tcp.h).
var kernelStates = [...]string{"none", "syn_sent", "syn_sent", "established", "closing", "closing", "time_wait", "time_wait", "reset", "syn_sent"}

// kernelSynSent is the kernel's state behind the first SYN.
const kernelSynSent = 1

func (c *windowComparison) byKernel(x *windowConnection, arrived bool) (o opinion, state uint8) {
	state, left := c.entry(x)
	o.state = kernelStates[state]
	switch {
	case !arrived:
	case left > agedTo:
		o.effect = taken
	default:
		o.effect = ignored
	}
	return o, state
}

func (c *windowComparison) byNsgd(x *windowConnection, arrived bool) (o opinion) {
	var traced *inspect.TracedPacket
	select {
	case traced = <-c.traced:
	case <-time.After(patience):
		c.t.Fatalf("nsgd tells nothing of segment %d", c.segments)
	}
	switch {
	case !arrived:
	case traced.Reason == watch.OutOfWindow:
		o.effect = ignored
	default:
		o.effect = taken
	}
	list, err := c.daemon.Flows(context.Background(), inspect.FlowFilter{Address: x.address[1].String()})
	if err != nil {
		c.t.Fatal(err)
	}
	o.state = "none"
	packets := uint64(0)
	for _, f := range list.Flows {
		// Another one with the same addresses and ports may wait for the answer to its SYN.
		ours := f.SourcePort == x.port[0] || f.DestinationPort == x.port[0]
		if n := f.PacketsSent + f.PacketsReceived; ours && n > packets {
			o.state, packets = f.State, n
		}
	}
	return o
}

// note takes notice of a segment that both lanes agree about.
func (x *windowConnection) note(step *windowStep) {
	p := step.segment
	bareSYN := p.TCPFlags&controlBits == packet.SYN
	was := x.state
	x.state, x.lastFlags = step.nsgd.state, p.TCPFlags
	x.sent[step.side] |= p.TCPFlags
	switch {
	case x.model == nil || bareSYN && (was == "none" || was == "time_wait" || was == "reset"):
		if x.state == "none" {
			return
		}
		x.model, x.attempt, x.opener, x.picked = conntracktest.Begin(&p, 0), nil, step.side, !bareSYN
		x.sent, x.moved = [2]uint8{}, false
		x.sent[step.side] = p.TCPFlags
	case x.model.Succeeds(x.modelSide(step.side), &p):
		x.attempt, x.attempted = conntracktest.Begin(&p, 0), step.side
	case x.attempt != nil && was != "syn_sent" && x.state == "syn_sent": // the attempt is answered
		x.model, x.attempt, x.opener, x.picked, x.moved = x.attempt, nil, x.attempted, false, false
		x.sent[x.opener], x.sent[1-x.opener] = packet.SYN, p.TCPFlags
		x.sacks[x.opener] = false // of a SYN that it ignores the kernel keeps only the scale
		x.model.Pass(x.modelSide(step.side), &p, 0)
	default:
		outside := step.kernel.effect != taken && (p.TCPFlags&(packet.SYN|packet.RST) != 0 || step.unagreedSACK() || x.endsEarly(step))
		x.moved = x.moved || outside || step.side != x.opener && int32(p.SeqEnd()-x.granted) > 0
		x.model.Pass(x.modelSide(step.side), &p, 0)
	}
	if bareSYN {
		x.lastSYN = &p
	}
	if step.kernel.effect != taken {
		return
	}
	if p.TCPFlags&controlBits == packet.ACK && step.side == x.opener {
		x.grant(&p)
	}
	if p.TCPFlags&packet.SYN == 0 {
		return
	}
	x.sacks[step.side] = step.sacks
	if !bareSYN && step.side != x.opener && x.lastSYN != nil {
		x.granted, x.synAllows = p.SeqEnd(), p.SeqEnd()+uint32(x.lastSYN.Window)
	}
}

// grant notes what an acknowledgement of the opener's lets the other side send.
func (x *windowConnection) grant(p *packet.Packet) {
	window := uint32(p.Window)
	if a, b := x.numbers(x.opener).Scale, x.numbers(1-x.opener).Scale; a >= 0 && b >= 0 {
		window <<= a
	}
	if limit := p.Ack + p.SACKed + max(window, 1); int32(limit-x.granted) > 0 {
		x.granted = limit
	}
}

// endsEarly reports a segment beyond its window that ends before what its side has sent.
func (x *windowConnection) endsEarly(step *windowStep) bool {
	p := &step.segment
	return int32(p.Seq-x.numbers(1-step.side).Limit) > 0 && int32(p.SeqEnd()-x.numbers(step.side).End) < 0
}

// modelSide is a side of the model, whose first is that which began the connection.
func (x *windowConnection) modelSide(side int) int { return side ^ x.opener }

// numbers are what a side has said of sequence numbers.
func (x *windowConnection) numbers(side int) conntracktest.Numbers {
	if x.model == nil {
		return conntracktest.Numbers{}
	}
	return x.model.Numbers(x.modelSide(side))
}

// report logs the figures and checks that they mean something.
func (c *windowComparison) report(connections int, seed uint64) {
	c.t.Helper()
	var lines strings.Builder
	for _, list := range []map[string]int{c.agreed, c.met} {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			fmt.Fprintf(&lines, "\n  %5d %s", list[name], name)
		}
	}
	c.t.Logf("%d connections, %d segments, %s=%d%s", connections, c.segments, kernelSeedEnv, seed, lines.String())
	if c.t.Failed() {
		c.t.Logf("to repeat it: %s=%d %s=%d scripts/e2e -test.run 'TestKernelWindows'", kernelConnectionsEnv, connections, kernelSeedEnv, seed)
		return
	}
	if c.agreed["takes it, established"] < c.segments/10 || c.agreed["ignores it, established"]+c.met["out of the window"] < c.segments/20 {
		c.t.Errorf("the segments are too much alike to prove anything")
	}
}
