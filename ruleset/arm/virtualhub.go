package arm

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// Names that Azure gives to a hub's own route table, and to the label of all of these.
const (
	defaultHubTable = "defaultroutetable"
	defaultHubLabel = "default"
)

// hub is a virtual hub, as far as routes of networks come from it.
type hub struct {
	wan         string // id in lower case; empty when it is not known
	connections []*hubConnection
	tables      map[string]*hubTable // by name in lower case
	// internet and private say which traffic a routing intent sends through the hub.
	internet, private bool
}

// hubConnection connects a network to a hub.
type hubConnection struct {
	hub                   *hub
	network               *policy.VirtualNetwork
	internetSecurity      bool
	associated            string   // the table's name in lower case
	tables, propagateToBy []string // the ends of ids of tables that learn the network's prefixes, and labels, in lower case
}

// hubTable is a route table of a hub.
type hubTable struct {
	id     string // its end, HUB/hubRouteTables/NAME in lower case
	labels []string
	static []netip.Prefix
}

// relateHubs gives networks the routes that they learn from the virtual hub that they are connected to: "About virtual hub
// routing" of Microsoft's documents. What is not read of a hub is a warning.
func (l *loader) relateHubs() {
	hubs := map[*resource]*hub{}
	var order []*hub
	of := func(r *resource) *hub {
		h := hubs[r]
		if h == nil {
			h = &hub{tables: map[string]*hubTable{}}
			h.tables[defaultHubTable] = &hubTable{id: tableEnd(r.name, defaultHubTable), labels: []string{defaultHubLabel}}
			hubs[r] = h
			order = append(order, h)
		}
		return h
	}
	for _, r := range l.resources {
		if r.kind != hubKind && (parentKinds[r.kind] != hubKind || r.parent == nil) {
			continue
		}
		f := l.readTranslating(r.file, r.place(), r.body)
		switch r.kind {
		case hubKind:
			of(r).wan = strings.ToLower(f.reference("virtualWan"))
		case hubConnectionKind:
			f.readConnection(of(r.parent), r)
		case hubTableKind:
			of(r.parent).tables[strings.ToLower(r.name)] = f.readHubTable(r)
		case hubIntentKind:
			of(r.parent).readIntent(f)
		}
	}
	for _, h := range order {
		for _, c := range h.connections {
			c.network.HubRoutes = append(c.network.HubRoutes, c.learns(order)...)
		}
	}
}

// tableEnd is the end of a table's id, in lower case.
func tableEnd(hub, table string) string {
	return strings.ToLower(hub + "/" + kindPaths[hubTableKind] + "/" + table)
}

// endOf is the end of the id of a hub's table, in lower case.
func endOf(id string) string {
	segments := strings.Split(strings.ToLower(id), "/")
	return strings.Join(segments[max(0, len(segments)-3):], "/")
}

// readConnection reads what connects a network of the documents to a hub.
func (f *fields) readConnection(h *hub, r *resource) {
	c := &hubConnection{hub: h, internetSecurity: f.flag("enableInternetSecurity", false), associated: defaultHubTable}
	const field = "remoteVirtualNetwork"
	id := f.reference(field)
	e, problem := f.l.index.resolve(networkKind, id, r.file)
	if e == nil && len(f.open) == 0 {
		f.l.warn(f.newFault(CodeResourceNotRead, field, id, problem+": other networks of the hub have no route to it"))
	}
	if e == nil || e.object == nil || len(f.open) > 0 {
		return
	}
	c.network = e.object.(*policy.VirtualNetwork)
	routing := f.inside("routingConfiguration")
	if table := routing.reference("associatedRouteTable"); table != "" {
		c.associated = strings.ToLower(lastSegment(table))
	}
	propagated := routing.inside("propagatedRouteTables")
	for _, id := range propagated.references("ids") {
		c.tables = append(c.tables, endOf(id))
	}
	for _, label := range propagated.texts("labels") {
		c.propagateToBy = append(c.propagateToBy, strings.ToLower(label))
	}
	if len(c.propagateToBy)+len(c.tables) == 0 {
		c.propagateToBy = []string{defaultHubLabel}
	}
	static := routing.inside("vnetRoutes")
	if len(static.objects("staticRoutes")) > 0 {
		f.l.warn(f.newFault(CodeResourceNotRead, "staticRoutes", "", "static routes of a connection are not read: they lead through an appliance of the connected network"))
	}
	for _, field := range []string{"inboundRouteMap", "outboundRouteMap"} {
		if routing.object(field) != nil {
			f.l.warn(f.newFault(CodeResourceNotRead, field, "", "route maps of a virtual hub are not read"))
		}
	}
	if len(f.open) == 0 {
		h.connections = append(h.connections, c)
	}
}

// readHubTable reads a route table's labels and static routes.
func (f *fields) readHubTable(r *resource) *hubTable {
	t := &hubTable{id: tableEnd(r.parent.name, r.name)}
	for _, label := range f.texts("labels") {
		t.labels = append(t.labels, strings.ToLower(label))
	}
	if strings.EqualFold(r.name, defaultHubTable) {
		t.labels = append(t.labels, defaultHubLabel)
	}
	for _, body := range f.objects("routes") {
		route := f.l.readTranslating(f.file, f.place+"/routes/"+textOf(body, "name"), body)
		if kind := route.text("destinationType"); kind != "" && !strings.EqualFold(kind, "CIDR") {
			f.l.warn(route.newFault(CodeResourceNotRead, "destinationType", kind, "the route is not read; read are those of CIDR"))
			continue
		}
		t.static = append(t.static, route.prefixes("destinations")...)
	}
	return t
}

// readIntent reads which traffic goes through the hub's firewall.
func (h *hub) readIntent(f *fields) {
	for _, body := range f.objects("routingPolicies") {
		for _, destination := range f.l.readTranslating(f.file, f.place, body).texts("destinations") {
			h.internet = h.internet || strings.EqualFold(destination, "Internet")
			h.private = h.private || strings.EqualFold(destination, "PrivateTraffic")
		}
	}
}

// privateTraffic are the prefixes that a hub announces for a routing intent for private traffic.
var privateTraffic = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}

// learns are the routes that a connected network learns.
func (c *hubConnection) learns(hubs []*hub) (routes []policy.HubRoute) {
	table := c.hub.tables[c.associated]
	if table == nil {
		return nil
	}
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	add := func(p netip.Prefix, to *policy.VirtualNetwork) {
		known := slices.ContainsFunc(routes, func(r policy.HubRoute) bool { return r.Prefix == p })
		if !known && (p != everything || c.internetSecurity) {
			routes = append(routes, policy.HubRoute{Prefix: p, Network: to})
		}
	}
	for _, p := range table.static {
		add(p, nil)
	}
	if c.hub.internet {
		add(everything, nil)
	}
	for _, h := range hubs {
		for _, other := range h.connections {
			if other.network == c.network || !other.reaches(c.hub, table) {
				continue
			}
			to := other.network
			if c.hub.private { // through the firewall
				to = nil
			}
			for _, p := range other.network.AddressSpace {
				if p.Addr().Is4() { // hubs carry no IPv6 ("Virtual WAN FAQ")
					add(p, to)
				}
			}
		}
	}
	if c.hub.private {
		for _, p := range privateTraffic {
			add(p, nil)
		}
	}
	return routes
}

// reaches reports that a table of a hub learns the prefixes of the connection's network. Labels hold in all hubs of a WAN.
func (c *hubConnection) reaches(h *hub, t *hubTable) bool {
	if slices.Contains(c.tables, t.id) {
		return true
	}
	return (h == c.hub || h.wan != "" && h.wan == c.hub.wan) && slices.ContainsFunc(t.labels, func(label string) bool { return slices.Contains(c.propagateToBy, label) })
}
