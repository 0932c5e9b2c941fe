package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/tun"
)

// beyond is a host behind that of the internet, which is a router then. The way there
// takes packets of beyondMTU, while both its ends have 1500: nothing but an ICMP error
// tells a sender.
var beyond = machine{"a host beyond the internet's", "nsgd-beyond", map[lab.Family]string{
	lab.IPv4: "198.51.100.10", lab.IPv6: "2001:db8:f::10",
}}

// beyondMTU is the least that IPv6 allows, and something.
const beyondMTU = 1300

// routeBeyond makes the internet's host a router and beyond's namespace, until the end
// of the test, and waits until packets pass between the two.
func routeBeyond(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { command(t, "ip netns del "+beyond.namespace) })
	command(t, "ip netns add "+beyond.namespace)
	// Without duplicate address detection addresses are usable at once, and without rate
	// limits every packet gets its error.
	for _, namespace := range []string{beyond.namespace, internet.Namespace} {
		setKernel(t, namespace, map[string]string{
			"ipv6/conf/all/accept_dad": "0", "ipv6/conf/default/accept_dad": "0",
			"ipv4/icmp_ratelimit": "0", "ipv6/icmp/ratelimit": "0",
		})
	}
	setKernel(t, internet.Namespace, map[string]string{"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"})
	for _, line := range []string{
		"ip link add beyond netns nsgd-internet type veth peer name eth0 netns nsgd-beyond",
		"ip -n nsgd-internet address add 198.51.100.1/24 dev beyond",
		"ip -n nsgd-internet address add 2001:db8:f::1/64 dev beyond",
		"ip -n nsgd-beyond address add 198.51.100.10/24 dev eth0",
		"ip -n nsgd-beyond address add 2001:db8:f::10/64 dev eth0",
		"ip -n nsgd-internet link set beyond up mtu " + strconv.Itoa(beyondMTU),
		"ip -n nsgd-beyond link set eth0 up",
		"ip -n nsgd-beyond route add default via 198.51.100.1",
		"ip -n nsgd-beyond route add default via 2001:db8:f::1",
	} {
		command(t, line)
	}
	for _, f := range families {
		eventually(t, "a way to "+beyond.in(f).String(), func() bool { return ping(f.internet, beyond.in(f), silence) == nil })
	}
}

// setKernel sets parameters below /proc/sys/net of a namespace.
func setKernel(t *testing.T, namespace string, values map[string]string) {
	t.Helper()
	inside(t, lab.Host{Name: namespace, Namespace: namespace}, func() error {
		for name, value := range values {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// command runs a command that must succeed.
func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, bytes.TrimSpace(out))
	}
}

// runOn runs a tool on a host and returns what it printed and how it ended.
func runOn(t *testing.T, h lab.Host, name string, args ...string) (out string, err error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Skipf("%s is not installed; scripts/setup does it", name)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &said, &said
	// A child is in the namespace of the thread that started it.
	if err := tun.Do(h.Namespace, cmd.Start); err != nil {
		t.Fatalf("%v: %s: %v", h, name, err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil || err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatalf("%v: %s %s: %v\n%s", h, name, strings.Join(args, " "), err, &said)
	}
	return said.String(), err
}
