package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDHCPHasASeriesForEachOutcome(t *testing.T) {
	c := DHCP(func() []DHCPFrames { return []DHCPFrames{{"tap1", "host", 5, 2, 1}} })
	const want = `# HELP nsgd_dhcp_frames_total Questions of guests for DHCP and the gateway, by outcome: answered, ignored (not understood or not to be answered) or limited (more than an interface's share).
# TYPE nsgd_dhcp_frames_total counter
nsgd_dhcp_frames_total{interface="tap1",namespace="host",outcome="answered"} 5
nsgd_dhcp_frames_total{interface="tap1",namespace="host",outcome="ignored"} 2
nsgd_dhcp_frames_total{interface="tap1",namespace="host",outcome="limited"} 1
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
