package metrics

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/tun"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.txt")

// policy is one subnet with an NSG that allows TCP 80 from the internet, and one NIC.
func policy() *arm.Set {
	web := &ruleset.NSG{Name: "web", ID: "/nsg/web", Rules: []ruleset.Rule{{
		Name: "AllowHttp", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow, Protocol: ruleset.TCP,
		Source: ruleset.Peer{Tag: ruleset.TagInternet}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}},
	}}}
	vnet := &arm.VirtualNetwork{Name: "vnet", ID: "/vnet", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	subnet := &arm.Subnet{Name: "front", ID: "/vnet/front", VirtualNetwork: vnet, NetworkSecurityGroup: web,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
	vnet.Subnets = []*arm.Subnet{subnet}
	nic := &arm.NetworkInterface{Name: "vm-nic", ID: "/nic/vm", IPConfigurations: []arm.IPConfiguration{
		{Name: "ipconfig1", Address: netip.MustParseAddr("10.0.1.4"), Subnet: subnet, Primary: true}}}
	return &arm.Set{NetworkSecurityGroups: []*ruleset.NSG{web}, VirtualNetworks: []*arm.VirtualNetwork{vnet},
		NetworkInterfaces: []*arm.NetworkInterface{nic}}
}

// traffic runs an engine on memory devices, sends one packet that is allowed, one that a
// rule denies and one with a spoofed source, and stops it.
func traffic(t testing.TB) *dataplane.Engine {
	t.Helper()
	engine, err := dataplane.New(policy(), dataplane.Options{
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm-nic"}, {Kind: topology.Internet}},
		Workers:     1, Flows: conntrack.Options{Max: 1024},
	})
	if err != nil {
		t.Fatal(err)
	}
	var memory []*tun.Memory
	var devices []tun.Device
	for range 2 {
		d, err := tun.NewMemory("eth0", 1, 16)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		memory, devices = append(memory, d), append(devices, d)
	}
	if err := engine.Attach(devices); err != nil {
		t.Fatal(err)
	}
	for _, s := range []packettest.Spec{
		{Src: "203.0.113.10", Dst: "10.0.1.4", SrcPort: 40000, DstPort: 80, Flags: "S"},
		{Src: "203.0.113.10", Dst: "10.0.1.4", SrcPort: 40000, DstPort: 22, Flags: "S"},
		{Src: "10.0.1.9", Dst: "10.0.1.4", SrcPort: 40000, DstPort: 80, Flags: "S"},
	} {
		if !memory[1].Inject(0, append(make([]byte, tun.HeaderLen), packettest.TCP(s)...)) {
			t.Fatal("memory device is full")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- engine.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); engine.Drops()[packet.DropSpoofed] == 0; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("the packets were not carried")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return engine
}

func newTestCollector(t testing.TB) *Collector {
	return NewCollector(Options{Engine: traffic(t), Version: "1.2.3", Reloads: func() (uint64, uint64) { return 2, 1 }})
}

func TestWholeText(t *testing.T) {
	c := newTestCollector(t)
	file := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(file, withoutGoVersion(render(t, c)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.ReplaceAll(text, []byte("GOVERSION"), []byte(runtime.Version()))
	if err := testutil.CollectAndCompare(c, bytes.NewReader(text)); err != nil {
		t.Error(err)
	}
}

func withoutGoVersion(text []byte) []byte {
	return bytes.ReplaceAll(text, []byte(runtime.Version()), []byte("GOVERSION"))
}

// render is the exposition text of one collector.
func render(t *testing.T, c prometheus.Collector) []byte {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			t.Fatal(err)
		}
	}
	return text.Bytes()
}

func TestLintIsClean(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newTestCollector(t))
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestPromtoolFindsNoFault(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skipf("promtool is not installed: %v", err)
	}
	command := exec.Command(promtool, "check", "metrics")
	command.Stdin = bytes.NewReader(render(t, newTestCollector(t)))
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestServerServesMetricsAndNothingElse(t *testing.T) {
	registry := NewRegistry(Options{Engine: traffic(t), Version: "1.2.3", Reloads: func() (uint64, uint64) { return 0, 0 }})
	server := httptest.NewServer(NewServer(registry, slog.New(slog.DiscardHandler)).Handler)
	defer server.Close()
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/debug/pprof/": 404} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != want {
			t.Errorf("%s: %s, %v", path, response.Status, err)
		}
		if path == "/metrics" {
			for _, name := range []string{"nsgd_rule_hits_total{", "go_goroutines ", "process_open_fds "} {
				if !strings.Contains(string(text), name) {
					t.Errorf("%s lacks %s", path, name)
				}
			}
		}
	}
}

func TestAttachmentsOfOneNameAreToldApart(t *testing.T) {
	set := policy()
	twin := *set.NetworkInterfaces[0]
	twin.ID = "/other/nic/vm"
	twin.IPConfigurations = []arm.IPConfiguration{{Name: "c", Address: netip.MustParseAddr("10.0.1.5"), Subnet: set.VirtualNetworks[0].Subnets[0]}}
	set.NetworkInterfaces = append(set.NetworkInterfaces, &twin)
	engine, err := dataplane.New(set, dataplane.Options{Workers: 1, Attachments: []topology.Spec{
		{Kind: topology.NetworkInterface, Reference: "/nic/vm"}, {Kind: topology.NetworkInterface, Reference: "/other/nic/vm"}}})
	if err != nil {
		t.Fatal(err)
	}
	names := NewCollector(Options{Engine: engine}).attachmentNames()
	if len(names) != 2 || names[0] == names[1] {
		t.Errorf("names %q", names)
	}
}

func BenchmarkScrape(b *testing.B) {
	r := prometheus.NewRegistry()
	r.MustRegister(newTestCollector(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// manyRules is a policy of NSGs with 1,000 rules each, and an engine for it that carries nothing.
func manyRules(b *testing.B, rules int) *dataplane.Engine {
	b.Helper()
	set := policy()
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

// BenchmarkScrapeOfManyRules is a whole scrape, as text, of 10,000 and 100,000 rules.
func BenchmarkScrapeOfManyRules(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			registry := NewRegistry(Options{Engine: manyRules(b, n), Reloads: func() (uint64, uint64) { return 0, 0 }})
			handler := NewServer(registry, slog.New(slog.DiscardHandler)).Handler
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
				b.ReportMetric(float64(w.Body.Len()), "text-bytes")
			}
		})
	}
}
