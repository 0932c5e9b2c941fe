package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
)

// privateWorld hides the machine's named namespaces and nsgd's state from this
// process, and gives it its own /proc.
func privateWorld() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, dir := range []string{"/run/netns", "/run/nsgd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
}

// command runs a program and makes what it said part of the error.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// script runs commands in order, one a line.
func script(lines string) error {
	for line := range strings.Lines(lines) {
		if f := strings.Fields(line); len(f) > 0 {
			if err := command(f[0], f[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// daemon is the lab's figure under nsgd: VM1 to VM4, three NSG stages.
func daemon(name, binary, offload string) setup {
	return setup{name: name, client: "nsgd-vm1", server: "nsgd-vm4", address: "10.0.3.4", start: func() (func(), error) {
		dir, err := os.MkdirTemp("", "nsgd-bench")
		if err != nil {
			return nil, err
		}
		if err := lab.WriteTo(dir); err != nil {
			return nil, err
		}
		if err := setOffload(filepath.Join(dir, "nsgd.yaml"), offload); err != nil {
			return nil, err
		}
		var log bytes.Buffer
		cmd := exec.Command(binary, "run", "--config", filepath.Join(dir, "nsgd.yaml"))
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		stop := func() {
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
			os.RemoveAll(dir)
		}
		err = poll(10*time.Second, func() error {
			return command("ip", "netns", "exec", "nsgd-vm1", "ping", "-c", "1", "-W", "1", "10.0.3.4")
		})
		if err != nil {
			stop()
			return nil, fmt.Errorf("%w\n%s", err, log.String())
		}
		return stop, nil
	}}
}

var offloadLine = regexp.MustCompile(`(?m)^offload:.*\n`)

func setOffload(config, offload string) error {
	b, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	b = append(offloadLine.ReplaceAll(b, nil), "offload: "+offload+"\n"...)
	return os.WriteFile(config, b, 0o644)
}

// kernelRouter is what a user would otherwise run: a Linux router with stateful
// nftables that holds the same policy, between two veth pairs.
func kernelRouter() setup {
	return setup{name: "kernel router, nftables", client: "bench-a", server: "bench-b", address: "10.0.3.4", start: func() (func(), error) {
		stop := func() {
			for _, ns := range []string{"bench-a", "bench-r", "bench-b"} {
				exec.Command("ip", "netns", "del", ns).Run()
			}
		}
		err := script(`
			ip netns add bench-a
			ip netns add bench-r
			ip netns add bench-b
			ip link add eth0 netns bench-a type veth peer name left netns bench-r
			ip link add eth0 netns bench-b type veth peer name right netns bench-r
			ip -n bench-a addr add 10.0.1.4/24 dev eth0
			ip -n bench-b addr add 10.0.3.4/24 dev eth0
			ip -n bench-r addr add 10.0.1.1/24 dev left
			ip -n bench-r addr add 10.0.3.1/24 dev right
			ip -n bench-a link set eth0 up
			ip -n bench-b link set eth0 up
			ip -n bench-r link set dev left up
			ip -n bench-r link set dev right up
			ip -n bench-a route add default via 10.0.1.1
			ip -n bench-b route add default via 10.0.3.1
			ip netns exec bench-r sysctl -qw net.ipv4.ip_forward=1
		`)
		if err == nil {
			cmd := exec.Command("ip", "netns", "exec", "bench-r", "nft", "-f", "-")
			cmd.Stdin = strings.NewReader(nftables)
			var out []byte
			if out, err = cmd.CombinedOutput(); err != nil {
				err = fmt.Errorf("nft: %w: %s", err, out)
			}
		}
		if err != nil {
			stop()
			return nil, err
		}
		return stop, nil
	}}
}

// nftables is NSG2 and NSG1 of the figure, outbound, for VM1.
const nftables = `
table ip filter {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related counter accept
		ip saddr 10.0.0.0/16 ip daddr 10.0.0.0/16 counter accept
		ip daddr 203.0.113.0/24 counter accept
		tcp dport 80 counter accept
	}
}
`

// iperf measures one TCP transfer and returns bits a second at the receiver.
func iperf(s *setup, args []string, seconds int) (float64, error) {
	server := exec.Command("ip", "netns", "exec", s.server, "iperf3", "-s", "-1")
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	var bps float64
	err := poll(10*time.Second, func() error { // until the server listens
		argv := append([]string{"netns", "exec", s.client, "iperf3", "-J", "-c", s.address, "-t", fmt.Sprint(seconds)}, args...)
		out, err := exec.Command("ip", argv...).Output()
		if err != nil {
			return fmt.Errorf("iperf3: %w: %s", err, out)
		}
		var result struct {
			Error string `json:"error"`
			End   struct {
				SumReceived struct {
					BitsPerSecond float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			} `json:"end"`
		}
		if err := json.Unmarshal(out, &result); err != nil {
			return fmt.Errorf("iperf3's answer: %w", err)
		}
		// With -J iperf3 reports a refused connection in its answer, with exit status 0.
		if bps = result.End.SumReceived.BitsPerSecond; result.Error != "" || bps == 0 {
			return fmt.Errorf("iperf3 received nothing: %s", result.Error)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("%w; the server said: %s", err, said.Bytes())
	}
	return bps, nil
}

// poll repeats f until it succeeds or the deadline has passed.
func poll(deadline time.Duration, f func() error) error {
	end := time.Now().Add(deadline)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
