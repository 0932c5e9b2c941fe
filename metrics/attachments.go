package metrics

import (
	"strconv"
	"sync"

	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// The families of an attachment, by their place in attachmentFamilies.
const (
	receivePackets = iota
	receiveBytes
	transmitPackets
	transmitBytes
	tunDropped
)

var attachmentFamilies = []family{
	receivePackets: {"nsgd_attachment_receive_packets_total",
		"Packets that came from the attachment, as wire segments."},
	receiveBytes: {"nsgd_attachment_receive_bytes_total",
		"Bytes that came from the attachment, IP headers included."},
	transmitPackets: {"nsgd_attachment_transmit_packets_total",
		"Packets that went to the attachment, as wire segments."},
	transmitBytes: {"nsgd_attachment_transmit_bytes_total",
		"Bytes that went to the attachment, IP headers included."},
	tunDropped: {"nsgd_attachment_tun_dropped_total",
		"Packets from the attachment that the kernel dropped because the TUN device's queue was full."},
}

// attachments gathers the counters of every attachment that has a device. Safe for concurrent use.
type attachments struct {
	engine *dataplane.Engine

	mu         sync.Mutex
	series     *series // guarded by mu
	generation uint64  // guarded by mu; of the snapshot that gave the names
}

var _ prometheus.TransactionalGatherer = (*attachments)(nil)

// Gather implements prometheus.TransactionalGatherer.
func (a *attachments) Gather() ([]*dto.MetricFamily, func(), error) {
	counts := a.engine.AttachmentCounts()
	if len(counts) == 0 { // no devices yet
		return nil, func() {}, nil
	}
	devices := a.engine.Devices()
	p := a.current().take()
	p.show(receivePackets, func(i int) (uint64, bool) { return counts[i].ReceivePackets, true })
	p.show(receiveBytes, func(i int) (uint64, bool) { return counts[i].ReceiveBytes, true })
	p.show(transmitPackets, func(i int) (uint64, bool) { return counts[i].TransmitPackets, true })
	p.show(transmitBytes, func(i int) (uint64, bool) { return counts[i].TransmitBytes, true })
	p.show(tunDropped, func(i int) (uint64, bool) {
		// What a namespace transmits is what the daemon reads.
		s, ok := devices[i].Stats()
		return s.TxDropped, ok
	})
	return p.shown, p.release, nil
}

// current are the series of the attachments as the policy names them.
func (a *attachments) current() *series {
	snapshot := a.engine.Snapshot()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.series == nil || a.generation < snapshot.Generation {
		a.series = newSeries(attachmentFamilies, attachmentElements(snapshot.Attachments))
		a.generation = snapshot.Generation
	}
	return a.series
}

// attachmentElements have names that are unique: NICs of two resource groups may share one, and
// Prometheus takes only one metric of the same labels.
func attachmentElements(list []*topology.Attachment) []element {
	elements := make([]element, len(list))
	seen := make(map[string]bool, len(list))
	pairs := labelPairs{}
	for i, a := range list {
		name := a.Name
		for seen[name] {
			name += "#" + strconv.Itoa(i)
		}
		seen[name] = true
		elements[i] = element{i, []*dto.LabelPair{pairs.pair("attachment", name)}}
	}
	return elements
}
