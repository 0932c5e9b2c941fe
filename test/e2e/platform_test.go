package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/net/dns/dnsmessage"
)

// mustResolve checks that DNS answers a host over both protocols, with the addresses of the lab
// and with nothing else.
func mustResolve(t *testing.T, from lab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, p := range []lab.Protocol{lab.UDP, lab.TCP} {
		if a, code, err := lab.Lookup(ctx, from, p, "vm4.internal.cloudapp.net."); a != vm4.Address || code != dnsmessage.RCodeSuccess {
			t.Errorf("%v asks %s: %v, %v, %v", from, p, a, code, err)
		}
		if _, code, err := lab.Lookup(ctx, from, p, "nobody.example."); code != dnsmessage.RCodeNameError || err != nil {
			t.Errorf("%v asks %s for a name that is nobody's: %v, %v", from, p, code, err)
		}
	}
}

func mustNotResolve(t *testing.T, from lab.Host) {
	t.Helper()
	for _, p := range []lab.Protocol{lab.UDP, lab.TCP} {
		ctx, cancel := context.WithTimeout(context.Background(), silence)
		_, code, err := lab.Lookup(ctx, from, p, "vm4.")
		cancel()
		if !isTimeout(err) {
			t.Errorf("%v asks %s: %v, %v; want a timeout", from, p, code, err)
		}
	}
}

// mustKnowItself checks that IMDS describes the host that asks, and only who asks as it wants.
func mustKnowItself(t *testing.T, from lab.Host) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for header, want := range map[bool]int{true: http.StatusOK, false: http.StatusBadRequest} {
		response, err := lab.Metadata(ctx, from, header)
		if err != nil {
			t.Fatalf("%v asks IMDS: %v", from, err)
		}
		var got struct {
			Compute struct{ Name string }
			Network struct {
				Interface []struct {
					IPv4 struct {
						IPAddress []struct{ PrivateIPAddress string }
					}
				}
			}
		}
		err = json.NewDecoder(response.Body).Decode(&got)
		response.Body.Close()
		if err != nil || response.StatusCode != want {
			t.Fatalf("%v asks IMDS, header %t: %s, %v", from, header, response.Status, err)
		}
		if header && (!strings.EqualFold(got.Compute.Name, from.Name) ||
			got.Network.Interface[0].IPv4.IPAddress[0].PrivateIPAddress != from.Address.String()) {
			t.Errorf("%v is told %+v", from, got)
		}
	}
}

func TestThePlatformAnswersWhateverTheRulesSay(t *testing.T) {
	deny := rules(denyAllIn, denyAllOut)
	start(t, groups(deny, deny))
	serveTCP(t, vm4, 80)
	mustNotConnect(t, vm1, vm4, 80)
	mustResolve(t, vm1)
	mustKnowItself(t, vm1)
	for _, remote := range []string{"168.63.129.16:53", "169.254.169.254:80"} {
		if v := verify(t, "vm1-nic", "Outbound", "TCP", "10.0.1.4:50000", remote); v.Access != "Allow" || v.Reason != "platform" {
			t.Errorf("verify %s: %+v", remote, v)
		}
	}
	if v := verify(t, "vm1-nic", "Outbound", "TCP", "10.0.1.4:50000", "168.63.129.16:54"); v.Access != "Deny" || v.Reason != "rule" {
		t.Errorf("verify of a port that no service has: %+v", v)
	}
	eventually(t, "the platform's packets are counted", func() bool {
		s := scrape(t)
		return s[sampleKey("nsgd_platform_packets_total", map[string]string{"service": "dns"})] > 0 &&
			s[sampleKey("nsgd_platform_bytes_total", map[string]string{"service": "imds"})] > 0
	})
}

func TestARuleThatNamesAServiceDeniesThatServiceAlone(t *testing.T) {
	denyDNS := rule{name: "DenyDns", priority: 200, direction: "Outbound", access: "Deny", destination: "AzurePlatformDNS"}
	d := start(t, groups(rules(denyDNS), nil))
	before := scrape(t)
	mustNotResolve(t, vm1)
	mustKnowItself(t, vm1)
	mustResolve(t, vm3) // NSG1 is not on its way
	since(t, before, func(c counts) bool { return c.rule(decided{nsg1, "Outbound", denyDNS.name, "Deny"}).hits == 2 })

	d.reload(t, groups(rules(rule{name: "DenyImds", priority: 200, direction: "Outbound", access: "Deny", destination: "AzurePlatformIMDS"}), nil))
	mustResolve(t, vm1)
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	if response, err := lab.Metadata(ctx, vm1, true); !isTimeout(err) {
		t.Errorf("IMDS: %v, %v; want a timeout", response, err)
	}
}

// A guest behind an interface asks the platform by names and learns who it is; in another's name it learns nothing.
func TestAGuestBeforeNsgdResolvesNamesAndReadsItsMetadata(t *testing.T) {
	makeRouter(t)
	startInterfaces(t, interfaceConfig(t, routedAttachments+"- {platform: true, platformServices: true, netns: if-platform, create: true}\n"))
	for h, namespace := range map[*lab.Host]string{&vm1: "if-vm1", &vm3: "if-vm3"} {
		guest := guestOf(*h, namespace)
		mustResolve(t, guest)
		mustKnowItself(t, guest)
	}
	mustNotResolve(t, lab.Host{Name: "a spoofer", Namespace: "if-vm3", Address: netip.MustParseAddr("10.0.2.77")})
}

func TestFlushConnectionCutsWhatTheRulesDenyNow(t *testing.T) {
	// Without tcpStrict a segment that VM1 sends again, since its acknowledgement was denied, may
	// begin the flow anew by VM1's outbound rules.
	d := start(t, labPolicy(), "tcpStrict: true")
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	denied := groups(rules(denyAllIn), rules(allowHTTPIn))
	d.reload(t, denied)
	mustEcho(t, conn) // without it, what is open stays open
	editDocument(t, d.dir, "nsg1", func(properties map[string]any) { properties["flushConnection"] = true })
	nsgctl(t, "reload")
	before := scrape(t)
	if err := echo(conn, silence); !isTimeout(err) {
		t.Fatalf("%v, want a timeout", err)
	}
	since(t, before, func(c counts) bool { return c.rule(decided{nsg1, "Inbound", denyAllIn.name, "Deny"}).hits >= 1 })
}

// What the running daemon says that other files would end is what their reload ends; the question itself changes nothing.
func TestDiffOfTheRunningPolicySaysWhatAReloadWouldEnd(t *testing.T) {
	d := start(t, labPolicy(), "tcpStrict: true")
	editDocument(t, d.dir, "nsg1", func(properties map[string]any) { properties["flushConnection"] = true })
	nsgctl(t, "reload")
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	groups(rules(denyAllIn), rules(allowHTTPIn)).write(t, d.dir)
	editDocument(t, d.dir, "nsg1", func(properties map[string]any) { properties["flushConnection"] = true })

	var diff inspect.RunningDiff
	if err := json.Unmarshal([]byte(nsgctl(t, "diff", "--running", "-o", "json")), &diff); err != nil {
		t.Fatal(err)
	}
	if l := diff.LiveFlows; len(diff.Changes) == 0 || l == nil || l.Cut != 1 || l.List[0].DestinationPort != 80 || l.List[0].RuleName != "securityRules/"+denyAllIn.name {
		t.Fatalf("%+v, %+v", diff.Changes, diff.LiveFlows)
	}
	mustEcho(t, conn)
	nsgctl(t, "reload")
	if err := echo(conn, silence); !isTimeout(err) {
		t.Fatalf("%v, want a timeout", err)
	}
}
