package flowlogtest

import (
	"fmt"
	"net/netip"
	"time"
)

// Key identifies a flow among those that one end logs in one flow log.
type Key struct {
	Version          int
	Resource, MAC    string
	Direction        string
	Proto            uint8
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
}

// KeyOf is the key of a row's flow.
func KeyOf(r *Row) Key {
	return Key{r.Version, r.Resource, r.MAC, r.Direction, r.Proto, r.Src, r.Dst, r.SrcPort, r.DstPort}
}

// Flow is a flow put together from its rows.
type Flow struct {
	Key
	ACL, Rule   string
	Begun, Over time.Time // Over is zero for a flow without a row E
	Continued   int       // rows C
	Counters    [4]uint64
}

// Flows puts rows together. Rows of a flow are in order. A flow without a beginning is an error,
// and so is one that changes its rule or goes back in time. Rows of denied packets belong to no
// flow.
func Flows(rows []Row) (flows []*Flow, err error) {
	open := map[Key][]*Flow{} // the oldest first
	for i := range rows {
		r := &rows[i]
		k := KeyOf(r)
		if r.State == "D" {
			continue
		}
		if r.State == "B" {
			f := &Flow{Key: k, ACL: r.ACL, Rule: r.Rule, Begun: r.Time}
			open[k] = append(open[k], f)
			flows = append(flows, f)
			if r.Counters != [4]uint64{} {
				return nil, fmt.Errorf("%+v: a flow begins with counters", *r)
			}
			continue
		}
		if len(open[k]) == 0 {
			return nil, fmt.Errorf("%+v: a flow without a beginning", *r)
		}
		f := open[k][0]
		if f.Rule != r.Rule || f.ACL != r.ACL || r.Time.Before(f.Begun) {
			return nil, fmt.Errorf("%+v: does not fit %+v", *r, *f)
		}
		for n := range f.Counters {
			f.Counters[n] += r.Counters[n]
		}
		if r.State == "C" {
			f.Continued++
			continue
		}
		f.Over = r.Time
		open[k] = open[k][1:]
	}
	return flows, nil
}
