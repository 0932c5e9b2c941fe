package flowlog

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

// recordForever makes the test's own program one that records until it is killed. It is the number of the round, the
// folder and the names of the slabs, whose descriptors begin at 3.
const recordForever = "NSGD_FLOWLOG_RECORD"

// roundLogs are the logs of each process.
func roundLogs(folder string) []Log {
	return []Log{{Version: NSG, Folder: folder}, {Version: VNet, Folder: folder}}
}

// roundTraffic queues the packets of a round. Talks go on over rounds if their flows last so long. web is the name of
// the rule that allows connections.
func roundTraffic(round int, web string, talks map[uint16]*talk, r *rig) {
	random := rand.New(rand.NewPCG(uint64(round), 9))
	talkAt := func(port uint16, one talk) *talk {
		if talks[port] == nil {
			one.sport = port
			talks[port] = &one
		}
		return talks[port]
	}
	for n := range uint16(30) {
		if random.IntN(5) == 0 {
			continue
		}
		k := talkAt(1000+n, talk{from: vmA, to: internet, dport: 123})
		if n%2 == 0 {
			k = talkAt(1000+n, talk{from: vmB, to: vmA, dport: 53, nicRule: "UserRule_dns"})
		}
		k.queue(r, "", false, random.IntN(900))
	}
	for n := range uint16(3) {
		k := talkAt(5000+3*uint16(round)+n, talk{from: internet, to: vmA, tcp: true, dport: 80, nicRule: "UserRule_" + web})
		k.say(r, "S", false, 0)
		k.say(r, "SA", true, 0)
		k.say(r, "A", false, 0)
		if random.IntN(2) == 0 {
			k.say(r, "FA", true, 0)
			k.say(r, "FA", false, 0)
			k.say(r, "A", true, 0)
		}
	}
	r.flush()
	r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: 7000 + uint16(round), DstPort: 666}))
}

// clockOf is the clock that all processes share.
func clockOf(t testing.TB, slabs *slab.Slabs) *atomic.Int64 {
	memory, err := slabs.Find("clock")
	if err == nil && memory == nil {
		memory, err = slabs.Make("clock", 4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	return (*atomic.Int64)(unsafe.Pointer(&memory[0]))
}

// recordUntilKilled is the process that the next test kills: its engine carries a round's packets, then it records.
func recordUntilKilled(text string) {
	fields := strings.Fields(text)
	var round int
	fmt.Sscan(fields[0], &round)
	files := map[string]*os.File{}
	for i, name := range fields[2:] {
		files[name] = os.NewFile(uintptr(3+i), name)
	}
	slabs, t := slab.New(files, nil), &testing.T{}
	clock := clockOf(t, slabs)
	r := newRigWith(t, midnight, Options{Logs: roundLogs(fields[1]), Slabs: slabs})
	roundTraffic(round, "web", map[uint16]*talk{}, r)
	r.stopped()
	r.recorder.takeDenied()
	os.Stdout.WriteString("carried\n")
	for {
		clock.Add(int64(time.Second))
		r.wait(time.Second)
		r.minute()
	}
}

// Whenever a process that records is killed, the next one goes on: no row is lost and none is told twice.
func TestFlowLogsGoOnWhenTheirProcessIsKilled(t *testing.T) {
	rounds := 40
	if testing.Short() {
		rounds = 8
	}
	folder, slabs := t.TempDir(), slab.New(nil, nil)
	clock := clockOf(t, slabs)
	options := Options{Logs: roundLogs(folder), Slabs: slabs}
	newRigWith(t, midnight, options).leave()
	talks := map[uint16]*talk{}
	for round := range rounds {
		files := slabs.Files()
		names := slices.Sorted(maps.Keys(files))
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s %s", recordForever, round, folder, strings.Join(names, " ")))
		for _, name := range names {
			c.ExtraFiles = append(c.ExtraFiles, files[name])
		}
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond) // at any instruction
		c.Process.Kill()
		c.Wait()
		roundTraffic(round, "web", talks, nil)
	}
	clock.Add(int64(time.Second))
	last := newRigWith(t, midnight, options)
	last.wait(time.Hour)
	last.end()
	if s := last.recorder.Stats(); s.EndedLost+s.WaitingLost > 0 {
		t.Errorf("%+v", s)
	}
	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	checkTalks(t, rows, talks)
	checkDenied(t, slices.DeleteFunc(rows, func(r flowlogtest.Row) bool { return r.State == "D" && r.DstPort != 666 }), rounds, 666)
}

// checkTalks compares what the rows of each talk add up to with what was sent. Each of its flows begins once and ends once.
func checkTalks(t *testing.T, rows []flowlogtest.Row, talks map[uint16]*talk) {
	t.Helper()
	flows, err := flowlogtest.Flows(rows)
	if err != nil {
		t.Fatal(err)
	}
	told := map[flowlogtest.Key]*flowlogtest.Flow{}
	for _, f := range flows {
		if f.Over.IsZero() {
			t.Errorf("%+v has no end", *f)
		}
		if told[f.Key] == nil {
			told[f.Key] = &flowlogtest.Flow{Key: f.Key, ACL: f.ACL, Rule: f.Rule}
		}
		for i, n := range f.Counters {
			told[f.Key].Counters[i] += n
		}
	}
	ends := 0
	for _, k := range talks {
		for key, want := range k.ends() {
			ends++
			if got := told[key]; got == nil || *got != *want {
				t.Errorf("told    %+v\ncarried %+v", got, *want)
			}
		}
	}
	if len(told) != ends {
		t.Errorf("%d ends told of %d", len(told), ends)
	}
	t.Logf("%d talks, %d flows at their ends, %d rows", len(talks), len(flows), len(rows))
}
