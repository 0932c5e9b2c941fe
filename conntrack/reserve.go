package conntrack

import (
	"math"
	"os"
	"sync/atomic"
	"unsafe"
)

// Reserved is what a table has beside its records: the index and the counts of zones. Reserve makes it before the flows of
// an earlier process are there, since packets wait once they are.
type Reserved struct {
	forMax int // Options.Max

	index      index
	portCounts []portCount

	// These are Table's. zoneMax limits no zone.
	zoneMax, zones, zoneCuts []atomic.Int64
	barren                   []atomic.Uint64
}

// Reserve makes the memory of a table of these options, for Options.Reserved of one table.
func Reserve(o Options) (*Reserved, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := reserve(&o)
	return &r, nil
}

func reserve(o *Options) Reserved {
	r := Reserved{
		forMax:     o.Max,
		index:      newIndex(o.Max),
		portCounts: newPortCounts(o.Max),
		zoneMax:    make([]atomic.Int64, o.Zones),
		zones:      make([]atomic.Int64, o.Zones),
		zoneCuts:   make([]atomic.Int64, o.Zones),
		barren:     make([]atomic.Uint64, o.Zones),
	}
	for zone := range r.zoneMax {
		r.zoneMax[zone].Store(math.MaxInt64)
	}
	touch(r.index.heads)
	touch(r.portCounts)
	touch(r.zones)
	touch(r.zoneCuts)
	touch(r.barren)
	return r
}

// touch has the kernel back the pages of a slice of zeros.
func touch[T any](list []T) {
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), len(list)*int(unsafe.Sizeof(list[0])))
	for i := 0; i < len(bytes); i += os.Getpagesize() {
		bytes[i] = 0
	}
}

// take takes what is reserved if it fits, or else makes it. Another table gets another one.
func (o *Options) take() (r Reserved) {
	if o.Reserved == nil || o.Reserved.forMax != o.Max || len(o.Reserved.zones) != o.Zones {
		return reserve(o)
	}
	r, *o.Reserved = *o.Reserved, Reserved{}
	return r
}
