package classifier

import "github.com/nsgd/nsgd/ruleset"

// services makes the common classes of destination port and protocol, for tables of more
// than flatRules rules. A destination port has a bitmap for each protocol that the rules
// tell apart, side by side in the pool's parts. A bitmap leaves out the rules after the
// first that matches any addresses and source port, since they decide nothing.
type services struct {
	pool  *pool
	masks [][]uint64 // of each row: the rules that match its protocols
	rows  []*bitmap  // of each row: the bitmap of the current port
	parts []part     // the parts of all rows
}

// serviceClasses makes the class of each destination port, and the number that a protocol adds to
// it. All other fields must be done, so that p.anything is complete.
func (p *pool) serviceClasses(rules []Rule) (ports, [ruleset.AH + 1]uint32) {
	s := &services{pool: p}
	var protocols [ruleset.AH + 1]uint32
	seen := make(map[uint32]uint32)
	for protocol := range protocols {
		b := p.protocol(rules, ruleset.Protocol(protocol))
		class := p.intern(b) // only to recognise equal bitmaps
		if _, ok := seen[class]; !ok {
			seen[class] = uint32(len(s.masks) * len(b.parts))
			s.masks = append(s.masks, b.words)
			s.rows = append(s.rows, p.empty())
		}
		protocols[protocol] = seen[class]
	}
	return p.ports(rules, func(r *Rule) []ruleset.PortRange { return r.DestinationPorts }, s.class), protocols
}

// class returns the class of the ports that the rules of b match.
func (s *services) class(b *bitmap) uint32 {
	var h uint64
	s.parts = s.parts[:0]
	for i, row := range s.rows {
		row.become(b.words, s.masks[i], s.pool.anything)
		s.pool.settle(row)
		s.parts = append(s.parts, row.parts...)
		h = mix(h, row.hash)
	}
	return s.pool.store(h, s.parts)
}

// become makes b the rules that are in words and in mask, up to the first that is also in
// last.
func (b *bitmap) become(words, mask, last []uint64) {
	open := true
	for i := range b.words {
		var w uint64
		if open {
			w = words[i] & mask[i]
			if end := w & last[i]; end != 0 {
				w &= end ^ (end - 1)
				open = false
			}
		}
		if w != b.words[i] {
			b.words[i] = w
			b.touch(i / blockWords)
		}
	}
}
