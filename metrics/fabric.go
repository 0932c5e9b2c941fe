package metrics

import "github.com/prometheus/client_golang/prometheus"

// FabricState is what the kernel has carried between this host and others since its tunnels were made. It begins again with
// them.
type FabricState struct {
	Sent, Received uint64 // a superpacket counts once
	// Dropped are the packets by reason, those without any among them.
	Dropped map[string]uint64
}

var (
	fabricPackets = prometheus.NewDesc("nsgd_fabric_packets_total", "Packets that the kernel carried to other hosts (sent) and from them (received); a superpacket counts once.", []string{"direction"}, nil)
	fabricDropped = prometheus.NewDesc("nsgd_fabric_dropped_total", "Packets between hosts that the kernel dropped, by reason.", []string{"reason"}, nil)
)

type fabricCollector struct{ read func() (*FabricState, error) }

// Fabric shows what the kernel carries between hosts. read is safe for concurrent use; what it can't tell is left out.
func Fabric(read func() (*FabricState, error)) prometheus.Collector { return &fabricCollector{read} }

// Describe implements prometheus.Collector.
func (c *fabricCollector) Describe(out chan<- *prometheus.Desc) {
	out <- fabricPackets
	out <- fabricDropped
}

// Collect implements prometheus.Collector.
func (c *fabricCollector) Collect(out chan<- prometheus.Metric) {
	s, err := c.read()
	if err != nil { // nothing leads to other hosts yet
		return
	}
	counter := func(d *prometheus.Desc, value uint64, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), label)
	}
	counter(fabricPackets, s.Sent, "sent")
	counter(fabricPackets, s.Received, "received")
	for reason, n := range s.Dropped {
		counter(fabricDropped, n, reason)
	}
}
