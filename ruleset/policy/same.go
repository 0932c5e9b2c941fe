package policy

import (
	"net/netip"
	"reflect"
	"unsafe"

	"github.com/nsgd/nsgd/ruleset"
)

// SameButRules reports that two policies differ in what their NSGs and rule collections say, if in anything: all
// networks, interfaces, routes and translations are equal, and have NSGs of the same ids. It looks at every field there is,
// so that one that comes later counts too.
func (s *Set) SameButRules(other *Set) bool {
	c := comparison{seen: map[pointers]bool{}}
	return c.same(reflect.ValueOf(s), reflect.ValueOf(other))
}

// pointers are two values that are compared already, or are being compared.
type pointers struct{ a, b unsafe.Pointer }

type comparison struct{ seen map[pointers]bool }

var (
	typeOfNSG    = reflect.TypeFor[ruleset.NSG]()
	typeOfAddr   = reflect.TypeFor[netip.Addr]()
	typeOfPrefix = reflect.TypeFor[netip.Prefix]()
	typeOfIndex  = reflect.TypeFor[index[NetworkInterface]]()
)

func (c *comparison) same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		return c.samePointers(a, b)
	case reflect.Struct:
		switch a.Type() {
		case typeOfNSG:
			return a.FieldByName("ID").String() == b.FieldByName("ID").String()
		case typeOfAddr, typeOfPrefix:
			return a.Equal(b)
		case typeOfIndex: // says nothing that the list does not
			return true
		}
		for i := range a.NumField() {
			if !c.same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
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

func (c *comparison) samePointers(a, b reflect.Value) bool {
	p := pointers{a.UnsafePointer(), b.UnsafePointer()}
	switch {
	case p.a == p.b:
		return true
	case p.a == nil || p.b == nil:
		return false
	case c.seen[p]:
		return true // if they differ, who began with them finds it
	}
	c.seen[p] = true
	return c.same(a.Elem(), b.Elem())
}
