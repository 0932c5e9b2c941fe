package metrics

import (
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

var (
	ruleLabels       = []string{"network_security_group", "direction", "rule", "access"}
	attachmentLabels = []string{"attachment"}

	ruleHits = prometheus.NewDesc("nsgd_rule_hits_total",
		"Verdicts by the rule: new flows that it allowed and packets that it denied.", ruleLabels, nil)
	rulePackets = prometheus.NewDesc("nsgd_rule_packets_total",
		"Packets that the rule let pass or dropped, those of live flows included, as wire segments.", ruleLabels, nil)
	ruleBytes = prometheus.NewDesc("nsgd_rule_bytes_total",
		"Bytes of the packets that the rule let pass or dropped, IP headers included.", ruleLabels, nil)

	drops = prometheus.NewDesc("nsgd_drops_total",
		"Packets that were not carried, by reason; a superpacket counts once.", []string{"reason"}, nil)

	flows = prometheus.NewDesc("nsgd_flows",
		"Live flows.", []string{"protocol", "state"}, nil)
	flowsLimit = prometheus.NewDesc("nsgd_flows_limit",
		"Flows that the flow table can hold.", nil, nil)
	flowsCreated = prometheus.NewDesc("nsgd_flows_created_total",
		"Flows that began.", nil, nil)
	flowsEnded = prometheus.NewDesc("nsgd_flows_ended_total",
		"Flows that ended, by cause.", []string{"cause"}, nil)

	fragmentDatagrams = prometheus.NewDesc("nsgd_fragment_datagrams",
		"Fragmented datagrams that take up room: begun, allowed and not complete, or waiting for their first fragment.", nil, nil)
	fragmentDatagramsLimit = prometheus.NewDesc("nsgd_fragment_datagrams_limit",
		"Fragmented datagrams that can be followed at a time; one attachment has half of them at most.", nil, nil)
	fragmentsHeld = prometheus.NewDesc("nsgd_fragments_held",
		"Fragments that wait for the first one of their datagram: received, and neither transmitted nor dropped yet.", nil, nil)

	receivePackets = prometheus.NewDesc("nsgd_attachment_receive_packets_total",
		"Packets that came from the attachment, as wire segments.", attachmentLabels, nil)
	receiveBytes = prometheus.NewDesc("nsgd_attachment_receive_bytes_total",
		"Bytes that came from the attachment, IP headers included.", attachmentLabels, nil)
	transmitPackets = prometheus.NewDesc("nsgd_attachment_transmit_packets_total",
		"Packets that went to the attachment, as wire segments.", attachmentLabels, nil)
	transmitBytes = prometheus.NewDesc("nsgd_attachment_transmit_bytes_total",
		"Bytes that went to the attachment, IP headers included.", attachmentLabels, nil)
	tunDropped = prometheus.NewDesc("nsgd_attachment_tun_dropped_total",
		"Packets from the attachment that the kernel dropped because the TUN device's queue was full.", attachmentLabels, nil)

	policyReloads = prometheus.NewDesc("nsgd_policy_reloads_total",
		"Reloads of the policy, by result; a refused one leaves the running policy.", []string{"result"}, nil)
	policyGeneration = prometheus.NewDesc("nsgd_policy_generation",
		"Number of the policy in force; the first is 1.", nil, nil)
	buildInfo = prometheus.NewDesc("nsgd_build_info",
		"Always 1; the labels tell the version.", []string{"version", "goversion"}, nil)
)

// Options are what a Collector shows.
type Options struct {
	Engine *dataplane.Engine
	// Version of the program.
	Version string
	// Reloads tells how often the policy was reloaded and how often refused.
	Reloads func() (succeeded, failed uint64)
}

// Collector is a prometheus.Collector over an engine. Safe for concurrent use.
type Collector struct {
	options Options

	mu    sync.Mutex
	rules []ruleSeries // guarded by mu; replaced, never changed
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a collector that is not registered.
func NewCollector(o Options) *Collector { return &Collector{options: o} }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ruleHits, rulePackets, ruleBytes, drops, flows, flowsLimit, flowsCreated, flowsEnded,
		fragmentDatagrams, fragmentDatagramsLimit, fragmentsHeld,
		receivePackets, receiveBytes, transmitPackets, transmitBytes, tunDropped,
		policyReloads, policyGeneration, buildInfo,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	c.collectRules(out)
	c.collectFlows(out)
	c.collectAttachments(out)
	f := c.options.Engine.Fragments()
	out <- gauge(fragmentDatagrams, f.Datagrams())
	out <- gauge(fragmentDatagramsLimit, int64(f.Limit()))
	out <- gauge(fragmentsHeld, f.Held())
	for reason, n := range c.options.Engine.Drops() {
		if d := packet.Drop(reason); d != packet.NotDropped {
			out <- counter(drops, n, d.String())
		}
	}
	succeeded, failed := c.options.Reloads()
	out <- counter(policyReloads, succeeded, "success")
	out <- counter(policyReloads, failed, "failure")
	out <- gauge(policyGeneration, c.options.Engine.Snapshot().Generation)
	out <- gauge(buildInfo, uint64(1), c.options.Version, runtime.Version())
}

func counter(d *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge[N int64 | uint64](d *prometheus.Desc, n N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
}

// collectRules shows every rule of the process's life: a rule that a reload removed may
// still carry flows, and a counter must not vanish and come back.
func (c *Collector) collectRules(out chan<- prometheus.Metric) {
	rules := c.ruleSeries()
	counts := c.options.Engine.RuleCounts(len(rules))
	for _, r := range rules {
		n := &counts[r.slot]
		out <- &ruleMetric{ruleHits, r.labels, float64(n.Hits)}
		out <- &ruleMetric{rulePackets, r.labels, float64(n.Packets)}
		out <- &ruleMetric{ruleBytes, r.labels, float64(n.Bytes)}
	}
}

// ruleSeries names the series of one rule.
type ruleSeries struct {
	slot   int
	labels []*dto.LabelPair
}

// ruleMetric is a constant counter whose labels were made before.
type ruleMetric struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	value  float64
}

// Desc implements prometheus.Metric.
func (m *ruleMetric) Desc() *prometheus.Desc { return m.desc }

// Write implements prometheus.Metric.
func (m *ruleMetric) Write(out *dto.Metric) error {
	out.Label, out.Counter = m.labels, &dto.Counter{Value: &m.value}
	return nil
}

// ruleSeries returns those of every slot, in the order in which a registry sorts them: what is
// sorted already costs it least. Labels are made once for each rule.
func (c *Collector) ruleSeries() []ruleSeries {
	keys := c.options.Engine.Registry().Keys()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := len(c.rules)
	if known == len(keys) {
		return c.rules
	}
	all := slices.Clone(c.rules) // a scrape may still be using the old ones
	for slot := known; slot < len(keys); slot++ {
		k := &keys[slot]
		all = append(all, ruleSeries{slot, prometheus.MakeLabelPairs(ruleHits,
			[]string{k.NetworkSecurityGroup, k.Direction.String(), k.Rule, k.Access.String()})})
	}
	slices.SortFunc(all, func(a, b ruleSeries) int {
		return slices.CompareFunc(a.labels, b.labels, func(x, y *dto.LabelPair) int {
			return strings.Compare(x.GetValue(), y.GetValue())
		})
	})
	c.rules = all
	return all
}

func (c *Collector) collectFlows(out chan<- prometheus.Metric) {
	s := c.options.Engine.Flows().Stats()
	for class, n := range s.Live {
		k := conntrack.Class(class)
		out <- gauge(flows, n, k.Protocol(), k.State())
	}
	out <- gauge(flowsLimit, s.Limit)
	out <- counter(flowsCreated, s.Created)
	for cause, n := range s.Ended {
		out <- counter(flowsEnded, n, conntrack.EndCause(cause).String())
	}
}

func (c *Collector) collectAttachments(out chan<- prometheus.Metric) {
	e := c.options.Engine
	names := c.attachmentNames()
	for i, n := range e.AttachmentCounts() {
		out <- counter(receivePackets, n.ReceivePackets, names[i])
		out <- counter(receiveBytes, n.ReceiveBytes, names[i])
		out <- counter(transmitPackets, n.TransmitPackets, names[i])
		out <- counter(transmitBytes, n.TransmitBytes, names[i])
	}
	for i, d := range e.Devices() {
		// What a namespace transmits is what the daemon reads.
		if s, ok := d.Stats(); ok {
			out <- counter(tunDropped, s.TxDropped, names[i])
		}
	}
}

// attachmentNames are unique: two metrics with the same labels would make the whole
// scrape fail, and NICs of two resource groups may share a name.
func (c *Collector) attachmentNames() []string {
	seen := map[string]bool{}
	attachments := c.options.Engine.Snapshot().Attachments
	names := make([]string, len(attachments))
	for i, a := range attachments {
		names[i] = a.Name
		if seen[a.Name] {
			names[i] += "#" + strconv.Itoa(i)
		}
		seen[names[i]] = true
	}
	return names
}
