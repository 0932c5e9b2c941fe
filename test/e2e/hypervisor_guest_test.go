package e2e

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// guestKernel is where scripts/setup puts a kernel for virtual machines, and its modules.
const guestKernel = "/var/cache/nsgd/guest"

// guestPorts are where a machine echoes TCP.
const guestPorts = "80 8080 8081"

// guestFiles are a machine's own programs. Its first process obeys the serial console, a line at a time, and ends each
// answer with the exit code.
//
// SYN cookies are off because busybox's server has a queue of two connections: with cookies a busy machine resets those that
// begin with data. A link-local address takes up to a second, and dhclient doesn't wait for it.
var guestFiles = map[string]string{
	"init": `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
sysctl -qw net.ipv4.tcp_syncookies=0 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
for module in /lib/modules/*; do insmod $module; done
ip link set lo up
ip link set eth0 up
for port in ` + guestPorts + `; do nc -ll -p $port -e cat & done
until ip -6 addr show dev eth0 | grep -q fe80; do sleep 0.1; done
stty -echo -onlcr
echo "=0="
while read -r line; do
	eval "$line"
	echo "=$?="
done
`,
	// Asks for echoes at the same time, each with its own patience; prints the ends that answered, and why others
	// did not.
	"bin/reach": `#!/bin/sh
while [ $# -gt 0 ]; do
	{
		answer=$(nc -w $3 $1 $2 </etc/hello 2>&1)
		if [ "$answer" = hello ]; then echo "$1 $2"; else echo "not $1 $2: $answer"; fi
	} &
	shift 3
done
wait
`,
	"etc/hello": "hello",
	"etc/udhcpc.sh": `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
echo "nameserver $dns" >/etc/resolv.conf
echo "search $domain" >>/etc/resolv.conf
set -- $staticroutes
while [ $# -gt 1 ]; do ip route add "$1" via "$2" dev eth0; shift 2; done
`,
	"etc/dhclient.sh": `#!/bin/sh
[ "$reason" = BOUND6 ] && ip -6 addr add "$new_ip6_address/128" dev "$interface"
`,
	"etc/dhclient.conf": "",
}

// needMachines skips a test where no virtual machine can be started.
func needMachines(t *testing.T) {
	t.Helper()
	needWorld(t)
	for _, name := range []string{"qemu-system-x86_64", "busybox", "dhclient"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed; scripts/setup does it", name)
		}
	}
	if _, err := os.Stat(filepath.Join(guestKernel, "vmlinuz")); err != nil {
		t.Skip("virtual machines need a kernel, which scripts/setup fetches where Debian's is to be had: ", err)
	}
}

// guestDisk makes the initial RAM disk of every machine: busybox, ISC's DHCP client for IPv6, the modules and guestFiles.
func guestDisk(t *testing.T) (file string) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	put := func(target, source string) {
		content, err := os.ReadFile(source)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(root, target)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, target), content, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"proc", "sys", "dev", "tmp", "bin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	modules, _ := filepath.Glob(filepath.Join(guestKernel, "*.ko"))
	for _, m := range modules {
		put(filepath.Join("lib/modules", filepath.Base(m)), m)
	}
	for name, source := range map[string]string{"busybox": "bin/busybox", "dhclient": "usr/sbin/dhclient"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		put(source, path)
		libraries, _ := exec.Command("ldd", path).Output() // a static program has none
		for _, l := range regexp.MustCompile(`/\S+`).FindAllString(string(libraries), -1) {
			put(l, l)
		}
	}
	for target, text := range guestFiles {
		if err := os.WriteFile(filepath.Join(root, target), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(dir, "disk")
	must(t, "sh", "-c", fmt.Sprintf("cd %s && busybox find . | busybox cpio -o -H newc >%s", root, file))
	return file
}

// virtualMachine is one of qemu, obeying at a serial console.
type virtualMachine struct {
	t       *testing.T
	name    string
	console *output
	read    int // bytes of the console that were read as answers
	line    io.Writer
}

// newMachine is a machine at a console. Its first answer is read when it is up.
func newMachine(t *testing.T, name string) *virtualMachine {
	m := &virtualMachine{t: t, name: name, console: newOutput()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console of %s:\n%s", name, m.console)
		}
	})
	return m
}

// host is the machine as the lab knows it.
func (m *virtualMachine) host(f family) lab.Host {
	hosts := lab.Hosts(f.Family)
	return hosts[slices.IndexFunc(hosts, func(h lab.Host) bool { return h.Name == m.name })]
}

// guestCommandLine is what the kernel of a machine is told.
const guestCommandLine = "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off nokaslr"

// boot starts a machine behind a tap of the host, and ends it with the test.
func boot(t *testing.T, name, tap, mac, disk string) *virtualMachine {
	t.Helper()
	m := newMachine(t, name)
	c := exec.Command("ip", "netns", "exec", ifHost, "qemu-system-x86_64",
		"-machine", "pc,accel=tcg,hpet=off,usb=off", "-cpu", "max", "-m", "128", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", filepath.Join(guestKernel, "vmlinuz"), "-initrd", disk, "-append", guestCommandLine,
		"-netdev", "tap,id=net,ifname="+tap+",script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,romfile=,mac="+mac)
	c.Stdout, c.Stderr = m.console, m.console
	line, err := c.StdinPipe()
	if err == nil {
		m.line = line
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	return m
}

// send gives the machine a command. Its answer has to be read.
func (m *virtualMachine) send(format string, args ...any) {
	m.t.Helper()
	if _, err := fmt.Fprintf(m.line, format+"\n", args...); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

var answerEnd = regexp.MustCompile(`(?m)^=(\d+)=\n`)

// answer waits for the end of a command. It returns what that printed, and its exit code.
func (m *virtualMachine) answer() (printed string, code int) {
	m.t.Helper()
	for deadline := time.After(5 * patience); ; {
		all, changed := m.console.snapshot()
		if end := answerEnd.FindStringSubmatchIndex(all[m.read:]); end != nil {
			printed = all[m.read : m.read+end[0]]
			code, _ = strconv.Atoi(all[m.read+end[2] : m.read+end[3]])
			m.read += end[1]
			return printed, code
		}
		select {
		case <-changed:
		case <-deadline:
			m.t.Fatalf("%s does not answer: %q", m.name, all[m.read:])
		}
	}
}

// run is send and answer.
func (m *virtualMachine) run(format string, args ...any) (printed string, code int) {
	m.t.Helper()
	m.send(format, args...)
	return m.answer()
}

// must runs a command that has to succeed.
func (m *virtualMachine) must(format string, args ...any) (printed string) {
	m.t.Helper()
	printed, code := m.run(format, args...)
	if code != 0 {
		m.t.Fatalf("%s: %s: exit code %d: %s", m.name, fmt.Sprintf(format, args...), code, printed)
	}
	return strings.TrimSpace(printed)
}
