package counter

import (
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestWhoSeesAnAttachmentsPacketsSeesWhatBecameOfThem(t *testing.T) {
	c := New(time.Now)
	cell := c.NewCell(0)
	c.Attach(0, cell)
	const packets = 200_000
	go func() {
		for range packets {
			c.Receive(0, 1, 60)
			c.Drop(packet.DropRule)
			c.Flush()
		}
	}()
	for seen := uint64(0); seen < packets; {
		seen = cell.receivePackets.Load()
		if dropped := c.drops[packet.DropRule].Load(); dropped < seen {
			t.Fatalf("of %d packets %d are dropped", seen, dropped)
		}
	}
}
