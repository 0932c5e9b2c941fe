package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
)

func BenchmarkScrape(b *testing.B) { benchmarkScrape(b, traffic(b)) }

// BenchmarkScrapeOfManyRules is a whole scrape, as text, of 10,000 and 100,000 rules, and of a million that
// have counted nothing.
func BenchmarkScrapeOfManyRules(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) { benchmarkScrape(b, manyRules(b, n)) })
	}
}

// BenchmarkScrapeWithANewRule is a scrape of 200,000 rules that have counted, and of one more each time.
func BenchmarkScrapeWithANewRule(b *testing.B) {
	const counted = 200_000
	engine := manyRules(b, 2*counted)
	set, r := engine.Counters()[0], &rules{engine: engine, all: maxAllRules}
	next := uint32(0)
	count := func(n uint32) {
		for end := next + n; next < end; next++ {
			set.Add(next, 1, 1, 40)
		}
		set.Flush()
	}
	scrape := func() {
		_, done, err := r.Gather()
		if err != nil {
			b.Fatal(err)
		}
		done()
	}
	count(counted)
	scrape()
	b.ReportAllocs()
	for b.Loop() {
		count(1)
		scrape()
	}
}

// BenchmarkScrapeOfManyAttachments is a whole scrape, as text, of 5,000 NICs. Their devices are
// memory, whose counters cost nothing to read.
func BenchmarkScrapeOfManyAttachments(b *testing.B) {
	b.Run("attachments=5000", func(b *testing.B) { benchmarkScrape(b, manyAttachments(b, 5_000)) })
}

// benchmarkScrape is a whole scrape by a Prometheus that has scraped before.
func benchmarkScrape(b *testing.B, engine *dataplane.Engine) {
	handler := newServer(engine, ServerOptions{}).handler
	request := httptest.NewRequest("GET", "/metrics", nil)
	scrape := func() {
		w := discard{header: http.Header{}}
		handler.ServeHTTP(&w, request)
		if w.status > http.StatusOK {
			b.Fatal(w.status)
		}
		b.ReportMetric(float64(w.length), "text-bytes")
	}
	scrape() // makes what the later ones use again
	b.ReportAllocs()
	for b.Loop() {
		scrape()
	}
}

// discard is a response that only its length is kept of.
type discard struct {
	header         http.Header
	status, length int
}

func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }
func (d *discard) Write(p []byte) (int, error) {
	d.length += len(p)
	return len(p), nil
}

// manyRules is a policy of NSGs with 1,000 rules each, and an engine for it that carries nothing.
func manyRules(b testing.TB, rules int) *dataplane.Engine {
	b.Helper()
	set := testPolicy()
	for g := range rules / 1000 {
		nsg := &ruleset.NSG{Name: fmt.Sprintf("group-%03d", g), ID: fmt.Sprintf("/nsg/%d", g)}
		for i := range 994 { // and six default rules
			r := set.NetworkSecurityGroups[0].Rules[0]
			r.Name, r.Priority = fmt.Sprintf("allow-application-%d", i), 100+i
			nsg.Rules = append(nsg.Rules, r)
		}
		set.NetworkSecurityGroups = append(set.NetworkSecurityGroups, nsg)
	}
	engine, err := dataplane.New(set, dataplane.Options{Workers: 2, Flows: conntrack.Options{Max: 1024},
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm-nic"}, {Kind: topology.Internet}}})
	if err != nil {
		b.Fatal(err)
	}
	return engine
}

// manyAttachments is an engine with n NICs on memory devices that carries nothing.
func manyAttachments(b *testing.B, n int) *dataplane.Engine {
	b.Helper()
	set := testPolicy()
	subnet := set.VirtualNetworks[0].Subnets[0]
	subnet.Prefixes = set.VirtualNetworks[0].AddressSpace
	set.NetworkInterfaces = nil
	var specs []topology.Spec
	var devices []tun.Device
	for i := range n {
		id := fmt.Sprintf("/nic/%d", i)
		address := netip.AddrFrom4([4]byte{10, 0, byte(1 + i/200), byte(10 + i%200)})
		set.NetworkInterfaces = append(set.NetworkInterfaces, &policy.NetworkInterface{Name: fmt.Sprintf("virtual-machine-%d-nic", i), ID: id,
			IPConfigurations: []policy.IPConfiguration{{Name: "ipconfig1", Address: address, Subnet: subnet, Primary: true}}})
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: id})
		d, err := tuntest.NewMemory(fmt.Sprintf("eth%d", i), 1, 1)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { d.Close() })
		devices = append(devices, d)
	}
	engine, err := dataplane.New(set, dataplane.Options{Workers: 1, Flows: conntrack.Options{Max: 1024}, Attachments: specs})
	if err != nil {
		b.Fatal(err)
	}
	if err := engine.Attach(devices); err != nil {
		b.Fatal(err)
	}
	return engine
}
