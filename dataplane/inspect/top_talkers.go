package inspect

import (
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet"
)

// talkersFollowed is how many talkers are told apart for certain. Senders choose how many talkers
// there are: a map entry for each of a million would take a hundred megabytes.
const talkersFollowed = 8192

// talkerKey identifies a talker. What talkers are not told apart by is zero.
type talkerKey struct {
	source, destination packet.Addr
	from, to            uint16 // zones
}

type talker struct {
	key                              talkerKey
	flows, packets                   uint64
	bytesSent, bytesReceived         uint64
	packetsPerSecond, bytesPerSecond float64
	// weight is the figure of the order, less what shrink took from all talkers.
	weight float64
}

// talkers adds flows up by talker in bounded memory (Misra and Gries 1982, with weights and in
// batches). When there are twice as many talkers as are followed, shrink takes the weight of the
// first one beyond those from all, and drops talkers without weight. Each time at least followed+1
// talkers lose that much. So what was ever taken, uncounted, is at most the sum of all weights
// divided by followed+1. No talker lacks more than that.
type talkers struct {
	followed  int
	index     map[talkerKey]int32 // into list
	list      []talker
	shrunk    bool
	uncounted float64
	weights   []float64 // for shrink
}

func newTalkers(followed int) *talkers {
	return &talkers{followed: followed, index: map[talkerKey]int32{}}
}

// add returns the talker to add a flow to. weight is the flow's part of the order's figure. The
// pointer is valid until the next add.
func (t *talkers) add(key talkerKey, weight float64) *talker {
	i, known := t.index[key]
	if !known {
		if len(t.list) == 2*t.followed {
			t.shrink()
		}
		i = int32(len(t.list))
		t.index[key] = i
		t.list = append(t.list, talker{key: key})
	}
	one := &t.list[i]
	one.weight += weight
	return one
}

// count adds a flow.
func (t *talker) count(info *conntrack.FlowInfo, f *figures) {
	t.flows++
	t.packets += info.Packets[conntrack.Original] + info.Packets[conntrack.Reply]
	t.bytesSent += info.Bytes[conntrack.Original]
	t.bytesReceived += info.Bytes[conntrack.Reply]
	t.packetsPerSecond += f.packetsPerSecond
	t.bytesPerSecond += f.bytesPerSecond
}

func (t *talker) figures() figures {
	return figures{
		flows: float64(t.flows), packets: float64(t.packets), bytes: float64(t.bytesSent + t.bytesReceived),
		packetsPerSecond: t.packetsPerSecond, bytesPerSecond: t.bytesPerSecond,
	}
}

func (t *talkers) shrink() {
	t.weights = t.weights[:0]
	for i := range t.list {
		t.weights = append(t.weights, t.list[i].weight)
	}
	taken := nthGreatest(t.weights, t.followed)
	t.uncounted += taken
	t.shrunk = true
	kept := t.list[:0]
	clear(t.index)
	for i := range t.list {
		one := &t.list[i]
		if one.weight -= taken; one.weight > 0 {
			t.index[one.key] = int32(len(kept))
			kept = append(kept, *one)
		}
	}
	t.list = kept
}

// nthGreatest is the value at place n, from 0, when the greatest comes first. It moves the values.
func nthGreatest(values []float64, n int) float64 {
	low, high := 0, len(values)-1
	for low < high {
		pivot := median(values[low], values[(low+high)/2], values[high])
		i, j := low, high
		for i <= j {
			for values[i] > pivot {
				i++
			}
			for values[j] < pivot {
				j--
			}
			if i <= j {
				values[i], values[j] = values[j], values[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case n <= j:
			high = j
		case n >= i:
			low = i
		default:
			return values[n]
		}
	}
	return values[low]
}

func median(a, b, c float64) float64 {
	three := []float64{a, b, c}
	slices.Sort(three)
	return three[1]
}
