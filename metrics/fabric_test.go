package metrics

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestWhatTheKernelCarriesBetweenHostsIsShown(t *testing.T) {
	state, fault := &FabricState{Sent: 7, Received: 9, Dropped: map[string]uint64{"forged_source": 2, "stranger": 0}}, error(nil)
	c := Fabric(func() (*FabricState, error) { return state, fault })
	const want = `# HELP nsgd_fabric_dropped_total Packets between hosts that the kernel dropped, by reason.
# TYPE nsgd_fabric_dropped_total counter
nsgd_fabric_dropped_total{reason="forged_source"} 2
nsgd_fabric_dropped_total{reason="stranger"} 0
# HELP nsgd_fabric_packets_total Packets that the kernel carried to other hosts (sent) and from them (received); a superpacket counts once.
# TYPE nsgd_fabric_packets_total counter
nsgd_fabric_packets_total{direction="received"} 9
nsgd_fabric_packets_total{direction="sent"} 7
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if fault = errors.New("there is none"); testutil.CollectAndCount(c) != 0 {
		t.Error("something is shown of a fabric that is not there")
	}
}
