package metrics

import "github.com/prometheus/client_golang/prometheus"

// ClusterState is what is shown of a host of a cluster.
type ClusterState struct {
	Connected, Registered, Carries bool
	// Generation is carried, Current is etcd's; 0: none. Refuses says that this host can't carry one.
	Generation, Current uint64
	Refuses             bool
	Attached, Waiting   int // network interfaces
	Faults              int
	Moves               map[string]uint64 // of network interfaces, by outcome
}

var (
	clusterConnected   = prometheus.NewDesc("nsgd_cluster_connected", "Whether etcd answers this host.", nil, nil)
	clusterRegistered  = prometheus.NewDesc("nsgd_cluster_registered", "Whether this host has a lease and its name in the cluster.", nil, nil)
	clusterCarries     = prometheus.NewDesc("nsgd_cluster_carries", "Whether this host may carry packets: its lease lasts, or it goes on without one.", nil, nil)
	clusterGeneration  = prometheus.NewDesc("nsgd_cluster_generation", "The generation of the policy that this host carries; 0 is none.", nil, nil)
	clusterCurrent     = prometheus.NewDesc("nsgd_cluster_current_generation", "The generation that etcd says is current, as this host last heard; 0 is none.", nil, nil)
	clusterRefuses     = prometheus.NewDesc("nsgd_cluster_refuses", "Whether this host refuses a generation.", nil, nil)
	clusterFaults      = prometheus.NewDesc("nsgd_cluster_faults", "What is wrong with this host's part in the cluster now, counted.", nil, nil)
	clusterNetworkIfcs = prometheus.NewDesc("nsgd_cluster_network_interfaces", "Network interfaces of this host's configuration: attached here, or waiting for another host.", []string{"state"}, nil)
	clusterMoves       = prometheus.NewDesc("nsgd_cluster_moves_total", "Moves of network interfaces between hosts, as they ended here: it arrived with its flows, it left, this host refused to take part, or it failed.", []string{"outcome"}, nil)
)

var moveOutcomes = []string{"arrived", "left", "refused", "failed"}

type clusterCollector struct{ read func() ClusterState }

// Cluster shows how a host of a cluster does. read is safe for concurrent use.
func Cluster(read func() ClusterState) prometheus.Collector { return &clusterCollector{read} }

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{clusterConnected, clusterRegistered, clusterCarries, clusterGeneration, clusterCurrent, clusterRefuses, clusterFaults, clusterNetworkIfcs, clusterMoves} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(out chan<- prometheus.Metric) {
	s := c.read()
	truth := map[bool]float64{true: 1}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(clusterConnected, truth[s.Connected])
	gauge(clusterRegistered, truth[s.Registered])
	gauge(clusterCarries, truth[s.Carries])
	gauge(clusterGeneration, float64(s.Generation))
	gauge(clusterCurrent, float64(s.Current))
	gauge(clusterRefuses, truth[s.Refuses])
	gauge(clusterFaults, float64(s.Faults))
	gauge(clusterNetworkIfcs, float64(s.Attached), "attached")
	gauge(clusterNetworkIfcs, float64(s.Waiting), "waiting")
	for _, outcome := range moveOutcomes {
		out <- prometheus.MustNewConstMetric(clusterMoves, prometheus.CounterValue, float64(s.Moves[outcome]), outcome)
	}
}
