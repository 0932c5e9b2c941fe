package fabric

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// large is a state of many hosts with a NIC each, which has an address of each family.
func (h *host) large(hosts int) State {
	s := State{Underlay: h.address, Port: port, Device: "vx"}
	t := Tunnel{VNI: red, TUN: "red", MTU: tunMTU}
	at := func(base string, i int) netip.Addr {
		b := netip.MustParseAddr(base).AsSlice()
		b[len(b)-2], b[len(b)-1] = byte(i>>8), byte(i)
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	for i := 1; i <= hosts; i++ {
		name := fmt.Sprint("host", i)
		s.Hosts = append(s.Hosts, Host{name, at("172.16.0.0", i)})
		for _, base := range []string{"10.1.0.0", "fd00:db8::"} {
			prefix := netip.PrefixFrom(at(base, i), at(base, i).BitLen())
			t.Routes = append(t.Routes, Route{prefix, name})
			t.Sources = append(t.Sources, Source{prefix, name})
		}
	}
	s.Tunnels = []Tunnel{t}
	return s
}

func BenchmarkApply(b *testing.B) {
	for _, hosts := range []int{50, 500, 5000} {
		u := newUnderlay(b, 2, families[0].address, 1500)
		h := u.hosts[0]
		h.device("red")
		s := h.large(hosts)
		b.Run(fmt.Sprintf("hosts=%d/all", hosts), func(b *testing.B) {
			for b.Loop() {
				h.open()
				u.must(h.fabric.Apply(s))
				b.StopTimer()
				u.must(h.fabric.Close())
				b.StartTimer()
			}
		})
		h.open()
		u.must(h.fabric.Apply(s))
		b.Run(fmt.Sprintf("hosts=%d/nothing", hosts), func(b *testing.B) {
			for b.Loop() {
				u.must(h.fabric.Apply(s))
			}
		})
		b.Run(fmt.Sprintf("hosts=%d/move", hosts), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				holder := s.Hosts[i%2].Name
				s.Tunnels[0].Routes[0].Host, s.Tunnels[0].Sources[0].Host = holder, holder
				u.must(h.fabric.Apply(s))
			}
		})
	}
}

// BenchmarkPacket is what a packet costs from one TUN to the other host's, with many hosts known.
func BenchmarkPacket(b *testing.B) {
	for _, hosts := range []int{2, 5000} {
		u := newUnderlay(b, 2, families[0].address, 1500)
		from, to := u.hosts[0], u.hosts[1]
		for _, h := range u.hosts {
			h.device("red")
			h.open()
			s := h.large(hosts)
			s.Hosts[0].Underlay = u.hosts[2-h.number].address
			u.must(h.fabric.Apply(s))
		}
		for _, test := range []struct {
			name    string
			payload int
		}{{"small", 32}, {"superpacket", 45 * (tunMTU - 40)}} {
			b.Run(fmt.Sprintf("hosts=%d/%s", hosts, test.name), func(b *testing.B) {
				packet := packettest.TCP(packettest.Spec{Src: "10.1.0.1", Dst: "10.1.0.1", Flags: "A", Payload: test.payload})
				frame := append(make([]byte, tun.HeaderLen), packet...)
				if test.payload > tunMTU {
					frame = packettest.Superpacket(packet, tun.GSOTCPv4, tunMTU-40)
				}
				buf := make([]byte, tun.BufferLen)
				b.SetBytes(int64(len(packet)))
				for b.Loop() {
					u.must(from.queues["red"].Write(frame))
					for {
						if _, err := to.queues["red"].Read(buf); err == nil {
							break
						}
					}
				}
			})
		}
	}
}
