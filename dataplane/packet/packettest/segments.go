package packettest

import (
	"bytes"
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Superpacket makes a frame of a packet, as a kernel does: segments have size bytes of payload, and
// the checksum field holds only the pseudo-header's sum.
func Superpacket(packet []byte, gsoType uint8, size uint16) []byte {
	const headerLen = 10 // struct virtio_net_hdr
	frame := append(make([]byte, headerLen), packet...)
	b := frame[headerLen:]
	transport, field, protocol := 40, 16, layers.IPProtocolTCP
	if b[0]>>4 == 4 {
		transport = int(b[0]&0xf) * 4
	}
	if gsoType == 5 { // VIRTIO_NET_HDR_GSO_UDP_L4
		field, protocol = 6, layers.IPProtocolUDP
	}
	frame[0], frame[1] = 1, gsoType // VIRTIO_NET_HDR_F_NEEDS_CSUM
	for i, v := range []int{0, int(size), transport, field} {
		binary.NativeEndian.PutUint16(frame[2+2*i:], uint16(v))
	}
	addresses := b[12:20]
	if b[0]>>4 == 6 {
		addresses = b[8:40]
	}
	pseudo := binary.BigEndian.AppendUint16(bytes.Clone(addresses), uint16(protocol))
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(b)-transport))
	binary.BigEndian.PutUint16(b[transport+field:], Sum(pseudo))
	return frame
}

// Segments are the packets that a superpacket, without its virtio-net header, stands for. All but
// the last have size bytes of payload. They are built anew layer by layer, which is slow.
func Segments(packet []byte, size int) [][]byte {
	first := layers.LayerTypeIPv6
	if packet[0]>>4 == 4 {
		first = layers.LayerTypeIPv4
	}
	p := gopacket.NewPacket(packet, first, gopacket.Default)
	payload := p.TransportLayer().LayerPayload()
	var segments [][]byte
	for at := 0; at == 0 || at < len(payload); at += size {
		chunk := payload[at:min(at+size, len(payload))]
		var network, transport gopacket.SerializableLayer
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			c := *ip
			c.Id += uint16(len(segments))
			network = &c
		case *layers.IPv6:
			c := *ip
			network = &c
		}
		switch l := p.TransportLayer().(type) {
		case *layers.TCP:
			c := *l
			c.Seq += uint32(at)
			last := at+size >= len(payload)
			c.FIN, c.PSH, c.CWR = l.FIN && last, l.PSH && last, l.CWR && at == 0
			c.SetNetworkLayerForChecksum(network.(gopacket.NetworkLayer))
			transport = &c
		case *layers.UDP:
			c := *l
			c.SetNetworkLayerForChecksum(network.(gopacket.NetworkLayer))
			transport = &c
		}
		b := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, network, transport, gopacket.Payload(chunk))
		if err != nil {
			panic(err)
		}
		segment := bytes.Clone(b.Bytes())
		if transport.LayerType() == layers.LayerTypeTCP {
			header := segment[len(segment)-len(chunk)-len(p.TransportLayer().LayerContents()):]
			if sum := header[16:]; sum[0]|sum[1] == 0 {
				sum[0], sum[1] = 0xff, 0xff // the same value, see tun
			}
		}
		segments = append(segments, segment)
	}
	return segments
}

// Sum is the one's-complement sum of RFC 1071, word by word.
func Sum(b []byte) uint16 {
	sum := uint32(0)
	for i, v := range b {
		word := uint32(v) << 8
		if i%2 == 1 {
			word = uint32(v)
		}
		if sum += word; sum > 0xffff {
			sum -= 0xffff
		}
	}
	return uint16(sum)
}
