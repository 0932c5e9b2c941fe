//go:build !race

// Without the race detector, which keeps memory of its own for every byte.

package conntrack

import (
	"os"
	"os/exec"
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

// The heap of a process that has run other tests is resident already, so this one has a process of its own.
func TestAMillionFlowsTake160ResidentBytesEach(t *testing.T) {
	const alone = "NSGD_TEST_ALONE"
	if os.Getenv(alone) == "" {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		c.Env = append(os.Environ(), alone+"=1")
		out, err := c.CombinedOutput()
		if t.Logf("%s", out); err != nil {
			t.Error(err)
		}
		return
	}
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
