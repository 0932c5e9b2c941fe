package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/tun"
)

// Namespaces of the kernel's side: the router r0..r4, and opposite each of its
// interfaces a host h0..h4. The hosts need no namespace each: without an address and
// with IPv6 off their kernel neither answers nor says anything of its own.
const (
	routerNamespace = "kernel-router"
	hostsNamespace  = "kernel-hosts"
)

// router is a Linux router with connection tracking and the scenario's NSGs in nftables.
type router struct {
	t      *testing.T
	routes []netlink.Route // to the scenario's VMs
}

func newRouter(t *testing.T) *router {
	t.Helper()
	needNftables(t)
	for _, name := range []string{routerNamespace, hostsNamespace} {
		if err := makeNamespace(name); err != nil {
			t.Fatalf("namespace %s: %v", name, err)
		}
		t.Cleanup(func() {
			if err := netns.DeleteNamed(name); err != nil {
				t.Errorf("namespace %s: %v", name, err)
			}
		})
	}
	r := &router{t: t}
	r.must("router", routerNamespace, prepareRouter)
	r.must("links", hostsNamespace, makeLinks)
	r.must("routes", routerNamespace, func() error { return bringUp("r", defaultRoutes) })
	return r
}

func (r *router) must(what, namespace string, f func() error) {
	r.t.Helper()
	if err := tun.Do(namespace, f); err != nil {
		r.t.Fatalf("kernel %s: %v", what, err)
	}
}

func makeNamespace(name string) error {
	done := make(chan error, 1)
	go func() {
		// The thread is in the new namespace now and ends with this goroutine.
		runtime.LockOSThread()
		handle, err := netns.NewNamed(name)
		if err == nil {
			err = handle.Close()
		}
		done <- err
	}()
	return <-done
}

// needNftables fails where the kernel can't be the other opinion: scripts/setup installs nft.
func needNftables(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatal("the comparison with the kernel needs the nft command: ", err)
	}
	out, err := nft("table inet probe {\nchain c { type filter hook forward priority filter;\nct state established ct mark 1 accept\n}\n}\ndelete table inet probe")
	if err != nil {
		t.Fatalf("the comparison with the kernel needs nftables with connection tracking: %v: %s", err, out)
	}
}

// nft loads a rule set into the namespace of the thread that calls it.
func nft(rules string) (string, error) {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// prepareRouter makes the kernel forward and track as a virtual network would: spoofing is
// the rules' to refuse, mid-stream TCP is picked up, and sequence numbers are judged, as nsgd does by default.
func prepareRouter() error {
	settings := map[string]string{
		"ipv4/ip_forward":                               "1",
		"ipv4/conf/all/rp_filter":                       "0",
		"ipv4/conf/default/rp_filter":                   "0",
		"ipv4/conf/all/send_redirects":                  "0",
		"ipv4/conf/default/send_redirects":              "0",
		"ipv6/conf/all/forwarding":                      "1",
		"ipv6/conf/default/accept_dad":                  "0",
		"ipv6/conf/default/addr_gen_mode":               "1", // no link-local address
		"netfilter/nf_conntrack_tcp_loose":              "1",
		"netfilter/nf_conntrack_tcp_be_liberal":         "0",
		"netfilter/nf_conntrack_tcp_ignore_invalid_rst": "0",
	}
	// Nothing times out while a policy is compared, however slow the machine.
	for _, name := range []string{"tcp_timeout_syn_sent", "tcp_timeout_syn_recv", "tcp_timeout_fin_wait", "tcp_timeout_close_wait",
		"tcp_timeout_last_ack", "tcp_timeout_time_wait", "tcp_timeout_close", "tcp_timeout_max_retrans", "tcp_timeout_unacknowledged", "tcp_timeout_established",
		"udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout", "generic_timeout"} {
		settings["netfilter/nf_conntrack_"+name] = "600"
	}
	for name, value := range settings {
		if err := setSysctl(name, value); err != nil {
			return err
		}
	}
	// The router's own words, multicast reports and time exceeded, are no part of this.
	return mute("output")
}

// mute makes the kernel of the calling thread's namespace drop everything at these hooks.
// Packet sockets see and send all the same.
func mute(hooks ...string) error {
	rules := ""
	for _, hook := range hooks {
		rules += fmt.Sprintf("chain %s { type filter hook %s priority raw; policy drop; }\n", hook, hook)
	}
	if out, err := nft("table inet mute {\n" + rules + "}"); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func setSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
}

// makeLinks runs among the hosts.
func makeLinks() error {
	for _, scope := range []string{"all", "default"} {
		if err := setSysctl("ipv6/conf/"+scope+"/disable_ipv6", "1"); err != nil {
			return err
		}
	}
	router, err := netns.GetFromName(routerNamespace)
	if err != nil {
		return err
	}
	defer router.Close()
	for i := range figureHosts {
		link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("h%d", i)},
			PeerName: fmt.Sprintf("r%d", i), PeerNamespace: netlink.NsFd(router)}
		if err := netlink.LinkAdd(link); err != nil {
			return fmt.Errorf("add %s: %w", link.Name, err)
		}
	}
	return bringUp("h", nil)
}

// bringUp brings the interfaces of one side up. They resolve no addresses: the router
// hands frames to its peer without asking, and the host's side sees them all.
func bringUp(prefix string, then func() error) error {
	for i := range figureHosts {
		link, err := netlink.LinkByName(fmt.Sprintf("%s%d", prefix, i))
		if err == nil {
			err = netlink.LinkSetARPOff(link)
		}
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return fmt.Errorf("bring up %s%d: %w", prefix, i, err)
		}
	}
	if then == nil {
		return nil
	}
	return then()
}

// defaultRoutes are those that no scenario changes: the internet is everything but the
// virtual network, the platform, which is not attached, and what no router forwards.
func defaultRoutes() error {
	link, err := netlink.LinkByName(fmt.Sprintf("r%d", figureInternet))
	if err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination(netip.MustParsePrefix(all))}); err != nil {
			return fmt.Errorf("route %s: %w", all, err)
		}
	}
	nowhere := slices.Clone(figureSpace)
	for _, text := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "240.0.0.0/4",
		"168.63.129.16/32", "fc00::/7"} {
		nowhere = append(nowhere, netip.MustParsePrefix(text))
	}
	for _, p := range nowhere {
		if err := netlink.RouteAdd(&netlink.Route{Type: unix.RTN_BLACKHOLE, Dst: destination(p)}); err != nil {
			return fmt.Errorf("route %v: %w", p, err)
		}
	}
	return nil
}

func destination(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// apply makes the router the one of a scenario. With keep the connections from before live on.
func (r *router) apply(s *scenario, keep bool) {
	r.t.Helper()
	r.must("policy", routerNamespace, func() error {
		if out, err := nft(s.nftables()); err != nil {
			return fmt.Errorf("nft: %w: %s\n%s", err, out, s.nftables())
		}
		var errs []error
		for i := range r.routes {
			errs = append(errs, netlink.RouteDel(&r.routes[i]))
		}
		r.routes = nil
		for vm, addresses := range s.address {
			link, err := netlink.LinkByName(fmt.Sprintf("r%d", vm))
			if err != nil {
				return err
			}
			for _, a := range addresses {
				route := netlink.Route{LinkIndex: link.Attrs().Index, Dst: destination(netip.PrefixFrom(a, a.BitLen()))}
				if a.Is4() {
					route.Scope = netlink.SCOPE_LINK
				}
				errs = append(errs, netlink.RouteAdd(&route))
				r.routes = append(r.routes, route)
			}
		}
		if !keep {
			errs = append(errs, netlink.ConntrackTableFlush(netlink.ConntrackTable))
		}
		return errors.Join(errs...)
	})
}
