package worlds

import (
	"encoding/json"
	"maps"
	"slices"
)

// shrink drops whatever it can from a world as long as the difference stays, and returns what is
// left and the tuple there. stays builds the world anew.
func shrink(w *world, t tuple, stays func(*world, tuple) bool) (*world, tuple) {
	for smaller := true; smaller; {
		smaller = false
		for i := len(w.Attachments) - 1; i >= 0; i-- {
			if i == t.From {
				continue
			}
			less, moved := w.copy(), t
			less.Attachments = slices.Delete(less.Attachments, i, i+1)
			if i < t.From {
				moved.From--
			}
			if stays(less, moved) {
				w, t, smaller = less, moved, true
			}
		}
		for n := 0; ; n++ {
			less := w.copy()
			if !less.drop(n) {
				break
			}
			if stays(less, t) {
				w, smaller = less, true
				n--
			}
		}
	}
	return w, t
}

func (w *world) copy() *world {
	var other world
	if err := json.Unmarshal([]byte(w.String()), &other); err != nil {
		panic(err) // it was written by String
	}
	return &other
}

// drop removes the n-th part of the world, whole resources first; false: there are fewer.
func (w *world) drop(n int) bool {
	if w.BlockSMTP {
		if n--; n < 0 {
			w.BlockSMTP = false
			return true
		}
	}
	if w.DefaultOutbound != "" {
		if n--; n < 0 {
			w.DefaultOutbound = ""
			return true
		}
	}
	if n < len(w.Resources) {
		w.Resources = slices.Delete(w.Resources, n, n+1)
		return true
	}
	n -= len(w.Resources)
	var all any = w.Resources
	return dropPart(&all, &n)
}

// dropPart removes the n-th part below a value, or counts n down by the parts that there are.
func dropPart(value *any, n *int) bool {
	switch v := (*value).(type) {
	case []any:
		for i := range v {
			if dropPart(&v[i], n) {
				return true
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if *n == 0 {
				delete(v, key)
				return true
			}
			*n--
			part := v[key]
			if list, ok := part.([]any); ok {
				if *n < len(list) {
					v[key] = slices.Delete(list, *n, *n+1)
					return true
				}
				*n -= len(list)
			}
			if dropPart(&part, n) {
				return true
			}
		}
	}
	return false
}
