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
	tunTransmitDropped
	attachmentFlows
	attachmentFlowsLimit
)

var attachmentFamilies = []family{
	receivePackets: {name: "nsgd_attachment_receive_packets_total",
		help: "Packets that came from the attachment, as wire segments."},
	receiveBytes: {name: "nsgd_attachment_receive_bytes_total",
		help: "Bytes that came from the attachment, IP headers included."},
	transmitPackets: {name: "nsgd_attachment_transmit_packets_total",
		help: "Packets that went to the attachment, as wire segments."},
	transmitBytes: {name: "nsgd_attachment_transmit_bytes_total",
		help: "Bytes that went to the attachment, IP headers included."},
	tunDropped: {name: "nsgd_attachment_tun_dropped_total",
		help: "Packets from the attachment that the kernel dropped because the TUN device's queue was full."},
	tunTransmitDropped: {name: "nsgd_attachment_tun_transmit_dropped_total",
		help: "Packets to the attachment that the kernel dropped or refused behind the TUN device."},
	attachmentFlows: {name: "nsgd_attachment_flows", gauge: true,
		help: "Live flows that begin or end at the attachment."},
	attachmentFlowsLimit: {name: "nsgd_attachment_flows_limit", gauge: true,
		help: "Flows that may begin or end at the attachment; absent where there is no limit but the table's."},
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
	if len(a.engine.Devices()) == 0 { // not yet
		return nil, func() {}, nil
	}
	series := a.current() // before the counts, which know what it knows
	counts, drops, flows := a.engine.AttachmentCounts(), a.engine.KernelDrops(), a.engine.Flows()
	p := series.take()
	p.show(receivePackets, func(i int) (float64, bool) { return float64(counts[i].ReceivePackets), true })
	p.show(receiveBytes, func(i int) (float64, bool) { return float64(counts[i].ReceiveBytes), true })
	p.show(transmitPackets, func(i int) (float64, bool) { return float64(counts[i].TransmitPackets), true })
	p.show(transmitBytes, func(i int) (float64, bool) { return float64(counts[i].TransmitBytes), true })
	p.show(tunDropped, func(i int) (float64, bool) { return float64(drops[i].Receive), drops[i].Known })
	p.show(tunTransmitDropped, func(i int) (float64, bool) { return float64(drops[i].Transmit), drops[i].Known })
	p.show(attachmentFlows, func(i int) (float64, bool) { return float64(flows.ZoneFlows(uint16(i))), true })
	p.show(attachmentFlowsLimit, func(i int) (float64, bool) {
		limit, limited := flows.ZoneLimit(uint16(i))
		return float64(limit), limited
	})
	return p.shown, p.release, nil
}

// current returns the series, with the names of the policy in force.
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

// attachmentElements makes names unique. NICs of two resource groups may share a name, and
// Prometheus refuses two metrics with the same labels.
func attachmentElements(list []*topology.Attachment) []element {
	var elements []element
	seen := make(map[string]bool, len(list))
	pairs := labelPairs{}
	for i, a := range list {
		if a.Kind == topology.Vacant {
			continue
		}
		name := a.Name
		for seen[name] {
			name += "#" + strconv.Itoa(i)
		}
		seen[name] = true
		elements = append(elements, element{i, []*dto.LabelPair{pairs.pair("attachment", name)}})
	}
	return elements
}
