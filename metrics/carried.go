package metrics

import (
	"encoding/json"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Carrier keeps what scrapers have seen of counters beyond the process.
type Carrier interface {
	Counters() []byte
	SetCounters([]byte)
}

// carried shows counters that end with the process as if they went on: a scraper sees no reset. What a counter has
// grown by since the last scrape before the process ended is lost, unless it goes on by itself.
type carried struct {
	inner   prometheus.Gatherer
	carrier Carrier

	mu    sync.Mutex
	added map[string]float64 // what earlier processes have counted, by series
	shown map[string]float64
}

// carry is made before anything is counted, so that it tells which counters go on by themselves.
func carry(inner prometheus.Gatherer, carrier Carrier) *carried {
	c := &carried{inner: inner, carrier: carrier, added: map[string]float64{}, shown: map[string]float64{}}
	before := map[string]float64{}
	if json.Unmarshal(carrier.Counters(), &before) != nil || len(before) == 0 {
		return c
	}
	families, err := inner.Gather()
	if err != nil {
		return c
	}
	for series, value := range before { // a series that is not there yet counts from where it was
		c.added[series], c.shown[series] = value, value
	}
	eachCounter(families, func(series string, value *float64) {
		c.added[series] = max(0, before[series]-*value)
	})
	return c
}

// Gather implements prometheus.Gatherer.
func (c *carried) Gather() ([]*dto.MetricFamily, error) {
	families, err := c.inner.Gather()
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := false
	eachCounter(families, func(series string, value *float64) {
		*value += c.added[series]
		if c.shown[series] != *value {
			c.shown[series], changed = *value, true
		}
	})
	if changed {
		if text, err := json.Marshal(c.shown); err == nil {
			c.carrier.SetCounters(text)
		}
	}
	return families, err
}

// eachCounter yields the counters of families.
func eachCounter(families []*dto.MetricFamily, yield func(series string, value *float64)) {
	for _, f := range families {
		if f.GetType() != dto.MetricType_COUNTER {
			continue
		}
		for _, m := range f.Metric {
			var series strings.Builder
			series.WriteString(f.GetName())
			for _, l := range m.Label {
				series.WriteString(" " + l.GetName() + "=" + l.GetValue())
			}
			if m.Counter != nil && m.Counter.Value != nil {
				yield(series.String(), m.Counter.Value)
			}
		}
	}
}
