package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/tun"
)

// restartOptions are the flags of -restarts.
type restartOptions struct {
	restarts, connections, flows, rate int
	kinds                              string
	standby                            bool
}

const (
	restartSocket = stateDir + "/nsgd.sock"
	// restartPause lies between a process that answers and the end of the next one: everything flows again.
	restartPause = 150 * time.Millisecond
	// killPause is as long for a process that is killed: all that a start does is done then, and another one stands by.
	killPause = 3 * time.Second
	// exchangeEvery is how often a connection that is not idle says something.
	exchangeEvery = 250 * time.Millisecond
	// lostAfter is when a connection that does not answer is lost. TCP's own pauses between retransmissions are shorter.
	lostAfter = 30 * time.Second
)

// successions are the ways in which one process follows another.
var successions = map[string]func(*restartRig) error{
	"kill":    func(r *restartRig) error { return syscall.Kill(r.daemon(), syscall.SIGKILL) },
	"restart": func(r *restartRig) error { return syscall.Kill(r.daemon(), syscall.SIGUSR1) },
	"upgrade": func(r *restartRig) error { return command(filepath.Join(filepath.Dir(r.binary), "nsgctl"), "upgrade") },
}

// restartRig is the lab of translated addresses under nsgd keep, with connections and datagrams through it.
type restartRig struct {
	binary string
	client *control.Client
	pairs  []*pair
	stream *stream
	before row // sums of all kinds so far
}

// pair is a connection with both its ends in this process.
type pair struct {
	kind string
	// pusher begins each exchange, other answers. Either may be who has connected.
	pusher, other net.Conn
	idle          bool
	lost          atomic.Pointer[error]
}

// runRestarts measures what a process that follows another one loses.
func runRestarts(binary string, o restartOptions) (err error) {
	if err := privateWorld(); err != nil {
		return err
	}
	config, err := writeTranslation()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(config)
	if err == nil {
		text, err = mergeConfig(text, fmt.Sprintf("{flows: {max: %d, maxPerNetworkInterface: %d}, timeouts: {udpOneWay: 1h}}", max(o.flows*5/4, 100_000), max(o.flows*5/4, 100_000)))
	}
	if err == nil {
		err = replace(config, text)
	}
	if err != nil {
		return err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	keep := []string{"keep", "--", binary, "run", "--config", config}
	if o.standby {
		keep = slices.Insert(keep, 1, "--standby")
	}
	b, err := startBackground(binary, keep...)
	if err != nil {
		return err
	}
	defer func() {
		b.stop()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, b.log.Bytes())
		}
	}()
	r := &restartRig{binary: binary, client: control.NewClient(restartSocket)}
	defer r.client.Close()
	if err := poll(10*time.Second, func() error { _, err := r.client.Status(context.Background()); return err }); err != nil {
		return err
	}
	if err := r.open(o.connections); err != nil {
		return err
	}
	if err := closePolicy(filepath.Join(filepath.Dir(config), "translation")); err != nil {
		return err
	}
	if _, err := r.client.Reload(context.Background(), 0); err != nil {
		return err
	}
	if err := errors.Join(r.routeNowhere(), r.fill(0, o.flows)); err != nil {
		return err
	}
	status, err := r.client.Status(context.Background())
	if err != nil {
		return err
	}
	fmt.Printf("%d TCP connections (%s), %d flows, %d datagrams a second\n", len(r.pairs), r.kinds(), status.Flows.Live, o.rate)
	ending, end := context.WithCancel(context.Background())
	var exchanges sync.WaitGroup
	for _, p := range r.pairs {
		if !p.idle {
			exchanges.Go(func() { p.exchange(ending) })
		}
	}
	if r.stream, err = newStream("nsgd-app", "nsgd-internet", "203.0.113.10:7000", o.rate); err != nil {
		end()
		return err
	}
	for kind := range strings.SplitSeq(o.kinds, ",") {
		succeed, known := successions[kind]
		if !known {
			end()
			return fmt.Errorf("-kinds: %q: allowed are kill, restart and upgrade", kind)
		}
		if err := r.succeed(kind, o.restarts, succeed); err != nil {
			end()
			return err
		}
	}
	end()
	exchanges.Wait()
	r.stream.close()
	for _, p := range r.pairs {
		p.once(^uint64(0))
	}
	return r.judge()
}

// daemon is the process that carries packets now.
func (r *restartRig) daemon() int {
	status, err := r.client.Status(context.Background())
	if err != nil {
		return 0
	}
	return status.PID
}

// follow has one process follow another, and waits until that answers.
func (r *restartRig) follow(do func(*restartRig) error) error {
	old := r.daemon()
	if err := do(r); err != nil {
		return err
	}
	return poll(lostAfter, func() error {
		if pid := r.daemon(); pid == 0 || pid == old {
			return errors.New("no other process answers")
		}
		return nil
	})
}

// succeed has one process follow another, again and again, and prints what was seen.
func (r *restartRig) succeed(kind string, restarts int, do func(*restartRig) error) error {
	var gaps []time.Duration
	first := r.stream.sent.Load()
	pause := restartPause
	if kind == "kill" {
		pause = killPause
	}
	for range restarts {
		if kind == "kill" { // after more than five such starts in a row within a minute a process begins without flows
			if err := r.follow(successions["upgrade"]); err != nil {
				return fmt.Errorf("upgrade: %w", err)
			}
		}
		time.Sleep(pause)
		r.stream.gap()
		if err := r.follow(do); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		time.Sleep(restartPause)
		gaps = append(gaps, r.stream.gap())
	}
	became, err := r.stream.since(first, &r.before)
	if err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	r.before.twice, r.before.late = r.before.twice+became.twice, r.before.late+became.late
	slices.Sort(gaps)
	lost := 0
	for _, p := range r.pairs {
		if p.lost.Load() != nil {
			lost++
		}
	}
	fmt.Printf("%-8s %d times: connections lost %d; datagrams sent %d, lost %d, twice %d, late %d; longest gap: median %.1f ms, most %.1f ms\n", kind, restarts, lost,
		became.sent, became.lost, became.twice, became.late, milliseconds(gaps[len(gaps)/2]), milliseconds(gaps[len(gaps)-1]))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// open opens connections of each kind: to a public address, through a load balancer, through a NAT gateway, and within
// the virtual network. Of each kind one in four is idle.
func (r *restartRig) open(connections int) error {
	kinds := []struct{ name, client, server, listen, address string }{
		{"public", "nsgd-internet", "nsgd-vm", "10.1.2.4:5201", "198.51.100.20:5201"},
		{"balancer", "nsgd-internet", "nsgd-web1", "10.1.1.4:5201", "198.51.100.10:5201"},
		{"gateway", "nsgd-app", "nsgd-internet", "203.0.113.10:5201", "203.0.113.10:5201"},
		{"private", "nsgd-app", "nsgd-vm", "10.1.2.4:5202", "10.1.2.4:5202"},
	}
	for i, k := range kinds {
		var listener net.Listener
		err := tun.Do(k.server, func() (err error) {
			listener, err = net.Listen("tcp", k.listen)
			return err
		})
		if err != nil {
			return err
		}
		for n := range (connections + len(kinds) - 1 - i) / len(kinds) {
			var conn net.Conn
			err := tun.Do(k.client, func() (err error) {
				conn, err = net.DialTimeout("tcp", k.address, 5*time.Second)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			accepted, err := listener.Accept()
			if err != nil {
				return err
			}
			p := &pair{kind: k.name, pusher: accepted, other: conn, idle: n%4 == 3}
			if n%2 == 0 { // who has connected pushes too
				p.pusher, p.other = conn, accepted
			}
			r.pairs = append(r.pairs, p)
		}
	}
	return nil
}

func (r *restartRig) kinds() string {
	counts := map[string]int{}
	for _, p := range r.pairs {
		counts[p.kind]++
		if p.idle {
			counts["idle"]++
		}
	}
	var list []string
	for kind, n := range counts {
		list = append(list, fmt.Sprint(n, " ", kind))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// exchange pushes and answers until ctx ends.
func (p *pair) exchange(ctx context.Context) {
	for n := uint64(0); ; n++ {
		if !p.once(n) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(exchangeEvery):
		}
	}
}

// once pushes a number and takes it back. It is false once the connection is lost.
func (p *pair) once(n uint64) bool {
	if p.lost.Load() != nil {
		return false
	}
	var sent, got [8]byte
	binary.BigEndian.PutUint64(sent[:], n)
	deadline := time.Now().Add(lostAfter)
	err := errors.Join(p.pusher.SetDeadline(deadline), p.other.SetDeadline(deadline))
	for _, way := range [][2]net.Conn{{p.pusher, p.other}, {p.other, p.pusher}} {
		if err == nil {
			_, err = way[0].Write(sent[:])
		}
		if err == nil {
			_, err = io.ReadFull(way[1], got[:])
		}
		if err == nil && got != sent {
			err = fmt.Errorf("%x came for %x", got, sent)
		}
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", p.kind, err)
		p.lost.Store(&err)
	}
	return err == nil
}

// judge names what was lost in all.
func (r *restartRig) judge() error {
	lost := 0
	for _, p := range r.pairs {
		if err := p.lost.Load(); err != nil {
			if lost++; lost <= 5 {
				fmt.Println("lost:", *err)
			}
		}
	}
	fmt.Printf("connections: %d of %d live, those that were idle among them\n", len(r.pairs)-lost, len(r.pairs))
	return nil
}

// closePolicy takes away what let the connections from the internet begin.
func closePolicy(folder string) error {
	for _, name := range []string{"web-nsg", "vm-nsg"} {
		path := filepath.Join(folder, name+".json")
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var document map[string]any
		if err := json.Unmarshal(text, &document); err != nil {
			return err
		}
		document["properties"].(map[string]any)["securityRules"] = []any{}
		if text, err = json.Marshal(document); err != nil {
			return err
		}
		if err := replace(path, text); err != nil {
			return err
		}
	}
	return nil
}

// routeNowhere has the datagrams of fill end in the internet.
func (r *restartRig) routeNowhere() error {
	return tun.Do("nsgd-internet", func() error {
		return exec.Command("ip", "route", "add", "blackhole", "203.0.112.0/24").Run()
	})
}

// fill begins the flows from one number up to another, of one datagram each, to addresses that nobody has.
func (r *restartRig) fill(first, end int) error { return fillFrom("nsgd-app", first, end) }

// fillFrom is fill for a namespace.
func fillFrom(namespace string, first, end int) error {
	var socket net.PacketConn
	err := tun.Do(namespace, func() (err error) {
		socket, err = net.ListenPacket("udp4", ":9999")
		return err
	})
	if err != nil {
		return err
	}
	defer socket.Close()
	for n := first; n < end; n++ {
		to := net.UDPAddr{IP: net.IPv4(203, 0, 112, byte(n/50_000)), Port: 1024 + n%50_000}
		if _, err := socket.WriteTo([]byte("x"), &to); err != nil {
			return err
		}
		if n%100 == 99 {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
