package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/ruleset/arm"
	"github.com/nsgd/nsgd/test/conformance"
	"github.com/nsgd/nsgd/tun"
)

// The sample of the conformance suite that goes over the wire: the cases that are marked
// so, through a running daemon. Cases whose policies have the same NICs share one, since
// the list of attachments is fixed for its life.
func TestConformanceCasesOnTheWire(t *testing.T) {
	needWorld(t)
	needNftables(t)
	files, err := conformance.Load()
	if err != nil {
		t.Fatal(err)
	}
	var groups [][]*wireCase
	for _, file := range files {
		for _, c := range file.Cases {
			if c.Wire {
				groups = addWireCase(groups, newWireCase(t, c))
			}
		}
	}
	for _, group := range groups {
		t.Run(fmt.Sprintf("%d machines", len(group[0].nics)), func(t *testing.T) {
			w := startConformance(t, group[0])
			for _, c := range group {
				t.Run(c.Name, func(t *testing.T) { w.carry(t, c) })
			}
		})
	}
}

// wireCase is a case and what its policy says about who is where.
type wireCase struct {
	*conformance.Case
	document []byte
	nics     []string
	owners   map[netip.Addr]string
}

func newWireCase(t *testing.T, c *conformance.Case) *wireCase {
	t.Helper()
	document, err := c.Policy.JSON()
	if err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	w := &wireCase{Case: c, document: document, owners: map[netip.Addr]string{}}
	for _, n := range arm.Parse(c.Name, document).Set.NetworkInterfaces {
		w.nics = append(w.nics, n.Name)
		for i := range n.IPConfigurations {
			w.owners[n.IPConfigurations[i].Address] = n.Name
		}
	}
	return w
}

// at is the place of an address.
func (w *wireCase) at(a netip.Addr) string {
	if owner := w.owners[a]; owner != "" {
		return owner
	}
	return "internet"
}

func addWireCase(groups [][]*wireCase, c *wireCase) [][]*wireCase {
	for i := range groups {
		if slices.Equal(groups[i][0].nics, c.nics) {
			groups[i] = append(groups[i], c)
			return groups
		}
	}
	return append(groups, []*wireCase{c})
}

// conformanceWire is a daemon and a packet socket on each of its devices.
type conformanceWire struct {
	file   string // of the policy
	places []string
	ports  []port
	buf    []byte
}

func startConformance(t *testing.T, first *wireCase) *conformanceWire {
	t.Helper()
	dir := t.TempDir()
	w := &conformanceWire{file: filepath.Join(dir, "policy", "policy.json"), places: append(slices.Clone(first.nics), "internet"), buf: make([]byte, 1<<16)}
	if err := os.Mkdir(filepath.Dir(w.file), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, w.file, string(first.document))
	config := "policy: [policy/]\nworkers: 1\nattachments:\n"
	for i, name := range w.places {
		what := "networkInterface: " + name
		if name == "internet" {
			what = "internet: true, addresses: [203.0.113.10/24, '2001:db8::10/64']"
		}
		config += fmt.Sprintf("- {%s, netns: %s, create: true, device: eth0}\n", what, conformanceNamespace(i))
	}
	writeFile(t, filepath.Join(dir, lab.ConfigName), config)
	startIn(t, dir)
	w.ports = make([]port, len(w.places))
	for i := range w.ports {
		err := tun.Do(conformanceNamespace(i), func() error {
			if err := mute("prerouting", "output"); err != nil { // the machines' kernels are not to answer
				return err
			}
			return w.ports[i].open("eth0")
		})
		if err != nil {
			t.Fatalf("packet socket of %s: %v", w.places[i], err)
		}
		t.Cleanup(func() { unix.Close(w.ports[i].fd) })
	}
	return w
}

func conformanceNamespace(i int) string { return fmt.Sprintf("conformance-%d", i) }

// carry runs a case. The flows of the one before end with its addresses, which move away
// for one reload.
func (w *conformanceWire) carry(t *testing.T, c *wireCase) {
	// A packet waits in the queue of the CPU that sent it; one thread's packets keep their order.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	elsewhere := strings.NewReplacer("10.0.", "10.77.", "fd00:db8:1:", "fd00:db8:77:").Replace(string(c.document))
	w.reload(t, elsewhere)
	w.reload(t, string(c.document))
	if n := len(flows(t)); n != 0 {
		t.Fatalf("%d flows of the case before", n)
	}
	for _, s := range c.Steps(c.at) {
		switch {
		case s.Packet != nil:
			w.step(t, &s)
		case s.Flows != nil:
			if n := len(flows(t)); n != *s.Flows {
				t.Errorf("%d flows, want %d", n, *s.Flows)
			}
		case s.Reload != nil:
			after := *s.Reload
			if after.Base == "" {
				after.Base = c.Base
			}
			document, err := after.JSON()
			if err != nil {
				t.Fatal(err)
			}
			w.reload(t, string(document))
		default:
			t.Fatalf("%s: a daemon's clock cannot be moved; such a case is none of the wire", s.Text)
		}
	}
}

func (w *conformanceWire) reload(t *testing.T, document string) {
	t.Helper()
	writeFile(t, w.file, document)
	nsgctl(t, "reload")
}

// step sends a packet and waits until it has come out where it is to, or is counted as
// dropped for the reason that it is to be. Then it is nowhere else.
func (w *conformanceWire) step(t *testing.T, s *conformance.Step) {
	t.Helper()
	p := s.Packet
	before := scrape(t)
	if err := w.port(t, p.From).send(p.Bytes); err != nil {
		t.Fatalf("%s: send: %v", s.Text, err)
	}
	if p.Drop != "" {
		eventually(t, s.Text, func() bool { return scrape(t).drops(p.Drop) > before.drops(p.Drop) })
	} else {
		w.await(t, s)
	}
	for i := range w.ports {
		b, err := w.ports[i].receive(w.buf)
		if err != nil {
			t.Fatal(err)
		}
		if b != nil {
			t.Errorf("%s\n% x came out at %s", s.Text, b, w.places[i])
		}
	}
}

func (w *conformanceWire) await(t *testing.T, s *conformance.Step) {
	t.Helper()
	to := w.port(t, s.Packet.To)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		fds := []unix.PollFd{{Fd: int32(to.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		b, err := to.receive(w.buf)
		if err != nil {
			t.Fatal(err)
		}
		if b != nil {
			if !bytes.Equal(b, s.Packet.Bytes) {
				t.Errorf("%s\ncame out as % x, went in as % x", s.Text, b, s.Packet.Bytes)
			}
			return
		}
	}
	t.Fatalf("%s: nothing came out within %v", s.Text, patience)
}

func (w *conformanceWire) port(t *testing.T, place string) *port {
	t.Helper()
	i := slices.Index(w.places, place)
	if i < 0 {
		t.Fatalf("there is no %s; there are %v", place, w.places)
	}
	return &w.ports[i]
}
