package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
	"go.yaml.in/yaml/v3"
)

// across has the world of every test that starts meanwhile spread over the hosts of a cluster; nil: one daemon has it all.
var across *spread

// spread is a fleet for the worlds of tests that know of one daemon. What they ask it, reload and scrape is asked of all.
type spread struct {
	*fleet
	listen   map[string]string     // control.* of hosts by name: more lines of YAML
	underlay func(host int) string // the address of one
	keep     bool                  // hosts go on from test to test while the world's configuration stays
	config   string
	started  int
	running  []*daemon
	stderr   *output // of all hosts
	asked    int

	dirNow    string // of the last test that started
	configNow map[string]any
}

// acrossHosts are the hosts. The last one has the internet, and the first one a second one.
var acrossHosts = []string{"one", "two", "three"}

// newSpread makes the hosts, for all tests until the end of this one.
func newSpread(t *testing.T) *spread {
	t.Helper()
	f := startFleet(t)
	must(t, "ip", "link", "set", "underlay", "mtu", fmt.Sprint(acrossMTU))
	for _, name := range acrossHosts {
		f.machine(name)
		must(t, "ip", "link", "set", name, "mtu", fmt.Sprint(acrossMTU))
		must(t, "ip", "-n", namespaceOf(name), "link", "set", "eth0", "mtu", fmt.Sprint(acrossMTU))
	}
	across = &spread{fleet: f, underlay: func(host int) string { return fmt.Sprint("192.0.2.", host+1) }}
	t.Cleanup(func() { across = nil })
	return across
}

// acrossMTU takes packets of 1,500 bytes in a tunnel.
const acrossMTU = 1600

// start is startIn across hosts.
func (s *spread) start(t *testing.T, dir string) *daemon {
	t.Helper()
	s.t = t
	var config map[string]any
	text := readFile(t, filepath.Join(dir, lab.ConfigName))
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	if s.running == nil || !s.keep || s.config != text {
		s.stop()
		s.launch(t, dir, text, config)
	} else {
		s.apply(t, dir, config)
	}
	d := &daemon{t: t, dir: dir, stderr: s.stderr, exited: make(chan struct{}), done: true}
	if !s.keep {
		t.Cleanup(s.stop)
	}
	s.dirNow, s.configNow = dir, config
	return d
}

// launch has the hosts run a world's attachments, under its policy.
func (s *spread) launch(t *testing.T, dir, text string, config map[string]any) {
	t.Helper()
	s.started++
	s.prefix = fmt.Sprint("/nsgd/", s.started)
	s.apply(t, dir, config)
	attachments := config["attachments"].([]any)
	at := make([][]any, len(acrossHosts))
	nics := make([]int, len(acrossHosts))
	total, internets := 0, len(at)-1
	for _, a := range attachments {
		a := a.(map[string]any)
		switch {
		case a["platform"] == true:
			for i, name := range acrossHosts {
				own := maps.Clone(a)
				own["netns"] = fmt.Sprint(a["netns"], "-", name)
				at[i] = append(at[i], own)
			}
		case a["internet"] == true:
			i := internets % len(at)
			at[i] = append(at[i], a)
			internets++
		case a["networkInterface"] != nil:
			i := total % len(at)
			at[i], nics[i] = append(at[i], a), nics[i]+1
			total++
		default: // a gateway
			at[1] = append(at[1], a)
		}
	}
	s.stderr = newOutput()
	for i, name := range acrossHosts {
		own := maps.Clone(config)
		for _, key := range []string{"policy", "defaultOutboundAddress", "azureQuirks"} {
			delete(own, key)
		}
		own["attachments"] = at[i]
		control := map[string]any{"socket": s.socket(name)}
		if err := yaml.Unmarshal([]byte(s.listen[name]), &control); err != nil {
			t.Fatal(err)
		}
		own["control"] = control
		own["cluster"] = map[string]any{"endpoints": []string{s.client}, "prefix": s.prefix, "host": name, "underlay": s.underlay(i), "lease": "10s",
			"cache": filepath.Join(s.dir, fmt.Sprint("cache-", name, "-", s.started))}
		written, err := yaml.Marshal(own)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(s.dir, name+".yaml"), string(written))
	}
	s.running = make([]*daemon, len(acrossHosts))
	for i := range acrossHosts {
		s.run(t, i)
	}
	t.Cleanup(func() {
		if t.Failed() {
			s.stop()
		}
	})
	s.config = text
	for i, name := range acrossHosts {
		eventually(t, name+" has what is its, and leads to the others", func() bool {
			select {
			case <-s.running[i].exited:
				t.Fatalf("%s ended: %v", name, s.running[i].cmd.ProcessState)
			default:
			}
			c := s.status(name)
			return c.Registered && len(c.Attached) == nics[i] && c.Reaches == total-nics[i] && len(c.Faults) == 0
		})
	}
}

// run starts a host's daemon.
func (s *spread) run(t *testing.T, host int) {
	t.Helper()
	name := acrossHosts[host]
	d := launchWith(t, "", newOutput(), s.stderr, "nsenter", "--net=/run/netns/"+namespaceOf(name), program("nsgd"), "run", "--config", filepath.Join(s.dir, name+".yaml"))
	d.done = true // stop ends it
	s.running[host] = d
}

// kill ends a host's daemon, which leaves what it has made.
func (s *spread) kill(host int) {
	s.running[host].kill()
	s.running[host] = nil
}

// live are the hosts whose daemons run.
func (s *spread) live() (names []string) {
	for i, d := range s.running {
		if d != nil {
			names = append(names, acrossHosts[i])
		}
	}
	return names
}

// stop ends the hosts' daemons, and checks that they leave nothing.
func (s *spread) stop() {
	if s.running == nil {
		return
	}
	var ending sync.WaitGroup
	for _, d := range s.running {
		if d == nil {
			continue
		}
		d.t = s.t
		ending.Go(func() { d.end(syscall.SIGTERM) })
	}
	ending.Wait()
	s.running = nil
	nothingLeft(s.t)
}

// apply makes the policy in a test's folder the one of the cluster.
func (s *spread) apply(t *testing.T, dir string, config map[string]any) {
	t.Helper()
	args := []string{"apply", "--prefix", s.prefix}
	if a := config["defaultOutboundAddress"]; a != nil {
		args = append(args, "--default-outbound-address", fmt.Sprint(a))
	}
	if config["azureQuirks"] == true {
		args = append(args, "--azure-quirks")
	}
	for _, p := range config["policy"].([]any) {
		args = append(args, filepath.Join(dir, p.(string)))
	}
	if out := s.ctl(args...); len(s.running) > 0 && !strings.Contains(out, fmt.Sprintf("carried by %d hosts", len(s.running))) && !strings.Contains(out, "current already") {
		t.Fatalf("nsgctl %s: %s", strings.Join(args, " "), out)
	}
}

// nsgctl asks the hosts what a test asks its one daemon.
func (s *spread) nsgctl(t *testing.T, args ...string) string {
	t.Helper()
	switch args[0] {
	case "reload":
		s.apply(t, s.dirNow, s.configNow)
		return ""
	case "flows":
		return s.flows(t, args)
	case "status":
		return s.statuses(t, args)
	case "verify", "next-hop", "explain", "effective", "reach":
		s.asked++ // from any
		return nsgctl(t, append(args, "--socket", s.socket(acrossHosts[s.asked%len(acrossHosts)]))...)
	}
	t.Fatalf("nsgctl %s: it is not known how to ask several hosts", strings.Join(args, " "))
	return ""
}

// flows are those of all hosts. What two hosts have, one for each end, is one.
func (s *spread) flows(t *testing.T, args []string) string {
	t.Helper()
	var all struct {
		Flows []map[string]any `json:"flows"`
	}
	known := map[string]map[string]any{}
	for _, name := range s.live() {
		var list struct{ Flows []map[string]any }
		out := nsgctl(t, append(args, "--socket", s.socket(name))...)
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, f := range list.Flows {
			key := fmt.Sprint(f["protocol"], f["source"], f["sourcePort"], f["destination"], f["destinationPort"])
			if other := known[key]; other != nil {
				maps.Copy(other, f)
				continue
			}
			known[key] = f
			all.Flows = append(all.Flows, f)
		}
	}
	return encodeJSON(t, &all)
}

// statuses is that of the host with the internet, with all that the hosts have dropped.
func (s *spread) statuses(t *testing.T, args []string) string {
	t.Helper()
	var status map[string]any
	dropped := map[string]float64{}
	for _, name := range s.live() {
		status = nil
		if err := json.Unmarshal([]byte(nsgctl(t, append(args, "--socket", s.socket(name))...)), &status); err != nil {
			t.Fatal(err)
		}
		list, _ := status["dropped"].(map[string]any)
		for reason, n := range list {
			dropped[reason] += n.(float64)
		}
	}
	status["dropped"] = dropped
	return encodeJSON(t, status)
}

func encodeJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// scrape is the sum of what the hosts count.
func (s *spread) scrape(t *testing.T) samples {
	t.Helper()
	sum := samples{}
	for _, name := range s.live() {
		for key, value := range scrapeBy(t, dialFrom(namespaceOf(name))) {
			sum[key] += value
		}
	}
	return sum
}

// dialFrom dials from a namespace.
func dialFrom(namespace string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = tun.Do(namespace, func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// namespacesLeft are those that are no host's.
func (s *spread) namespacesLeft(entries []os.DirEntry) []os.DirEntry {
	return slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		return slices.ContainsFunc(acrossHosts, func(name string) bool { return namespaceOf(name) == e.Name() })
	})
}

// What one daemon answers, three hosts with a third of the world each answer too: these are the tests of one.

// oneOfThree is a test of one daemon that runs over three hosts.
type oneOfThree struct {
	name string
	test func(*testing.T)
}

// overThreeHosts runs tests over three hosts. keep lets the hosts go on from test to test while the configuration stays.
func overThreeHosts(t *testing.T, keep bool, tests ...oneOfThree) {
	s := newSpread(t)
	s.keep = keep
	t.Cleanup(func() { s.t = t; s.stop() })
	for _, o := range tests {
		t.Run(o.name, o.test)
	}
}

func TestThreeHostsAnswerAsOneInSentences(t *testing.T) {
	overThreeHosts(t, true,
		oneOfThree{"inbound", TestInboundTraffic}, oneOfThree{"outbound", TestOutboundTraffic}, oneOfThree{"within a subnet", TestIntraSubnetTraffic},
		oneOfThree{"answers", TestReturnTrafficNeedsNoRule}, oneOfThree{"ICMP errors", TestPortUnreachableComesBackThoughNoRuleLetsICMPIn},
		oneOfThree{"largest datagram", TestLargestDatagramArrivesWhole}, oneOfThree{"large ping", TestPingOf20000BytesIsAnswered},
		oneOfThree{"denied fragments", TestDeniedDatagramOfManyFragmentsCountsThemAllOnTheRule}, oneOfThree{"allowed fragments", TestAllowedDatagramOfManyFragmentsIsOneHitAndAllOfThem},
		oneOfThree{"extension headers", TestIPv6ExtensionHeadersHideNoPortsAndCostNoPacket})
}

func TestThreeHostsAnswerAsOneBeyondSentences(t *testing.T) {
	overThreeHosts(t, false,
		oneOfThree{"MTU of fragments", TestFragmentsFindTheMTUOfTheWay}, oneOfThree{"path MTU", TestPathMTUDiscoveryWorksThoughNoRuleLetsICMPIn},
		oneOfThree{"traceroute", TestTracerouteShowsTheRouterAndTheHostBeyondAndNoHopOfTheFilter}, oneOfThree{"tracepath", TestTracepathFindsTheMTUOfTheWay},
		oneOfThree{"protocols without ports", TestAReplyWithoutPortsNeedsNoRule})
}

func TestThreeHostsAnswerAsOneInTranslation(t *testing.T) {
	overThreeHosts(t, false,
		oneOfThree{"balancer", TestALoadBalancerKeepsTheClientsSourceAndBothBackendsServe}, oneOfThree{"dead backend", TestADeadBackendLeavesTheRotationAndReturns},
		oneOfThree{"blocked probes", TestARuleThatBlocksProbesTakesTheBackendsOut}, oneOfThree{"inbound NAT rule", TestAnInboundNATRuleLeadsToOneBackend},
		oneOfThree{"outbound rule", TestAnOutboundRuleLendsTheFrontendsAddressAndPorts}, oneOfThree{"floating IP", TestFloatingIPLeavesTheFrontendsAddress},
		oneOfThree{"reset", TestAConnectionThatFallsSilentIsReset}, oneOfThree{"internal balancer", TestAnInternalLoadBalancerAndItsHairpin},
		oneOfThree{"hairpin", TestAPublicLoadBalancersHairpinComesFromItsOwnAddress}, oneOfThree{"by source", TestDistributionBySourceKeepsAClientAtItsBackend},
		oneOfThree{"NAT gateway", TestANATGatewayLendsItsAddressAndTakesNothingIn}, oneOfThree{"ICMP errors", TestTracerouteAndPathMTUThroughTranslation},
		oneOfThree{"traceroute from outside", TestTracerouteFromOutsideToAPublicIP}, oneOfThree{"public IP", TestAPublicIPIsTranslatedBeforeInboundRules},
		oneOfThree{"outbound by a public IP", TestOutboundRulesSeeThePrivateSourceAndTheServerThePublicOne}, oneOfThree{"closed public IP", TestAStandardPublicIPIsClosedWithoutAnNSGAndABasicOneIsOpen},
		oneOfThree{"default outbound", TestDefaultOutboundAccess}, oneOfThree{"echo and datagrams", TestEchoAndDatagramsThroughAPublicIP}, oneOfThree{"refusal", TestARefusalComesFromThePublicAddress},
		oneOfThree{"superpackets", TestSuperpacketsStayWholeThroughEachTranslation})
}

func TestThreeHostsAnswerAsOneInRoutes(t *testing.T) {
	overThreeHosts(t, false,
		oneOfThree{"peerings", TestPeeringsAreNotTransitive}, oneOfThree{"appliance", TestTrafficThroughAnAppliance}, oneOfThree{"gateway", TestAGatewayStandsForOnPremises},
		oneOfThree{"to nowhere", TestARouteToNowhere}, oneOfThree{"another way", TestAConnectionTakesTheWayThatAReloadGivesIt})
}
