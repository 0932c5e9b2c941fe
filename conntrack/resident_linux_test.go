//go:build !race

// Without the race detector, which keeps memory of its own for every byte.

package conntrack

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// resident is the memory of this process that the kernel backs.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestAMillionFlowsTake160ResidentBytesEach(t *testing.T) {
	const flows = 1_000_000
	debug.FreeOSMemory()
	before := resident(t)
	r := newRig(t, Options{Max: flows, MaxPerZone: flows})
	empty := resident(t)
	for i := range flows {
		r.create(0, 1, newPacket(packet.ProtoUDP, i>>8, i&255, 1, 1))
	}
	debug.FreeOSMemory() // the packets
	full := resident(t)
	runtime.KeepAlive(r)
	t.Logf("%d flows: %.1f resident bytes each; %.1f MB before the first", flows, float64(full-before)/flows, float64(empty-before)/1e6)
	if each := float64(full-before) / flows; each > 160 {
		t.Errorf("a flow takes %.1f resident bytes", each)
	}
}
