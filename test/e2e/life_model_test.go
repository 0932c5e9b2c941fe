package e2e

import "fmt"

// lifeGuest is a machine behind an interface of the host, in the model of TestInterfacesLiveThroughAnything.
type lifeGuest struct {
	there, up, renamed, addressed bool
	mtu                           int
	wanted                        bool // an attachment of the configuration in force
	programs                      bool // nsgd's are at its interface
	tampered                      bool // somebody has taken filters away
}

// lifeState is the whole model: who stands where, and whether nsgd runs.
type lifeState struct {
	alive  bool
	denied bool // lifeDenied is a rule
	guests [2]lifeGuest
}

// The machines of the model. The guests come first.
const (
	lifeVM1 = iota
	lifeVM3
	lifeInternet
	lifeOther
	lifeHost
)

// Ports of the probes: what the rules say of each from the internet and within the virtual network.
const (
	lifePublic  = 7000 // allowed to all
	lifePrivate = 7001 // within the network
	lifeDenied  = 7002 // within the network, unless it is denied
)

// lifeFlow is a stream of probes.
type lifeFlow struct {
	name     string
	from, to int
	spoofed  bool // by an address of the sender's subnet that it doesn't have
	port     uint16
}

var lifeFlows = []lifeFlow{
	{"the internet to VM1", lifeInternet, lifeVM1, false, lifePublic},
	{"the internet to what VM1 keeps private", lifeInternet, lifeVM1, false, lifePrivate},
	{"VM3 to VM1", lifeVM3, lifeVM1, false, lifePrivate},
	{"VM3 to what VM1 may deny", lifeVM3, lifeVM1, false, lifeDenied},
	{"VM3 by another's address to VM1", lifeVM3, lifeVM1, true, lifePrivate},
	{"VM1 to VM3", lifeVM1, lifeVM3, false, lifePrivate},
	{"VM1 to the internet", lifeVM1, lifeInternet, false, lifePrivate},
	{"a guest of nobody to VM1", lifeOther, lifeVM1, false, lifePrivate},
	{"the host to VM1", lifeHost, lifeVM1, false, lifePrivate},
	{"the host to what VM1 may deny", lifeHost, lifeVM1, false, lifeDenied},
}

// reaches says whether probes of a flow arrive.
func (s *lifeState) reaches(f *lifeFlow) bool {
	for _, end := range []int{f.from, f.to} {
		if end <= lifeVM3 && !s.guests[end].addressed {
			return false
		}
	}
	return s.passes(f, f.from) && s.passes(f, f.to)
}

// passes says whether the interface at an end of a flow lets a probe through. The host keeps what has come in for some
// seconds when the receiver doesn't answer ARP: the sender's end may have let it pass in an earlier state.
func (s *lifeState) passes(f *lifeFlow, end int) bool {
	if end > lifeVM3 {
		return true
	}
	g := &s.guests[end]
	switch {
	case !g.there || !g.up:
		return false
	case g.tampered || !g.programs:
		return true
	case !s.alive || g.renamed:
		return false
	}
	if other := f.from + f.to - end; other <= lifeVM3 && !f.spoofed {
		// nsgd knows the other guest's address at an interface that is missing, and at no other one.
		if o := &s.guests[other]; o.wanted && !o.programs {
			return false
		}
	}
	return s.allows(f)
}

// allows is what the rules say of a flow with an end before which nsgd stands.
func (s *lifeState) allows(f *lifeFlow) bool {
	switch {
	case f.from == lifeOther: // no attachment has its address
		return false
	case f.spoofed: // behind no interface of nsgd's it is a member of Subnet2 like any other
		return !s.guests[f.from].programs || s.guests[f.from].tampered
	case f.port == lifeDenied:
		return !s.denied
	case f.from == lifeInternet:
		return f.port == lifePublic
	}
	return true
}

// starts says whether nsgd takes the configuration: interfaces that are there have one MTU.
func (s *lifeState) starts() bool {
	mtu := 0
	for i := range s.guests {
		g := &s.guests[i]
		if !g.there || g.renamed || !g.wanted {
			continue
		}
		if mtu != 0 && g.mtu != mtu {
			return false
		}
		mtu = g.mtu
	}
	return true
}

// take is what a start or a reload that nsgd takes does to the interfaces.
func (s *lifeState) take() {
	for i := range s.guests {
		g := &s.guests[i]
		switch {
		case !g.wanted:
			g.programs = false
		case g.there && !g.renamed:
			g.programs = true
		}
	}
}

// String is the state in a line.
func (s *lifeState) String() string {
	text := fmt.Sprintf("nsgd runs %v, port %d denied %v", s.alive, lifeDenied, s.denied)
	for i, name := range []string{"VM1", "VM3"} {
		text += fmt.Sprintf("; %s %+v", name, s.guests[i])
	}
	return text
}
