package packettest

import "testing"

func TestNoDatagramLacksItsChecksum(t *testing.T) {
	ones := 0
	for port := 1; port < 1<<16; port++ {
		b := UDP(Spec{Src: "10.0.0.4", Dst: "10.0.0.5", SrcPort: uint16(port), DstPort: 53, Payload: 3})
		switch sum := uint16(b[26])<<8 | uint16(b[27]); sum {
		case 0:
			t.Fatalf("from port %d: a checksum of 0 means that there is none", port)
		case 0xffff:
			ones++
		}
	}
	if ones != 1 {
		t.Errorf("%d checksums are 0xffff, want the one that would be 0", ones)
	}
}
