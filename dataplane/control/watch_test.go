package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/gopacket/pcapgo"
	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/watch"
	"github.com/nsgd/nsgd/tun"
)

const world = "203.0.113.10"

// trace runs a trace until the context ends; lines come as they do, the first when it has begun.
func (r *rig) trace(ctx context.Context, q inspect.WatchRequest) (lines <-chan *inspect.Trace, end <-chan error) {
	out, done := make(chan *inspect.Trace, 1024), make(chan error, 1)
	go func() {
		done <- r.client.Trace(ctx, q, func(t *inspect.Trace) error {
			out <- t
			return nil
		})
		close(out)
	}()
	if first := <-out; first == nil || first.Summary == nil {
		r.t.Fatalf("the first line is %+v, %v", first, <-done)
	}
	return out, done
}

func TestTraceTellsEachPacketsStagesAndReason(t *testing.T) {
	r := newRig(t)
	lines, end := r.trace(t.Context(), inspect.WatchRequest{Filter: "dst nic vm1-nic", Count: 2})
	r.send(internet, syn(world, "10.0.1.4", 22))
	r.send(internet, syn(world, "10.0.1.5", 22)) // not VM1's
	r.send(internet, syn(world, "10.0.1.4", 80))
	denied, allowed, last := (<-lines).Packet, (<-lines).Packet, (<-lines).Summary
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	if denied.From != "internet" || denied.To != "vm1-nic" || denied.Access != "Deny" || denied.Reason != "rule_deny" || denied.Flow != "none" ||
		denied.Source != world || denied.DestinationPort != 22 || denied.TCPFlags != "S" || denied.Generation != 1 || denied.Length != 40 {
		t.Errorf("%+v", denied)
	}
	if s := denied.Stages; len(s) != 1 || s[0].NetworkSecurityGroup != "NSG1" || s[0].Association != "subnet" || s[0].Direction != "Inbound" ||
		s[0].RuleName != "defaultSecurityRules/DenyAllInBound" || s[0].Access != "Deny" || s[0].Priority != 65500 {
		t.Errorf("%+v", s)
	}
	if s := allowed.Stages; allowed.Access != "Allow" || allowed.Flow != "new" || len(s) != 2 || s[0].Association != "subnet" || s[1].Association != "networkInterface" ||
		s[1].NetworkSecurityGroup != "NSG2" || s[1].Priority != 100 || !strings.HasPrefix(s[1].RuleName, "securityRules/") {
		t.Errorf("%+v", allowed)
	}
	if last == nil || *last != (inspect.WatchSummary{Packets: 2}) {
		t.Errorf("%+v", last)
	}
}

func TestTraceEndsWithItsClientAndTellsWhatThereWas(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	lines, end := r.trace(ctx, inspect.WatchRequest{Denied: true})
	r.send(internet, syn(world, "10.0.1.4", 80))
	r.send(internet, syn(world, "10.0.1.4", 22))
	if p := (<-lines).Packet; p == nil || p.DestinationPort != 22 {
		t.Fatalf("%+v", p)
	}
	cancel()
	var last *inspect.Trace
	for line := range lines {
		last = line
	}
	if err := <-end; err != nil || last == nil || last.Summary == nil || last.Summary.Packets != 1 {
		t.Errorf("%+v, %v", last, err)
	}
	r.nobodyWatches()
}

// nobodyWatches waits until every place for watchers is free.
func (r *rig) nobodyWatches() {
	r.t.Helper()
	places := watch.MaxWatchers
	if r.history != nil {
		places--
	}
	r.eventually("nobody watches", func() bool {
		var all []*watch.Subscription
		for range watch.MaxWatchers {
			s, err := r.engine.Watch(watch.Options{})
			if err == nil {
				all = append(all, s)
			}
		}
		for _, s := range all {
			s.Close()
		}
		judged, err := r.engine.Judge(1)
		if err == nil {
			judged.Close()
		}
		return len(all) == places && err == nil
	})
}

func TestAWatcherThatHangsUpLeavesNothing(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"trace", "capture"} {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /v1/"+path+" HTTP/1.1\r\nHost: nsgd\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAtLeast(conn, make([]byte, 4096), 12); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	r.nobodyWatches()
}

// TestAWatcherThatDoesNotReadLosesPacketsAndHoldsUpNobody never reads while more passes than anything on
// the way has room for, and then reads on.
func TestAWatcherThatDoesNotReadLosesPacketsAndHoldsUpNobody(t *testing.T) {
	r := newRig(t)
	reads, begun := make(chan struct{}), make(chan struct{})
	var packets uint64
	var summary inspect.WatchSummary
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() {
		first := true
		end <- r.client.Trace(ctx, inspect.WatchRequest{}, func(line *inspect.Trace) error {
			if first {
				first = false
				close(begun)
				<-reads
			}
			if line.Packet != nil {
				packets++
			} else {
				summary = *line.Summary
			}
			return nil
		})
	}()
	<-begun
	s, err := r.engine.Watch(watch.Options{Events: 4}) // loses, too, and is in no one's way
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const count = 40_000
	frame := append(make([]byte, tun.HeaderLen), udp("10.0.1.4", "10.0.3.4", 53)...)
	for i := 0; i < count; {
		if r.devices[0].Inject(0, frame) {
			i++
		}
		r.devices[3].Drain(0, nil)
	}
	r.eventually("every packet is carried", func() bool {
		r.devices[3].Drain(0, nil)
		return r.engine.AttachmentCounts()[0].ReceivePackets == count
	})
	close(reads)
	cancel()
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	if packets != summary.Packets || summary.Packets+summary.Lost != count || summary.Lost == 0 {
		t.Errorf("%d packets came, told were %+v of %d", packets, summary, count)
	}
}

func TestCaptureIsAFileOfPackets(t *testing.T) {
	r := newRig(t)
	file := &begins{at: make(chan struct{})}
	var summary *inspect.WatchSummary
	end := make(chan error, 1)
	go func() (err error) {
		defer func() { end <- err }()
		summary, err = r.client.Capture(t.Context(), inspect.WatchRequest{Count: 2, SnapLen: 30}, file)
		return err
	}()
	<-file.at
	sent := [][]byte{syn(world, "10.0.1.4", 22), udp("10.0.1.4", "10.0.3.4", 53)}
	r.send(internet, sent[0])
	r.send(0, sent[1])
	if err := <-end; err != nil {
		t.Fatal(err)
	}
	if *summary != (inspect.WatchSummary{Packets: 2}) {
		t.Errorf("%+v", summary)
	}
	p, err := pcapgo.NewNgReader(bytes.NewReader(file.all.Bytes()), pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, from := range []int{internet, 0} {
		data, info, err := p.ReadPacketData()
		if err != nil || !bytes.Equal(data, sent[i][:len(data)]) || len(data) != min(30, len(sent[i])) || info.Length != len(sent[i]) || info.InterfaceIndex != from {
			t.Errorf("packet %d: %x, %+v, %v", i, data, info, err)
		}
	}
	for i, want := range []string{"networkInterface vm1-nic on eth0 in network namespace ns1", "networkInterface vm2-nic on eth0 in network namespace ns2"} {
		if got, err := p.Interface(i); err != nil || got.Description != want {
			t.Errorf("interface %d is %+v, %v", i, got, err)
		}
	}
	for _, want := range []string{
		"verdict=Deny nsg=NSG1 rule=defaultSecurityRules/DenyAllInBound reason=rule_deny flow=none to=vm1-nic",
		"verdict=Allow nsg=NSG1 rule=defaultSecurityRules/AllowVnetOutBound flow=new to=vm4-nic by=NSG2/defaultSecurityRules/AllowVnetOutBound,NSG1/defaultSecurityRules/AllowVnetOutBound",
	} {
		if !bytes.Contains(file.all.Bytes(), []byte(want)) {
			t.Errorf("no comment %q", want)
		}
	}
}

// begins tells that the first bytes have come.
type begins struct {
	all bytes.Buffer
	at  chan struct{}
}

func (b *begins) Write(p []byte) (int, error) {
	if b.all.Len() == 0 {
		defer close(b.at)
	}
	return b.all.Write(p)
}

func TestWatchRequestsThatCannotBeMetAreRefused(t *testing.T) {
	r := newRig(t)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", r.socket)
	}}}
	for _, tt := range []struct{ name, query, want string }{
		{"a filter that is none", "filter=tcp+port", "filter: column 9: the end: allowed behind port is a port"},
		{"a name that is not there", "filter=nsg+NSG9", `filter: column 5: nsg \"NSG9\": there is none of that name: allowed are NSG1, NSG2`},
		{"a count below zero", "count=-1", `count: \"-1\": allowed are 0 to`},
		{"too many a second", "perSecond=1000001", `perSecond: \"1000001\": allowed are 0 to 1000000`},
		{"a flag that is none", "denied=maybe", `denied: \"maybe\": allowed are true and false`},
		{"a snap length beyond all", "snapLen=262145", `snapLen: \"262145\": allowed are 0 to 262144`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, path := range []string{"trace", "capture"} {
				response, err := client.Get("http://nsgd/v1/" + path + "?" + tt.query)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(response.Body)
				response.Body.Close()
				if response.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), tt.want) {
					t.Errorf("%s: %s: %s", path, response.Status, body)
				}
			}
		})
	}
	for range watch.MaxWatchers {
		s, err := r.engine.Watch(watch.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
	}
	err := r.client.Trace(t.Context(), inspect.WatchRequest{}, func(*inspect.Trace) error { return nil })
	var refused *control.Error
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable {
		t.Errorf("one watcher too many: %v", err)
	}
}

func TestStreamsEndWithTheServer(t *testing.T) {
	r := newRig(t)
	lines, end := r.trace(t.Context(), inspect.WatchRequest{})
	r.send(internet, syn(world, "10.0.1.4", 80))
	<-lines
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	var last *inspect.Trace
	for line := range lines {
		last = line
	}
	if err := <-end; err != nil || last == nil || last.Summary == nil || last.Summary.Packets != 1 {
		t.Errorf("%+v, %v", last, err)
	}
}

func TestAStreamEndsWithItsCount(t *testing.T) {
	r := newRig(t)
	lines, end := r.trace(t.Context(), inspect.WatchRequest{Count: 3})
	frame := append(make([]byte, tun.HeaderLen), udp("10.0.1.4", "10.0.3.4", 53)...)
	for range 5 { // at once, so that one look finds more than there may be
		r.devices[0].Inject(0, frame)
	}
	packets := 0
	for line := range lines {
		if line.Packet != nil {
			packets++
		}
	}
	if err := <-end; err != nil || packets != 3 {
		t.Errorf("%d packets, %v", packets, err)
	}
}
