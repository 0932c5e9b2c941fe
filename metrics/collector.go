package metrics

import (
	"runtime"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/fault"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/prometheus/client_golang/prometheus"
)

var (
	drops = prometheus.NewDesc("nsgd_drops_total",
		"Packets that were not carried, by reason; a superpacket counts once.", []string{"reason"}, nil)
	faults = prometheus.NewDesc("nsgd_faults_total",
		"Faults of nsgd itself, beside those at packets, after which it went on, by part.", []string{"part"}, nil)

	flows = prometheus.NewDesc("nsgd_flows",
		"Live flows.", []string{"protocol", "state"}, nil)
	flowsLimit = prometheus.NewDesc("nsgd_flows_limit",
		"Flows that the flow table can hold.", nil, nil)
	flowsCreated = prometheus.NewDesc("nsgd_flows_created_total",
		"Flows that began.", nil, nil)
	flowsEnded = prometheus.NewDesc("nsgd_flows_ended_total",
		"Flows that ended, by cause.", []string{"cause"}, nil)
	flowsRefused = prometheus.NewDesc("nsgd_flows_refused_total",
		"Flows that were not begun though the rules allowed them, by cause.", []string{"cause"}, nil)
	tcpOutOfWindow = prometheus.NewDesc("nsgd_tcp_out_of_window_total",
		"TCP segments that passed, but did not fit the windows of their connection and so changed nothing there, as wire segments.", nil, nil)
	flowTableBytes = prometheus.NewDesc("nsgd_flow_table_bytes",
		"Size of the flow table, chosen at the start; the kernel backs what has been used of it.", nil, nil)

	translations = prometheus.NewDesc("nsgd_translations",
		"Live flows whose addresses or ports are translated: mappings of public IPs, NAT gateways and load balancers in use.", nil, nil)

	fragmentDatagrams = prometheus.NewDesc("nsgd_fragment_datagrams",
		"Fragmented datagrams that take up room: begun, allowed and not complete, or waiting for their first fragment.", nil, nil)
	fragmentDatagramsLimit = prometheus.NewDesc("nsgd_fragment_datagrams_limit",
		"Fragmented datagrams that can be followed at a time; one attachment has half of them at most.", nil, nil)
	fragmentsHeld = prometheus.NewDesc("nsgd_fragments_held",
		"Fragments that wait for the first one of their datagram: received, and neither transmitted nor dropped yet.", nil, nil)

	platformPackets = prometheus.NewDesc("nsgd_platform_packets_total",
		"Packets to and from the platform's services, which pass whatever the security groups say, as wire segments.", []string{"service"}, nil)
	platformBytes = prometheus.NewDesc("nsgd_platform_bytes_total",
		"Bytes of those packets, IP headers included.", []string{"service"}, nil)

	workerBursts = prometheus.NewDesc("nsgd_worker_bursts_total",
		"Turns of the worker at a queue that had packets.", []string{"worker"}, nil)
	workerPackets = prometheus.NewDesc("nsgd_worker_packets_total",
		"Packets that the worker read; a superpacket counts once.", []string{"worker"}, nil)
	workerBusy = prometheus.NewDesc("nsgd_worker_busy_seconds_total",
		"Time that the worker spent on packets; the rest it waited for them.", []string{"worker"}, nil)

	backendUp = prometheus.NewDesc("nsgd_backend_up",
		"Whether a backend of a load balancer takes new flows: 1 when its health probe is answered, or is not sent.",
		[]string{"load_balancer", "probe", "backend", "port"}, nil)

	policyReloads = prometheus.NewDesc("nsgd_policy_reloads_total",
		"Reloads of the policy, by result; a refused one leaves the running policy.", []string{"result"}, nil)
	policyLastSuccessful = prometheus.NewDesc("nsgd_policy_last_reload_successful",
		"1 if the last reload gave the policy in force, or there was none yet; 0 if it was refused.", nil, nil)
	policyLastSuccess = prometheus.NewDesc("nsgd_policy_last_reload_success_timestamp_seconds",
		"When the policy in force was loaded.", nil, nil)
	policyLastDuration = prometheus.NewDesc("nsgd_policy_last_reload_duration_seconds",
		"How long the last reload took, refused or not; 0 if there was none yet.", nil, nil)
	serviceTagsWritten = prometheus.NewDesc("nsgd_service_tags_written_timestamp_seconds",
		"When the service tag file in force was last written; absent without one.", nil, nil)
	policyGeneration = prometheus.NewDesc("nsgd_policy_generation",
		"Number of the policy in force; the first is 1.", nil, nil)
	buildInfo = prometheus.NewDesc("nsgd_build_info",
		"Always 1; the labels tell the version.", []string{"version", "goversion"}, nil)
)

// LogLinesLost shows how many lines of the log were left out, because it was not read fast enough. lost is safe for
// concurrent use.
func LogLinesLost(lost func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "nsgd_log_lines_lost_total",
		Help: "Lines that are not in the daemon's log, because it was not read fast enough."}, func() float64 { return float64(lost()) })
}

// Standby shows whether another process goes on at once when this one fails. prepared is safe for concurrent use.
func Standby(prepared func() bool) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "nsgd_standby_prepared",
		Help: "Whether another process goes on at once when this one fails; absent without nsgd keep --standby."}, func() float64 {
		if prepared() {
			return 1
		}
		return 0
	})
}

// collector shows what has few series: flows, fragments, drops, the platform, workers and the
// policy. Safe for concurrent use.
type collector struct {
	options Options
}

var _ prometheus.Collector = (*collector)(nil)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		drops, faults, flows, flowsLimit, flowsCreated, flowsEnded, flowsRefused, tcpOutOfWindow, flowTableBytes, translations,
		fragmentDatagrams, fragmentDatagramsLimit, fragmentsHeld,
		platformPackets, platformBytes, backendUp,
		workerBursts, workerPackets, workerBusy,
		policyReloads, policyLastSuccessful, policyLastSuccess, policyLastDuration, serviceTagsWritten, policyGeneration, buildInfo,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.collectFlows(out)
	f := c.options.Engine.Fragments()
	out <- gauge(fragmentDatagrams, f.Datagrams())
	out <- gauge(fragmentDatagramsLimit, int64(f.Limit()))
	out <- gauge(fragmentsHeld, f.Held())
	for reason, n := range c.options.Engine.Drops() {
		if d := packet.Drop(reason); d != packet.NotDropped {
			out <- counter(drops, n, d.String())
		}
	}
	for part, n := range c.options.Engine.Faults().Counts() {
		out <- counter(faults, n, fault.Part(part).String())
	}
	for i, n := range c.options.Engine.Counters().Services() {
		if service := topology.Service(i); service != topology.NoService {
			out <- counter(platformPackets, n.Packets, service.String())
			out <- counter(platformBytes, n.Bytes, service.String())
		}
	}
	c.collectBackends(out)
	c.collectWorkers(out)
	c.collectReloads(out)
	out <- gauge(policyGeneration, c.options.Engine.Snapshot().Generation)
	out <- gauge(buildInfo, uint64(1), c.options.Version, runtime.Version())
}

func (c *collector) collectWorkers(out chan<- prometheus.Metric) {
	for i, n := range c.options.Engine.Counters().Workers() {
		worker := strconv.Itoa(i)
		out <- counter(workerBursts, n.Bursts, worker)
		out <- counter(workerPackets, n.Packets, worker)
		out <- prometheus.MustNewConstMetric(workerBusy, prometheus.CounterValue, n.Worked.Seconds(), worker)
	}
}

func (c *collector) collectReloads(out chan<- prometheus.Metric) {
	r := c.options.Reloads()
	out <- counter(policyReloads, r.Succeeded, "success")
	out <- counter(policyReloads, r.Failed, "failure")
	successful := uint64(1)
	if r.LastRefused {
		successful = 0
	}
	out <- gauge(policyLastSuccessful, successful)
	out <- prometheus.MustNewConstMetric(policyLastSuccess, prometheus.GaugeValue, unixSeconds(r.LastSuccess.UnixNano()))
	if w := r.ServiceTagsWritten; !w.IsZero() {
		out <- prometheus.MustNewConstMetric(serviceTagsWritten, prometheus.GaugeValue, unixSeconds(w.UnixNano()))
	}
	out <- prometheus.MustNewConstMetric(policyLastDuration, prometheus.GaugeValue, r.LastDuration.Seconds())
}

// unixSeconds rounds to milliseconds: a float64 holds no more exactly.
func unixSeconds(nanoseconds int64) float64 { return float64(nanoseconds/1e6) / 1e3 }

func counter(d *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func gauge[N int64 | uint64](d *prometheus.Desc, n N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
}

func (c *collector) collectFlows(out chan<- prometheus.Metric) {
	s := c.options.Engine.Flows().Stats()
	for class, n := range s.Live {
		k := conntrack.Class(class)
		out <- gauge(flows, n, k.Protocol(), k.State())
	}
	out <- gauge(flowsLimit, s.Limit)
	out <- gauge(translations, s.Translated)
	out <- counter(flowsCreated, s.Created)
	for cause, n := range s.Ended {
		out <- counter(flowsEnded, n, conntrack.EndCause(cause).String())
	}
	for cause, n := range s.Refused {
		out <- counter(flowsRefused, n, conntrack.Refusal(cause).String())
	}
	out <- counter(tcpOutOfWindow, s.OutOfWindow)
	out <- gauge(flowTableBytes, c.options.Engine.Flows().Memory())
}

// collectBackends shows one series for each backend and probe of the policy in force. Load balancers
// of two resource groups may share all labels of a probe. Then one series shows both: it is up
// when both are.
func (c *collector) collectBackends(out chan<- prometheus.Metric) {
	type series struct{ balancer, probe, backend, port string }
	up := map[series]uint64{}
	for _, p := range c.options.Engine.Snapshot().Probes() {
		if p.Target.Elsewhere { // its host shows it
			continue
		}
		balancer, name, _ := strings.Cut(p.Name, "/")
		k := series{balancer, name, p.Address.String(), strconv.Itoa(int(p.Port))}
		if _, known := up[k]; !known {
			up[k] = 1
		}
		if !p.Up() {
			up[k] = 0
		}
	}
	for k, n := range up {
		out <- gauge(backendUp, n, k.balancer, k.probe, k.backend, k.port)
	}
}
