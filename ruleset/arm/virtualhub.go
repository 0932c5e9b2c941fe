package arm

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Route tables that Azure gives to each hub, in lower case, with the labels of all of these.
var ownHubTables = [...]struct{ name, label string }{{"defaultroutetable", "default"}, {"noneroutetable", "none"}}

// hubSet is the virtual hubs of the documents, also those that only their children name.
type hubSet struct {
	of   map[*resource]*hub
	list []*hub            // in the documents' order
	wans map[string][]*wan // by name in lower case
	// connected are the networks that a hub has.
	connected map[*policy.VirtualNetwork]bool
}

// wan is a virtual WAN. A hub whose WAN is not known has one of its own.
type wan struct {
	id      string
	hubs    []*hub
	byLabel map[string][]*hubTable // by label in lower case
}

// hub is a virtual hub, as far as routes of networks come from it.
type hub struct {
	wan         *wan
	first       *resource // the hub itself, or the first of its children
	connections []*hubConnection
	tables      []*hubTable // the default one first
	// internet and private say which traffic a routing intent sends through the hub.
	internet, private bool
	intent            *fields // nil: none
}

// hubConnection connects a network to a hub.
type hubConnection struct {
	hub              *hub
	network          *policy.VirtualNetwork
	internetSecurity bool
	associated       *hubTable
	// The tables that learn the network's prefixes: those by id, and those of labels, which are in lower case.
	tables []*hubTable
	labels []string
}

// hubTable is a route table of a hub.
type hubTable struct {
	hub    *hub
	labels []string // in lower case, each once
	static []netip.Prefix
	from   []*hubConnection    // those that propagate to the table
	shared [2]*policy.HubTable // what connections learn, without and with the default route
}

// readHubs reads virtual hubs with their route tables and routing intents: "About virtual hub routing" of Microsoft's
// documents. What is not read of a hub is a warning.
func (l *loader) readHubs() {
	s := &hubSet{of: map[*resource]*hub{}, wans: map[string][]*wan{}, connected: map[*policy.VirtualNetwork]bool{}}
	l.hubs = s
	for _, r := range l.resources {
		if r.kind != hubKind && (parentKinds[r.kind] != hubKind || r.parent == nil) {
			continue
		}
		if r.kind == hubConnectionKind { // connectHubs reads it
			l.hubOf(r.parent, r)
			continue
		}
		f := l.readTranslating(r.file, r.place(), r.body)
		f.markCondition(r)
		switch r.kind {
		case hubKind:
			h := l.hubOf(r, r)
			h.first = r
			s.join(h, f.reference("virtualWan"))
			f.warnOfHub()
		case hubTableKind:
			f.readHubTable(l.hubOf(r.parent, r), r)
		case hubIntentKind:
			l.hubOf(r.parent, r).readIntent(f)
		}
	}
	for _, h := range s.list {
		if h.wan == nil {
			s.join(h, "")
		}
	}
	l.warnOfHubs()
}

// hubOf is the hub of a resource. One that is new has the route tables that Azure gives it.
func (l *loader) hubOf(r, first *resource) *hub {
	h := l.hubs.of[r]
	if h == nil {
		h = &hub{first: first}
		l.hubs.of[r] = h
		l.hubs.list = append(l.hubs.list, h)
		for _, own := range ownHubTables {
			l.addHubTable(h, r, own.name).labels = []string{own.label}
		}
	}
	return h
}

// addHubTable enters a route table of the hub that a resource is, or returns the one that has the name.
func (l *loader) addHubTable(h *hub, of *resource, name string) *hubTable {
	id, name := of.identity()+"/"+kindPaths[hubTableKind]+"/"+name, of.name+"/"+name
	if e := l.index.byID[strings.ToLower(id)]; e != nil && !of.anonymous() {
		return e.object.(*hubTable)
	}
	t := &hubTable{hub: h}
	h.tables = append(h.tables, t)
	if !of.anonymous() {
		l.index.add(&entry{kind: hubTableKind, id: id, scope: of.scope(), file: of.file, object: t}, name)
	}
	return t
}

// join puts a hub into the WAN of an id. Ids are compared with subscription and group where both have them.
func (s *hubSet) join(h *hub, id string) {
	name := strings.ToLower(lastSegment(id))
	for _, w := range s.wans[name] {
		if name != "" && scopeOf(w.id).agrees(scopeOf(id)) {
			h.wan = w
			w.hubs = append(w.hubs, h)
			return
		}
	}
	h.wan = &wan{id: id, hubs: []*hub{h}, byLabel: map[string][]*hubTable{}}
	s.wans[name] = append(s.wans[name], h.wan)
}

// warnOfHub names what a hub's document says of routes and connections and is not read.
func (f *fields) warnOfHub() {
	warn := func(field, message string) {
		f.l.warn(f.newFault(CodePropertyNotRead, field, "", message))
	}
	if len(f.inside("routeTable").objects("routes")) > 0 {
		warn("routeTable", "routes inside a virtual hub's document are not read: write them as a route of virtualHubs/hubRouteTables")
	}
	if len(f.objects("virtualHubRouteTableV2s")) > 0 {
		warn("virtualHubRouteTableV2s", hubTablesV2NotRead)
	}
	known := map[string]bool{}
	for _, r := range f.l.resources {
		if r.kind == hubConnectionKind {
			known[strings.ToLower(r.identity())] = true
		}
	}
	for _, o := range f.objects("virtualNetworkConnections") {
		if id := textOf(o, "id"); id == "" || !known[strings.ToLower(id)] {
			warn("virtualNetworkConnections", "connections inside a virtual hub's document are not read: write them as virtualHubs/hubVirtualNetworkConnections")
			break
		}
	}
	if sku := f.literal("sku"); strings.EqualFold(sku, "Basic") {
		f.warnNotRead("sku", sku, basicNotRead)
	}
}

// warnOfHubs names what is not known of hubs together.
func (l *loader) warnOfHubs() {
	for _, h := range l.hubs.list {
		r := h.first
		if r.kind != hubKind && len(l.hubs.list) > 1 {
			l.warn(l.places.at(ruleset.Fault{
				Code: CodeResourceNotRead, File: r.file, Resource: r.place(), Field: "name", Value: ruleset.Clip(r.parent.identity()),
				Message: "no document has this virtual hub: whether it shares a WAN with the others is not known, and its networks have no routes to theirs",
			}, r.source))
		}
		if h.private && slices.ContainsFunc(h.wan.hubs, func(other *hub) bool { return !other.private }) {
			h.intent.warnNotRead("routingPolicies", "PrivateTraffic",
				"another hub of the WAN has no routing intent for private traffic: the way between networks of both is not read")
		}
	}
}

// connectHubs gives networks the routes that they learn from the virtual hub that they are connected to.
func (l *loader) connectHubs() {
	for _, r := range l.resources {
		if r.kind == hubConnectionKind && r.parent != nil {
			f := l.readTranslating(r.file, r.place(), r.body)
			f.markCondition(r)
			f.readConnection(l.hubs.of[r.parent])
		}
	}
	l.hubs.propagate()
	for _, h := range l.hubs.list {
		for _, c := range h.connections {
			if c.associated != nil {
				c.network.HubTable = c.associated.routes(c.internetSecurity)
			}
		}
	}
}

// readConnection reads what connects a network of the documents to a hub.
func (f *fields) readConnection(h *hub) {
	c := &hubConnection{hub: h, internetSecurity: f.flag("enableInternetSecurity", false), associated: h.tables[0]}
	const field = "remoteVirtualNetwork"
	id := f.reference(field)
	e, problem := f.l.index.resolve(networkKind, id, f.file)
	if e == nil && len(f.open) == 0 {
		f.warnNotRead(field, id, problem+": other networks of the hub have no route to it")
	}
	if e == nil || e.object == nil || len(f.open) > 0 {
		return
	}
	c.network = e.object.(*policy.VirtualNetwork)
	f.readRouting(c)
	switch {
	case len(f.open) > 0:
	case f.l.hubs.connected[c.network]:
		f.warnNotRead(field, id, "the network is connected to a virtual hub already, and can be to one only: the connection is not read")
	default:
		f.l.hubs.connected[c.network] = true
		h.connections = append(h.connections, c)
	}
}

// readRouting reads which routes a connection learns, and who learns of its network.
func (f *fields) readRouting(c *hubConnection) {
	routing := f.inside("routingConfiguration")
	if id := routing.reference("associatedRouteTable"); id != "" {
		c.associated = routing.hubTable("associatedRouteTable", id, "the network learns no route of the hub")
		if c.associated != nil && c.associated.hub != c.hub {
			c.associated = nil
			f.warnNotRead("associatedRouteTable", id, "the route table is of another virtual hub: the network learns no route of the hub")
		}
	}
	propagated := routing.inside("propagatedRouteTables")
	ids := propagated.references("ids")
	for _, id := range ids {
		if t := propagated.hubTable("ids", id, "it does not learn of the network"); t != nil {
			c.tables = append(c.tables, t)
		}
	}
	if c.labels = lowerOnce(propagated.texts("labels")); len(c.labels)+len(ids) == 0 {
		c.labels = []string{ownHubTables[0].label}
	}
	if static := routing.inside("vnetRoutes"); len(static.objects("staticRoutes")) > 0 {
		f.warnNotRead("staticRoutes", "", "static routes of a connection are not read: they lead through an appliance of the connected network")
	}
	for _, field := range []string{"inboundRouteMap", "outboundRouteMap"} {
		if routing.object(field) != nil {
			f.warnNotRead(field, "", "route maps of a virtual hub are not read")
		}
	}
}

// hubTable finds the route table that an id names; nil, with a warning that says what follows, when there is none.
func (f *fields) hubTable(field, id, otherwise string) *hubTable {
	e, problem := f.l.index.resolve(hubTableKind, id, f.file)
	switch {
	case e == nil:
		f.warnNotRead(field, id, problem+": "+otherwise)
		return nil
	case problem != "":
		f.l.warn(f.newFault(CodeByNameAlone, field, id, problem))
	}
	return e.object.(*hubTable)
}

func (f *fields) warnNotRead(field, value, message string) {
	f.l.warn(f.newFault(CodeResourceNotRead, field, value, message))
}

// lowerOnce are texts in lower case, sorted, each once.
func lowerOnce(texts []string) []string {
	for i := range texts {
		texts[i] = strings.ToLower(texts[i])
	}
	slices.Sort(texts)
	return slices.Compact(texts)
}

// readHubTable reads a route table's labels and static routes.
func (f *fields) readHubTable(h *hub, r *resource) {
	t := f.l.addHubTable(h, r.parent, r.name)
	t.labels = lowerOnce(append(t.labels, f.texts("labels")...))
	for _, body := range f.objects("routes") {
		route := f.l.readTranslating(f.file, f.place+"/routes/"+textOf(body, "name"), body)
		if kind := route.text("destinationType"); kind != "" && !strings.EqualFold(kind, "CIDR") {
			route.warnNotRead("destinationType", kind, "the route is not read; read are those of CIDR")
			continue
		}
		if next := route.text("nextHop"); strings.Contains(strings.ToLower(next), "/"+strings.ToLower(kindPaths[hubConnectionKind])+"/") {
			route.warnNotRead("nextHop", next, "routes to a connection are not read: what the route leads to counts as behind the hub, and not as in the connected network")
		}
		t.static = append(t.static, route.prefixes("destinations")...)
	}
}

// readIntent reads which traffic goes through the hub's firewall.
func (h *hub) readIntent(f *fields) {
	h.intent = f
	for _, body := range f.objects("routingPolicies") {
		for _, destination := range f.l.readTranslating(f.file, f.place, body).texts("destinations") {
			h.internet = h.internet || strings.EqualFold(destination, "Internet")
			h.private = h.private || strings.EqualFold(destination, "PrivateTraffic")
		}
	}
}
