package arm

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// slowTable and slowConnection are hubs as random documents have them, for the reference.
type slowTable struct {
	hub, wan, name string
	labels, static []string
}

type slowConnection struct {
	network, prefix, hub, wan string
	associated                string // a table of the hub
	ids                       [][2]string
	labels                    []string
	internet                  bool
}

// slowHubs is a world of hubs.
type slowHubs struct {
	tables            []slowTable
	connections       []slowConnection
	internet, private map[string]bool // by hub
}

// learned are the routes of a connection: each other connection is asked whether it propagates to the table.
func (s *slowHubs) learned(c slowConnection) map[string]string {
	routes := map[string]string{}
	add := func(prefix, network string) {
		if _, known := routes[prefix]; !known && prefix != c.prefix && (prefix != "0.0.0.0/0" || c.internet) {
			routes[prefix] = network
		}
	}
	i := slices.IndexFunc(s.tables, func(t slowTable) bool { return t.hub == c.hub && t.name == c.associated })
	t := s.tables[i]
	for _, p := range t.static {
		add(p, "")
	}
	if s.internet[c.hub] {
		add("0.0.0.0/0", "")
	}
	for _, other := range s.connections {
		reaches := slices.Contains(other.ids, [2]string{t.hub, t.name})
		for _, label := range other.labels {
			reaches = reaches || other.wan == t.wan && slices.Contains(t.labels, label)
		}
		switch {
		case !reaches:
		case s.private[c.hub]:
			add(other.prefix, "")
		default:
			add(other.prefix, other.network)
		}
	}
	if s.private[c.hub] {
		add("10.0.0.0/8", "")
		add("172.16.0.0/12", "")
		add("192.168.0.0/16", "")
	}
	return routes
}

// randomHubs makes hubs of two WANs with tables, and networks that are connected to them, as documents.
func randomHubs(random *rand.Rand) (s *slowHubs, documents []any) {
	const provider = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/"
	some := func(list ...string) (chosen []string) {
		for _, e := range list {
			if random.IntN(2) == 0 {
				chosen = append(chosen, e)
			}
		}
		return chosen
	}
	id := func(id string) map[string]any { return map[string]any{"id": provider + id} }
	add := func(at string, properties map[string]any) {
		documents = append(documents, map[string]any{"id": provider + at, "properties": properties})
	}
	s = &slowHubs{internet: map[string]bool{}, private: map[string]bool{}}
	hubs, names := 1+random.IntN(4), []string{"defaultRouteTable", "red"}
	for h := range hubs {
		hub, wan := fmt.Sprint("h", h), fmt.Sprint("w", random.IntN(2))
		add("virtualHubs/"+hub, map[string]any{"virtualWan": id("virtualWans/" + wan)})
		destinations := some("Internet", "PrivateTraffic")
		s.internet[hub], s.private[hub] = slices.Contains(destinations, "Internet"), slices.Contains(destinations, "PrivateTraffic")
		add("virtualHubs/"+hub+"/routingIntent/i", map[string]any{"routingPolicies": []any{map[string]any{"name": "p", "destinations": destinations}}})
		for _, name := range names {
			t := slowTable{hub, wan, name, some("blue", "green"), append(some("0.0.0.0/0", "10.1.0.0/16"), "192.168.7.0/24")}
			add("virtualHubs/"+hub+"/hubRouteTables/"+name, map[string]any{"labels": slices.Clone(t.labels),
				"routes": []any{map[string]any{"name": "r", "destinationType": "CIDR", "destinations": t.static}}})
			if name == "defaultRouteTable" {
				t.labels = append(t.labels, "default")
			}
			s.tables = append(s.tables, t)
		}
		for n := range 1 + random.IntN(4) {
			c := slowConnection{network: fmt.Sprintf("n%d%d", h, n), prefix: fmt.Sprintf("10.%d.0.0/16", 10*h+n), hub: hub, wan: wan,
				associated: names[random.IntN(2)], labels: some("default", "blue", "green", "none"), internet: random.IntN(2) == 0}
			ids := []any{}
			if random.IntN(2) == 0 {
				at := [2]string{fmt.Sprint("h", random.IntN(hubs)), names[random.IntN(2)]}
				c.ids, ids = append(c.ids, at), append(ids, id("virtualHubs/"+at[0]+"/hubRouteTables/"+at[1]))
			}
			add("virtualNetworks/"+c.network, map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{c.prefix}}, "subnets": []any{}})
			add("virtualHubs/"+hub+"/hubVirtualNetworkConnections/"+c.network, map[string]any{"remoteVirtualNetwork": id("virtualNetworks/" + c.network), "enableInternetSecurity": c.internet,
				"routingConfiguration": map[string]any{"associatedRouteTable": id("virtualHubs/" + hub + "/hubRouteTables/" + c.associated),
					"propagatedRouteTables": map[string]any{"ids": ids, "labels": slices.Clone(c.labels)}}})
			if len(c.labels)+len(c.ids) == 0 {
				c.labels = []string{"default"}
			}
			s.connections = append(s.connections, c)
		}
	}
	random.Shuffle(len(documents), func(i, j int) { documents[i], documents[j] = documents[j], documents[i] })
	return s, documents
}

func TestRandomHubsAgreeWithAskingEachConnection(t *testing.T) {
	for seed := range uint64(300) {
		world, documents := randomHubs(rand.New(rand.NewPCG(seed, 16)))
		data, err := json.Marshal(documents)
		if err != nil {
			t.Fatal(err)
		}
		d := Parse("hubs.json", data)
		if len(d.Faults)+len(d.Unresolved) > 0 {
			t.Fatalf("seed %d: faults %v, unresolved %v", seed, d.Faults, d.Unresolved)
		}
		for _, c := range world.connections {
			v, err := d.Set.VirtualNetwork(c.network)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, r := range v.HubTable.Routes {
				if got[r.Prefix.String()] = ""; r.Network != nil {
					got[r.Prefix.String()] = r.Network.Name
				}
			}
			delete(got, c.prefix) // networks share the table
			if want := world.learned(c); !maps.Equal(got, want) {
				t.Fatalf("seed %d: %s learns %v, want %v", seed, c.network, got, want)
			}
		}
	}
}

// hubOf1500 is a hub with 1,500 connected networks.
func hubOf1500(b *testing.B) []byte {
	const provider = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Network/"
	var documents []any
	for i := range 1500 {
		network, prefix := fmt.Sprint(provider, "virtualNetworks/n", i), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 0}), 24)
		documents = append(documents,
			map[string]any{"id": network, "properties": map[string]any{"addressSpace": map[string]any{"addressPrefixes": []string{prefix.String()}},
				"subnets": []any{map[string]any{"name": "s", "properties": map[string]any{"addressPrefix": prefix.String()}}}}},
			map[string]any{"id": fmt.Sprint(provider, "virtualHubs/h/hubVirtualNetworkConnections/c", i), "properties": map[string]any{"remoteVirtualNetwork": map[string]any{"id": network}}})
	}
	data, err := json.Marshal(documents)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func BenchmarkParseHubOf1500Networks(b *testing.B) {
	data := hubOf1500(b)
	for b.Loop() {
		if d := Parse("hub.json", data); len(d.Faults) > 0 || len(d.Set.VirtualNetworks) != 1500 {
			b.Fatal(d.Faults)
		}
	}
}
