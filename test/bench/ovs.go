package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// missingOVS names a program of Open vSwitch that is not installed, or nothing.
func missingOVS() string {
	for _, name := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"} {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return ""
}

// ovsSchema is the schema of its database, where its own programs look for it too.
func ovsSchema() string {
	return filepath.Join(cmp.Or(os.Getenv("OVS_PKGDATADIR"), "/usr/share/openvswitch"), "vswitch.ovsschema")
}

// openVSwitch is the user space datapath of Open vSwitch with connection tracking, between
// two tap devices.
func openVSwitch(list []rule) setup {
	return setup{name: "ovs", optional: true, start: func() (*network, error) {
		dir, err := tempDir()
		if err != nil {
			return nil, err
		}
		var daemons []*background
		stop := func() {
			for _, b := range daemons {
				b.cmd.Process.Kill()
				<-b.ended
			}
			removeNamespaces()
			os.RemoveAll(dir)
		}
		start := func(name string, args ...string) error {
			b, err := startBackground(name, args...)
			if err == nil {
				daemons = append(daemons, b)
			}
			return err
		}
		if err := startOVS(dir, list, start); err != nil {
			stop()
			var said []byte
			for _, b := range daemons {
				said = append(said, b.log.Bytes()...)
			}
			return nil, fmt.Errorf("%w\n%s", err, said)
		}
		n := benchNetwork(daemons[1].cmd.Process.Pid, stop)
		if err := daemons[1].ready(n); err != nil {
			return nil, err
		}
		return n, nil
	}}
}

func startOVS(dir string, list []rule, start func(name string, args ...string) error) error {
	database, socket := filepath.Join(dir, "conf.db"), "unix:"+filepath.Join(dir, "db.sock")
	os.Setenv("OVS_RUNDIR", dir)
	if err := command("ovsdb-tool", "create", database, ovsSchema()); err != nil {
		return err
	}
	if err := start("ovsdb-server", "--remote=p"+socket, "--no-chdir", "--log-file=/dev/null", database); err != nil {
		return err
	}
	vsctl := func(args ...string) error {
		return command("ovs-vsctl", append([]string{"--db=" + socket, "--timeout=10"}, args...)...)
	}
	// The server makes its socket some time after it has started.
	if err := poll(5*time.Second, func() error { return vsctl("--no-wait", "init") }); err != nil {
		return err
	}
	if err := start("ovs-vswitchd", "--log-file=/dev/null", "--disable-system", socket); err != nil {
		return err
	}
	if err := vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev", "fail-mode=secure",
		"--", "add-port", "br0", "bench-tap-a", "--", "set", "interface", "bench-tap-a", "type=tap",
		"--", "add-port", "br0", "bench-tap-b", "--", "set", "interface", "bench-tap-b", "type=tap"); err != nil {
		return err
	}
	flows := filepath.Join(dir, "flows")
	if err := os.WriteFile(flows, []byte(openFlows(list)), 0o644); err != nil {
		return err
	}
	if err := command("ovs-ofctl", "add-flows", "br0", flows); err != nil {
		return err
	}
	return script(`
		ip netns add bench-a
		ip netns add bench-b
		ip link set bench-tap-a netns bench-a
		ip link set bench-tap-b netns bench-b
		ip -n bench-a addr add 10.0.1.4/16 dev bench-tap-a
		ip -n bench-b addr add 10.0.3.4/16 dev bench-tap-b
		ip -n bench-a link set bench-tap-a up
		ip -n bench-b link set bench-tap-b up
	`)
}
