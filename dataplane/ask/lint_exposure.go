package ask

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/verdict"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/analysis"
	"github.com/nsgd/nsgd/ruleset/policy"
	"go4.org/netipx"
)

// exposedService is a port that the internet should not reach.
type exposedService struct {
	code        string
	protocol    ruleset.Protocol
	first, last uint16
	name        string
}

// exposedServices are IANA's names for what listens there by default. Order is that of messages.
var exposedServices = []exposedService{
	{LintSSH, ruleset.TCP, 22, 22, "SSH"}, {LintRDP, ruleset.TCP, 3389, 3389, "RDP"}, {LintRDP, ruleset.UDP, 3389, 3389, "RDP"},
	{LintManagement, ruleset.TCP, 23, 23, "Telnet"}, {LintManagement, ruleset.TCP, 135, 135, "RPC"}, {LintManagement, ruleset.UDP, 161, 161, "SNMP"},
	{LintManagement, ruleset.TCP, 389, 389, "LDAP"}, {LintManagement, ruleset.TCP, 445, 445, "SMB"}, {LintManagement, ruleset.TCP, 2375, 2376, "Docker"},
	{LintManagement, ruleset.TCP, 2379, 2380, "etcd"}, {LintManagement, ruleset.TCP, 5900, 5900, "VNC"}, {LintManagement, ruleset.TCP, 5985, 5986, "WinRM"},
	{LintManagement, ruleset.TCP, 6443, 6443, "Kubernetes"}, {LintManagement, ruleset.TCP, 10250, 10250, "kubelet"},
	{LintDatabase, ruleset.TCP, 1433, 1433, "SQL Server"}, {LintDatabase, ruleset.UDP, 1434, 1434, "SQL Server"}, {LintDatabase, ruleset.TCP, 1521, 1521, "Oracle"},
	{LintDatabase, ruleset.TCP, 3306, 3306, "MySQL"}, {LintDatabase, ruleset.TCP, 5432, 5432, "PostgreSQL"}, {LintDatabase, ruleset.TCP, 5984, 5984, "CouchDB"},
	{LintDatabase, ruleset.TCP, 6379, 6379, "Redis"}, {LintDatabase, ruleset.TCP, 9042, 9042, "Cassandra"}, {LintDatabase, ruleset.TCP, 9200, 9200, "Elasticsearch"},
	{LintDatabase, ruleset.TCP, 11211, 11211, "Memcached"}, {LintDatabase, ruleset.TCP, 27017, 27017, "MongoDB"},
	{LintHTTP, ruleset.TCP, 80, 80, "HTTP"},
}

// text is such as "TCP 22 (SSH)".
func (s *exposedService) text(port uint16) string {
	return fmt.Sprintf("%s %d (%s)", protocolText(s.protocol), port, s.name)
}

// exposure is what the internet reaches by one rule, or by several. The finding is about the one that opens most.
type exposure struct {
	code      string
	by        verdict.ChainRule // its Group is nil: no NSG stands there
	others    []verdict.ChainRule
	services  []string                 // ports with their names
	receivers []string                 // names, with the ways in
	nic       *policy.NetworkInterface // where no NSG stands
	open      bool                     // a way in exists
	witness   *LintWitness
}

// key tells exposures apart.
func (e *exposure) key(open bool) string {
	if e.by.Group == nil {
		return fmt.Sprint(e.code, open, " ", e.nic.ID)
	}
	return fmt.Sprintf("%s%t %p %s", e.code, open, e.by.Group.NSG, e.by.Rule.QualifiedName())
}

// priority is that of the rule; 0 where no NSG stands.
func (e *exposure) priority() int {
	if e.by.Group == nil {
		return 0
	}
	return e.by.Rule.Priority
}

// exposures are found in the order of places; a rule's are one finding of each check.
type exposures struct {
	*linter
	ways  map[hostKey][]wayIn
	byKey map[string]*exposure
	order []*exposure
}

// chainsKey are the lists of a chain.
type chainsKey [4]*analysis.List

// exposed finds what the internet reaches, by the whole chain of each place.
func (l *linter) exposed() {
	x := &exposures{linter: l, ways: waysIn(l.snapshot.Policy), byKey: map[string]*exposure{}}
	internet := l.snapshot.InternetSources()
	for _, group := range l.alike(ruleset.Inbound) {
		var own []netip.Prefix
		for _, p := range group {
			own = append(own, p.own...)
		}
		chain := group[0].chains[ruleset.Inbound]
		reachable := analysis.Reach(chain.Lists, analysis.Options{MaxStates: l.MaxStates, Within: analysis.Packets{Sources: internet, Destinations: own}})
		boxes := openOf(chain, reachable, ruleset.Inbound)
		for _, p := range group {
			x.judge(p, boxes)
		}
	}
	slices.SortStableFunc(x.order, func(a, b *exposure) int { return cmp.Compare(a.priority(), b.priority()) })
	for _, e := range x.order {
		if e.open || x.byKey[e.key(true)] == nil { // who has no way in is not told beside who has
			e.find(l)
		}
	}
}

// alike groups the places that have the same chain in a direction.
func (l *linter) alike(d ruleset.Direction) [][]*lintPlace {
	at := map[chainsKey]int{}
	var groups [][]*lintPlace
	for i := range l.places {
		key := chainsKey(l.places[i].chains[d].Lists)
		n, known := at[key]
		if !known {
			n = len(groups)
			at[key] = n
			groups = append(groups, nil)
		}
		groups[n] = append(groups[n], &l.places[i])
	}
	return groups
}

// judge notes which packets from the internet reach a place.
func (x *exposures) judge(p *lintPlace, boxes openBoxes) {
	ways := []wayIn{{address: anyOwn(p)}} // nowhere
	if p.endpoint != nil && p.endpoint.NetworkInterface != nil {
		key := hostKey{p.endpoint.Subnet.VirtualNetwork, p.endpoint.Address()}
		if found := x.ways[key]; len(found) > 0 && !p.endpoint.Closed() {
			ways = found
		}
	}
	if ways[0].what == "" {
		boxes = slices.DeleteFunc(slices.Clone(boxes), func(b openBox) bool { return b.by.Group == nil })
	}
	for i := range ways {
		w := &ways[i]
		if w.address.IsValid() {
			x.through(p, boxes.of(w.address), w)
			continue
		}
		for _, mine := range boxes.byOwn() {
			x.through(p, mine, w)
		}
	}
}

// anyOwn is the address that a place without a way in is judged by; not valid: all of its own.
func anyOwn(p *lintPlace) netip.Addr {
	if p.endpoint == nil {
		return netip.Addr{}
	}
	return p.endpoint.Address()
}

// through notes what is reached through a way, or what would be if there were one.
func (x *exposures) through(p *lintPlace, boxes openBoxes, w *wayIn) {
	var every *opening
	if w.what == "" || w.ports == ruleset.AllPorts {
		open := boxes.toAll(ruleset.TCP)
		if every = everyPort(open); every != nil {
			ports := texts(merge(open), analysis.PortRange)
			x.note(LintEverything, p, every, w, ruleset.TCP, shownPort(every.widest.Box), "TCP "+strings.Join(ports, ","))
		}
	}
	for i := range exposedServices {
		s := &exposedServices[i]
		for port := int(s.first); port <= int(s.last); port++ {
			if w.what != "" && !w.takes(s.protocol, uint16(port)) {
				continue
			}
			o := boxes.at(s.protocol, uint16(port))
			switch {
			case o.from == fromFew || every.has(o.widest.by):
			case o.from == fromAll && (s.code != LintHTTP || w.what != ""):
				x.note(s.code, p, &o, w, s.protocol, uint16(port), s.text(uint16(port)))
			case o.from == fromMany && s.code != LintHTTP && w.what != "":
				x.note(LintWide, p, &o, w, s.protocol, uint16(port), s.text(uint16(port)))
			}
		}
	}
	for _, r := range boxes.toAll(ruleset.UDP) {
		if every.has(r.widest.by) {
			continue
		}
		if w.what != "" {
			if r.First, r.Last = max(r.First, w.ports.First), min(r.Last, w.ports.Last); r.First > r.Last || !w.takes(ruleset.UDP, r.First) {
				continue
			}
		}
		x.note(LintUDP, p, &r.opening, w, ruleset.UDP, r.First, "UDP "+analysis.PortRange(r.PortRange))
	}
}

// shownPort is a port of a box that nearly has them all: one that people know.
func shownPort(b *analysis.Box) uint16 {
	if hasPort(b, ruleset.TCP, 22) {
		return 22
	}
	return b.DestinationPorts[0].Last
}

func (x *exposures) note(code string, p *lintPlace, o *opening, w *wayIn, protocol ruleset.Protocol, port uint16, service string) {
	e := &exposure{code: code, by: o.widest.by, open: w.what != ""}
	if e.by.Group == nil {
		e.nic = p.endpoint.NetworkInterface
	}
	if known := x.byKey[e.key(e.open)]; known != nil {
		e = known
	} else {
		x.byKey[e.key(e.open)] = e
		x.order = append(x.order, e)
	}
	e.others = addRules(e.others, o.others)
	e.services = addNew(e.services, []string{service})
	e.receivers = addNew(e.receivers, []string{exposedPlace(p, w)})
	if e.witness == nil && p.endpoint != nil && p.endpoint.NetworkInterface != nil {
		e.witness = exposedWitness(p, w, o.widest.Box, protocol, port)
	}
}

func exposedPlace(p *lintPlace, w *wayIn) string {
	switch {
	case p.endpoint == nil:
		return "whoever has " + p.group.Label
	case p.endpoint.NetworkInterface == nil:
		return "the rest of " + p.endpoint.Subnet.VirtualNetwork.Name + "/" + p.endpoint.Subnet.Name
	case w.what == "":
		return p.endpoint.NetworkInterface.Name
	}
	return p.endpoint.NetworkInterface.Name + " by " + w.what
}

// exposedWitness is a packet of a box.
func exposedWitness(p *lintPlace, w *wayIn, b *analysis.Box, protocol ruleset.Protocol, port uint16) *LintWitness {
	k := packet.Tuple{Src: packet.AddrFrom(someAddressOf(b.Sources)), Dst: packet.AddrFrom(w.address), DstPort: port, Proto: packet.ProtoTCP, SrcPort: b.SourcePorts[0].First}
	if protocol == ruleset.UDP {
		k.Proto = packet.ProtoUDP
	}
	const ephemeral = 49152
	if slices.ContainsFunc(b.SourcePorts, func(r ruleset.PortRange) bool { return r.First <= ephemeral && ephemeral <= r.Last }) {
		k.SrcPort = ephemeral
	}
	return &LintWitness{NetworkInterface: p.endpoint.NetworkInterface.Name, Direction: ruleset.Inbound.String(), Access: ruleset.Allow.String(), DiffWitness: witnessOf(&k)}
}

// documentAddresses are for documents (RFC 5737, RFC 3849).
var documentAddresses = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")}

func someAddressOf(ranges []netipx.IPRange) netip.Addr {
	for _, a := range documentAddresses {
		if slices.ContainsFunc(ranges, func(r netipx.IPRange) bool { return r.Contains(a) }) {
			return a
		}
	}
	if second := ranges[0].From().Next(); ranges[0].Contains(second) { // the first may be a network's own
		return second
	}
	return ranges[0].From()
}

// find adds the finding.
func (e *exposure) find(l *linter) {
	what, who := ruleset.Listed(e.services), ruleset.Listed(e.receivers)
	message := "The internet reaches " + what + " of " + who + "."
	switch {
	case e.code == LintWide:
		message = "More than 65,536 public addresses reach " + what + " of " + who + "."
	case !e.open:
		message = "The rules let the internet reach " + what + " of " + who + ". No public address, load balancer or NAT rule of these documents leads there."
	}
	message += otherRules(e.others)
	var f *Finding
	if e.by.Group == nil {
		f = l.findAt(e.code, "networkInterfaces/"+e.nic.Name, e.nic, message+" No network security group stands before it.")
	} else {
		f = l.findRule(e.code, e.by.Group.NSG, e.by.Rule, message)
	}
	if f.Witness = e.witness; !e.open {
		f.Severity = SeverityInfo
	}
}
