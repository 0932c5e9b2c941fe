package metrics

import "github.com/prometheus/client_golang/prometheus"

// DHCPFrames are what one interface's guest asked by DHCP and neighbour discovery, since the responder was started.
type DHCPFrames struct {
	Interface, Namespace string // an empty namespace is the daemon's own
	Answered             uint64
	Ignored              uint64 // not understood, or not to be answered
	Limited              uint64 // dropped unread
}

var dhcpFrames = prometheus.NewDesc("nsgd_dhcp_frames_total",
	"Questions of guests for DHCP and the gateway, by outcome: answered, ignored (not understood or not to be answered) or limited (more than an interface's share).",
	[]string{"interface", "namespace", "outcome"}, nil)

// dhcp shows the frames that read returns.
type dhcp struct{ read func() []DHCPFrames }

// DHCP shows what the responders of DHCP have counted. read lists an interface once, and is safe for concurrent use.
func DHCP(read func() []DHCPFrames) prometheus.Collector { return &dhcp{read} }

// Describe implements prometheus.Collector.
func (d *dhcp) Describe(out chan<- *prometheus.Desc) { out <- dhcpFrames }

// Collect implements prometheus.Collector.
func (d *dhcp) Collect(out chan<- prometheus.Metric) {
	for _, f := range d.read() {
		for _, one := range []struct {
			outcome string
			n       uint64
		}{{"answered", f.Answered}, {"ignored", f.Ignored}, {"limited", f.Limited}} {
			out <- prometheus.MustNewConstMetric(dhcpFrames, prometheus.CounterValue, float64(one.n), f.Interface, f.Namespace, one.outcome)
		}
	}
}
