package flowlog

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Stats are a Recorder's counts. All except Size only grow.
type Stats struct {
	// Rows and Bytes have been written, by version. A row that goes to a file and to standard
	// output counts twice.
	Rows, Bytes [numVersions]uint64
	// EndedLost are flows without a last row, because too many ended at once.
	EndedLost uint64
	// DeniedLost are denied packets without a row, because too many came at once or their rows
	// would have taken the room of others.
	DeniedLost uint64
	// WaitingLost are rows of records that could not be written: the disk was full, or standard
	// output was not read, for too long.
	WaitingLost uint64
	// LeftOut are rows that had no room in a folder: it was full of the hour's, or of those of NSGs within their share.
	LeftOut uint64
	// Errors counts failed attempts to write, and reloads that took a log's target away.
	Errors uint64
	// Size is the bytes of all files. Deleted counts the files that were deleted for room, and
	// Mended those that a killed run had left torn.
	Size            int64
	Deleted, Mended uint64
}

// Stats is safe for concurrent use.
func (r *Recorder) Stats() Stats {
	s := Stats{EndedLost: r.ring.lost.Load(), DeniedLost: r.deniedLost(), Errors: r.errors.Load(), LeftOut: r.leftOut()}
	for _, l := range r.logs {
		s.Rows[l.Version] += l.rows.Load()
		s.Bytes[l.Version] += l.bytes.Load()
	}
	for _, k := range r.sinks {
		s.WaitingLost += k.lost.Load()
	}
	for _, st := range r.stores {
		s.Size += st.size.Load()
		s.Deleted += st.deleted.Load()
		s.Mended += st.mended.Load()
	}
	return s
}

var (
	rowsDesc = prometheus.NewDesc("nsgd_flow_log_rows_total",
		"Rows of flow logs that were written, by version.", []string{"version"}, nil)
	bytesDesc = prometheus.NewDesc("nsgd_flow_log_bytes_total",
		"Bytes of the records that were written, by version.", []string{"version"}, nil)
	lostDesc = prometheus.NewDesc("nsgd_flow_log_rows_lost_total",
		"Rows of flow logs that were lost, by cause: flows that ended and packets that were denied faster than they could be logged, records that could not be written, and rows without room in their folder.", []string{"cause"}, nil)
	errorsDesc = prometheus.NewDesc("nsgd_flow_log_errors_total",
		"Attempts to write a record of a flow log that failed, and flow logs whose target a reload took away.", nil, nil)
	sizeDesc = prometheus.NewDesc("nsgd_flow_log_files_bytes",
		"Bytes of the files of flow logs.", nil, nil)
	deletedDesc = prometheus.NewDesc("nsgd_flow_log_files_deleted_total",
		"Files of flow logs that were deleted for room, the oldest first.", nil, nil)
	mendedDesc = prometheus.NewDesc("nsgd_flow_log_files_mended_total",
		"Files of flow logs that were found torn and cut behind their last whole record.", nil, nil)
)

var _ prometheus.Collector = (*Recorder)(nil)

// Describe implements prometheus.Collector.
func (r *Recorder) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{rowsDesc, bytesDesc, lostDesc, errorsDesc, sizeDesc, deletedDesc, mendedDesc} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Recorder) Collect(out chan<- prometheus.Metric) {
	s := r.Stats()
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for v := range numVersions {
		counter(rowsDesc, s.Rows[v], v.String())
		counter(bytesDesc, s.Bytes[v], v.String())
	}
	counter(lostDesc, s.EndedLost, "ended")
	counter(lostDesc, s.DeniedLost, "denied")
	counter(lostDesc, s.WaitingLost, "waiting")
	counter(lostDesc, s.LeftOut, "room")
	counter(errorsDesc, s.Errors)
	out <- prometheus.MustNewConstMetric(sizeDesc, prometheus.GaugeValue, float64(s.Size))
	counter(deletedDesc, s.Deleted)
	counter(mendedDesc, s.Mended)
}
