package topology

import "github.com/nsgd/nsgd/dataplane/packet"

// choices makes, one after the other, all choices that are otherwise made by hash: of backends, of
// appliances, and of who a probe is for.
type choices struct {
	taken, options []int // by the order in which they are asked for
	at             int
}

// of chooses one of n, which is not 0.
func (c *choices) of(n int) int {
	if c.at == len(c.taken) {
		c.taken, c.options = append(c.taken, 0), append(c.options, n)
	}
	c.at++
	return c.taken[c.at-1]
}

// backend chooses one of those that are up; nil when none is.
func (c *choices) backend(r *frontendRule) *backend {
	var up []*backend
	for i := range r.backends {
		if r.backends[i].up() {
			up = append(up, &r.backends[i])
		}
	}
	if len(up) == 0 {
		return nil
	}
	return up[c.of(len(up))]
}

// next goes on to the next combination. It is false behind the last one.
func (c *choices) next() bool {
	c.at = 0
	for i := len(c.taken) - 1; i >= 0; i-- {
		if c.taken[i]++; c.taken[i] < c.options[i] {
			return true
		}
		c.taken, c.options = c.taken[:i], c.options[:i]
	}
	return false
}

// Taken is a way that a packet may take, and why it is dropped there; see Way.
type Taken struct {
	Way  Way
	Drop packet.Drop
}

// Ways are the ways of a packet that differ from it only in what a load balancer chooses by: one where
// nothing is chosen. At most are given; more tells that there are others.
func (s *Snapshot) Ways(src *Endpoint, t *packet.Tuple, most int) (list []Taken, more bool) {
	c := &choices{}
	for {
		var one Taken
		one.Drop = s.wayBy(src, t, &one.Way, c)
		list = append(list, one)
		switch {
		case !c.next():
			return list, false
		case len(list) == most:
			return list, true
		}
	}
}
