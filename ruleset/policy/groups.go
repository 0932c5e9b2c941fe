package policy

import (
	"reflect"
	"unsafe"

	"github.com/nsgd/nsgd/ruleset"
)

// WithGroups is a copy of a policy in which other NSGs stand in the places of some. Nothing else differs. The copy shares
// with s what leads to no NSG, and neither may be modified then.
func (s *Set) WithGroups(groups map[*ruleset.NSG]*ruleset.NSG) *Set {
	c := &copier{groups: groups, made: make(map[unsafe.Pointer]reflect.Value, 2*len(s.NetworkInterfaces)), fields: map[reflect.Type][]int{}}
	next := &Set{}
	from, to := reflect.ValueOf(s).Elem(), reflect.ValueOf(next).Elem()
	for i := range from.NumField() {
		if from.Type().Field(i).IsExported() { // an index is of one policy
			to.Field(i).Set(from.Field(i))
			c.renew(to.Field(i))
		}
	}
	return next
}

// copier replaces what leads to NSGs. It looks at every field there is, so that one that comes later counts too.
type copier struct {
	groups map[*ruleset.NSG]*ruleset.NSG
	made   map[unsafe.Pointer]reflect.Value // copies by what they were made of
	fields map[reflect.Type][]int           // those of a struct that lead to an NSG
}

// renew makes a value that was copied shallowly a copy of its own.
func (c *copier) renew(v reflect.Value) {
	if !c.leads(v.Type()) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			v.Set(c.renewed(v))
		}
	case reflect.Struct:
		for _, i := range c.leading(v.Type()) {
			c.renew(v.Field(i))
		}
	case reflect.Slice:
		if v.IsNil() {
			return
		}
		list := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(list, v)
		v.Set(list)
		for i := range v.Len() {
			c.renew(v.Index(i))
		}
	default:
		panic("policy: a " + v.Kind().String() + " leads to an NSG: " + v.Type().String())
	}
}

// renewed is the copy of what a pointer points to.
func (c *copier) renewed(p reflect.Value) reflect.Value {
	if g, ok := p.Interface().(*ruleset.NSG); ok {
		if next, changed := c.groups[g]; changed {
			return reflect.ValueOf(next)
		}
		return p
	}
	if next, known := c.made[p.UnsafePointer()]; known {
		return next
	}
	next := reflect.New(p.Type().Elem())
	c.made[p.UnsafePointer()] = next // before what leads back to it
	next.Elem().Set(p.Elem())
	c.renew(next.Elem())
	return next
}

// leads reports that values of a type may lead to an NSG.
func (c *copier) leads(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return t.Elem() == typeOfNSG || c.leads(t.Elem())
	case reflect.Struct:
		return len(c.leading(t)) > 0
	}
	return false
}

// leading are the fields of a struct that lead to an NSG.
func (c *copier) leading(t reflect.Type) []int {
	list, known := c.fields[t]
	if !known {
		for i := range t.NumField() {
			if reaches(t.Field(i).Type, map[reflect.Type]bool{}) {
				list = append(list, i)
			}
		}
		c.fields[t] = list
	}
	return list
}

// reaches is leads without the types in seen.
func reaches(t reflect.Type, seen map[reflect.Type]bool) bool {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return reaches(t.Elem(), seen)
	case reflect.Struct:
		if t == typeOfNSG || seen[t] {
			return t == typeOfNSG
		}
		seen[t] = true
		for i := range t.NumField() {
			if reaches(t.Field(i).Type, seen) {
				return true
			}
		}
	}
	return false
}
