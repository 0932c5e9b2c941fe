package conntrack

import (
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

const handshake = ">S <SA >A"

// TestTCPStates reads steps: ">" from the side that began the flow, "<" from the
// other, then flags; "+5s" waits; "!reason" after the flags is the expected drop,
// "*" that the segment begins a new flow in place of the old.
func TestTCPStates(t *testing.T) {
	for _, tt := range []struct {
		name, steps, want string
	}{
		{"a SYN alone is half open", ">S", "syn_sent"},
		{"a half-open flow ends after 30 s", ">S +30s", "none"},
		{"a repeated SYN keeps an attempt alive", ">S +20s >S +20s", "syn_sent"},
		{"SYN and SYN+ACK are not yet a connection", ">S <SA", "syn_sent"},
		{"the third segment establishes it", handshake, "established"},
		{"an established flow outlives the handshake's timeout", handshake + " +239s", "established"},
		{"an established flow ends after 4 idle minutes", handshake + " +240s", "none"},
		{"traffic in either direction keeps it alive", handshake + " +200s <PA +200s >A +200s", "established"},
		{"a simultaneous open establishes", ">S <S >SA <SA", "established"},
		{"the acknowledgement of an old connection does not establish", ">S <A <A", "syn_sent"},
		{"the opener's reset of an old connection that answered passes", ">S <A >R <SA >A", "established"},
		{"SYN+ACK from the opener without a SYN to answer is refused", ">S >SA!tcp_state", "syn_sent"},
		{"a repeated SYN+ACK passes", handshake + " <SA", "established"},

		{"a mid-stream segment is no connection yet", ">PA", "syn_sent"},
		{"mid-stream data of one side stays alive while it flows", ">PA +20s >PA +20s >PA +20s", "syn_sent"},
		{"a mid-stream pick-up is established once both sides were seen", ">PA <A", "established"},
		{"a repeated SYN+ACK answers a mid-stream acknowledgement", ">A <SA >A", "established"},
		{"a SYN after an unanswered mid-stream segment begins anew", ">PA >S*", "syn_sent"},

		{"one FIN closes half", handshake + " >FA", "closing"},
		{"the reply side can be the first to close", handshake + " <FA", "closing"},
		{"a half-closed connection with data is not cut", handshake + " >FA +50s <PA +50s >A +50s <PA", "closing"},
		{"a half-closed connection lives as long as an open one", handshake + " >FA +239s", "closing"},
		{"a half-closed connection without data ends after 4 minutes", handshake + " >FA +240s", "none"},
		{"both FINs end it", handshake + " >FA <A <FA >A", "time_wait"},
		{"a closed connection is gone ten seconds after its last packet", handshake + " >FA <FA >A +10s", "none"},
		{"two FINs of one side are still half", handshake + " >FA >FA", "closing"},
		{"a FIN before anybody answered earns no longer life", ">S >FA +30s", "none"},

		{"RST ends a connection after 5 s", handshake + " <R +5s", "none"},
		{"until then it is reset", handshake + " >RA +4s", "reset"},
		{"packets after RST pass but extend nothing", handshake + " >RA +3s <PA <A +2s", "none"},
		{"RST+ACK refuses a SYN", ">S <RA", "reset"},
		{"RST without ACK does not answer a SYN", ">S <R!tcp_state", "syn_sent"},
		{"RST from a side that has only sent its SYN is refused", ">S >R!tcp_state", "syn_sent"},
		{"a refused RST extends nothing", ">S +20s >R!tcp_state +10s", "none"},
		{"the opener can abort after SYN+ACK", ">S <SA >R", "reset"},
		{"RST in TIME-WAIT changes and extends nothing", handshake + " >FA <FA +6s >R +3s", "time_wait"},
		{"RST in TIME-WAIT does not keep it", handshake + " >FA <FA +6s >R +4s", "none"},

		{"SYN on a closing flow ends nothing", handshake + " >FA >S", "closing"},
		{"its answer begins anew", handshake + " >FA >S <SA*", "syn_sent"},
		{"and the acknowledgement opens it", handshake + " >FA >S <SA* >A", "established"},
		{"SYN in an established connection begins anew with its answer", handshake + " >S <SA*", "syn_sent"},
		{"SYN in TIME-WAIT begins anew", handshake + " >FA <FA >S*", "syn_sent"},
		{"SYN after RST begins anew", handshake + " <R >S*", "syn_sent"},
		{"SYN in an established connection passes and extends nothing", handshake + " +200s >S +40s", "none"},
		{"SYN from the reply side of an established connection ends nothing", handshake + " <S", "established"},
		{"an answer to a SYN that has timed out is none", handshake + " >S +30s <SA", "established"},

		{"no flags at all are impossible", handshake + " >!tcp_flags", "established"},
		{"SYN+FIN is impossible", handshake + " >SF!tcp_flags", "established"},
		{"SYN+RST is impossible", handshake + " >SR!tcp_flags", "established"},
		{"RST+FIN is impossible", handshake + " >RFA!tcp_flags", "established"},
		{"FIN without ACK is impossible", handshake + " >F!tcp_flags", "established"},
		{"a Xmas segment is impossible", handshake + " <FPU!tcp_flags", "established"},
		{"PSH without ACK is impossible", handshake + " >P!tcp_flags", "established"},
		{"an impossible segment extends nothing", handshake + " +200s >SF!tcp_flags +40s", "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			for _, step := range strings.Fields(tt.steps) {
				r.step(step)
			}
			if got := r.state(0, tcp("")); got != tt.want {
				t.Errorf("after %q the state is %q, want %q", tt.steps, got, tt.want)
			}
		})
	}
}

func (r *rig) step(step string) {
	r.t.Helper()
	if step[0] == '+' {
		d, err := time.ParseDuration(step[1:])
		if err != nil {
			r.t.Fatal(err)
		}
		r.wait(d)
		return
	}
	flags, want, _ := strings.Cut(step[1:], "!")
	flags, renewed := strings.CutSuffix(flags, "*")
	p, zone, peer := tcp(flags), uint16(0), uint16(1)
	if step[0] == '<' {
		p, zone, peer = reversed(p), 1, 0
	}
	before := r.Stats()
	_, _, _, drop := r.send(zone, peer, p)
	if want == "" {
		want = "none"
	}
	if drop.String() != want {
		r.t.Fatalf("%s: drop %s, want %s", step, drop, want)
	}
	if got := r.Stats().Ended[EndRestarted] > before.Ended[EndRestarted]; got != renewed {
		r.t.Fatalf("%s: restarted %t, want %t", step, got, renewed)
	}
}

func TestSYNFromTheReplySideBeginsAFlowOfItsOwn(t *testing.T) {
	for _, end := range []string{"<S >SA*", ">FA <S >SA*", "<FA <S >SA*", ">FA <FA <S*", ">R <S*", "<R <S*"} {
		t.Run(end, func(t *testing.T) {
			r := newRig(t, Options{})
			for _, step := range strings.Fields(handshake + " " + end) {
				r.step(step)
			}
			k := Key{tcp("").Reverse(), 1}
			f, d, ok := r.w.Lookup(&k, r.now)
			if !ok || d != Original || r.w.PeerZone(f, d) != 0 || r.w.Class(f) != ClassTCPSynSent {
				t.Errorf("found %t, direction %s, class %v", ok, d, r.w.Class(f))
			}
			if n := r.Stats().Flows; n != 1 {
				t.Errorf("%d flows", n)
			}
		})
	}
}

func TestInsertEndsAFlowThatThePacketRestarts(t *testing.T) {
	r := newRig(t, Options{})
	for _, step := range strings.Fields(handshake + " >FA <FA") {
		r.step(step)
	}
	p := tcp("S")
	k := Key{p.Tuple, 0}
	if _, _, created, drop := r.w.Insert(&k, &Init{ReplyZone: 1}, p, r.now); !created || drop != packet.NotDropped {
		t.Fatalf("created %t, drop %s", created, drop)
	}
	if s := r.Stats(); s.Flows != 1 || s.Ended[EndRestarted] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestMayCreate(t *testing.T) {
	v6 := func(icmpType uint8) *packet.Packet {
		p := newPacket(packet.ProtoICMPv6, 1, 2, 0, 0)
		p.ICMPType = icmpType
		return p
	}
	for _, tt := range []struct {
		name   string
		p      *packet.Packet
		strict bool
		want   string
	}{
		{"a SYN begins a flow", tcp("S"), true, "none"},
		{"a SYN with ECN begins a flow", func() *packet.Packet { p := tcp("S"); p.TCPFlags |= 0xc0; return p }(), true, "none"},
		{"a mid-stream segment begins a flow", tcp("PA"), false, "none"},
		{"a mid-stream segment begins none under strict", tcp("PA"), true, "tcp_no_syn"},
		{"a FIN in mid-stream begins a flow", tcp("FA"), false, "none"},
		{"SYN+ACK begins none", tcp("SA"), false, "tcp_no_syn"},
		{"RST begins none", tcp("R"), false, "tcp_no_syn"},
		{"RST+ACK begins none", tcp("RA"), false, "tcp_no_syn"},
		{"null", tcp(""), false, "tcp_flags"},
		{"SYN+FIN", tcp("SF"), false, "tcp_flags"},
		{"SYN+RST", tcp("SR"), false, "tcp_flags"},
		{"RST+FIN", tcp("RF"), false, "tcp_flags"},
		{"FIN without ACK", tcp("F"), false, "tcp_flags"},
		{"Xmas", tcp("FPU"), false, "tcp_flags"},
		{"everything at once", tcp("FSRPAU"), true, "tcp_flags"},
		{"an echo request begins a flow", echo(8, 1), true, "none"},
		{"a timestamp request begins a flow", echo(13, 1), true, "none"},
		{"an echo reply begins none", echo(0, 1), false, "icmp_no_flow"},
		{"a redirect begins none", echo(5, 1), false, "icmp_no_flow"},
		{"unreachable begins none", echo(3, 1), false, "icmp_no_flow"},
		{"time exceeded begins none", echo(11, 1), false, "icmp_no_flow"},
		{"parameter problem begins none", echo(12, 1), false, "icmp_no_flow"},
		{"an ICMPv6 echo request begins a flow", v6(128), false, "none"},
		{"an ICMPv6 echo reply begins none", v6(129), false, "icmp_no_flow"},
		{"packet too big begins none", v6(2), false, "icmp_no_flow"},
		{"neighbour discovery begins none", v6(135), false, "icmp_no_flow"},
		{"UDP begins a flow", udp(1), true, "none"},
		{"ESP begins a flow", newPacket(packet.ProtoESP, 1, 2, 0, 0), true, "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := MayCreate(tt.p, tt.strict).String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestWithoutTCPStatesAFlowIsOneOfPacketsEachWay(t *testing.T) {
	for _, begins := range []string{"S", "SA", "A", "R", "FA"} {
		t.Run(begins, func(t *testing.T) {
			r := newRig(t, Options{TCPStrict: true})
			r.stateless, r.established = true, 10*time.Minute
			r.create(1, 2, tcp(begins))
			if got := r.state(1, tcp("A")); got != "one_way" {
				t.Fatalf("state %s", got)
			}
			for _, flags := range []string{"SA", "S", "R", "FA", "A"} {
				if _, _, created, drop := r.send(2, 1, reversed(tcp(flags))); created || drop != packet.NotDropped {
					t.Errorf("%s of the other side: created %t, %s", flags, created, drop)
				}
			}
			if _, _, created, drop := r.send(1, 2, tcp("S")); created || drop != packet.NotDropped {
				t.Errorf("SYN after FIN and RST: created %t, %s", created, drop)
			}
			if _, _, _, drop := r.send(1, 2, tcp("SF")); drop != packet.DropTCPFlags {
				t.Errorf("an impossible flag set: %s", drop)
			}
			r.wait(10*time.Minute - TickLength)
			if got := r.state(1, tcp("A")); got != "two_way" {
				t.Errorf("state %s short of the timeout", got)
			}
			r.wait(TickLength)
			if got := r.state(1, tcp("A")); got != "none" {
				t.Errorf("state %s after the timeout", got)
			}
		})
	}
}

func TestALiveFlowTakesANewTimeout(t *testing.T) {
	r := newRig(t, Options{})
	r.established = 4 * time.Minute
	r.create(1, 2, tcp("S"))
	r.send(2, 1, reversed(tcp("SA")))
	r.send(1, 2, tcp("A"))
	k := Key{tcp("A").Tuple, 1}
	r.SetEstablished(&k, 30*time.Minute, r.now)
	r.wait(30*time.Minute - TickLength)
	if got := r.state(1, tcp("A")); got != "established" {
		t.Errorf("state %s short of the timeout", got)
	}
	r.SetEstablished(&k, 0, r.now) // the table's
	if got := r.state(1, tcp("A")); got != "none" {
		t.Errorf("state %s with a shorter timeout", got)
	}
	r.SetEstablished(&k, 30*time.Minute, r.now)
	if got := r.state(1, tcp("A")); got != "none" {
		t.Errorf("state %s: a longer timeout brought back what was over", got)
	}
}
