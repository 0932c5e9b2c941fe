package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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
	for _, s := range []struct {
		to   *sink
		sent uint64
	}{{there, *sent}, {back, *sent6}} {
		for deadline := time.Now().Add(patience); s.to.count.Load() < int64(s.sent) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if lost := s.to.missing(s.sent); len(lost) > 0 || s.sent == 0 {
			t.Errorf("of %d datagrams to %v are lost: %v", s.sent, s.to.to, lost)
		}
	}
}
