package e2e

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// libvirtScript starts libvirtd in a world whose folders are its own: `ip netns exec` has given it mounts of its own. Its
// user is added, as Debian's package libvirt-daemon-system does. The shell is the first process of its world, because
// libvirtd waits for machines that somebody else must reap.
const libvirtScript = `set -e
mkdir -p /run/libvirt
for dir in /etc/libvirt /var/lib /var/log /var/cache; do mount -t tmpfs none $dir; done
mkdir -p /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
for file in passwd group; do
	cp /etc/$file /etc/libvirt/$file
	mount --bind /etc/libvirt/$file /etc/$file
done
grep -q ^libvirt-qemu: /etc/passwd || echo libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin >>/etc/passwd
for group in libvirt-qemu:x:64055: kvm:x:64056:; do grep -q ^${group%%:*}: /etc/group || echo $group >>/etc/group; done
echo 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
cat >/etc/libvirt/qemu.conf <<'END'
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
END
libvirtd &
wait
`

func virsh(t *testing.T, args ...string) {
	t.Helper()
	must(t, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
}

// startLibvirt starts libvirtd on the host and ends it with the test.
func startLibvirt(t *testing.T) {
	t.Helper()
	for _, name := range []string{"libvirtd", "virsh"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("libvirt is not installed, and scripts/setup leaves it out: libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients")
		}
	}
	said := newOutput()
	c := exec.Command("ip", "netns", "exec", ifHost, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", libvirtScript)
	c.Stdout, c.Stderr = said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("libvirtd:\n%s", said)
		}
	})
	eventually(t, "libvirtd answers", func() bool { return exec.Command("virsh", "-c", "qemu:///system", "list").Run() == nil })
}

// recipeInterfaces are the XML elements in the recipe, by the tap's name.
func recipeInterfaces(t *testing.T) map[string]string {
	t.Helper()
	list := map[string]string{}
	for _, element := range regexp.MustCompile(`(?s)<interface .*?</interface>`).FindAllString(readFile(t, filepath.Join(repository, "deploy/recipes/README.md")), -1) {
		list[regexp.MustCompile(`target dev='([^']*)'`).FindStringSubmatch(element)[1]] = element
	}
	return list
}

// createDomain lets libvirt start a machine with an interface.
func createDomain(t *testing.T, name, element, kernel, disk string) *virtualMachine {
	t.Helper()
	dir := t.TempDir()
	console, domain := filepath.Join(dir, "console"), filepath.Join(dir, "domain.xml")
	writeFile(t, domain, fmt.Sprintf(`<domain type='qemu'>
<name>%s</name><memory unit='MiB'>128</memory><features><acpi/></features>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>%s</kernel><initrd>%s</initrd><cmdline>%s</cmdline></os>
<devices><serial type='unix'><source mode='bind' path='%s'/></serial><memballoon model='none'/>%s</devices>
</domain>`, name, kernel, disk, guestCommandLine, console, element))
	virsh(t, "create", domain)
	t.Cleanup(func() { exec.Command("virsh", "-q", "-c", "qemu:///system", "destroy", name).Run() })
	conn, err := net.Dial("unix", console)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m := newMachine(t, name)
	m.line = conn
	go io.Copy(m.console, conn)
	return m
}

// One tap is the host's, the other one comes with its machine.
func TestLibvirtsMachinesAreBehindNsgd(t *testing.T) {
	makeHypervisor(t)
	startLibvirt(t)
	addTap(t, "tap-vm1")
	attachments := strings.Replace(hypervisorAttachments, "interface: tap-vm3", "wait: true, interface: tap-vm3", 1)
	startInterfaces(t, interfaceConfig(t, regexp.MustCompile(`(?m)^.*(vm2|vm4)-nic.*\n`).ReplaceAllString(attachments, "")))
	kernel := filepath.Join(t.TempDir(), "vmlinuz") // the other one is hidden from libvirtd
	must(t, "cp", filepath.Join(guestKernel, "vmlinuz"), kernel)
	disk, elements := guestDisk(t), recipeInterfaces(t)
	guest1, guest3 := createDomain(t, "VM1", elements["tap-vm1"], kernel, disk), createDomain(t, "VM3", elements["tap-vm3"], kernel, disk)
	for _, m := range []*virtualMachine{guest1, guest3} {
		m.answer()
	}
	configureMachines(t, []*virtualMachine{guest1, guest3})
	internet := guestOf(internet, "if-inet")
	for _, m := range []*virtualMachine{guest1, guest3} {
		mustConnect(t, internet, m.host(ipv4), 80)
		mustNotConnect(t, internet, m.host(ipv4), 8080)
	}
	if printed := guest3.must("reach %[1]s 8080 30 %[1]s 8081 1", vm1.Address); !strings.Contains(printed, vm1.Address.String()+" 8080") || !strings.Contains(printed, "not "+vm1.Address.String()+" 8081") {
		t.Errorf("VM3 reaches VM1: %s", printed)
	}
	virsh(t, "destroy", "VM3")
	eventually(t, "the tap is missed", func() bool { return interfaceStatus(t)["tap-vm3"].State == "waiting" })
	if got := interfaceStatus(t)["tap-vm1"].State; got != "attached" {
		t.Errorf("VM1's tap is %s", got)
	}
}
