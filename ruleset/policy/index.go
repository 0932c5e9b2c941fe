package policy

import (
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// index finds the objects that a reference may name without a look at all of them. The zero value is empty; the first
// search fills it. Safe for concurrent use.
type index[T any] struct {
	filled atomic.Value // a *filledIndex[T]; a copy of an index is one too, while nobody searches
}

// filledIndex has the objects of a list by the end of each key, see keyEnd.
type filledIndex[T any] struct {
	list  []*T
	byEnd map[string][]*T
}

// near returns the objects of a list that have a key with the end of a reference, in the list's order: every object that
// names knows by the reference is among them. An index belongs to one list, and is made again where that has been
// replaced or has grown.
func (x *index[T]) near(reference string, list []*T, keys func(*T) []string) []*T {
	f, _ := x.filled.Load().(*filledIndex[T])
	if f == nil || len(f.list) != len(list) || len(list) > 0 && &f.list[0] != &list[0] {
		f = &filledIndex[T]{list, make(map[string][]*T, len(list))}
		for _, o := range list {
			for _, key := range keys(o) {
				end := keyEnd(key)
				if same := f.byEnd[end]; len(same) == 0 || same[len(same)-1] != o {
					f.byEnd[end] = append(same, o)
				}
			}
		}
		x.filled.Store(f)
	}
	return f.byEnd[keyEnd(reference)]
}

// keyEnd is what follows a key's last slash, the same for all that strings.EqualFold takes for equal.
func keyEnd(key string) string {
	end := key[strings.LastIndexByte(key, '/')+1:]
	for i := range len(end) {
		if end[i] >= utf8.RuneSelf {
			return strings.Map(smallestFold, end)
		}
	}
	return strings.ToUpper(end)
}

// smallestFold is the smallest of the letters that differ in case only: K, k and the Kelvin sign are K.
func smallestFold(r rune) rune {
	least := r
	for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
		least = min(least, next)
	}
	return least
}
