package counter

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// MaxCells is how many attachments are counted beyond the process, those that are gone among them.
const MaxCells = 1 << 16

// image is the memory of a Set that outlives the process. The kernel backs what is written.
type image struct {
	magic [8]byte
	// reasons names the drops, since versions have different ones.
	reasons [4096 - 8]byte
	totals  totals
	_       [64]byte
	cells   [MaxCells]traffic
	rules   [maxChunks + 1][chunkRules]ruleCell
}

const (
	imageMagic = "nsgdcnt1"
	imageSize  = int(unsafe.Sizeof(image{}))
)

// Open returns the set number n in slabs, where it counts on if an earlier process has left it there. lost hears why
// what is there is of no use; then it counts from zero.
func Open(now func() time.Time, slabs *slab.Slabs, n int, lost func(error)) (*Set, error) {
	name := fmt.Sprint("counters.", n)
	memory, err := slabs.Find(name)
	reasons := reasonNames()
	var was *image
	if err == nil && memory != nil {
		if was, err = checkImage(memory); err == nil && was.names() == reasons {
			return newSet(now, &was.totals, was), nil
		}
	}
	if err != nil {
		lost(fmt.Errorf("slab %s: %w", name, err))
	}
	if memory, err = slabs.Make(name, imageSize); err != nil {
		return nil, err
	}
	i := (*image)(unsafe.Pointer(&memory[0]))
	if was != nil { // of another version
		copy(memory, unsafe.Slice((*byte)(unsafe.Pointer(was)), imageSize))
		clear(i.reasons[:])
		i.totals.renumber(strings.Fields(was.names()))
	}
	copy(i.magic[:], imageMagic)
	copy(i.reasons[:], reasons)
	return newSet(now, &i.totals, i), nil
}

// OpenAll are n sets in slabs, and beyond them those that an earlier process has left: they count no more, and their sums
// stay. Without slabs the sets end with the process. See Open for lost.
func OpenAll(now func() time.Time, slabs *slab.Slabs, n int, lost func(error)) (sets Sets, err error) {
	if slabs == nil {
		for range n {
			sets = append(sets, New(now))
		}
		return sets, nil
	}
	for i := 0; i < n || slices.Contains(slabs.Names(), fmt.Sprint("counters.", i)); i++ {
		set, err := Open(now, slabs, i, lost)
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	return sets, nil
}

func checkImage(memory []byte) (*image, error) {
	if len(memory) != imageSize {
		return nil, fmt.Errorf("counters of %d bytes: must be %d", len(memory), imageSize)
	}
	i := (*image)(unsafe.Pointer(&memory[0]))
	if string(i.magic[:]) != imageMagic {
		return nil, fmt.Errorf("counters begin with %q: must be %q", i.magic[:], imageMagic)
	}
	return i, nil
}

func (i *image) names() string {
	text, _, _ := strings.Cut(string(i.reasons[:]), "\x00")
	return text
}

// reasonNames are those of the drops, in order.
func reasonNames() string {
	names := make([]string, packet.NumDrops)
	for d := range names {
		names[d] = packet.Drop(d).String()
	}
	return strings.Join(names, " ")
}

// renumber gives the drops their numbers of this version; names are those of the other one, in order.
func (t *totals) renumber(names []string) {
	byName := map[string]uint64{}
	for n, name := range names[:min(len(names), len(t.drops))] {
		byName[name] = t.drops[n].Swap(0)
	}
	for d := range packet.NumDrops {
		t.drops[d].Store(byName[d.String()])
	}
}
