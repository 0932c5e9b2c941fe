package flowlog

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/metrics/flowlog/flowlogtest"
)

var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// talk is a flow that a test makes, with the packets and bytes that it has carried.
type talk struct {
	from, to     int
	tcp          bool
	sport, dport uint16
	minutes      int    // to go
	nicRule      string // of NIC A's NSG, inbound
	counters     [4]uint64
	lasted       int
}

var addresses = [...]string{vmA: addrA, vmB: addrB, internet: world}

func (k *talk) packet(flags string, reply bool, payload int) []byte {
	s := packettest.Spec{Src: addresses[k.from], Dst: addresses[k.to], SrcPort: k.sport, DstPort: k.dport, Flags: flags, Payload: payload}
	if reply {
		s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
	}
	if k.tcp {
		return packettest.TCP(s)
	}
	return packettest.UDP(s)
}

// say sends one packet of the flow.
func (k *talk) say(r *rig, flags string, reply bool, payload int) {
	k.queue(r, flags, reply, payload)
	r.flush()
}

// queue leaves the packet to the rig's next flush.
func (k *talk) queue(r *rig, flags string, reply bool, payload int) {
	p := k.packet(flags, reply, payload)
	at, n := k.from, 0
	if reply {
		at, n = k.to, 2
	}
	if r != nil {
		r.queued[at] = append(r.queued[at], p)
	}
	k.counters[n]++
	k.counters[n+1] += uint64(len(p))
}

// begin opens a flow of one of four kinds.
func begin(r *rig, port uint16, nicRule string) *talk {
	k := &talk{sport: port, minutes: r.rand.IntN(14), nicRule: nicRule}
	switch r.rand.IntN(4) {
	case 0:
		k.from, k.to, k.tcp, k.dport = internet, vmA, true, 80
	case 1:
		k.from, k.to, k.dport = vmB, vmA, 53
		k.nicRule = "UserRule_dns"
	case 2:
		k.from, k.to, k.tcp, k.dport = vmA, vmB, true, 8443
	case 3:
		k.from, k.to, k.dport = vmA, internet, 123
	}
	if k.tcp {
		k.say(r, "S", false, 0)
		k.say(r, "SA", true, 0)
		k.say(r, "A", false, 0)
	} else {
		k.say(r, "", false, r.rand.IntN(500))
	}
	return k
}

// goOn queues some packets both ways; it reports whether the flow lives on.
func (k *talk) goOn(r *rig) bool {
	for range r.rand.IntN(3) + 1 {
		k.queue(r, "PA", r.rand.IntN(2) == 0, r.rand.IntN(1000))
	}
	k.lasted++
	k.minutes--
	return k.minutes > 0
}

// end closes a connection, or leaves it to its timeout.
func (k *talk) end(r *rig) {
	if k.tcp && r.rand.IntN(2) == 0 { // the others time out
		k.say(r, "FA", false, 0)
		k.say(r, "FA", true, 0)
		k.say(r, "A", false, 0)
	}
}

// ends are the flows that each end must show, by version, MAC address and direction.
func (k *talk) ends() map[flowlogtest.Key]*flowlogtest.Flow {
	all := map[flowlogtest.Key]*flowlogtest.Flow{}
	add := func(version int, resource, mac, direction, acl, rule string) {
		key := flowlogtest.Key{Version: version, Resource: resource, MAC: mac, Direction: direction, Proto: 17,
			Src: netip.MustParseAddr(addresses[k.from]), Dst: netip.MustParseAddr(addresses[k.to]), SrcPort: k.sport, DstPort: k.dport}
		if k.tcp {
			key.Proto = 6
		}
		all[key] = &flowlogtest.Flow{Key: key, ACL: acl, Rule: rule, Counters: k.counters}
	}
	const (
		vnetLog = "/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/NETWORKWATCHERRG/PROVIDERS/MICROSOFT.NETWORK/NETWORKWATCHERS/NETWORKWATCHER_NORTHEUROPE/FLOWLOGS/NET-SHOP-FLOWLOGS"
		nsgs    = "/SUBSCRIPTIONS/11111111-2222-3333-4444-555555555555/RESOURCEGROUPS/SHOP/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/"
	)
	if k.to == vmA { // inbound the NIC's NSG is the last
		add(2, nsgs+"NIC-NSG", macA, "I", "", k.nicRule)
		add(4, vnetLog, macA, "I", guidOK, k.nicRule)
	}
	if k.from == vmA { // outbound the subnet's is
		rule := "DefaultRule_AllowVnetOutBound"
		if k.to == internet {
			rule = "DefaultRule_AllowInternetOutBound"
		}
		add(2, nsgs+"SUBNET-NSG", macA, "O", "", rule)
		add(4, vnetLog, macA, "O", guidOf(shop+"networkSecurityGroups/subnet-nsg"), rule)
	}
	macB := macOf("", shop+"networkInterfaces/b")
	if k.to == vmB {
		add(4, vnetLog, macB, "I", unspecified, unspecified)
	}
	if k.from == vmB {
		add(4, vnetLog, macB, "O", unspecified, unspecified)
	}
	return all
}

// A day of flow logs has reloads that rename a rule under live flows, and a restart in the middle of
// an hour. A reader still finds exactly what each flow carried.
func TestADayOfFlowLogsTellsEveryFlowExactly(t *testing.T) {
	folder := t.TempDir()
	var printed bytes.Buffer
	options := Options{Logs: []Log{{Version: NSG, Folder: folder}, {Version: VNet, Folder: folder, Stdout: true}}, Stdout: &printed}
	var all []*talk
	denied := 0
	port := uint16(1024)
	day := func(r *rig, minutes int) {
		var live []*talk
		rule := "web"
		for m := range minutes {
			for range 3 {
				port++
				k := begin(r, port, "UserRule_"+rule)
				live, all = append(live, k), append(all, k)
			}
			var over []*talk
			live = slices.DeleteFunc(live, func(k *talk) bool {
				lives := k.goOn(r)
				if !lives {
					over = append(over, k)
				}
				return !lives
			})
			r.flush()
			for _, k := range over {
				k.end(r)
			}
			if m%10 == 3 { // denied by the subnet's NSG on the way out, by a default rule on the way in
				r.send(vmA, packettest.UDP(packettest.Spec{Src: addrA, Dst: world, SrcPort: port, DstPort: 666}))
				r.send(internet, packettest.TCP(packettest.Spec{Src: world, Dst: addrA, SrcPort: port, DstPort: 22, Flags: "S"}))
				denied++
			}
			if m%50 == 49 {
				rule = fmt.Sprintf("web-%d", m)
				r.reload(testPolicy(rule, "no-evil"))
			}
			r.wait(time.Minute)
			r.minute()
		}
		r.end()
	}
	const restart = 13*60 + 20
	day(newRigWith(t, midnight, options), restart)
	day(newRigWith(t, midnight.Add(restart*time.Minute), options), 24*60-restart)

	rows, err := flowlogtest.ReadFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	checkFlows(t, rows, all)
	checkDenied(t, rows, denied, 666, 22)
	if hours, _ := filepath.Glob(filepath.Join(folder, nsgContainer, "resourceId=/SUBSCRIPTIONS/*/RESOURCEGROUPS/*/PROVIDERS/MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/NIC-NSG/y=2026/m=03/d=01/h=*/m=00/macAddress="+macA, hourFile)); len(hours) != 24 {
		t.Errorf("%d hours, want 24: %v", len(hours), hours)
	}
	lines, err := flowlogtest.ReadLines(printed.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	holdReader(t, printed.Bytes(), lines)
	var files []flowlogtest.Row
	for _, r := range rows {
		if r.Version == 4 {
			files = append(files, r)
		}
	}
	if len(lines) != len(files) {
		t.Errorf("%d rows printed, %d in files", len(lines), len(files))
	}
}

func checkFlows(t *testing.T, rows []flowlogtest.Row, all []*talk) {
	t.Helper()
	flows, err := flowlogtest.Flows(rows)
	if err != nil {
		t.Fatal(err)
	}
	want := map[flowlogtest.Key]*flowlogtest.Flow{}
	lasted := map[flowlogtest.Key]int{}
	for _, k := range all {
		for key, f := range k.ends() {
			want[key], lasted[key] = f, k.lasted
		}
	}
	if len(flows) != len(want) || len(all) < 4000 {
		t.Errorf("%d flows told of %d", len(flows), len(want))
	}
	packets := uint64(0)
	for _, f := range flows {
		w := want[f.Key]
		if w == nil || f.Rule != w.Rule || f.ACL != w.ACL || f.Counters != w.Counters || f.Over.IsZero() {
			t.Fatalf("told   %+v\ncarried %+v", *f, w)
		}
		// Rows C come five, ten... intervals after the first. A flow may end before the walk of its last
		// minute, or take up to four minutes more to time out.
		if least := max(lasted[f.Key]-2, 0) / continueEvery; f.Continued < least || f.Continued > least+2 {
			t.Fatalf("%+v: %d rows C after %d minutes", *f, f.Continued, lasted[f.Key])
		}
		packets += f.Counters[0] + f.Counters[2]
	}
	t.Logf("%d flows, %d ends of them, %d rows, %d packets", len(all), len(flows), len(rows), packets)
}

// checkDenied looks for packets that were denied so many times for each of the ports, and for no other.
func checkDenied(t *testing.T, rows []flowlogtest.Row, times int, ports ...uint16) {
	t.Helper()
	type who struct {
		version              int
		mac, direction, rule string
		port                 uint16
	}
	got := map[who]int{}
	for i := range rows {
		if r := &rows[i]; r.State == "D" {
			got[who{r.Version, r.MAC, r.Direction, r.Rule, r.DstPort}]++
		}
	}
	for _, w := range []who{
		{2, macA, "O", "UserRule_no-evil", 666}, {4, macA, "O", "UserRule_no-evil", 666},
		{2, macA, "I", "DefaultRule_DenyAllInBound", 22}, {4, macA, "I", "DefaultRule_DenyAllInBound", 22},
	} {
		if slices.Contains(ports, w.port) && got[w] != times {
			t.Errorf("%+v denied %d times, want %d", w, got[w], times)
		}
		delete(got, w)
	}
	for w, n := range got {
		t.Errorf("%+v denied %d times, and never was", w, n)
	}
}

func TestMain(m *testing.M) {
	if file := os.Getenv(appendForever); file != "" {
		appendUntilKilled(file)
	}
	if text := os.Getenv(recordForever); text != "" {
		recordUntilKilled(text)
	}
	os.Exit(m.Run())
}

// When the clock was set back by hours, no rows were written until it reached the old time again.
func TestAClockThatIsSetBackPutsNoWalkOff(t *testing.T) {
	now := midnight.Add(30 * time.Second)
	r := &Recorder{options: Options{Interval: time.Minute, Now: func() time.Time { return now }}}
	next := r.nextWalk()
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{29 * time.Second, false}, {30 * time.Second, true}, {time.Hour, true}, {-30 * time.Second, false}, {-3 * time.Hour, true}} {
		now = midnight.Add(30*time.Second + tt.after)
		if r.due(next) != tt.want {
			t.Errorf("%v later: due %t", tt.after, !tt.want)
		}
	}
}
