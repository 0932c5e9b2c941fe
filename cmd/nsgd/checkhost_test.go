package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
)

// checking writes a configuration beside the lab's policy and checks it.
func checking(t *testing.T, dir, config string, flags ...string) (code int, said string) {
	t.Helper()
	file := filepath.Join(dir, "host.yaml")
	if err := os.WriteFile(file, []byte("policy: [policy]\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code = execute(t.Context(), append([]string{"check", "--config", file}, flags...), &out, &out)
	return code, out.String()
}

func TestCheckSaysWhatThisHostRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	defer syscall.Umask(syscall.Umask(0))
	if err := os.Mkdir(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const device = "attachments: [{internet: true, device: nsgd-absent0}]\n"
	quiet := "metrics: {listen: 'off'}\ncontrol: {socket: run/nsgd.sock}\n"
	for _, tt := range []struct{ name, config, want string }{
		{"nothing", device + quiet, "ok: "},
		{"a namespace that is not there", "attachments: [{internet: true, netns: nsgd-absent, device: eth0}]\n" + quiet, "host.yaml:2: attachments[0].netns: namespace \"nsgd-absent\": no such network namespace: `ip netns add nsgd-absent` makes it"},
		{"a process that is not there", "attachments: [{internet: true, netns: 'pid:4194399', device: eth0}]\n" + quiet, "no such network namespace"},
		{"a namespace that nsgd makes", "attachments: [{internet: true, netns: nsgd-absent, create: true, device: eth0}, {platform: true, netns: nsgd-absent, device: eth1}]\n" + quiet, "ok: "},
		{"a device's name that is taken", "attachments: [{internet: true, device: lo}]\n" + quiet, `host.yaml:2: attachments[0].device: "lo": an interface of that name is there, of the kind device`},
		{"an interface that is not there", "attachments: [{networkInterface: vm1-nic, interface: nsgd-absent1, device: nsgd-absent0}]\n" + quiet, `host.yaml:2: attachments[0].interface: "nsgd-absent1": there is no such interface`},
		{"an interface that may come", "attachments: [{networkInterface: vm1-nic, interface: nsgd-absent1, wait: true, netns: nsgd-absent, device: nsgd-absent0}]\n" + quiet, "ok: "},
		{"a port that is taken", device + "control: {socket: run/nsgd.sock}\nmetrics: {listen: '" + taken.Addr().String() + "'}\n", fmt.Sprintf("host.yaml:4: metrics.listen: %s: bind: address already in use", taken.Addr())},
		{"an address of another host", device + "control: {socket: run/nsgd.sock}\nmetrics: {listen: '203.0.113.77:1'}\n", "metrics.listen: 203.0.113.77:1: bind: cannot assign requested address"},
		{"a folder that others may write to", device + "metrics: {listen: 'off'}\ncontrol: {socket: open/nsgd.sock}\n", "host.yaml:4: control.socket: folder "},
		{"a socket that is a file", device + "metrics: {listen: 'off'}\ncontrol: {socket: file}\n", "a file of that name is no socket"},
		{"a flow log's folder that others may write to", device + quiet + "flowLogs: [{version: nsg2, folder: open/logs}]\n", "host.yaml:5: flowLogs[0].folder: folder "},
		{"certificates that are not there", device + "metrics: {listen: 'off'}\ncontrol: {socket: run/nsgd.sock, listen: '127.0.0.1:0', certificate: none.crt, key: none.key, clientCA: none.crt}\n", "none.crt: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, said := checking(t, dir, tt.config)
			if want := strings.HasPrefix(tt.want, "ok"); (code == 0) != want || !strings.Contains(said, tt.want) {
				t.Errorf("exit code %d, want %q:\n%s", code, tt.want, said)
			}
		})
	}
	if code, said := checking(t, dir, "attachments: [{internet: true, netns: nsgd-absent, device: eth0}]\n"+quiet, "--anywhere"); code != 0 {
		t.Errorf("for another host: exit code %d:\n%s", code, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "run")); err == nil {
		t.Error("the check made the socket's folder")
	}
}

// The ports of the daemon that runs are taken, by itself.
func TestCheckTriesNoPortsOfADaemonThatRuns(t *testing.T) {
	dir := t.TempDir()
	if err := lab.WriteTo(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "run", "nsgd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	config := "attachments: [{internet: true, device: nsgd-absent0}]\ncontrol: {socket: run/nsgd.sock}\nmetrics: {listen: '" + port.Addr().String() + "'}\n"
	if code, said := checking(t, dir, config); code != 0 {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}
