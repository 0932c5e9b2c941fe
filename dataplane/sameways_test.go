package dataplane

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// everyLeaf calls visit with each field that a policy has, of the values that are there, and its path.
func everyLeaf(v reflect.Value, path string, seen map[any]bool, visit func(path string, leaf reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() || seen[v.Interface()] {
			return
		}
		seen[v.Interface()] = true
		everyLeaf(v.Elem(), path, seen, visit)
	case reflect.Struct:
		switch v.Interface().(type) {
		case netip.Addr, netip.Prefix:
			visit(path, v)
			return
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				everyLeaf(v.Field(i), path+"."+f.Name, seen, visit)
			}
		}
	case reflect.Slice:
		visit(path, v)
		for i := range v.Len() {
			everyLeaf(v.Index(i), path, seen, visit)
		}
	case reflect.Map:
		visit(path, v)
	default:
		visit(path, v)
	}
}

// change gives a leaf another value; it reports false where it knows none.
func change(leaf reflect.Value) bool {
	switch v := leaf.Interface().(type) {
	case netip.Addr:
		leaf.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.77")))
		return v != netip.MustParseAddr("192.0.2.77")
	case netip.Prefix:
		leaf.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.64/28")))
		return true
	}
	switch leaf.Kind() {
	case reflect.String:
		leaf.SetString(leaf.String() + "x")
	case reflect.Bool:
		leaf.SetBool(!leaf.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		leaf.SetInt(leaf.Int() + 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		leaf.SetUint(leaf.Uint() + 1)
	case reflect.Slice:
		if leaf.Len() == 0 {
			leaf.Set(reflect.MakeSlice(leaf.Type(), 1, 1))
			return true
		}
		leaf.Set(leaf.Slice(0, leaf.Len()-1))
	case reflect.Map:
		leaf.Set(reflect.ValueOf(map[string][]netip.Prefix{"Storage": {netip.MustParsePrefix("192.0.2.0/24")}}))
	default:
		return false
	}
	return true
}

func TestWhateverElseThanRulesChangesIsSeen(t *testing.T) {
	rich := func() *policy.Set {
		s := translatedFigure()
		h := hubWorld{left: byFW("10.2.0.0/24")}.policy()
		s.VirtualNetworks, s.RouteTables = append(s.VirtualNetworks, h.VirtualNetworks...), append(s.RouteTables, h.RouteTables...)
		s.NetworkInterfaces = append(s.NetworkInterfaces, h.NetworkInterfaces...)
		return s
	}
	if d := rich().Differs(rich()); d.Elsewhere || len(d.Interfaces) > 0 {
		t.Fatalf("a policy differs from itself: %+v", d)
	}
	var paths []string
	everyLeaf(reflect.ValueOf(rich()), "", map[any]bool{}, func(path string, _ reflect.Value) { paths = append(paths, path) })
	inRules := reflect.TypeFor[ruleset.NSG]()
	tried := 0
	for n, path := range paths {
		changed, i, known := rich(), 0, false
		everyLeaf(reflect.ValueOf(changed), "", map[any]bool{}, func(_ string, leaf reflect.Value) {
			if i == n {
				known = change(leaf)
			}
			i++
		})
		if !known {
			continue
		}
		tried++
		ofRules := false
		for field := range inRules.Fields() {
			ofRules = ofRules || field.Name != "ID" && path == ".NetworkSecurityGroups."+field.Name
		}
		ofRules = ofRules || len(path) > 29 && path[:29] == ".NetworkSecurityGroups.Rules."
		ofRules = ofRules || path == ".ServiceTags" // which no route names
		d := rich().Differs(changed)
		if same := !d.Elsewhere && len(d.Interfaces) == 0; same != ofRules {
			t.Errorf("%s changed: same %t", path, same)
		}
		ofNICs := strings.HasPrefix(path, ".NetworkInterfaces") && !strings.Contains(path, ".PublicIPAddress.")
		if d.Elsewhere == (ofRules || ofNICs) && path != ".NetworkInterfaces.ID" { // which a backend pool names, too
			t.Errorf("%s changed: elsewhere %t", path, d.Elsewhere)
		}
	}
	t.Logf("%d of %d fields tried", tried, len(paths))
}

// A reload that changes rules alone leaves the flow table alone: every flow stays as if each had been looked at.
func TestARuleThatChangesTakesNoFlowsPlace(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 5))
	r := newRig(t, translatedFigure(), conntrack.Options{Max: 1 << 14})
	r.rewrites = true
	for n := range 2000 {
		src, from := []string{world, addr1, addr2, addr4}[random.IntN(4)], 0
		from = map[string]int{world: internet, addr1: vm1, addr2: vm2, addr4: vm4}[src]
		dst := []string{addr1, addr2, addr4, world, public2, balanced}[random.IntN(6)]
		r.send(from, packettest.UDP(packettest.Spec{Src: src, Dst: dst, SrcPort: uint16(1000 + n), DstPort: []uint16{53, 80, 443}[random.IntN(3)]}))
	}
	if r.engine.Flows().Stats().Flows < 100 {
		t.Fatal("too few flows")
	}
	for range 20 {
		next := translatedFigure()
		for _, g := range next.NetworkSecurityGroups {
			for i := range g.Rules {
				if random.IntN(3) == 0 {
					g.Rules[i].Access = []ruleset.Access{ruleset.Allow, ruleset.Deny}[random.IntN(2)]
				}
			}
			g.FlushConnection = random.IntN(4) == 0
		}
		old := r.engine.Snapshot()
		s, err := r.engine.Prepare(next)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Differs(old); !d.None() {
			t.Fatal("rules alone have changed")
		}
		r.engine.Flows().Flows(func(f *conntrack.FlowInfo) bool {
			if !r.engine.room.Stays(old, s, f) || r.engine.room.Established(s, f, 0) != r.engine.room.Established(old, f, 0) {
				t.Errorf("%+v does not stay", f)
			}
			return true
		})
		if err := r.engine.Swap(s, nil); err != nil {
			t.Fatal(err)
		}
	}
}
