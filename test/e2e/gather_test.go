package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A socket that sends one datagram after the other fills the device's queue faster than it is
// emptied: they leave in superpackets, which nobody must be able to tell.
func TestDatagramsOfAStreamArriveAsTheyWereSent(t *testing.T) {
	for _, offload := range []string{"auto", "off"} {
		t.Run("offload "+offload, func(t *testing.T) {
			start(t, labPolicy(), "offload: "+offload)
			eachFamily(t, func(t *testing.T, f family) {
				to := bindUDP(t, f.vm4, 0)
				control(t, to, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) })
				from := dialUDP(t, f.vm1, address(to))
				const count = 400
				before := scrape(t)
				sent := make([][]byte, count)
				var bytesSent float64
				for i := range sent {
					size := 64
					switch {
					case i%50 == 49: // a shorter one, as the last of a message
						size = 17
					case i/100%2 == 1:
						size = 1200
					}
					sent[i] = make([]byte, size)
					rand.Read(sent[i])
					binary.BigEndian.PutUint32(sent[i], uint32(i))
					bytesSent += float64(f.ipHeader + udpHeader + size)
				}
				for _, b := range sent {
					if _, err := from.Write(b); err != nil {
						t.Fatal(err)
					}
				}
				to.SetReadDeadline(time.Now().Add(patience))
				buf := make([]byte, 2000)
				for i, want := range sent {
					n, err := to.Read(buf)
					if err != nil {
						t.Fatalf("datagram %d: %v", i, err)
					}
					if !bytes.Equal(buf[:n], want) {
						t.Fatalf("datagram %d of %d bytes arrived as %d bytes, number %d", i, len(want), n, binary.BigEndian.Uint32(buf))
					}
				}
				rule := decided{nsg1, "Outbound", "AllowVnetOutBound", "Allow"}
				want := ruleCount{1, count, bytesSent}
				c := since(t, before, func(c counts) bool { return c.rule(rule).packets >= count })
				if got := c.rule(rule); got != want {
					t.Errorf("%+v counted %+v, want %+v", rule, got, want)
				}
			})
		})
	}
}
