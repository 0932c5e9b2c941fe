package conntrack

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Key finds a flow: a packet's tuple, and the index of the attachment where the packet came
// in. Zone must be below Options.Zones.
type Key struct {
	packet.Tuple
	Zone uint16
}

// Set makes k the key of a packet with tuple t that came in at a zone. It copies field by field:
// a tuple that was just decoded is still on its way to the cache, and a wider load would wait.
// So the ports are not copied one after the other, which the compiler makes one load.
func (k *Key) Set(t *packet.Tuple, zone uint16) {
	k.Src.Hi, k.Src.Lo = t.Src.Hi, t.Src.Lo
	k.Dst.Hi, k.Dst.Lo = t.Dst.Hi, t.Dst.Lo
	k.SrcPort = t.SrcPort
	k.Proto = t.Proto
	k.DstPort = t.DstPort
	k.Zone = zone
}

// Equal is == without a call, and reads what Set has just written in the same pieces.
func (k *Key) Equal(o *Key) bool {
	return k.Src.Lo == o.Src.Lo && k.SrcPort == o.SrcPort && k.Dst.Lo == o.Dst.Lo && k.DstPort == o.DstPort &&
		k.Src.Hi == o.Src.Hi && k.Proto == o.Proto && k.Dst.Hi == o.Dst.Hi && k.Zone == o.Zone
}

// Direction says which side of a flow sent a packet.
type Direction uint8

// Original is the direction of the packet that began the flow.
const (
	Original Direction = iota
	Reply
)

// String is the direction's name.
func (d Direction) String() string {
	if d == Original {
		return "original"
	}
	return "reply"
}

// secrets are the seed, spread over what the hash multiplies with. Senders choose the keys:
// without a secret they could make all keys fall into one chain.
type secrets [6]uint64

func newSecrets(seed [2]uint64) (secrets, error) {
	if seed == [2]uint64{} {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return secrets{}, fmt.Errorf("conntrack: seed: %w", err)
		}
		seed = [2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
	}
	var s secrets
	state := seed[0]
	for i := range s {
		// Weyl steps and a finaliser: each secret depends on both halves of the seed.
		state += 0x9e3779b97f4a7c15
		s[i] = fold(state^seed[1], 0xd6e8feb86659fd93^bits.RotateLeft64(seed[1], 11*i+1))
	}
	return s, nil
}

// hash folds the key's 40 bytes with three independent multiplications in two
// lanes and a last one over both.
func (s *secrets) hash(k *Key) uint64 {
	rest := uint64(k.SrcPort)<<48 | uint64(k.DstPort)<<32 | uint64(k.Zone)<<8 | uint64(k.Proto)
	source := fold(k.Src.Hi^s[0], k.Src.Lo^s[1])
	destination := fold(k.Dst.Hi^s[2], k.Dst.Lo^s[3])
	return fold(source^rest^s[4], destination^bits.RotateLeft64(rest, 29)^s[5])
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
