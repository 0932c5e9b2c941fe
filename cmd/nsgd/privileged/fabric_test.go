package privileged

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/fabric"
)

var (
	place = FabricPlace{Underlay: netip.MustParseAddr("192.168.99.1"), Port: 4790, Device: "vx"}
	state = fabric.State{
		Underlay: place.Underlay, Port: place.Port, Device: place.Device,
		Hosts: []fabric.Host{{Name: "h2", Underlay: netip.MustParseAddr("192.168.99.2")}},
		Tunnels: []fabric.Tunnel{{VNI: 100, TUN: "red", MTU: 1400,
			Routes:  []fabric.Route{{Prefix: netip.MustParsePrefix("10.0.2.4/32"), Host: "h2"}},
			Sources: []fabric.Source{{Prefix: netip.MustParsePrefix("10.0.2.4/32"), Host: "h2"}}}},
	}
)

// TestAFabricOutsideTheConfigurationIsRefused asks for what a daemon that was taken over might want.
func TestAFabricOutsideTheConfigurationIsRefused(t *testing.T) {
	for _, test := range []struct {
		name   string
		places Places
		change func(*fabric.State)
		says   string
	}{
		{"where the configuration has none", Places{}, func(*fabric.State) {}, "no cluster"},
		{"another address", Places{Fabric: &place}, func(s *fabric.State) { s.Underlay = s.Hosts[0].Underlay }, "the configuration has"},
		{"another port", Places{Fabric: &place}, func(s *fabric.State) { s.Port = 53 }, "the configuration has"},
		{"another device", Places{Fabric: &place}, func(s *fabric.State) { s.Device = "lo" }, "the configuration has"},
		{"somebody else's TUN", Places{Fabric: &place}, func(*fabric.State) {}, `TUN "red": this nsgd has not opened it`},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, s := pair(t, test.places), state
			test.change(&s)
			if err := c.Fabric(s); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
		})
	}
}

// phase in the environment says which part of a test its process is.
const phase = "NSGD_PRIVILEGED_TEST_PHASE"

// again runs the test once more in another process.
func again(t *testing.T, as string, command ...string) {
	t.Helper()
	command = append(command, os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	c := exec.Command(command[0], command[1:]...)
	c.Env = append(os.Environ(), phase+"="+as)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestTheFabricStaysWhenTheDaemonLeavesAndEndsWithIt runs in a namespace of its own: nsgd's is the process's. Each
// daemon is a process, because it is the end of that which closes devices.
func TestTheFabricStaysWhenTheDaemonLeavesAndEndsWithIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	switch os.Getenv(phase) {
	case "":
		again(t, "inside", "unshare", "--net")
	case "inside":
		shell(t, "ip link add ul type veth peer name far; ip link set far up; ip link set ul up; ip address add 192.168.99.1/24 dev ul")
		again(t, "leaves")
		if links := shell(t, "ip link"); !strings.Contains(links, "vx:") {
			t.Fatalf("the fabric is gone: %s", links)
		}
		again(t, "ends")
		if left := shell(t, "ip link; nft list ruleset; tc qdisc"); strings.Contains(left, "vx") || strings.Contains(left, "clsact") || strings.Contains(left, "table") {
			t.Errorf("it left: %s", left)
		}
		again(t, "leaves")
		again(t, "removes")
		if left := shell(t, "ip link; nft list ruleset"); strings.Contains(left, "vx") || strings.Contains(left, "table") {
			t.Errorf("it left: %s", left)
		}
	case "leaves":
		if err := withFabric(t).Leave(); err != nil {
			t.Fatal(err)
		}
	case "ends":
		if err := withFabric(t).End(); err != nil {
			t.Fatal(err)
		}
	case "removes": // a daemon without a cluster
		removed, err := pair(t, Places{}).RemoveFabric()
		if err != nil || strings.Join(removed, ", ") != "vx, table inet nsgd_fabric" {
			t.Errorf("got %v, %v", removed, err)
		}
	}
}

// withFabric is a client whose fabric is in force.
func withFabric(t *testing.T) *Client {
	t.Helper()
	c := pair(t, Places{Namespaces: map[string]bool{"": true}, Fabric: &place, Socket: filepath.Join(t.TempDir(), "control.sock")})
	l, _, err := c.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, _, err := c.Open(tun.Config{Name: "red", MTU: 1400}); err != nil {
		t.Fatal(err)
	}
	if err := c.CheckFabric(state); err != nil {
		t.Fatal(err)
	}
	if err := c.Fabric(state); err != nil {
		t.Fatal(err)
	}
	counts, err := c.FabricCounts()
	if _, known := counts.Tunnels[100]; err != nil || !known {
		t.Fatalf("counts: %+v, %v", counts, err)
	}
	if _, err := c.RemoveFabric(); err == nil {
		t.Error("a fabric in use was removed")
	}
	return c
}

func shell(t *testing.T, commands string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", commands).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
