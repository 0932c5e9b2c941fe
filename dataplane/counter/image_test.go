package counter

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/nsgd/nsgd/conntrack/slab"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// lost hears of counters that are lost.
func lost(t *testing.T) func(error) {
	return func(err error) { t.Errorf("counters are lost: %v", err) }
}

func TestCountersGoOnInTheNextProcess(t *testing.T) {
	slabs := slab.New(nil, nil)
	count := func(c *Set) {
		c.Reserve(2000)
		c.Attach(0, c.NewCell(7))
		c.Add(1500, 1, 2, 300)
		c.Receive(0, 3, 400)
		c.Drop(packet.DropRule)
		c.Took(5)
		c.Worked(time.Second)
		c.Flush()
	}
	for range 2 {
		c, err := Open(time.Now, slabs, 0, lost(t))
		if err != nil {
			t.Fatal(err)
		}
		count(c)
	}
	c, err := Open(time.Now, slabs, 1, lost(t)) // another worker
	if err != nil {
		t.Fatal(err)
	}
	count(c)
	first, err := Open(time.Now, slabs, 0, lost(t))
	if err != nil {
		t.Fatal(err)
	}
	first.Reserve(2000)
	sets, err := OpenAll(time.Now, slabs, 1, lost(t)) // now there is one worker only
	if err != nil || len(sets) != 2 {
		t.Fatalf("%d sets: %v", len(sets), err)
	}
	sets[0] = first
	sets[1].Reserve(2000)
	if r := sets.Rules(2000)[1500]; r != (Rule{3, 6, 900}) {
		t.Errorf("rule %+v", r)
	}
	if n := sets.Drops()[packet.DropRule]; n != 3 {
		t.Errorf("%d drops", n)
	}
	if a := Sum([]*Cell{first.NewCell(7), sets[1].NewCell(7)}); a.ReceivePackets != 9 || a.ReceiveBytes != 1200 {
		t.Errorf("%+v", a)
	}
	if w := sets.Workers(); w[0].Packets != 10 || w[0].Worked != 2*time.Second || sets.LastHits(2000)[1500] == 0 {
		t.Errorf("%+v", w)
	}
}

func TestDropsOfAnotherVersionKeepTheirNames(t *testing.T) {
	slabs := slab.New(nil, nil)
	c, err := Open(time.Now, slabs, 0, lost(t))
	if err != nil {
		t.Fatal(err)
	}
	c.DropNow(packet.DropTruncated, 4)
	c.DropNow(packet.DropRule, 5)
	memory, _ := slabs.Find("counters.0")
	i := (*image)(unsafe.Pointer(&memory[0]))
	names := strings.Fields(i.names())
	names[packet.DropTruncated], names[packet.DropRule] = names[packet.DropRule], "gone"
	clear(i.reasons[:])
	copy(i.reasons[:], strings.Join(names, " "))
	next, err := Open(time.Now, slabs, 0, lost(t))
	if err != nil {
		t.Fatal(err)
	}
	if d := (Sets{next}).Drops(); d[packet.DropRule] != 4 || d[packet.DropTruncated] != 0 {
		t.Errorf("%v", d)
	}
}

// Another version's counters must not keep this one from starting.
func TestMemoryThatHoldsNoCountersBeginsAnew(t *testing.T) {
	for _, size := range []int{4096, imageSize} {
		slabs := slab.New(nil, nil)
		if _, err := slabs.Make("counters.0", size); err != nil {
			t.Fatal(err)
		}
		var heard error
		c, err := Open(time.Now, slabs, 0, func(err error) { heard = err })
		if err != nil || heard == nil {
			t.Fatalf("%d bytes: heard %v: %v", size, heard, err)
		}
		c.Took(5)
		if c, err = Open(time.Now, slabs, 0, lost(t)); err != nil || c.Packets() != 5 {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
