package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	// iperfRate is what a stream of iperf3 sends a second, and iperfTime how long: longer than what happens.
	iperfRate, iperfTime = "100M", 12
	// iperfInterval is what silence is counted in.
	iperfInterval = 100 * time.Millisecond
)

// iperfStreams are a stream of iperf3 each way, as their receivers see them.
type iperfStreams struct{ servers, clients []*background }

// startIperf has streams flow between two namespaces. The receiver is iperf3's client, which tells what it gets in each interval.
func startIperf(near, far string) (s *iperfStreams, err error) {
	s = &iperfStreams{}
	for _, way := range [][3]string{{near, far, farAddress}, {far, near, nearAddress}} {
		server, err := startBackground("nsenter", "--net=/run/netns/"+way[1], "iperf3", "-s")
		if err != nil {
			return s, err
		}
		s.servers = append(s.servers, server)
		if err := poll(10*time.Second, server.listens); err != nil {
			return s, err
		}
		client, err := startBackground("nsenter", "--net=/run/netns/"+way[0], "iperf3", "-J", "-R", "-c", way[2], "-b", iperfRate, "-t", fmt.Sprint(iperfTime), "-i", fmt.Sprint(iperfInterval.Seconds()))
		if err != nil {
			return s, err
		}
		s.clients = append(s.clients, client)
	}
	return s, nil
}

// listens reports whether a server of iperf3 takes connections.
func (b *background) listens() error {
	const port, listening = ":1451 ", " 0A " // 5201
	for _, family := range []string{"tcp", "tcp6"} {
		sockets, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", b.cmd.Process.Pid, family))
		if err != nil {
			return err
		}
		for line := range bytes.Lines(sockets) {
			if bytes.Contains(line, []byte(port)) && bytes.Contains(line, []byte(listening)) {
				return nil
			}
		}
	}
	return errors.New("iperf3 does not listen")
}

// stop ends what still runs.
func (s *iperfStreams) stop() {
	for _, b := range append(s.clients, s.servers...) {
		b.stop()
	}
}

// streamed is what became of the streams of one round.
type streamed struct {
	ended              int // before their time
	silence            time.Duration
	bytes, retransmits float64
}

// await waits for both streams.
func (s *iperfStreams) await() (all streamed, err error) {
	for _, client := range s.clients {
		select {
		case <-client.ended:
		case <-time.After(iperfTime*time.Second + pipeLost):
			client.stop()
		}
		one, err := parseStream(client.log.Bytes())
		if err != nil {
			return all, err
		}
		all.ended, all.silence, all.bytes, all.retransmits = all.ended+one.ended, max(all.silence, one.silence), all.bytes+one.bytes, all.retransmits+one.retransmits
	}
	return all, nil
}

// parseStream reads what a receiver says: silence is that of the most intervals in a row without a byte.
func parseStream(out []byte) (s streamed, err error) {
	var answer struct {
		Error     string `json:"error"`
		Intervals []struct {
			Sum struct {
				Bytes float64 `json:"bytes"`
			} `json:"sum"`
		} `json:"intervals"`
		End struct {
			SumSent struct {
				Retransmits float64 `json:"retransmits"`
			} `json:"sum_sent"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return s, fmt.Errorf("iperf3's answer: %w: %s", err, out)
	}
	silent := 0
	for _, i := range answer.Intervals {
		if silent++; i.Sum.Bytes > 0 {
			silent = 0
		}
		s.bytes += i.Sum.Bytes
		s.silence = max(s.silence, time.Duration(silent)*iperfInterval)
	}
	if answer.Error != "" {
		s.ended++
	}
	s.retransmits = answer.End.SumSent.Retransmits
	return s, nil
}
