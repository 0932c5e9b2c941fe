package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
)

// watcher is an nsgctl that goes on until it is interrupted.
type watcher struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr *output
	exited         chan struct{}
}

// watchPackets starts trace or capture, and waits until it watches.
func watchPackets(t *testing.T, args ...string) *watcher {
	t.Helper()
	w := &watcher{t: t, cmd: exec.Command(program("nsgctl"), args...), stdout: newOutput(), stderr: newOutput(), exited: make(chan struct{})}
	w.cmd.Stdout, w.cmd.Stderr = w.stdout, w.stderr
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		w.cmd.Wait()
		close(w.exited)
	}()
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		<-w.exited
	})
	eventually(t, "nsgctl "+args[0]+" has begun", func() bool {
		return strings.Contains(w.stderr.String(), "Ctrl-C ends") || strings.Contains(w.stdout.String(), `"summary"`)
	})
	return w
}

// end interrupts it.
func (w *watcher) end() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.t.Fatal(err)
	}
	w.wait()
}

func (w *watcher) wait() {
	w.t.Helper()
	select {
	case <-w.exited:
	case <-time.After(patience):
		w.t.Fatalf("%v did not end within %v", w.cmd.Args, patience)
	}
	if code := w.cmd.ProcessState.ExitCode(); code != 0 {
		w.t.Errorf("%v: exit code %d: %s", w.cmd.Args, code, w.stderr)
	}
}

// tracedLine is a line of trace -o json.
type tracedLine struct {
	Packet *struct {
		From, To, Protocol, Source, Destination string
		DestinationPort                         uint16
		Access, Reason, Flow, Direction         string
		Stages                                  []struct {
			NetworkSecurityGroup, Association, Direction, RuleName, Access string
			Priority                                                       int
		}
	}
	Summary *struct{ Packets, Lost, Skipped uint64 }
}

func tracedLines(t *testing.T, text string) (lines []tracedLine) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(text)); ; {
		var line tracedLine
		if err := d.Decode(&line); errors.Is(err, io.EOF) {
			return lines
		} else if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		lines = append(lines, line)
	}
}

func TestTraceShowsADeniedClientAndTheRuleThatDenied(t *testing.T) {
	start(t, labPolicy())
	eachFamily(t, func(t *testing.T, f family) {
		trace := watchPackets(t, "trace", "--count", "1", "-o", "json", "dst", "nic", "vm1-nic", "and", "tcp", "port", "8080", "and", "src", f.internet.Address.String())
		mustNotConnect(t, f.internet, f.vm1, 8080)
		trace.wait()
		lines := tracedLines(t, trace.stdout.String())
		if len(lines) != 3 || lines[1].Packet == nil || lines[2].Summary == nil || lines[2].Summary.Packets != 1 || lines[2].Summary.Lost != 0 {
			t.Fatalf("%s", trace.stdout)
		}
		p := lines[1].Packet
		if p.From != "internet" || p.To != "vm1-nic" || p.Source != f.internet.Address.String() || p.Destination != f.vm1.Address.String() ||
			p.DestinationPort != 8080 || p.Access != "Deny" || p.Reason != "rule_deny" || p.Flow != "none" || len(p.Stages) != 1 {
			t.Fatalf("%+v", p)
		}
		if s := p.Stages[0]; s.NetworkSecurityGroup != nsg1 || s.Association != "subnet" || s.Direction != "Inbound" ||
			s.RuleName != "defaultSecurityRules/DenyAllInBound" || s.Access != "Deny" || s.Priority != 65500 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTraceShowsWhatHadAllowedALiveFlow(t *testing.T) {
	start(t, labPolicy())
	serveTCP(t, vm1, 80)
	conn := mustConnect(t, internet, vm1, 80)
	trace := watchPackets(t, "trace", "flow", "live", "and", "tcp", "src", "port", "80")
	mustEcho(t, conn)
	trace.waitFor("live flow, reply")
	trace.end()
	for _, want := range []string{"Allow vm1-nic > internet", "Inbound  subnet           NSG1 securityRules/", "Inbound  networkInterface NSG2 securityRules/", "priority 100"} {
		if !strings.Contains(trace.stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, trace.stdout)
		}
	}
}

func (w *watcher) waitFor(text string) {
	w.t.Helper()
	eventually(w.t, text, func() bool { return strings.Contains(w.stdout.String(), text) })
}

func TestTraceEndsWithTheDaemon(t *testing.T) {
	d := start(t, labPolicy())
	trace := watchPackets(t, "trace", "-o", "json", "tcp")
	d.stop(syscall.SIGTERM)
	trace.wait()
	if lines := tracedLines(t, trace.stdout.String()); len(lines) == 0 || lines[len(lines)-1].Summary == nil {
		t.Errorf("%s", trace.stdout)
	}
}

func TestCaptureOfTheDeniedHoldsExactlyWhatWasDropped(t *testing.T) {
	start(t, labPolicy())
	file := filepath.Join(t.TempDir(), "denied.pcapng")
	serveTCP(t, vm3, 80)
	open := bindUDP(t, vm4, 0)
	eachFamily(t, func(t *testing.T, f family) {
		const denied, allowed, size = 40, 10, 64
		from, closed := bindUDP(t, f.internet, 0), bindUDP(t, f.vm3, 0)
		if f.internet.Address.Is6() {
			open = bindUDP(t, f.vm4, 0)
		}
		before := scrape(t)
		capture := watchPackets(t, "capture", "-w", file, "--denied", "not", "reason", "kernel_noise")
		send(t, from, address(closed), denied, size)
		send(t, from, address(open), allowed, size)
		receive(t, open, allowed)
		c := since(t, before, func(c counts) bool { return c.after.drops("rule_deny")-before.drops("rule_deny") >= denied })
		capture.end()
		if drops := c.after.drops("rule_deny") - before.drops("rule_deny"); drops != denied {
			t.Fatalf("%v drops, want %d", drops, denied)
		}
		if got := capturedPackets(t, file); got != denied {
			t.Errorf("%d packets in the capture, want %d", got, denied)
		}
		rows := tshark(t, file, "frame.interface_name", "frame.comment", "udp.dstport", "frame.len")
		if len(rows) != denied {
			t.Fatalf("tshark shows %d packets, want %d: %v", len(rows), denied, rows)
		}
		for _, row := range rows {
			if row[0] != "internet" || row[3] == "" || !strings.Contains(row[1], "verdict=Deny nsg=NSG2 rule=defaultSecurityRules/DenyAllInBound reason=rule_deny") {
				t.Errorf("%q", row)
			}
		}
	})
}

// capturedPackets counts a capture's packets with gopacket.
func capturedPackets(t *testing.T, file string) (n int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for ; ; n++ {
		if _, _, err := r.ReadPacketData(); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// tshark reads fields of a capture, a row for each packet.
func tshark(t *testing.T, file string, fields ...string) (rows [][]string) {
	t.Helper()
	args := []string{"-n", "-r", file, "-T", "fields"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, stderr.String())
	}
	lines := bufio.NewScanner(strings.NewReader(string(out)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rows = append(rows, strings.Split(lines.Text(), "\t"))
	}
	return rows
}

// TestLiveFlowsPassWhileEverythingIsWatchedByWhoDoesNotRead stops the watchers where they are.
func TestLiveFlowsPassWhileEverythingIsWatchedByWhoDoesNotRead(t *testing.T) {
	start(t, labPolicy())
	serveTCP(t, vm4, 80)
	conn := mustConnect(t, vm1, vm4, 80)
	file := filepath.Join(t.TempDir(), "all.pcapng")
	trace := watchPackets(t, "trace", "--per-second", "0", "-o", "json")
	capture := watchPackets(t, "capture", "-w", file)
	for _, w := range []*watcher{trace, capture} {
		if err := w.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	const size = 32 << 20 // echoed: as much each way, more than rings and sockets have room for
	echoes(t, conn, size)
	for _, w := range []*watcher{trace, capture} {
		if err := w.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		w.end()
	}
	lines := tracedLines(t, trace.stdout.String())
	last := lines[len(lines)-1].Summary
	packets := uint64(0)
	for _, line := range lines {
		if line.Packet != nil {
			packets++
		}
	}
	if last == nil || packets == 0 || last.Packets != packets || last.Skipped != 0 {
		t.Errorf("%d packets, and told were %+v", packets, last)
	}
	if capturedPackets(t, file) == 0 || !strings.Contains(capture.stderr.String(), " packets captured") || strings.Contains(capture.stderr.String(), " 0 lost") {
		t.Errorf("%s", capture.stderr)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
