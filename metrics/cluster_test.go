package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestAHostOfAClusterIsShown(t *testing.T) {
	c := Cluster(func() ClusterState {
		return ClusterState{Connected: true, Carries: true, Generation: 7, Current: 8, Refuses: true, Attached: 3, Waiting: 1, Faults: 2, Moves: map[string]uint64{"arrived": 2, "failed": 1}}
	})
	const want = `# HELP nsgd_cluster_carries Whether this host may carry packets: its lease lasts, or it goes on without one.
# TYPE nsgd_cluster_carries gauge
nsgd_cluster_carries 1
# HELP nsgd_cluster_connected Whether etcd answers this host.
# TYPE nsgd_cluster_connected gauge
nsgd_cluster_connected 1
# HELP nsgd_cluster_current_generation The generation that etcd says is current, as this host last heard; 0 is none.
# TYPE nsgd_cluster_current_generation gauge
nsgd_cluster_current_generation 8
# HELP nsgd_cluster_faults What is wrong with this host's part in the cluster now, counted.
# TYPE nsgd_cluster_faults gauge
nsgd_cluster_faults 2
# HELP nsgd_cluster_generation The generation of the policy that this host carries; 0 is none.
# TYPE nsgd_cluster_generation gauge
nsgd_cluster_generation 7
# HELP nsgd_cluster_moves_total Moves of network interfaces between hosts, as they ended here: it arrived with its flows, it left, this host refused to take part, or it failed.
# TYPE nsgd_cluster_moves_total counter
nsgd_cluster_moves_total{outcome="arrived"} 2
nsgd_cluster_moves_total{outcome="failed"} 1
nsgd_cluster_moves_total{outcome="left"} 0
nsgd_cluster_moves_total{outcome="refused"} 0
# HELP nsgd_cluster_network_interfaces Network interfaces of this host's configuration: attached here, or waiting for another host.
# TYPE nsgd_cluster_network_interfaces gauge
nsgd_cluster_network_interfaces{state="attached"} 3
nsgd_cluster_network_interfaces{state="waiting"} 1
# HELP nsgd_cluster_refuses Whether this host refuses a generation.
# TYPE nsgd_cluster_refuses gauge
nsgd_cluster_refuses 1
# HELP nsgd_cluster_registered Whether this host has a lease and its name in the cluster.
# TYPE nsgd_cluster_registered gauge
nsgd_cluster_registered 0
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}
