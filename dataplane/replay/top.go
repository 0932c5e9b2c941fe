package replay

import (
	"cmp"
	"slices"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
)

// top keeps the largest flows. A flow's bytes only grow, so who offers each flow with each of its
// packets has offered it with all that it came to.
type top struct {
	most   int
	ranked []ranked
	least  uint64 // bytes of the smallest, once there are most
}

type ranked struct {
	flow  conntrack.Flow
	over  bool // the record is another flow's now
	bytes uint64
	info  conntrack.FlowInfo
}

func (t *top) offer(c *dataplane.Carrier, p *dataplane.Carried) {
	at := slices.IndexFunc(t.ranked, func(r ranked) bool { return r.flow == p.Flow && !r.over })
	if at >= 0 && p.Began {
		t.ranked[at].over, at = true, -1
	}
	bytes := c.Bytes(p.Flow)
	if at < 0 {
		if len(t.ranked) == t.most && bytes <= t.least {
			return
		}
		if at = len(t.ranked); at == t.most {
			at = t.smallest()
		} else {
			t.ranked = append(t.ranked, ranked{})
		}
	}
	t.ranked[at] = ranked{flow: p.Flow, bytes: bytes, info: c.Info(p.Flow)}
	if len(t.ranked) == t.most {
		t.least = t.ranked[t.smallest()].bytes
	}
}

func (t *top) smallest() int {
	at := 0
	for i := range t.ranked {
		if t.ranked[i].bytes < t.ranked[at].bytes {
			at = i
		}
	}
	return at
}

// sorted are the flows, the largest first.
func (t *top) sorted() []ranked {
	list := slices.Clone(t.ranked)
	slices.SortStableFunc(list, func(a, b ranked) int { return cmp.Compare(b.bytes, a.bytes) })
	return list
}
