package metrics

import (
	"bytes"
	"context"
	"flag"
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

	"github.com/google/go-cmp/cmp"
	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/tuntest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

var update = flag.Bool("update", false, "rewrite testdata/metrics.txt")

// policy is one subnet with an NSG that allows TCP 80 from the internet, and one NIC.
func testPolicy() *policy.Set {
	web := &ruleset.NSG{Name: "web", ID: "/nsg/web", Rules: []ruleset.Rule{{
		Name: "AllowHttp", Priority: 100, Direction: ruleset.Inbound, Access: ruleset.Allow, Protocol: ruleset.TCP,
		Source: ruleset.Peer{Tag: ruleset.TagInternet}, Destination: ruleset.Peer{Any: true},
		SourcePorts: []ruleset.PortRange{ruleset.AllPorts}, DestinationPorts: []ruleset.PortRange{{First: 80, Last: 80}},
	}}}
	vnet := &policy.VirtualNetwork{Name: "vnet", ID: "/vnet", AddressSpace: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	subnet := &policy.Subnet{Name: "front", ID: "/vnet/front", VirtualNetwork: vnet, NetworkSecurityGroup: web,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}
	vnet.Subnets = []*policy.Subnet{subnet}
	nic := &policy.NetworkInterface{Name: "vm-nic", ID: "/nic/vm", IPConfigurations: []policy.IPConfiguration{
		{Name: "ipconfig1", Address: netip.MustParseAddr("10.0.1.4"), Subnet: subnet, Primary: true}}}
	return &policy.Set{NetworkSecurityGroups: []*ruleset.NSG{web}, VirtualNetworks: []*policy.VirtualNetwork{vnet},
		NetworkInterfaces: []*policy.NetworkInterface{nic}}
}

// traffic runs an engine on memory devices, sends one packet that is allowed, one that a
// rule denies and one with a spoofed source, and stops it.
func traffic(t testing.TB) *dataplane.Engine {
	t.Helper()
	engine, err := dataplane.New(testPolicy(), dataplane.Options{
		Attachments: []topology.Spec{{Kind: topology.NetworkInterface, Reference: "vm-nic"}, {Kind: topology.Internet}},
		Workers:     1, Flows: conntrack.Options{Max: 1024},
		Now: func() time.Time { return time.Unix(1_700_000_100, 25e7) }, Clock: func() time.Duration { return time.Second },
	})
	if err != nil {
		t.Fatal(err)
	}
	var memory []*tuntest.Memory
	var devices []tun.Device
	for range 2 {
		d, err := tuntest.NewMemory("eth0", 1, 16)
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

func newTestGatherer(t testing.TB) checked {
	return checked{newEngineGatherer(Options{Engine: traffic(t), Version: "1.2.3", Reloads: func() Reloads {
		return Reloads{Succeeded: 2, Failed: 1, LastRefused: true, LastSuccess: time.Unix(1_700_000_000, 5e8), LastDuration: 1500 * time.Millisecond, ServiceTagsWritten: time.Unix(1_600_000_000, 0)}
	}})}
}

func noReloads() Reloads {
	return Reloads{LastSuccess: time.Unix(1_700_000_000, 0), ServiceTagsWritten: time.Unix(1_600_000_000, 0)}
}

// checked gathers through Prometheus's own checks: valid and unique labels, one type and help for
// a name. They sort, too.
// It never calls done.
type checked struct {
	prometheus.TransactionalGatherer
}

// Gather implements prometheus.Gatherer.
func (c checked) Gather() ([]*dto.MetricFamily, error) {
	return prometheus.Gatherers{prometheus.GathererFunc(c.unchecked)}.Gather()
}

func (c checked) unchecked() ([]*dto.MetricFamily, error) {
	families, _, err := c.TransactionalGatherer.Gather()
	return families, err
}

func TestWholeText(t *testing.T) {
	g := newTestGatherer(t)
	file := filepath.Join("testdata", "metrics.txt")
	got := withoutGoVersion(render(t, g.unchecked))
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(string(want), string(withoutGoVersion(render(t, g.Gather)))); diff != "" {
		t.Errorf("sorted and checked by Prometheus (-want +got)\n%s", diff)
	}
}

func withoutGoVersion(text []byte) []byte {
	return bytes.ReplaceAll(text, []byte(runtime.Version()), []byte("GOVERSION"))
}

// render is the exposition text of what is gathered.
func render(t testing.TB, gather prometheus.GathererFunc) []byte {
	t.Helper()
	families, err := gather()
	if err != nil {
		t.Error(err)
	}
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := encoder.Encode(f); err != nil {
			t.Error(err)
		}
	}
	return text.Bytes()
}

func TestLintIsClean(t *testing.T) {
	problems, err := testutil.GatherAndLint(newTestGatherer(t))
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
	command.Stdin = bytes.NewReader(render(t, newTestGatherer(t).unchecked))
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestServerServesMetricsAndNothingElse(t *testing.T) {
	server := httptest.NewServer(newServer(traffic(t), ServerOptions{}).handler)
	defer server.Close()
	for path, want := range map[string]int{"/metrics": 200, "/": 200, "/healthz": 200, "/x": 404, "/debug/pprof/": 404, "/debug/pprof/heap": 404} {
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
				if n := strings.Count(string(text), "\n"+name); n == 0 || strings.Count(string(text), "# TYPE "+strings.TrimRight(name, " {")+" ") != 1 {
					t.Errorf("%s has %d samples of %s", path, n, name)
				}
			}
		}
	}
}

func TestALineAMinuteIsLoggedAndTheOthersAreCounted(t *testing.T) {
	var text strings.Builder
	var h slog.Handler = &sparse{Handler: slog.NewTextHandler(&text, nil), last: &lastLine{}}
	derived := h.WithAttrs([]slog.Attr{slog.String("port", "metrics")})
	begin := time.Unix(1_800_000_000, 0)
	for i, after := range []time.Duration{0, time.Second, 59 * time.Second, time.Minute, 90 * time.Second, 3 * time.Minute} {
		to := h
		if i%2 == 1 {
			to = derived
		}
		r := slog.NewRecord(begin.Add(after), slog.LevelWarn, after.String(), 0)
		if err := to.Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for line := range strings.Lines(text.String()) {
		_, line, _ = strings.Cut(line, "msg=")
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{"0s", "1m0s port=metrics notShown=2", "3m0s port=metrics notShown=1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// waiting gathers nothing, once it may go on.
type waiting struct{ begun, goOn chan struct{} }

func (w waiting) Gather() ([]*dto.MetricFamily, func(), error) {
	w.begun <- struct{}{}
	<-w.goOn
	return nil, func() {}, nil
}

func TestScrapesAreBounded(t *testing.T) {
	w := waiting{make(chan struct{}, 2*maxScrapes), make(chan struct{})}
	handler, asked := NewServer(ServerOptions{Gatherer: w, Log: slog.New(slog.DiscardHandler)}).handler, make(chan struct{}, 2*maxScrapes)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	status := make(chan int, maxScrapes)
	scrape := func() {
		response, err := http.Get(server.URL + "/metrics")
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		response.Body.Close()
		status <- response.StatusCode
	}
	for range maxScrapes {
		go scrape()
	}
	for range maxScrapes {
		<-w.begun
	}
	for range maxScrapes {
		go scrape() // they wait for a place
	}
	for range 2 * maxScrapes {
		<-asked
	}
	for range 10_000 {
		if runtime.Gosched(); len(w.begun) > 0 {
			t.Fatalf("%d more scrapes are rendered at a time", len(w.begun))
		}
	}
	close(w.goOn)
	for range 2 * maxScrapes {
		if got := <-status; got != http.StatusOK {
			t.Errorf("status %d", got)
		}
	}
}
