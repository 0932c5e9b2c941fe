package clustercheck

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// span is a time in which a host may carry a network interface.
type span struct {
	host       string
	begin, end time.Duration
}

// findings are what a history says.
type findings struct {
	faults []string
	// events and spans are what was looked at; handovers, how often a network interface went to another host, and nearest,
	// the least time from the last moment of the one to the first of the other.
	events, spans, handovers, carried int
	nearest                           time.Duration
}

func (f *findings) fault(format string, a ...any) {
	f.faults = append(f.faults, fmt.Sprintf(format, a...))
}

// check holds a history to what must never be. end is when it ends.
func check(events []event, end time.Duration) *findings {
	f := &findings{events: len(events), nearest: -1}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.T, b.T) })
	f.checkHolders(spansOf(events, end))
	f.checkGenerations(events)
	return f
}

// process is what one process of a host may do now.
type process struct {
	host string
	// nics and next: of a change that is under way, both count.
	nics, next  []string
	until, soon time.Duration
}

// spansOf lists by network interface when a host may have carried it. What may be so counts as if it were.
func spansOf(events []event, end time.Duration) map[string][]span {
	spans := map[string][]span{}
	live := map[int]*process{}
	since := map[int]time.Duration{}
	// settle notes what a process may have carried since its last event.
	settle := func(pid int, now time.Duration) {
		p := live[pid]
		if p == nil {
			return
		}
		if last := min(now, max(p.until, p.soon)); last > since[pid] {
			nics := slices.Concat(p.nics, p.next)
			slices.Sort(nics)
			for _, nic := range slices.Compact(nics) {
				list := spans[nic]
				if n := len(list); n > 0 && list[n-1].host == p.host && list[n-1].end >= since[pid] {
					list[n-1].end = max(list[n-1].end, last)
				} else {
					spans[nic] = append(list, span{p.host, since[pid], last})
				}
			}
		}
		since[pid] = now
	}
	for _, e := range events {
		if e.PID == 0 {
			continue
		}
		settle(e.PID, e.T)
		p := live[e.PID]
		switch {
		case e.Kind == started:
			live[e.PID], since[e.PID] = &process{host: e.Host}, e.T
		case p == nil: // it has ended
		case e.Kind == fencing:
			p.soon = e.Until
		case e.Kind == fenced:
			p.until, p.soon = e.Until, e.Until
		case e.Kind == carrying:
			p.next = e.NICs
		case e.Kind == carried || e.Kind == frozen:
			p.nics, p.next = e.NICs, nil
		case e.Kind == refused:
			p.next = nil
		case e.Kind == ended:
			delete(live, e.PID)
		}
	}
	for pid := range live {
		settle(pid, end)
	}
	return spans
}

// checkHolders finds network interfaces that two hosts may have carried at once.
func (f *findings) checkHolders(spans map[string][]span) {
	for _, nic := range slices.Sorted(maps.Keys(spans)) {
		list := spans[nic]
		slices.SortStableFunc(list, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
		f.spans += len(list)
		last := list[0] // that ends last
		for _, s := range list[1:] {
			if s.host != last.host {
				f.handovers++
				apart := s.begin - last.end
				if apart < 0 {
					f.fault("%s: %s carries from %v and %s until %v: both for %v", nic, s.host, s.begin, last.host, last.end, min(last.end, s.end)-s.begin)
				} else if f.nearest < 0 || apart < f.nearest {
					f.nearest = apart
				}
			}
			if s.end > last.end {
				last = s
			}
		}
	}
}

// checkGenerations finds what was carried and not committed, and what went back.
func (f *findings) checkGenerations(events []event) {
	type content struct {
		number uint64
		text   string
	}
	type early struct {
		host string
		content
	}
	committed, maybe, canaries, rejectedOnes := map[content]bool{}, map[content]bool{}, map[early]bool{}, map[content]bool{}
	for _, e := range events {
		c := content{e.Generation, e.Text}
		switch e.Kind {
		case applied, headed:
			committed[c] = true
		case unknown:
			maybe[c] = true
		case rejected:
			rejectedOnes[c] = true
		case applying:
			for _, host := range e.Canary {
				canaries[early{host, c}] = true
			}
		}
	}
	var head uint64
	highest, began := map[string]uint64{}, map[content]bool{}
	for _, e := range events {
		c := content{e.Generation, e.Text}
		switch e.Kind {
		case applying:
			began[c] = true
		case forgot:
			head = 0
		case headed:
			if e.Generation <= head {
				f.fault("the head was generation %d and is %d", head, e.Generation)
			}
			if rejectedOnes[c] {
				f.fault("generation %d was refused and is current", e.Generation)
			}
			head = e.Generation
		case started: // it begins with what it has kept, which may be one less: it was killed before it kept the next
			delete(highest, e.Host)
		case carried:
			f.carried++
			own := canaries[early{e.Host, c}]
			switch {
			case !began[c]:
				f.fault("%s carries generation %d, %q, which nobody has applied", e.Host, e.Generation, e.Text)
			case !committed[c] && !maybe[c] && !own:
				f.fault("%s carries generation %d, %q, which was not committed", e.Host, e.Generation, e.Text)
			case committed[c] && e.Generation < highest[e.Host] && !own:
				f.fault("%s carries generation %d after generation %d", e.Host, e.Generation, highest[e.Host])
			}
			if committed[c] {
				highest[e.Host] = max(highest[e.Host], e.Generation)
			}
		}
	}
}
