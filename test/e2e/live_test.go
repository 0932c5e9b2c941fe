package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	controlapi "github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/deploy/lab"
)

// TestAReloadAddsAndRemovesANICBesideAStream also attaches and detaches it for a script, and asks before.
func TestAReloadAddsAndRemovesANICBesideAStream(t *testing.T) {
	const attachVM2 = "{networkInterface: vm2-nic, netns: nsgd-vm2, create: true, device: eth0}"
	d := startAttached(t, attachVM1+attachInternet)
	file := filepath.Join(d.dir, lab.ConfigName)
	without := readFile(t, file)
	with := strings.Replace(without, attachInternet, "- "+attachVM2+"\n"+attachInternet, 1)

	there, back := newSink(t, internet, allowedPort), newSink(t, ipv6.internet, allowedPort)
	u := &underTraffic{t: t, until: make(chan struct{})}
	end := sync.OnceFunc(func() { close(u.until); u.wait.Wait() })
	defer end()
	sent, sent6 := u.datagrams(vm1, there, true), u.datagrams(ipv6.vm1, back, true)

	for range 3 {
		writeFile(t, file, with)
		if got := execute(t, "nsgd", "check", "--against-running", "--config", file); !strings.Contains(got.stdout, "a reload would succeed: attached vm2-nic\n") {
			t.Errorf("check says %v", got)
		}
		if got := nsgctl(t, "reload"); !strings.Contains(got, "\nattached vm2-nic\n") {
			t.Errorf("reload says %q", got)
		}
		mustPing(t, ipv4.vm2, vm1)
		mustPing(t, ipv6.vm1, ipv6.vm2)
		writeFile(t, file, without)
		if got := nsgctl(t, "reload"); !strings.Contains(got, "\ndetached vm2-nic\n") {
			t.Errorf("reload says %q", got)
		}
		if got := nsgctl(t, "attach", "--keep", attachVM2); !strings.HasPrefix(got, "attached vm2-nic: ") {
			t.Errorf("attach says %q", got)
		}
		nsgctl(t, "reload")
		mustPing(t, ipv4.vm2, vm1)
		nsgctl(t, "detach", "vm2-nic")
		if _, err := os.Stat(filepath.Join(namespaceDir, ipv4.vm2.Namespace)); err == nil {
			t.Error("the namespace of a detached network interface is left")
		}
	}
	d.expectErrors = true
	writeFile(t, file, without+"workers: 3\n")
	a := execute(t, "nsgctl", "reload")
	mustName(t, "a reload of what is fixed", a, []string{"workers", "restart"})
	writeFile(t, file, without)

	end()
	there.hasAll(t, *sent)
	back.hasAll(t, *sent6)
}

// hasAll checks that all numbers below sent arrive, and once.
func (s *sink) hasAll(t *testing.T, sent uint64) {
	t.Helper()
	for deadline := time.Now().Add(patience); s.count.Load() < int64(sent) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if lost := s.missing(sent); len(lost) > 0 || sent == 0 {
		t.Errorf("of %d datagrams to %v are lost: %v", sent, s.to, lost)
	}
}

var cycles = flag.Int("cycles", 50, "how often TestAnInterfaceComesAndGoesBesideTheStreamsOfOthers attaches and detaches")

func TestAnInterfaceComesAndGoesBesideTheStreamsOfOthers(t *testing.T) {
	makeRouter(t)
	const vm3Line = "- {networkInterface: vm3-nic, interface: tap-vm3, netns: if-host, device: nsgd-vm3}\n"
	startInterfaces(t, interfaceConfig(t, strings.Replace(routedAttachments, vm3Line, "", 1)))
	u := &underTraffic{t: t, until: make(chan struct{})}
	end := sync.OnceFunc(func() { close(u.until); u.wait.Wait() })
	defer end()
	var sinks []*sink
	var sent []*uint64
	for _, f := range families {
		vm1, _, _, internet, inSubnet1, _, _ := routedHosts(f)
		for _, way := range []struct{ from, to lab.Host }{{vm1, internet}, {inSubnet1, vm1}} {
			mustPing(t, inSubnet1, vm1) // its MAC is known
			s := newSink(t, way.to, allowedPort)
			sinks, sent = append(sinks, s), append(sent, u.datagrams(way.from, s, true))
		}
	}
	client := controlapi.NewClient(controlSocket)
	for range *cycles {
		if _, err := client.Attach(t.Context(), &controlapi.AttachParameters{Attachment: strings.TrimPrefix(vm3Line, "- ")}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Detach(t.Context(), &controlapi.DetachParameters{Name: "vm3-nic"}); err != nil {
			t.Fatal(err)
		}
	}
	end()
	total := uint64(0)
	for i, s := range sinks {
		s.hasAll(t, *sent[i])
		total += *sent[i]
	}
	t.Logf("%d cycles, %d datagrams", *cycles, total)
}
