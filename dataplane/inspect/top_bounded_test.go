package inspect

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

func TestLeadersAreThoseOfASort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		values := make([]float64, random.IntN(60))
		for i := range values {
			values[i] = float64(random.IntN(20))
		}
		first := leaders[int]{limit: 1 + random.IntN(30)}
		for i, v := range values {
			if first.leads(v, uint32(i)) {
				first.add(v, uint32(i), &i)
			}
		}
		want := make([]int, len(values))
		for i := range want {
			want[i] = i
		}
		slices.SortStableFunc(want, func(a, b int) int { return cmp.Compare(values[b], values[a]) })
		want = want[:min(len(want), first.limit)]
		var got []int
		for _, l := range first.sorted() {
			got = append(got, l.row)
		}
		if !slices.Equal(got, want) || first.seen != len(values) {
			t.Fatalf("of %v %d lead: got %v, want %v", values, first.limit, got, want)
		}
	}
}

func TestNthGreatestIsThatOfASort(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		values := make([]float64, 1+random.IntN(50))
		for i := range values {
			values[i] = float64(random.IntN(1 + random.IntN(30)))
		}
		sorted := slices.Clone(values)
		slices.SortFunc(sorted, func(a, b float64) int { return cmp.Compare(b, a) })
		n := random.IntN(len(values))
		if got := nthGreatest(slices.Clone(values), n); got != sorted[n] {
			t.Fatalf("number %d of %v: %v, want %v", n, sorted, got, sorted[n])
		}
	}
}

// The reference follows every talker.
func TestTalkersLackNoMoreThanTheySay(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	shrunk := 0
	for range 300 {
		followed := 1 + random.IntN(12)
		all, exact, sum := newTalkers(followed), map[talkerKey]uint64{}, 0.0
		for range random.IntN(400) {
			key := talkerKey{from: uint16(random.ExpFloat64() * 8)}
			weight := uint64(random.IntN(1000))
			info := &conntrack.FlowInfo{Bytes: [2]uint64{weight, 0}}
			all.add(key, float64(weight)).count(info, &figures{})
			exact[key] += weight
			sum += float64(weight)
		}
		if limit := sum / float64(followed+1); all.uncounted > limit {
			t.Fatalf("%v uncounted of %v with %d followed: more than %v", all.uncounted, sum, followed, limit)
		}
		if len(all.list) > 2*followed {
			t.Fatalf("%d talkers are held, %d followed", len(all.list), followed)
		}
		found := map[talkerKey]bool{}
		for i := range all.list {
			one := &all.list[i]
			found[one.key] = true
			if one.bytesSent > exact[one.key] || float64(one.bytesSent)+all.uncounted < float64(exact[one.key]) {
				t.Fatalf("talker %v has %d of %d with %v uncounted", one.key, one.bytesSent, exact[one.key], all.uncounted)
			}
		}
		for key, bytes := range exact {
			if !found[key] && float64(bytes) > all.uncounted {
				t.Fatalf("talker %v with %d is missing, %v uncounted", key, bytes, all.uncounted)
			}
		}
		if all.shrunk {
			shrunk++
		}
	}
	if shrunk < 50 {
		t.Errorf("only %d rounds had too many talkers", shrunk)
	}
}

func TestPartialPrefix(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.1.4": "10.0.1.4/32", "10.0.1.": "10.0.1.0/24", "10.0.1": "10.0.1.0/24", "10.": "10.0.0.0/8", "10.0.0.0/9": "10.0.0.0/9",
		"fd00:": "fd00::/16", "fd00:1:2": "fd00:1:2::/48", "fd00::1": "fd00::1/128", "::1": "::1/128",
		"10": "", "10.300.": "", "web": "", ":80": "", "10..": "", "nsg1.web": "",
	} {
		got := partialPrefix(text)
		if want == "" && got.IsValid() || want != "" && got != netip.MustParsePrefix(want) {
			t.Errorf("%q is %v, want %q", text, got, want)
		}
	}
}

func flowOf(record uint32, created conntrack.Tick, age time.Duration, bytes uint64) *conntrack.FlowInfo {
	return &conntrack.FlowInfo{
		Flow: conntrack.Flow(record), Created: created, Age: age, Key: conntrack.Key{Tuple: packet.Tuple{SrcPort: 1, DstPort: 2}},
		Packets: [2]uint64{1, 0}, Bytes: [2]uint64{bytes, 0},
	}
}

func TestRatesAreThoseOfTheFlowAndNotOfItsRecord(t *testing.T) {
	var s flowSamples
	at := time.Unix(1000, 0)
	read := func(f *conntrack.FlowInfo) float64 {
		s.begin(at)
		_, bytes := s.rates(f)
		return bytes
	}
	read(flowOf(7, 100, time.Second, 5000))
	at = at.Add(time.Second)
	if got := read(flowOf(7, 100, 2*time.Second, 6000)); got != 1000 {
		t.Errorf("the same flow: %v bytes/s, want 1000", got)
	}
	at = at.Add(time.Second)
	if got := read(flowOf(7, 250, time.Second/2, 6500)); got != 6500 {
		t.Errorf("a new flow in its record: %v bytes/s, want all that it had", got)
	}
	at = at.Add(time.Second / 10)
	if got := read(flowOf(7, 355, time.Second/20, 800)); got != 0 {
		t.Errorf("a flow that began after the last sample: %v bytes/s, want none yet", got)
	}
	at = at.Add(time.Second)
	if got := read(flowOf(8, 1, time.Minute, 800)); got != 0 {
		t.Errorf("an old flow that the last sample missed: %v bytes/s, want none yet", got)
	}
}

func TestWhatNobodyWatchesIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b topMemory
		read := func() int {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.touch()
			n := len(b.flows.records)
			b.flows.begin(time.Now())
			b.flows.rates(flowOf(99, 1, time.Second, 1))
			return n
		}
		read()
		time.Sleep(forgetAfter - time.Second)
		if read() == 0 {
			t.Error("forgotten too early")
		}
		time.Sleep(forgetAfter - time.Second)
		if read() == 0 {
			t.Error("a reading does not put it off")
		}
		time.Sleep(forgetAfter + time.Second)
		if read() != 0 {
			t.Error("not forgotten")
		}
	})
}
