package template

import "github.com/nsgd/nsgd/ruleset/arm/jsonc"

// origins are the objects of the template's files that evaluated objects were made of, by the identity of these.
type origins map[uintptr]origin

// origin keeps the evaluated object, so that no other gets its identity.
type origin struct{ made, source map[string]any }

// note records that an object was made of another, which may have been made itself.
func (o origins) note(made, of map[string]any) {
	if before, ok := o[jsonc.Identity(of)]; ok {
		of = before.source
	}
	o[jsonc.Identity(made)] = origin{made, of}
}

// Origin is the object of the template, or of a linked one, that an object of Document was made of. It is the object
// itself when it was made of none, such as a function's result.
func (r *Result) Origin(object map[string]any) map[string]any {
	if o, ok := r.origins[jsonc.Identity(object)]; ok {
		return o.source
	}
	return object
}

// objects is about how many objects evaluating a value makes: each is evaluated, then copied into the result.
func objects(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		n = 2
		for _, e := range v {
			n += objects(e)
		}
	case []any:
		for _, e := range v {
			n += objects(e)
		}
	}
	return n
}
