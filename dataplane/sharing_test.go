package dataplane

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/gopacket/layers"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/tun"
)

// cacheLine is how much memory one processor takes from another at a time.
const cacheLine = 64

// memory is all that an engine's values lead to, but for its devices: the tests' have locks of their own.
type memory struct {
	parts []part
	seen  map[part]bool
	flat  map[reflect.Type]bool // types without a pointer
}

// part is a piece of memory, and by which fields it was found first.
type part struct {
	at    unsafe.Pointer
	size  uintptr
	owner string
}

func memoryOf(e *Engine) *memory {
	m := &memory{seen: map[part]bool{}, flat: map[reflect.Type]bool{}}
	m.walk(reflect.ValueOf(e), "engine")
	return m
}

func (m *memory) add(at unsafe.Pointer, size uintptr, owner string) (isNew bool) {
	key := part{at, size, ""}
	if at == nil || size == 0 || m.seen[key] {
		return false
	}
	m.seen[key] = true
	m.parts = append(m.parts, part{at, size, owner})
	return true
}

// isFlat reports a type that leads nowhere.
func (m *memory) isFlat(t reflect.Type) bool {
	flat, known := m.flat[t]
	if known {
		return flat
	}
	switch t.Kind() {
	case reflect.Struct:
		flat = true
		for i := range t.NumField() {
			flat = flat && m.isFlat(t.Field(i).Type)
		}
	case reflect.Array:
		flat = m.isFlat(t.Elem())
	case reflect.Pointer, reflect.Slice, reflect.Interface, reflect.UnsafePointer:
	default: // what packets never write is left out: maps, functions, channels, strings
		flat = true
	}
	m.flat[t] = flat
	return flat
}

func (m *memory) walk(v reflect.Value, owner string) {
	t := v.Type()
	if m.isFlat(t) || strings.Contains(t.String(), "tuntest.") {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if m.add(v.UnsafePointer(), t.Elem().Size(), owner) {
			m.walk(v.Elem(), owner)
		}
	case reflect.Interface:
		if !v.IsNil() {
			m.walk(v.Elem(), owner)
		}
	case reflect.Slice:
		if v.Len() > 0 && m.add(v.UnsafePointer(), uintptr(v.Len())*t.Elem().Size(), owner) && !m.isFlat(t.Elem()) {
			for i := range v.Len() {
				m.walk(v.Index(i), fmt.Sprintf("%s[%d]", owner, i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			m.walk(v.Index(i), fmt.Sprintf("%s[%d]", owner, i))
		}
	case reflect.Struct:
		if t.PkgPath() == "sync/atomic" && strings.HasPrefix(t.Name(), "Pointer[") {
			m.walk(reflect.NewAt(t.Field(0).Type.Elem().Elem(), v.FieldByName("v").UnsafePointer()), owner)
			return
		}
		for i := range t.NumField() {
			m.walk(v.Field(i), owner+"."+t.Field(i).Name)
		}
	}
}

// written are the cache lines that f changes, and which part each belongs to.
func (m *memory) written(f func()) map[uintptr]string {
	before := make([][]byte, len(m.parts))
	for i, p := range m.parts {
		before[i] = slices.Clone(unsafe.Slice((*byte)(p.at), p.size))
	}
	f()
	lines := map[uintptr]string{}
	for i, p := range m.parts {
		now := unsafe.Slice((*byte)(p.at), p.size)
		for at := uintptr(0); at < p.size; {
			end := min(p.size, at+cacheLine-(uintptr(p.at)+at)%cacheLine)
			if !bytes.Equal(before[i][at:end], now[at:end]) {
				lines[(uintptr(p.at)+at)/cacheLine] = fmt.Sprintf("%s+%d", p.owner, at)
			}
			at = end
		}
	}
	return lines
}

// TestWorkersWriteNoCacheLineOfEachOther holds that no packet of a live flow has two processors take a cache line from each
// other, as long as each flow stays on one worker. It looks at the memory itself: what has changed after a worker's packets
// must not share a line with what has after another's. Flows begin in turn on both, so that their records are neighbours.
// One line is shared by design: it has the TCP windows of two flows, because a line for each would take 32 bytes more a flow.
func TestWorkersWriteNoCacheLineOfEachOther(t *testing.T) {
	const flows, rounds = 16, 3 // of a worker
	for _, k := range []struct {
		name  string
		build func(packettest.Spec) []byte
		begin []string
	}{
		{"TCP", packettest.TCP, []string{"S", "SA", "A"}},
		{"UDP", packettest.UDP, []string{"", "", ""}},
	} {
		t.Run(k.name, func(t *testing.T) {
			r := newRigWith(t, figureOfTheSeed(), Options{Workers: 2, Flows: conntrack.Options{Max: 1024}})
			seq, ack := map[int]uint32{}, map[int]uint32{}
			carry := func(worker, flow int, reply bool, flags string) {
				s := packettest.Spec{Src: addr1, Dst: addr4, SrcPort: uint16(2000 + flow), DstPort: 80, Flags: flags, Payload: 64, Seq: seq[flow], Ack: ack[flow]}
				if strings.Contains(flags, "S") {
					s.Payload, s.TCPOptions = 0, []layers.TCPOption{{OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3, OptionData: []byte{7}}}
				}
				from, sent := vm1, seq
				if reply {
					s = back(s)
					s.Seq, s.Ack, from, sent = ack[flow], seq[flow], vm4, ack
				}
				sent[flow] += uint32(s.Payload)
				if strings.Contains(flags, "S") {
					sent[flow]++
				}
				r.devices[from].Inject(worker, append(make([]byte, tun.HeaderLen), k.build(s)...))
				if err := r.engine.workers[worker].carryBurst(from); err != nil {
					t.Fatal(err)
				}
				for _, d := range r.devices {
					d.Drain(worker, nil)
				}
			}
			for flow := range 2 * flows {
				for i, flags := range k.begin {
					carry(flow%2, flow, i == 1, flags)
				}
			}
			m := memoryOf(r.engine)
			var lines [2]map[uintptr]string
			traffic := func(worker, first int) func() {
				return func() {
					for range rounds {
						r.clock += conntrack.TickLength
						for flow := first; flow < 2*flows; flow += 2 {
							carry(worker, flow, false, k.begin[2])
							carry(worker, flow, true, k.begin[2])
						}
					}
				}
			}
			for worker := range lines {
				lines[worker] = m.written(traffic(worker, worker))
				t.Logf("worker %d: %d packets wrote to %d cache lines", worker, 2*rounds*flows, len(lines[worker]))
			}
			if n := r.engine.Flows().Stats(); n.Flows != 2*flows || n.OutOfWindow > 0 {
				t.Fatalf("%d flows, %d segments out of their windows", n.Flows, n.OutOfWindow)
			}
			shared, windows := 0, 0
			for _, line := range slices.Sorted(maps.Keys(lines[0])) {
				other, ok := lines[1][line]
				switch {
				case !ok:
				case strings.HasPrefix(other, "engine.flows.image.sides+"):
					windows++
				default:
					t.Errorf("both workers write to a cache line: %s and %s", lines[0][line], other)
					shared++
				}
			}
			if windows > flows {
				t.Errorf("%d flows of a worker share %d lines of TCP windows", flows, windows)
			}
			if r.clock += time.Second; shared > 0 {
				return
			}
			// What must be shared is found: the flows of worker 0 on worker 1.
			for line := range m.written(traffic(1, 0)) {
				if _, ok := lines[0][line]; ok {
					shared++
				}
			}
			if shared < flows {
				t.Errorf("two workers that carry the same %d flows share %d cache lines", flows, shared)
			}
			// Flows that begin share the table's counts, its free records and its index.
			var begun [2]map[uintptr]string
			for worker := range begun {
				begun[worker] = m.written(func() {
					for flow := 2*flows + worker; flow < 4*flows; flow += 2 {
						carry(worker, flow, false, k.begin[0])
					}
				})
			}
			owners := map[string]int{}
			for line, owner := range begun[0] {
				if _, ok := begun[1][line]; ok {
					owners[strings.TrimRight(owner, "0123456789")]++
				}
			}
			t.Logf("two workers that begin %d flows each share cache lines: %v", flows, owners)
		})
	}
}
