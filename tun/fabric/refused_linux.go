package fabric

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/nsgd/nsgd/tun"
)

const (
	// messagesPerSecond and messageBurst bound the messages to senders, as the kernel bounds its own. Meanwhile the
	// buffer fills, and a program that finds it full tells nobody.
	messagesPerSecond, messageBurst = 1000, 50

	quoted     = 96 // bytes of a packet that the programs hand over
	refusedLen = 8 + quoted
)

// teller tells senders that their packets didn't fit (RFC 1191, RFC 8201).
type teller struct {
	reader *ringbuf.Reader
	socket int
	stop   context.CancelFunc
	done   chan struct{}
}

// newTeller begins to tell. Messages go to the devices of a namespace: nsgd reads them there, as from the destination.
func newTeller(namespace string, p *programs) (*teller, error) {
	reader, err := ringbuf.NewReader(p.Refused)
	if err != nil {
		return nil, fmt.Errorf("buffer of refused packets: %w", err)
	}
	t := &teller{reader: reader, done: make(chan struct{})}
	err = tun.Do(namespace, func() (err error) {
		t.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		reader.Close()
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(context.Background())
	go t.run(ctx)
	return t, nil
}

func (t *teller) run(ctx context.Context) {
	defer close(t.done)
	allowed := rate.NewLimiter(messagesPerSecond, messageBurst)
	var record ringbuf.Record
	for t.reader.ReadInto(&record) == nil { // until it is closed
		if len(record.RawSample) < refusedLen || allowed.Wait(ctx) != nil {
			continue
		}
		device, mtu := binary.NativeEndian.Uint32(record.RawSample), binary.NativeEndian.Uint32(record.RawSample[4:])
		packet := record.RawSample[8:refusedLen]
		protocol := uint16(unix.ETH_P_IP)
		if packet[0]>>4 == 6 {
			protocol = unix.ETH_P_IPV6
		}
		if message := tooBig(packet, mtu); message != nil {
			// A full queue or a device that is gone loses the message: the sender tries again.
			_ = unix.Sendto(t.socket, message, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: int(device), Protocol: binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))})
		}
	}
}

func (t *teller) close() {
	t.stop()
	t.reader.Close()
	<-t.done
	unix.Close(t.socket)
}

// tooBig is the ICMP error that a router sends for a packet, of which it has the beginning. Nil: none may be sent
// (RFC 1122 3.2.2, RFC 4443 2.4).
func tooBig(packet []byte, mtu uint32) []byte {
	if packet[0]>>4 == 4 {
		return tooBig4(packet, mtu)
	}
	src, dst := net.IP(packet[8:24]), net.IP(packet[24:40])
	if isNobody(src) || packet[6] == 58 && packet[40] < 128 { // it is an error itself
		return nil
	}
	ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: dst, DstIP: src}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypePacketTooBig, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip) // an IPv6 layer is one
	return serialize(ip, icmp, gopacket.Payload(binary.BigEndian.AppendUint32(nil, mtu)), gopacket.Payload(packet))
}

func tooBig4(packet []byte, mtu uint32) []byte {
	at := int(packet[0]&15) * 4
	src, dst := net.IP(packet[12:16]), net.IP(packet[16:20])
	if isNobody(src) || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
		return nil
	}
	if packet[9] == uint8(layers.IPProtocolICMPv4) {
		switch packet[at] {
		case layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeEchoReply, layers.ICMPv4TypeTimestampRequest, layers.ICMPv4TypeTimestampReply:
		default:
			return nil
		}
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: dst, DstIP: src}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded), Seq: uint16(mtu)}
	return serialize(ip, icmp, gopacket.Payload(packet))
}

func isNobody(a net.IP) bool { return a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() }

func serialize(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	_ = gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...) // these layers always fit
	return b.Bytes()
}
