package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// The hosts of the lab of translated addresses, deploy/lab/translation.yaml.
var (
	web1      = trHost("web1", "10.1.1.4")
	web2      = trHost("web2", "10.1.1.5")
	publicVM  = trHost("vm", "10.1.2.4")
	gatewayVM = trHost("app", "10.1.3.4")
	basicVM   = trHost("basic", "10.1.4.4")
	closedVM  = trHost("closed", "10.1.4.5")
	plainVM   = trHost("plain", "10.1.4.6")
	client    = trHost("internet", "203.0.113.10")
	otherHost = trHost("internet", "203.0.113.11")
)

// Its public addresses.
const (
	shopIP, vmIP, gatewayIP        = "198.51.100.10", "198.51.100.20", "198.51.100.30"
	basicIP, closedIP, defaultOutb = "198.51.100.40", "198.51.100.50", "198.51.100.99"
)

func trHost(name, address string) lab.Host {
	return lab.Host{Name: name, Namespace: "nsgd-" + name, Address: netip.MustParseAddr(address)}
}

// at is a place that has a public address: for connecting to it.
func at(public string) lab.Host {
	return lab.Host{Name: "at " + public, Address: netip.MustParseAddr(public)}
}

// translationLab is the lab's configuration with its documents in the folder policy, where
// editDocument finds them, and more YAML.
func translationLab(t *testing.T, more ...string) (dir string) {
	t.Helper()
	needWorld(t)
	dir = t.TempDir()
	const from = "../../deploy/lab"
	if err := os.CopyFS(filepath.Join(dir, "policy"), os.DirFS(filepath.Join(from, "translation"))); err != nil {
		t.Fatal(err)
	}
	config := strings.Replace(readFile(t, filepath.Join(from, "translation.yaml")), "translation/", "policy/", 1)
	writeFile(t, filepath.Join(dir, lab.ConfigName), config+strings.Join(more, "\n")+"\n")
	return dir
}

// startTranslation runs the lab as it is.
func startTranslation(t *testing.T, more ...string) *daemon {
	t.Helper()
	return startIn(t, translationLab(t, more...))
}

// setRules replaces the rules of one of its NSGs.
func setRules(t *testing.T, dir, nsg string, list ...rule) {
	t.Helper()
	editDocument(t, dir, nsg, func(properties map[string]any) {
		documents := []any{}
		for _, r := range list {
			documents = append(documents, r.document())
		}
		properties["securityRules"] = documents
	})
}

// editBalancer changes one of the children of the load balancer, by their name.
func editBalancer(t *testing.T, dir, kind, name string, edit func(properties map[string]any)) {
	t.Helper()
	editDocument(t, dir, "shop-lb", func(properties map[string]any) {
		for _, child := range properties[kind].([]any) {
			if c := child.(map[string]any); c["name"] == name {
				edit(c["properties"].(map[string]any))
				return
			}
		}
		t.Fatalf("the load balancer has no %s of %s", name, kind)
	})
}

// serveNamed listens on a port of a host at all its addresses. To who connects it sends a line with the host's name and who
// the host takes it for, then everything that comes. close ends the server, and the port refuses.
func serveNamed(t *testing.T, h lab.Host, port uint16) (close func()) {
	t.Helper()
	return acceptTCP(t, h, netip.AddrPortFrom(netip.IPv4Unspecified(), port), func(conn net.Conn) {
		go func() {
			defer conn.Close()
			answer, _ := json.Marshal(seen{h.Name, conn.LocalAddr().String(), conn.RemoteAddr().String()})
			if _, err := conn.Write(append(answer, '\n')); err == nil {
				io.Copy(conn, conn)
			}
		}()
	})
}

// seen is how a server sees a connection.
type seen struct{ Host, Local, Remote string }

// ask connects and reads how the server sees that; the connection stays open.
func ask(from, to lab.Host, port uint16, timeout time.Duration) (conn net.Conn, s seen, err error) {
	if conn, err = connect(from, to, port, timeout); err != nil {
		return nil, s, err
	}
	conn.SetDeadline(time.Now().Add(timeout))
	defer conn.SetDeadline(time.Time{})
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; line = append(line, b[0]) {
		if _, err := conn.Read(b); err != nil {
			conn.Close()
			return nil, s, err
		}
	}
	return conn, s, json.Unmarshal(line, &s)
}

// mustAsk is ask, and echoes something.
func mustAsk(t *testing.T, from, to lab.Host, port uint16) (net.Conn, seen) {
	t.Helper()
	conn, s, err := ask(from, to, port, patience)
	if err != nil {
		t.Fatalf("%v to %v port %d: %v", from, to, port, err)
	}
	t.Cleanup(func() { conn.Close() })
	mustEcho(t, conn)
	return conn, s
}

// mustSee checks how the server at the other end sees a connection; remote has no port where
// that is chosen on the way.
func mustSee(t *testing.T, conn net.Conn, s seen, host lab.Host, local, remote string) {
	t.Helper()
	got := s.Remote
	if !strings.Contains(remote, ":") {
		got, _, _ = net.SplitHostPort(got)
	}
	if s.Host != host.Name || s.Local != local || got != remote {
		t.Errorf("%s to %s: the server sees %+v, want %s at %s and %s", conn.LocalAddr(), conn.RemoteAddr(), s, host.Name, local, remote)
	}
}

// mustDrop checks that a connection attempt is dropped for a reason.
func mustDrop(t *testing.T, from, to lab.Host, port uint16, reason string) {
	t.Helper()
	before := scrape(t)
	mustNotConnect(t, from, to, port)
	since(t, before, func(c counts) bool { return c.after.drops(reason) > before.drops(reason) })
}

// waitForHealth waits until the backends are up or down as is wanted, by their NIC's name.
func waitForHealth(t *testing.T, want map[string]bool) {
	t.Helper()
	eventually(t, "the backends' health", func() bool {
		up, known := map[string]bool{}, 0
		for _, b := range status(t).Backends {
			up[b.NetworkInterface] = b.Up
			if b.Reason != "not asked yet" && b.Reason != "its host has not told yet" {
				known++
			}
		}
		for nic, is := range want {
			if state, ok := up[nic]; !ok || state != is {
				return false
			}
		}
		return known == len(up)
	})
}

type shownStatus struct {
	Backends []struct {
		NetworkInterface, Reason string
		Up                       bool
		Since                    time.Time
	}
	PID      int
	Unprobed string
	Standby  string
	Dropped  map[string]uint64
}

func status(t *testing.T) (s shownStatus) {
	t.Helper()
	if err := json.Unmarshal([]byte(nsgctl(t, "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// shownFlow is a flow of nsgctl flows.
type shownFlow struct {
	Protocol, Source, Destination, DeliveredTo string
	SourcePort, DestinationPort                uint16
	Translated                                 *struct {
		Source, Destination         string
		SourcePort, DestinationPort uint16
	}
}

func flowsOf(t *testing.T, args ...string) []shownFlow {
	t.Helper()
	var list struct{ Flows []shownFlow }
	if err := json.Unmarshal([]byte(nsgctl(t, append([]string{"flows", "-o", "json"}, args...)...)), &list); err != nil {
		t.Fatal(err)
	}
	return list.Flows
}

func ownPort(conn net.Conn) string {
	_, p, _ := net.SplitHostPort(conn.LocalAddr().String())
	return p
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
