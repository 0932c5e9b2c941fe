package e2e

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/dataplane/serve/servetest"
)

// The roles of the cluster's README, as its commands make them, are enough for hosts, for who applies and for who moves. Nobody
// may do more.
func TestRolesOfEtcdSuffice(t *testing.T) {
	needWorld(t)
	if _, err := exec.LookPath("etcdctl"); err != nil {
		t.Skip("etcdctl is not there: apt install etcd-client")
	}
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	for _, name := range []string{"root", "alice", "bob", "h1", "h2"} {
		ca.Issue(name, nil)
	}
	ca.Issue("etcd", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.ParseIP(fleetAddress)} })
	as := func(name string) []string {
		return []string{"--etcd-cert", ca.Path(name + ".crt"), "--etcd-key", ca.Path(name + ".key"), "--etcd-ca", ca.Path("ca.crt")}
	}
	f := startFleetWith(t, func(f *fleet) {
		plain := f.client
		f.client, f.tls = strings.Replace(plain, "http:", "https:", 1), as("root")
		for i := range f.arguments {
			if f.arguments[i] == plain {
				f.arguments[i] = f.client
			}
		}
		f.arguments = append(f.arguments, "--cert-file", ca.Path("etcd.crt"), "--key-file", ca.Path("etcd.key"), "--client-cert-auth", "--trusted-ca-file", ca.Path("ca.crt"))
	})
	roles := ""
	for _, b := range readBlocks(t, "dataplane/cluster/README.md") {
		if strings.Contains(b.text, "nsgd-host-h1") {
			roles = b.text
		}
	}
	for line := range strings.Lines(roles) {
		if strings.Contains(line, "h1") {
			roles += strings.ReplaceAll(line, "h1", "h2")
		}
	}
	etcdctl := exec.Command("bash", "-ec", roles)
	etcdctl.Env = append(os.Environ(), "ETCDCTL_API=3", "ETCDCTL_DIAL_TIMEOUT=60s", "ETCDCTL_COMMAND_TIMEOUT=60s", "ETCDCTL_ENDPOINTS="+f.client, "ETCDCTL_CACERT="+ca.Path("ca.crt"), "ETCDCTL_CERT="+ca.Path("root.crt"), "ETCDCTL_KEY="+ca.Path("root.key"))
	if out, err := etcdctl.CombinedOutput(); err != nil || roles == "" {
		t.Fatalf("the README's commands: %v: %s", err, out)
	}

	f.guest("nsgd-vm1")
	f.tls = as("alice")
	var hosts []*daemon
	for i, name := range []string{"h1", "h2"} {
		tls := fmt.Sprintf("  tls: {certificate: %q, key: %q, ca: %q}\n", ca.Path(name+".crt"), ca.Path(name+".key"), ca.Path("ca.crt"))
		attached := fmt.Sprintf("- {networkInterface: vm1-nic, netns: nsgd-vm1, device: eth%d, mtu: 1400}\n", i)
		if name == "h2" {
			attached += small(attachVM3)
		}
		hosts = append(hosts, f.run(f.host(name, attached, tls)))
		eventually(t, name+" is registered", func() bool { return f.status(name).Registered })
		if name == "h1" {
			f.ctl("apply", filepath.Join(configure(t, openPolicy()), "policy"))
		}
		f.has(name, 1, 1)
	}
	eventually(t, "vm3 is reached", func() bool { return ping(vm1, vm3, silence) == nil })
	stream := bytesTo(t, vm1, vm3, 8000)
	stream.flows(t, "before the move")
	stay(t, "nsgd-vm1", "eth0")
	if m := f.move("vm1-nic", "h2", as("bob")...); m.Flows < 1 {
		t.Errorf("moved %+v", m)
	}
	stream.flows(t, "behind the move")
	f.has("h2", 1, 2)
	f.has("h1", 1, 0)
	for _, who := range []string{"bob", "h1"} {
		if a := execute(t, "nsgctl", f.asked(append([]string{"apply", filepath.Join(configure(t, labPolicy()), "policy")}, as(who)...)...)...); a.code == 0 || !strings.Contains(a.stderr, "permission denied") {
			t.Errorf("%s applies: %v", who, a)
		}
	}
	if a := execute(t, "nsgctl", f.asked(append([]string{"move", "vm1-nic", "h1"}, as("h1")...)...)...); a.code == 0 || !strings.Contains(a.stderr, "permission denied") {
		t.Errorf("a host moves: %v", a)
	}
	if out := f.ctl("status"); !strings.Contains(out, "carried by 2 of 2 hosts") {
		t.Errorf("status: %s", out)
	}
	for _, d := range hosts {
		d.end(syscall.SIGTERM)
	}
	f.leave()
}
