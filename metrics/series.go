package metrics

import (
	"cmp"
	"slices"
	"sync/atomic"

	dto "github.com/prometheus/client_model/go"
)

// family is a counter's name and help, or a gauge's.
type family struct {
	name, help string
	gauge      bool
}

// series are counters and gauges that differ in their labels: one of each family for every element,
// a rule or an attachment. Labels and order are made once. It never changes, and is safe for
// concurrent use.
type series struct {
	families []family
	// elements in the order in which Prometheus sorts their labels.
	elements []element
	// idle is the page that the last scrape left for the next; nil while a scrape uses it.
	idle atomic.Pointer[page]
}

// element is what one series of each family counts.
type element struct {
	// index by which the engine knows it: a rule's slot or an attachment's number.
	index int
	// labels are sorted by name. Elements share those that are alike.
	labels []*dto.LabelPair
}

// newSeries takes ownership of elements, whose label names are the same.
func newSeries(families []family, elements []element) *series {
	slices.SortFunc(elements, func(a, b element) int {
		return slices.CompareFunc(a.labels, b.labels, func(x, y *dto.LabelPair) int {
			return cmp.Compare(*x.Value, *y.Value)
		})
	})
	return &series{families: families, elements: elements}
}

// page is what a scrape shows of some series, complete but for the values. It takes some 190 bytes
// a series, which would be garbage if every scrape made its own. One scrape uses it at a time.
type page struct {
	series   *series
	families []pageFamily
	shown    []*dto.MetricFamily
	// also are the pages of further elements, whose metrics show adds to the families of this one; see takeAll.
	also []*page
}

// pageFamily has a value for each element, and a metric that points to the value.
type pageFamily struct {
	dto     dto.MetricFamily
	values  []float64
	metrics []dto.Metric
}

// take returns an empty page, for one scrape until release.
func (s *series) take() *page {
	if p := s.idle.Swap(nil); p != nil {
		p.shown = p.shown[:0]
		return p
	}
	p := &page{series: s, families: make([]pageFamily, len(s.families))}
	for i := range p.families {
		p.families[i].prepare(&s.families[i], s.elements)
	}
	return p
}

// takeAll is take for the elements of several series of the same families. all has one at least.
func takeAll(all []*series) *page {
	p := all[0].take()
	for _, s := range all[1:] {
		p.also = append(p.also, s.take())
	}
	return p
}

func (f *pageFamily) prepare(description *family, elements []element) {
	f.dto.Name, f.dto.Help, f.dto.Type = &description.name, &description.help, dto.MetricType_COUNTER.Enum()
	if description.gauge {
		f.dto.Type = dto.MetricType_GAUGE.Enum()
	}
	f.dto.Metric = make([]*dto.Metric, 0, len(elements))
	f.values, f.metrics = make([]float64, len(elements)), make([]dto.Metric, len(elements))
	for i := range elements {
		f.metrics[i].Label = elements[i].labels
	}
	if description.gauge {
		gauges := make([]dto.Gauge, len(elements))
		for i := range elements {
			gauges[i].Value, f.metrics[i].Gauge = &f.values[i], &gauges[i]
		}
		return
	}
	counters := make([]dto.Counter, len(elements))
	for i := range elements {
		counters[i].Value, f.metrics[i].Counter = &f.values[i], &counters[i]
	}
}

// release gives the page back. Its families must not be used any more.
func (p *page) release() {
	for _, q := range p.also {
		q.release()
	}
	p.also = p.also[:0]
	p.series.idle.Store(p)
}

// show adds a family. value gives the value of each element, by its index. Elements without a
// known value are left out, and so is a family without elements: it has no valid text.
func (p *page) show(family int, value func(index int) (v float64, known bool)) {
	f := &p.families[family]
	f.dto.Metric = p.add(f.dto.Metric[:0], family, value)
	for _, q := range p.also {
		f.dto.Metric = q.add(f.dto.Metric, family, value)
	}
	if len(f.dto.Metric) > 0 {
		p.shown = append(p.shown, &f.dto)
	}
}

// add appends the metrics of the page's own elements.
func (p *page) add(list []*dto.Metric, family int, value func(index int) (v float64, known bool)) []*dto.Metric {
	f := &p.families[family]
	for i := range p.series.elements {
		if v, known := value(p.series.elements[i].index); known {
			f.values[i] = v
			list = append(list, &f.metrics[i])
		}
	}
	return list
}

// labelPairs makes each label once.
type labelPairs map[label]*dto.LabelPair

type label struct{ name, value string }

func (p labelPairs) pair(name, value string) *dto.LabelPair {
	l := label{name, value}
	pair, ok := p[l]
	if !ok {
		pair = &dto.LabelPair{Name: &l.name, Value: &l.value}
		p[l] = pair
	}
	return pair
}
