package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// logKey is a rule as flow logs name it.
type logKey struct{ group, direction, rule string }

// logged is what rows of a rule add up to; denied are those of packets.
type logged struct{ packets, bytes, denied float64 }

// Metrics count every packet by rule and attachment, flow logs by flow: the sums are the same, to
// the byte.
func TestFlowLogsAddUpToTheMetrics(t *testing.T) {
	needWorld(t)
	folder := filepath.Join(t.TempDir(), "logs")
	d := start(t, labPolicy(), "flowLogInterval: 1s", "flowLogs:",
		"- {version: nsg2, folder: "+folder+"}", "- {version: vnet4, folder: "+folder+", stdout: true}")
	const sent, answers, denied, connections = 25, 4, 40, 10
	eachFamily(t, func(t *testing.T, f family) {
		serveTCP(t, f.vm3, 80)
		var open []net.Conn
		for range connections {
			conn := mustConnect(t, f.internet, f.vm3, 80)
			mustEcho(t, conn)
			open = append(open, conn)
		}
		for _, conn := range open {
			conn.Close()
		}
		vm4 := bindUDP(t, f.vm4, 0)
		for _, from := range []*net.UDPConn{bindUDP(t, f.vm3, 0), bindUDP(t, f.vm1, 0)} {
			send(t, from, address(vm4), sent, 100)
			receive(t, vm4, sent)
			send(t, vm4, address(from), answers, 900)
			receive(t, from, answers)
		}
		send(t, bindUDP(t, f.internet, 0), address(bindUDP(t, f.vm3, 0)), denied, 64)
	})
	counted := atRest(t, func(s samples) bool { return s.drops("rule_deny") == denied*2 })
	for _, cause := range []string{"ended", "denied", "waiting"} {
		if lost := counted[sampleKey("nsgd_flow_log_rows_lost_total", map[string]string{"cause": cause})]; lost != 0 {
			t.Errorf("%v rows lost: %s", lost, cause)
		}
	}
	d.stop(syscall.SIGTERM)

	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := flowlogtest.ReadLines([]byte(d.stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	flows, err := flowlogtest.Flows(rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range flows {
		if f.Over.IsZero() {
			t.Errorf("%+v has no end", *f)
		}
	}
	sums, toVM4, ofNetwork := addUp(rows)
	if len(printed) != ofNetwork {
		t.Errorf("%d rows printed, %d in files", len(printed), ofNetwork)
	}
	rule := func(key logKey, d decided, also logged) {
		t.Helper()
		got, want := sums[key], counted.rule(d)
		if got.packets+also.packets+got.denied != want.packets || got.denied == 0 && got.bytes+also.bytes != want.bytes || got.packets+got.denied == 0 {
			t.Errorf("%+v: flow logs %+v and %+v, metrics %+v", key, got, also, want)
		}
	}
	out := logKey{"NSG1", "O", "DefaultRule_AllowVnetOutBound"} // VM1's subnet, the last to allow
	rule(logKey{"NSG2", "I", "UserRule_" + allowHTTPIn.name}, allowedIn(nsg2), logged{})
	rule(logKey{"NSG2", "I", "DefaultRule_DenyAllInBound"}, deniedIn(nsg2), logged{})
	rule(out, decided{nsg1, "Outbound", "AllowVnetOutBound", "Allow"}, logged{})
	rule(logKey{"NSG2", "O", "DefaultRule_AllowVnetOutBound"}, decided{nsg2, "Outbound", "AllowVnetOutBound", "Allow"}, sums[out])
	labels := map[string]string{"attachment": "vm4-nic"}
	if want := (logged{packets: counted[sampleKey("nsgd_attachment_transmit_packets_total", labels)],
		bytes: counted[sampleKey("nsgd_attachment_transmit_bytes_total", labels)]}); toVM4 != want || want.packets != 4*sent {
		t.Errorf("to VM4: flow logs %+v, metrics %+v, sent %d packets", toVM4, want, 4*sent)
	}
	if n := sums[logKey{"NSG2", "I", "DefaultRule_DenyAllInBound"}].denied; n != denied*2 {
		t.Errorf("%v rows of denied packets, %d were sent", n, denied*2)
	}
}

// addUp adds up the rows of NSGs by rule, and those of the virtual network that went to VM4.
func addUp(rows []flowlogtest.Row) (sums map[logKey]logged, toVM4 logged, ofNetwork int) {
	sums = map[logKey]logged{}
	for i := range rows {
		r := &rows[i]
		c := r.Counters
		if r.Version == 4 {
			ofNetwork++
			if r.Direction == "I" && (r.Dst == ipv4.vm4.Address || r.Dst == ipv6.vm4.Address) {
				toVM4.packets, toVM4.bytes = toVM4.packets+float64(c[0]), toVM4.bytes+float64(c[1])
			}
			continue
		}
		key := logKey{r.Resource[strings.LastIndexByte(r.Resource, '/')+1:], r.Direction, r.Rule}
		s := sums[key]
		s.packets, s.bytes = s.packets+float64(c[0]+c[2]), s.bytes+float64(c[1]+c[3])
		if r.State == "D" {
			s.denied++
		}
		sums[key] = s
	}
	return sums, toVM4, ofNetwork
}

// atRest scrapes until nothing is under way any more: connections are closed from both sides
// and packets counted no more.
func atRest(t *testing.T, also func(samples) bool) (s samples) {
	t.Helper()
	eventually(t, "traffic comes to rest", func() bool {
		s = scrape(t)
		var list struct {
			Flows []struct{ Protocol, State string }
		}
		if err := json.Unmarshal([]byte(nsgctl(t, "flows", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		for _, f := range list.Flows {
			if f.Protocol == "TCP" && f.State != "time_wait" {
				return false
			}
		}
		again := scrape(t)
		for key, value := range s {
			if strings.HasPrefix(key, "nsgd_rule_") && again[key] != value {
				return false
			}
		}
		return also(s)
	})
	return s
}

// A daemon that is killed, in the middle of a write at worst, loses the rows of that interval; the
// next one mends the hour's file and goes on in it.
func TestFlowLogsGoOnAfterAKill(t *testing.T) {
	needWorld(t)
	folder := filepath.Join(t.TempDir(), "logs")
	dir := configure(t, labPolicy(), "flowLogInterval: 1s", "flowLogs: [{version: nsg2, target: NSG2, folder: "+folder+"}]")
	exchange := func() {
		from, to := bindUDP(t, vm3, 0), bindUDP(t, vm4, 0)
		send(t, from, address(to), 5, 100)
		receive(t, to, 5)
	}
	d := startIn(t, dir)
	exchange()
	var files []string
	eventually(t, "the first row is written", func() bool {
		files, _ = filepath.Glob(filepath.Join(folder, "*/*/*/*/*/*/*/*/*/*/y=*/m=*/d=*/h=*/m=00/macAddress=*/PT1H.json"))
		rows, err := flowlogtest.ReadFolder(folder)
		return err == nil && len(rows) == 1 && len(files) == 1
	})
	d.kill()
	info, err := os.Stat(files[0])
	if err != nil {
		t.Fatal(err)
	}
	torn, err := os.OpenFile(files[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteAt([]byte(`,{"time":"2026-`), info.Size()-3); err != nil {
		t.Fatal(err)
	}
	torn.Close()

	d = startIn(t, dir)
	exchange()
	d.stop(syscall.SIGTERM)
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	flows, err := flowlogtest.Flows(rows)
	if err != nil {
		t.Fatal(err)
	}
	if len(flows) != 2 || !flows[0].Over.IsZero() || flows[1].Over.IsZero() || flows[1].Counters != [4]uint64{5, 5 * 128} {
		t.Errorf("flows %+v", flows)
	}
}

// Flows go on under traffic while one process follows another, and the policy loses the rule that allowed them. Each
// flow begins once in the logs, ends once, and has all of its packets.
func TestFlowLogsGoOnInTheNextProcess(t *testing.T) {
	for name, next := range map[string]func(*daemon){
		"after a kill":     func(d *daemon) { d.succeed(syscall.SIGKILL) },
		"after a restart":  func(d *daemon) { d.succeed(syscall.SIGUSR1) },
		"after an upgrade": (*daemon).upgrade,
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "logs")
			d := startKept(t, labPolicy(), "flowLogInterval: 1s", "flowLogs:", "- {version: nsg2, folder: "+folder+"}", "- {version: vnet4, folder: "+folder+"}")
			d.expectErrors = true // of keep, which tells that nsgd ended
			serveTCP(t, vm3, 80)
			conn := mustConnect(t, internet, vm3, 80)
			mustEcho(t, conn)
			groups(nil, nil).write(t, d.dir)
			nsgctl(t, "reload")
			from, to := bindUDP(t, vm3, 0), bindUDP(t, vm4, 0)
			stop, sent := make(chan struct{}), make(chan uint64)
			var arrived atomic.Uint64
			go func() {
				for buf := make([]byte, 256); ; arrived.Add(1) {
					if _, _, err := to.ReadFromUDPAddrPort(buf); err != nil {
						return
					}
				}
			}()
			go func() {
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for n := uint64(0); ; n++ {
					select {
					case <-stop:
						sent <- n
						return
					case <-tick.C:
						from.WriteToUDPAddrPort(make([]byte, 100), address(to))
					}
				}
			}()
			for range 4 {
				next(d)
				mustEcho(t, conn)
				short := bindUDP(t, vm4, 0)
				send(t, bindUDP(t, vm3, 0), address(short), 3, 50)
				receive(t, short, 3)
				least := arrived.Load() + 100
				eventually(t, "the stream goes on", func() bool { return arrived.Load() > least })
			}
			close(stop)
			most := <-sent
			d.stop(syscall.SIGTERM)
			least := arrived.Load() // what the receiver has, nsgd has told
			rows, err := flowlogtest.ReadFolder(folder)
			if err != nil {
				t.Fatal(err)
			}
			list, err := flowlogtest.Flows(rows)
			if err != nil {
				t.Fatal(err)
			}
			times, shorts := 0, 0
			for _, f := range list {
				switch {
				case f.Over.IsZero():
					t.Errorf("%+v has no end", *f)
				case f.Proto == 6 && (f.Rule != "UserRule_"+allowHTTPIn.name || f.Counters[0] < 5 || f.Counters[2] < 5):
					t.Errorf("the connection: %+v", *f)
				case f.DstPort == address(to).Port():
					if times++; f.Counters[0] < least || f.Counters[0] > most || f.Counters[1] != 128*f.Counters[0] {
						t.Errorf("%d datagrams were sent, %d have arrived; told %+v", most, least, *f)
					}
				case f.Proto == 17:
					if shorts++; f.Counters[0] != 3 {
						t.Errorf("a flow of 3 datagrams: %+v", *f)
					}
				}
			}
			// Two logs of the sender, and that of the virtual network of the receiver, which has no NSG that was asked.
			if per := shorts / 4; times != per || shorts != 4*per || per < 2 {
				t.Errorf("%d flows of the stream at its ends, %d of 4 short ones", times, shorts)
			}
			t.Logf("%d datagrams sent, %d arrived, %d rows", most, least, len(rows))
		})
	}
}

// A write to a closed pipe on standard output once ended the daemon with SIGPIPE.
func TestADaemonOutlivesWhoReadsItsFlowLogs(t *testing.T) {
	needWorld(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	dir := configure(t, labPolicy(), "flowLogInterval: 1s", "flowLogs:", "- {version: nsg2, stdout: true}")
	d := launchTo(t, write, "run", "--config", filepath.Join(dir, lab.ConfigName))
	d.dir = dir
	read.Close()
	write.Close()
	d.waitFor(d.stderr, "msg=ready")
	send(t, bindUDP(t, internet, 0), address(bindUDP(t, vm3, 0)), 1, 64)
	failed := sampleKey("nsgd_flow_log_errors_total", nil)
	eventually(t, "a row of the denied packet could not be written", func() bool { return scrape(t)[failed] > 0 })
	serveTCP(t, vm3, 80)
	mustEcho(t, mustConnect(t, internet, vm3, 80))
	d.done = true
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.wait()
	if code := d.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(d.stderr.String(), "rows could not be written before the end") {
		t.Errorf("exit code %d, want 1 and the rows that are lost told of", code)
	}
	nothingLeft(t)
}
