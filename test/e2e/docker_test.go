package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

const (
	dockerImage = "nsgd-e2e" // busybox alone
	// dockerCgroup holds the containers' cgroups: these are the machine's, whatever namespaces Docker is in.
	dockerCgroup = "/nsgd-e2e"
)

// startDocker runs Docker in a network namespace, with everything of its own, until the test ends.
func startDocker(t *testing.T, namespace string, more ...string) {
	t.Helper()
	for _, program := range []string{"dockerd", "docker", "iptables", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v: scripts/setup installs it", err)
		}
	}
	if _, err := os.Stat("/run/docker.sock"); err == nil {
		t.Fatal("Docker runs in this world already")
	}
	const dir = "/run/docker-e2e" // memory, as all of /run is here
	removeDockerCgroups()         // a run that crashed has left them
	log := newOutput()
	// Not `ip netns exec`, which hides /sys/fs/cgroup.
	d := exec.Command("nsenter", append([]string{"--net=" + namespace, "dockerd", "--data-root", dir + "/data", "--exec-root", dir + "/exec",
		"--pidfile", dir + "/pid", "--host", "unix:///run/docker.sock", "--cgroup-parent", dockerCgroup, "--log-level", "warn"}, more...)...)
	d.Stdout, d.Stderr = log, log
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { d.Wait(); close(ended) }()
	t.Cleanup(func() {
		exec.Command("sh", "-c", "docker rm -f $(docker ps -aq)").Run()
		d.Process.Signal(syscall.SIGTERM)
		<-ended
		if t.Failed() {
			t.Logf("dockerd:\n%s", log)
		}
		removeDockerCgroups()
		os.RemoveAll(dir)
	})
	eventually(t, "Docker answers", func() bool {
		select {
		case <-ended:
			text := log.String()
			t.Skipf("dockerd can't run here: %s", text[max(0, len(text)-2000):])
		default:
		}
		return exec.Command("docker", "info").Run() == nil
	})
}

// removeDockerCgroups removes those in which nothing runs.
func removeDockerCgroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/*" + dockerCgroup, "/sys/fs/cgroup" + dockerCgroup} {
		containers, _ := filepath.Glob(pattern + "/*/")
		groups, _ := filepath.Glob(pattern)
		for _, group := range append(containers, groups...) {
			syscall.Rmdir(group) // fails while it is in use
		}
	}
}

// containerOf runs a container that echoes on TCP ports. It tries to reach what at must deny it, before all else.
func containerOf(t *testing.T, name, at string, more ...string) {
	t.Helper()
	const script = `nc -w 1 $0 8081 </dev/null && echo LEAK & for p in 80 8080; do nc -ll -p $p -e cat & done; exec nc -ll -p 8081 -e cat`
	args := append([]string{"run", "--detach", "--name", name}, more...)
	must(t, "docker", append(args, dockerImage, "/bin/sh", "-c", script, at)...)
}

// contained is a host of the lab in a container.
func contained(t *testing.T, h lab.Host, name string) lab.Host {
	t.Helper()
	h.Name, h.Namespace = name, "pid:"+strings.TrimSpace(must(t, "docker", "inspect", "--format", "{{.State.Pid}}", name))
	return h
}

// untilServed waits until containers listen, as they do some time after their start.
func untilServed(t *testing.T, hosts ...lab.Host) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, h.Name+" listens", func() bool {
			conn, err := connect(h, h, 8081, time.Second)
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	}
}

func TestContainersOfDockerCarryWhatTheRulesAllow(t *testing.T) {
	needWorld(t)
	addNamespaces(t, ifHost, "if-inet")
	cable(t, "eth0", "if-inet")
	ip(t, ifHost, "addr add 203.0.113.1/24 dev eth0")
	ip(t, "if-inet", "addr add 203.0.113.10/24 dev eth0")
	// The first container has VM1's address, and the second VM2's.
	startDocker(t, filepath.Join(namespaceDir, ifHost), "--bip", "10.0.1.1/24", "--fixed-cidr", "10.0.1.4/30")
	must(t, "sh", "-c", "cd "+t.TempDir()+` && mkdir bin && cp "$(command -v busybox)" bin && for a in sh nc cat; do ln -s busybox bin/$a; done && tar -c . | docker import - `+dockerImage)
	const db, web = "10.0.1.4", "10.0.1.5"
	containerOf(t, "db", "127.0.0.1")
	internet, published := guestOf(internet, "if-inet"), hostAt("203.0.113.1")
	d := startInterfaces(t, interfaceConfig(t, `
- {networkInterface: vm1-nic, container: db, netns: if-host, device: nsgd-db}
- {networkInterface: vm2-nic, container: web, wait: true, netns: if-host, device: nsgd-web}
- {subnet: Subnet1, netns: if-host, device: nsgd-sub1}
- {internet: true, netns: if-host, device: nsgd-inet}
`))
	for guest, state := range map[string]string{"container db": "attached", "container web": "waiting"} {
		if got := stateOf(t, guest); !strings.Contains(got, fmt.Sprintf("(%s) if-host %s ", guest, state)) {
			t.Errorf("status: %s", nsgctl(t, "status"))
		}
	}
	containerOf(t, "web", db, "--publish", "8000:80", "--publish", "8001:8080")
	judged := func() {
		t.Helper()
		web, db := contained(t, ipv4.vm2, "web"), contained(t, vm1, "db")
		untilServed(t, web, db)
		for _, guest := range []string{"container web", "container db"} {
			eventually(t, "nsgd stands before "+guest, func() bool { return strings.Contains(stateOf(t, guest), ") if-host attached ") })
		}
		mustReach(t, db, web, 80)
		mustNotConnect(t, db, web, 8081)
		mustReach(t, hostAt("10.0.1.1"), web, 80)
		mustReach(t, internet, published, 8000) // port 80 of web
		mustNotConnect(t, internet, published, 8001)
	}
	judged()
	containerOf(t, "other", web) // of no attachment
	stranger := func() {
		t.Helper()
		other := contained(t, lab.Host{Address: ipv4.vm2.Address}, "other")
		other.Address = other.Address.Next()
		untilServed(t, other)
		mustNotReach(t, other, contained(t, ipv4.vm2, "web"), 80)
		mustNotReach(t, hostAt("10.0.1.1"), other, 80)
	}
	stranger()

	end := knock(t, hostAt("10.0.1.1"), guestOf(ipv4.vm2, ""), 8081)
	must(t, "docker", "restart", "-t", "0", "web")
	judged()
	d.kill()
	must(t, "docker", "restart", "-t", "0", "web", "other")
	untilServed(t, contained(t, ipv4.vm2, "web"))
	mustNotReach(t, contained(t, vm1, "db"), contained(t, ipv4.vm2, "web"), 80)
	mustNotReach(t, internet, published, 8000)
	stranger()
	again := startInterfaces(t, d.dir)
	judged()
	end()
	if got := must(t, "docker", "logs", "web"); strings.Contains(got, "LEAK") {
		t.Errorf("a container reached what denies it: %s", got)
	}
	again.end(syscall.SIGTERM)
	nsgdDetach(t)
	mustReach(t, internet, published, 8001)
}

// knock tries to connect to what must stay closed, until end. Each try is at another moment of a guest's life.
func knock(t *testing.T, from, to lab.Host, port uint16) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	var reached bytes.Buffer
	tries := 0
	wait.Go(func() {
		for ; ctx.Err() == nil; tries++ {
			if conn, err := connect(from, to, port, 20*time.Millisecond); err == nil {
				conn.Close()
				fmt.Fprintf(&reached, "try %d reached %v port %d\n", tries, to, port)
			}
		}
	})
	return func() {
		t.Helper()
		cancel()
		wait.Wait()
		if reached.Len() > 0 || tries == 0 {
			t.Errorf("%d tries: %s", tries, &reached)
		}
	}
}
