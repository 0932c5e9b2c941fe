package policy

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/nsgd/nsgd/ruleset"
)

// Difference says how far two policies differ, beside what their NSGs and rule collections say.
type Difference struct {
	// Elsewhere says that anything but network interfaces differs: a network, a route or a translation.
	Elsewhere bool
	// Interfaces are the ids, in lower case, of the network interfaces that differ, or that only one policy has.
	Interfaces map[string]bool
}

// Differs compares two policies. Their NSGs are alike here when their ids are; so are lists of network interfaces
// in another order. It looks at every field there is, so that one that comes later counts too.
func (s *Set) Differs(other *Set) Difference {
	c := comparison{seen: map[pointers]bool{}}
	d := Difference{Interfaces: map[string]bool{}}
	if d.Elsewhere = !c.same(reflect.ValueOf(s).Elem(), reflect.ValueOf(other).Elem()) || !s.sameTagsOfWays(other); d.Elsewhere {
		return d
	}
	rest, others := s.NetworkInterfaces, other.NetworkInterfaces
	for len(rest) > 0 && len(others) > 0 && rest[0].ID == others[0].ID { // seldom are they in another order
		if !c.sameInterfaces(rest[0], others[0]) {
			d.Interfaces[strings.ToLower(rest[0].ID)] = true
		}
		rest, others = rest[1:], others[1:]
	}
	before := make(map[string]*NetworkInterface, len(others))
	for _, nic := range others {
		before[strings.ToLower(nic.ID)] = nic
	}
	for _, nic := range rest {
		id := strings.ToLower(nic.ID)
		if was := before[id]; was == nil || !c.sameInterfaces(nic, was) {
			d.Interfaces[id] = true
		}
		delete(before, id)
	}
	for id := range before {
		d.Interfaces[id] = true
	}
	return d
}

func (c *comparison) sameInterfaces(a, b *NetworkInterface) bool {
	return a == b || c.sameFields(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

// sameTagsOfWays compares the service tags that routes and service endpoints name.
func (s *Set) sameTagsOfWays(other *Set) bool {
	for _, t := range s.RouteTables {
		for i := range t.Routes {
			if tag := t.Routes[i].Tag; !slices.Equal(s.ServiceTags[tag], other.ServiceTags[tag]) {
				return false
			}
		}
	}
	for _, v := range s.VirtualNetworks {
		for _, sub := range v.Subnets {
			for _, tag := range sub.ServiceEndpoints {
				if !slices.Equal(s.ServiceTags[tag], other.ServiceTags[tag]) {
					return false
				}
			}
		}
	}
	return true
}

// pointers are two values that are compared already, or are being compared.
type pointers struct{ a, b unsafe.Pointer }

type comparison struct{ seen map[pointers]bool }

var (
	typeOfSet    = reflect.TypeFor[Set]()
	typeOfNIC    = reflect.TypeFor[NetworkInterface]()
	typeOfNSG    = reflect.TypeFor[ruleset.NSG]()
	typeOfAddr   = reflect.TypeFor[netip.Addr]()
	typeOfPrefix = reflect.TypeFor[netip.Prefix]()
)

func (c *comparison) same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.String:
		return a.String() == b.String()
	case reflect.Pointer:
		return c.samePointers(a, b)
	case reflect.Struct:
		switch a.Type() {
		case typeOfNSG, typeOfNIC: // who lists them compares the rest
			return a.FieldByName("ID").String() == b.FieldByName("ID").String()
		case typeOfAddr, typeOfPrefix:
			return a.Equal(b)
		}
		return c.sameFields(a, b)
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !c.same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() {
			return false
		}
		for i := a.MapRange(); i.Next(); {
			if v := b.MapIndex(i.Key()); !v.IsValid() || !c.same(i.Value(), v) {
				return false
			}
		}
		return true
	case reflect.Func, reflect.Interface, reflect.Chan:
		return a.IsNil() && b.IsNil() // a policy is data; what else comes counts as different
	}
	return a.Equal(b)
}

// sameFields compares structs. Differs compares some fields of a policy by itself.
func (c *comparison) sameFields(a, b reflect.Value) bool {
	whole := a.Type() != typeOfSet
	for i := range a.NumField() {
		if !whole && slices.Contains(apart[:], a.Type().Field(i).Name) {
			continue
		}
		if !c.same(a.Field(i), b.Field(i)) {
			return false
		}
	}
	return true
}

// apart are the fields of a Set that Differs compares by itself, and the index of one of them.
var apart = [...]string{"NetworkInterfaces", "ServiceTags", "nics"}

func (c *comparison) samePointers(a, b reflect.Value) bool {
	p := pointers{a.UnsafePointer(), b.UnsafePointer()}
	switch {
	case p.a == p.b:
		return true
	case p.a == nil || p.b == nil:
		return false
	}
	if same, known := c.seen[p]; known {
		return same // true while they are being compared: who began with them finds it
	}
	c.seen[p] = true
	same := c.same(a.Elem(), b.Elem())
	c.seen[p] = same
	return same
}
