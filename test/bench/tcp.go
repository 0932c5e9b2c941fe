package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"time"
)

// transfer is what arrived in one TCP transfer.
type transfer struct {
	bps, bytes float64
}

// iperf measures one TCP transfer at its receiver.
func iperf(n *network, args []string, seconds int) (transfer, error) {
	server := exec.Command("ip", "netns", "exec", n.server, "iperf3", "-s", "-1")
	var said bytes.Buffer
	server.Stdout, server.Stderr = &said, &said
	if err := server.Start(); err != nil {
		return transfer{}, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	var t transfer
	err := poll(10*time.Second, func() error { // until the server listens
		argv := append([]string{"netns", "exec", n.client, "iperf3", "-J", "-c", n.address, "-t", fmt.Sprint(seconds)}, args...)
		out, err := exec.Command("ip", argv...).Output()
		if err != nil {
			return fmt.Errorf("iperf3: %w: %s", err, out)
		}
		t, err = parseIperf(out)
		return err
	})
	if err != nil {
		return t, fmt.Errorf("%w; the server said: %s", err, said.Bytes())
	}
	return t, nil
}

// parseIperf reads the answer of iperf3 -J.
func parseIperf(out []byte) (transfer, error) {
	var answer struct {
		Error string `json:"error"`
		End   struct {
			SumReceived struct {
				BitsPerSecond float64 `json:"bits_per_second"`
				Bytes         float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return transfer{}, fmt.Errorf("iperf3's answer: %w", err)
	}
	// With -J iperf3 reports a refused connection in its answer, with exit status 0.
	received := answer.End.SumReceived
	if answer.Error != "" || received.BitsPerSecond == 0 {
		return transfer{}, fmt.Errorf("iperf3 received nothing: %s", answer.Error)
	}
	return transfer{received.BitsPerSecond, received.Bytes}, nil
}

// measureTCP measures some streams in both directions, and, of one stream, what they cost.
func measureTCP(streams int) func(t *trial) error {
	return func(t *trial) error {
		for _, direction := range []string{"", "_reverse"} {
			args := []string{"-P", fmt.Sprint(streams)}
			if direction != "" {
				args = append(args, "-R")
			}
			before, err := readUsage(t.network.pid)
			if err != nil {
				return err
			}
			transfer, err := iperf(t.network, args, t.seconds)
			if err != nil {
				return err
			}
			after, err := readUsage(t.network.pid)
			if err != nil {
				return err
			}
			t.figure(fmt.Sprintf("tcp%d%s", streams, direction), transfer.bps)
			if streams == 1 && direction == "" {
				t.cost("gigabyte", after.since(before), transfer.bytes/1e9)
			}
		}
		return nil
	}
}
