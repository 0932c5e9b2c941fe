package template

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file holds a second evaluator of arguments, copies and conditions. It shares no code with the first: templates
// are made as trees, which it evaluates as they are, and the first one evaluates what they look like as JSON.

// term is an expression, or a value of JSON when fn is empty.
type term struct {
	fn   string // a function, "." for a property, or "[]" for an element
	args []*term
	text string // of a literal within an expression
	json any    // a value of JSON: its parts may be terms
}

func lit(v any) *term {
	switch v := v.(type) {
	case string:
		return &term{fn: "lit", text: "'" + v + "'", json: v}
	case int:
		return &term{fn: "lit", text: strconv.Itoa(v), json: v}
	}
	return &term{fn: fmt.Sprint(v)} // true() or false()
}

func do(fn string, args ...*term) *term { return &term{fn: fn, args: args} }

// inner is the expression without brackets.
func (x *term) inner() string {
	switch x.fn {
	case "lit":
		return x.text
	case ".":
		return x.args[0].inner() + "." + x.args[1].json.(string)
	case "[]":
		return x.args[0].inner() + "[" + x.args[1].inner() + "]"
	}
	list := make([]string, len(x.args))
	for i, a := range x.args {
		list[i] = a.inner()
	}
	return x.fn + "(" + strings.Join(list, ", ") + ")"
}

// written is a value as a template has it.
func written(v any) any {
	switch v := v.(type) {
	case *term:
		if v.fn != "" {
			return "[" + v.inner() + "]"
		}
		return written(v.json)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = written(e)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = written(e)
		}
		return out
	case propertyCopy:
		return []any{map[string]any{"name": v.name, "count": written(v.count), "input": written(v.input)}}
	}
	return v
}

// propertyCopy is the value of a field "copy".
type propertyCopy struct {
	name  string
	count *term
	input any
}

// hole stands for what is not known.
type hole struct{}

// world is where an expression is evaluated.
type world struct {
	params, vars map[string]func() any
	passes       []pass
	outer        *world // whose parameters and variables hold instead
}

type pass struct {
	name     string
	index    int
	property bool
}

func (w *world) in(p pass) *world {
	inner := *w
	inner.passes = append(slices.Clone(w.passes), p)
	return &inner
}

// value evaluates a value of JSON with terms in it.
func (w *world) value(v any) any {
	switch v := v.(type) {
	case *term:
		if v.fn != "" {
			return w.eval(v)
		}
		return w.value(v.json)
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = w.value(e)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			loop, ok := e.(propertyCopy)
			if !ok {
				out[k] = w.value(e)
				continue
			}
			n, ok := w.eval(loop.count).(int)
			if !ok {
				out["copy"] = hole{}
				continue
			}
			list := make([]any, n)
			for i := range list {
				list[i] = w.in(pass{loop.name, i, true}).value(loop.input)
			}
			out[loop.name] = list
		}
		return out
	}
	return v
}

func (w *world) eval(x *term) any {
	arg := func(i int) any { return w.eval(x.args[i]) }
	name := func() string { return x.args[0].json.(string) }
	switch x.fn {
	case "lit":
		return x.json
	case "true", "false":
		return x.fn == "true"
	case "null":
		return nil
	case "parameters", "variables":
		at := w
		for at.outer != nil {
			at = at.outer
		}
		if x.fn == "variables" {
			return at.vars[name()]()
		}
		return at.params[name()]()
	case "copyIndex":
		return w.copyIndex(x)
	case "if":
		switch arg(0) {
		case true:
			return arg(1)
		case false:
			return arg(2)
		}
		return hole{}
	}
	args := make([]any, len(x.args))
	for i := range args {
		if args[i] = arg(i); args[i] == any(hole{}) {
			return hole{}
		}
	}
	switch x.fn {
	case "concat":
		if list, ok := args[0].([]any); ok {
			return slices.Concat(list, args[1].([]any))
		}
		return args[0].(string) + args[1].(string)
	case "string":
		return strconv.Itoa(args[0].(int))
	case "add":
		return args[0].(int) + args[1].(int)
	case "length":
		return len(args[0].([]any))
	case "equals":
		return args[0] == args[1]
	case "less":
		return args[0].(int) < args[1].(int)
	case "not":
		return !args[0].(bool)
	case "createArray":
		return args
	case "createObject":
		out := map[string]any{}
		for i := 0; i < len(args); i += 2 {
			out[args[i].(string)] = args[i+1]
		}
		return out
	case ".":
		if v, ok := args[0].(map[string]any)[args[1].(string)]; ok {
			return v
		}
		return hole{}
	case "[]":
		if list := args[0].([]any); args[1].(int) < len(list) {
			return list[args[1].(int)]
		}
		return hole{}
	}
	panic(x.fn)
}

func (w *world) copyIndex(x *term) any {
	passes := w.passes
	if w.outer != nil {
		passes = slices.Concat(w.outer.passes, w.passes)
	}
	var found *pass
	for i := range passes {
		p := &passes[i]
		if len(x.args) > 0 && p.name != x.args[0].json || len(x.args) == 0 && found != nil && p.property && !found.property {
			continue
		}
		found = p
	}
	if found == nil {
		return hole{}
	}
	return found.index
}

// parameter is one that a template declares.
type parameter struct {
	kind     string
	fallback any // nil: it has no default
	nullable bool
}

// resourceModel is a resource or a deployment.
type resourceModel struct {
	name      string
	condition *term
	loop      *propertyCopy // without an input
	fields    map[string]any
	template  *templateModel
	scope     string
	pass      passed
}

// passed are the arguments of a deployment.
type passed struct {
	all  *term          // an expression for all
	list map[string]any // each as it is written
	file map[string]any // literals of a parametersLink; nil: there is none
	lost bool           // the file is not here
}

type templateModel struct {
	params    map[string]parameter
	vars      map[string]any
	resources []*resourceModel
}

// result is a resource as the second evaluator wants it, or as the first one gives it.
type result struct {
	Name                any
	Conditional, Looped bool // open
	Fields              any
	Inner               []result
}

// fits reports whether a parameter of a kind may have a value.
func fits(kind string, v any) bool {
	switch v.(type) {
	case string:
		return kind == "string"
	case int:
		return kind == "int"
	case []any:
		return kind == "array"
	case map[string]any:
		return kind == "object"
	}
	return false
}

// world makes the parameters and variables of a template. given returns nil for what is not given.
func (m *templateModel) world(given func(name string) any) *world {
	w := &world{params: map[string]func() any{}, vars: map[string]func() any{}}
	for name, p := range m.params {
		w.params[name] = func() any {
			v := given(name)
			if v == nil && p.fallback != nil {
				v = w.value(p.fallback)
			}
			switch {
			case v == nil && p.nullable:
				return nil
			case !fits(p.kind, v):
				return hole{}
			}
			return v
		}
	}
	for name, v := range m.vars {
		w.vars[name] = func() any { return w.value(v) }
	}
	return w
}

func (m *templateModel) results(w *world) []result {
	var out []result
	for _, r := range m.resources {
		n, passes := 1, false
		if r.loop != nil {
			if n, passes = w.eval(r.loop.count).(int); !passes {
				if r.condition == nil || w.eval(r.condition) != any(false) {
					out = append(out, result{Looped: true})
				}
				continue
			}
		}
		for i := range n {
			at := w
			if passes {
				at = w.in(pass{r.loop.name, i, false})
			}
			one := result{Name: r.name, Fields: map[string]any{}}
			if passes {
				one.Name = r.name + strconv.Itoa(i)
			}
			if r.condition != nil {
				switch at.eval(r.condition) {
				case false:
					continue
				case any(hole{}):
					one.Conditional = true
				}
			}
			if r.template == nil {
				one.Fields = at.value(r.fields)
			} else {
				one.Inner = r.template.results(r.inner(at))
			}
			out = append(out, one)
		}
	}
	return out
}

// inner is the world of a deployment's template.
func (r *resourceModel) inner(at *world) *world {
	if r.scope != "inner" {
		return &world{outer: at}
	}
	return r.template.world(func(name string) any {
		p := r.pass
		switch {
		case p.lost:
			return hole{}
		case p.file != nil:
			return p.file[name]
		}
		argument := at.value(p.list[name])
		if p.all != nil {
			all, ok := at.eval(p.all).(map[string]any)
			if !ok {
				return hole{}
			}
			argument = all[name]
		}
		switch o := argument.(type) {
		case nil:
			return nil
		case map[string]any:
			if v, ok := o["value"]; ok {
				return v
			}
		}
		return hole{}
	})
}

// maker makes random templates.
type maker struct {
	*rand.Rand
	files map[string]map[string]any
}

// surroundings are what expressions may name.
type surroundings struct {
	params map[string]parameter
	vars   map[string]string // kinds
	loops  []string
}

func (k *maker) pick(n *surroundings, kind string) *term {
	var found []*term
	for _, name := range slices.Sorted(maps.Keys(n.params)) {
		if p := n.params[name]; p.kind == kind && !p.nullable {
			found = append(found, do("parameters", lit(name)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.vars)) {
		if n.vars[name] == kind {
			found = append(found, do("variables", lit(name)))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[k.IntN(len(found))]
}

// expression makes an expression of a kind.
func (k *maker) expression(n *surroundings, kind string, depth int) *term {
	if x := k.pick(n, kind); x != nil && k.IntN(3) == 0 {
		return x
	}
	if depth == 0 {
		switch kind {
		case "string":
			return lit([]string{"a", "b", "c", ""}[k.IntN(4)])
		case "int":
			if len(n.loops) > 0 && k.IntN(2) == 0 {
				if k.IntN(2) == 0 {
					return do("copyIndex")
				}
				return do("copyIndex", lit(n.loops[k.IntN(len(n.loops))]))
			}
			return lit(k.IntN(4))
		case "bool":
			return lit(k.IntN(2) == 0)
		case "array":
			return do("createArray", lit("a"))
		}
		return do("createObject", lit("k"), lit("v"))
	}
	of := func(kind string) *term { return k.expression(n, kind, depth-1) }
	if k.IntN(5) == 0 {
		return do("if", of("bool"), of(kind), of(kind))
	}
	switch kind {
	case "string":
		switch k.IntN(4) {
		case 0:
			return do("concat", of("string"), of("string"))
		case 1:
			return do("string", of("int"))
		case 2:
			return do(".", k.expression(n, "object", 0), lit([]string{"k", "l"}[k.IntN(2)]))
		}
		return do("[]", k.expression(n, "array", 0), lit(k.IntN(2)))
	case "int":
		if k.IntN(2) == 0 {
			return do("add", of("int"), of("int"))
		}
		return do("length", of("array"))
	case "bool":
		switch k.IntN(3) {
		case 0:
			return do("equals", of("string"), of("string"))
		case 1:
			return do("less", of("int"), of("int"))
		}
		return do("not", of("bool"))
	case "array":
		if k.IntN(2) == 0 {
			return do("concat", of("array"), of("array"))
		}
		return do("createArray", of("string"), of("string"))
	}
	return do("createObject", lit("k"), of("string"), lit("l"), of("string"))
}

var paramKinds = []string{"string", "int", "array", "object"}

// tree makes a value of a kind as JSON has it, with expressions and loops in it.
func (k *maker) tree(n *surroundings, kind string) any {
	switch {
	case k.IntN(2) == 0:
		return k.expression(n, kind, 2)
	case kind == "array":
		return []any{k.expression(n, "string", 1), k.expression(n, "string", 1)}
	case kind == "object":
		return map[string]any{"k": k.expression(n, "string", 1), "l": lit("x").json}
	}
	return k.expression(n, kind, 1)
}

// count is the number of passes of a loop.
func (k *maker) count(n *surroundings) *term {
	if k.IntN(3) == 0 {
		if x := k.pick(n, "array"); x != nil {
			return do("length", x)
		}
	}
	return lit(k.IntN(3))
}

func (n surroundings) within(loop string) *surroundings {
	n.loops = append(slices.Clone(n.loops), loop)
	return &n
}

// literal is a value of a kind without expressions.
func (k *maker) literal(kind string) any {
	switch kind {
	case "string":
		return []string{"x", "y", ""}[k.IntN(3)]
	case "int":
		return k.IntN(3)
	case "array":
		return []any{"x", "y"}[:k.IntN(3)]
	}
	return map[string]any{"k": "x", "l": "y"}
}

// template makes one whose expressions see outer, or their own names if outer is nil.
func (k *maker) template(depth int, prefix string, outer *surroundings) *templateModel {
	m := &templateModel{params: map[string]parameter{}, vars: map[string]any{}}
	own := &surroundings{params: map[string]parameter{}, vars: map[string]string{}}
	for i := range k.IntN(4) {
		name := "p" + strconv.Itoa(i)
		p := parameter{kind: paramKinds[k.IntN(4)], nullable: k.IntN(8) == 0}
		if k.IntN(3) > 0 {
			p.fallback = k.tree(&surroundings{params: own.params}, p.kind)
		}
		m.params[name] = p
		own.params = maps.Clone(own.params)
		own.params[name] = p
	}
	for i := range k.IntN(4) {
		name, kind := "v"+strconv.Itoa(i), paramKinds[k.IntN(4)]
		m.vars[name] = k.tree(own, kind)
		own.vars = maps.Clone(own.vars)
		own.vars[name] = kind
	}
	n := own
	if outer != nil {
		n = outer
	}
	for i := range 1 + k.IntN(3) {
		m.resources = append(m.resources, k.resource(n, depth, fmt.Sprintf("%s%d-", prefix, i)))
	}
	return m
}

func (k *maker) resource(n *surroundings, depth int, name string) *resourceModel {
	r := &resourceModel{name: name}
	if k.IntN(3) == 0 {
		r.condition = k.expression(n, "bool", 2)
	}
	if k.IntN(3) == 0 {
		r.loop = &propertyCopy{name: "loop" + name, count: k.count(n)}
		n = n.within(r.loop.name)
	}
	if depth == 0 || k.IntN(3) == 0 {
		r.fields = map[string]any{}
		for i := range 1 + k.IntN(3) {
			r.fields["f"+strconv.Itoa(i)] = k.tree(n, paramKinds[k.IntN(4)])
		}
		if k.IntN(3) == 0 {
			inner := n.within("many")
			r.fields["copy"] = propertyCopy{"many", k.count(n), map[string]any{"i": k.expression(inner, "int", 0), "s": k.expression(inner, "string", 1)}}
		}
		return r
	}
	if r.scope = []string{"inner", "inner", "outer", ""}[k.IntN(4)]; r.scope != "inner" {
		r.template = k.template(depth-1, name, n)
		return r
	}
	r.template = k.template(depth-1, name, nil)
	r.pass = k.arguments(n, r.template.params)
	return r
}

// arguments passes values in every form.
func (k *maker) arguments(n *surroundings, params map[string]parameter) (p passed) {
	values := func(kind string) *term { return do("createObject", lit("value"), k.expression(n, kind, 1)) }
	sorted := slices.Sorted(maps.Keys(params))
	switch k.IntN(8) {
	case 0:
		p.all = do("createObject")
		for _, name := range sorted {
			if k.IntN(4) > 0 {
				p.all.args = append(p.all.args, lit(name), values(params[name].kind))
			}
		}
		return p
	case 1:
		p.file = map[string]any{}
		for _, name := range sorted {
			if k.IntN(3) > 0 {
				p.file[name] = k.literal(params[name].kind)
			}
		}
		return p
	case 2:
		p.lost = k.IntN(3) == 0
		if p.lost {
			return p
		}
	}
	p.list = map[string]any{}
	for _, name := range sorted {
		kind := params[name].kind
		var v any
		switch k.IntN(10) {
		case 0: // nothing
			continue
		case 1:
			v = nil
		case 2:
			v = map[string]any{"value": nil}
		case 3:
			v = values(kind)
		case 4:
			v = do("if", k.expression(n, "bool", 1), values(kind), values(kind))
		case 5:
			v = do("if", k.expression(n, "bool", 1), values(kind), do("null"))
		case 6:
			v = map[string]any{"values": k.expression(n, kind, 1)}
		case 7:
			v = map[string]any{"reference": map[string]any{"secretName": "s"}}
		case 8:
			if kind == "array" {
				v = map[string]any{"copy": propertyCopy{"value", k.count(n), k.expression(n.within("value"), "string", 1)}}
				break
			}
			v = map[string]any{"value": k.expression(n, paramKinds[k.IntN(4)], 1)} // it may be of a wrong type
		default:
			v = map[string]any{"value": k.tree(n, kind)}
		}
		p.list[name] = v
	}
	return p
}

// document is a template as JSON has it.
func (k *maker) document(m *templateModel) map[string]any {
	params, vars, list := map[string]any{}, map[string]any{}, []any{}
	for name, p := range m.params {
		d := map[string]any{"type": p.kind}
		if p.fallback != nil {
			d["defaultValue"] = written(p.fallback)
		}
		if p.nullable {
			d["nullable"] = true
		}
		params[name] = d
	}
	for name, v := range m.vars {
		vars[name] = written(v)
	}
	for _, r := range m.resources {
		o := map[string]any{"type": "T/x", "name": r.name, "properties": written(r.fields)}
		if r.loop != nil {
			o["name"] = "[concat('" + r.name + "', string(copyIndex('" + r.loop.name + "')))]"
			o["copy"] = map[string]any{"name": r.loop.name, "count": written(r.loop.count)}
		}
		if r.condition != nil {
			o["condition"] = written(r.condition)
		}
		if r.template != nil {
			o["type"] = "Microsoft.Resources/deployments"
			o["properties"] = k.properties(r)
		}
		list = append(list, o)
	}
	return map[string]any{"parameters": params, "variables": vars, "resources": list}
}

func (k *maker) properties(r *resourceModel) map[string]any {
	o := map[string]any{"template": k.document(r.template)}
	if r.scope != "" {
		o["expressionEvaluationOptions"] = map[string]any{"scope": r.scope}
	}
	p := r.pass
	switch {
	case p.all != nil:
		o["parameters"] = written(p.all)
	case p.lost:
		o["parametersLink"] = map[string]any{"uri": "https://example.com/lost.json"}
	case p.file != nil:
		file := "p" + strconv.Itoa(len(k.files)) + ".json"
		k.files[file] = p.file
		o["parametersLink"] = map[string]any{"uri": file}
	case p.list != nil:
		o["parameters"] = written(p.list)
	}
	return o
}

// read turns what the first evaluator gives into results.
func read(list []any) []result {
	var out []result
	for _, e := range list {
		o := e.(map[string]any)
		if _, open := o["copy"]; open {
			out = append(out, result{Looped: true})
			continue
		}
		_, conditional := o["condition"]
		one := result{Name: o["name"], Conditional: conditional, Fields: map[string]any{}}
		properties, _ := o["properties"].(map[string]any)
		if t, ok := properties["template"].(map[string]any); ok {
			one.Inner = read(t["resources"].([]any))
		} else {
			one.Fields = plainValue(properties)
		}
		out = append(out, one)
	}
	return out
}

// plainValue is an exported value with holes instead of expressions.
func plainValue(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "[") {
			return hole{}
		}
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plainValue(e)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = plainValue(e)
		}
		return out
	case interface{ Int64() (int64, error) }: // json.Number
		n, _ := v.Int64()
		return int(n)
	}
	return v
}

func eachText(v any, visit func(string)) {
	switch v := v.(type) {
	case string:
		visit(v)
	case []any:
		for _, e := range v {
			eachText(e, visit)
		}
	case map[string]any:
		for _, e := range v {
			eachText(e, visit)
		}
	}
}

// Ten thousand templates mean the same to both evaluators: no value differs, and what one leaves open the other does.
// NSGD_TEMPLATES is another number of templates, NSGD_SEED another seed.
func TestTwoEvaluatorsAgree(t *testing.T) {
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	seed, n := number("NSGD_SEED", 16), number("NSGD_TEMPLATES", 10_000)
	t.Logf("%d templates of seed %d", n, seed)
	open, known := 0, 0
	for i := range n {
		k := &maker{Rand: rand.New(rand.NewPCG(uint64(seed), uint64(i))), files: map[string]map[string]any{}}
		m := k.template(3, "r", nil)
		given := map[string]any{}
		for _, name := range slices.Sorted(maps.Keys(m.params)) {
			if k.IntN(2) == 0 {
				given[name] = k.literal(m.params[name].kind)
			}
		}
		text, err := asJSON(k.document(m))
		if err != nil {
			t.Fatal(err)
		}
		values, err := asJSON(given)
		if err != nil {
			t.Fatal(err)
		}
		parsed, _ := parseJSON(values)
		r := evaluateText(t, text, Options{Parameters: parsed.(map[string]any), ReadFile: func(path string) ([]byte, error) {
			file, ok := k.files[path]
			if !ok {
				return nil, errors.New("no such file")
			}
			wrapped := map[string]any{}
			for name, v := range file {
				wrapped[name] = map[string]any{"value": v}
			}
			data, err := asJSON(wrapped)
			return []byte(data), err
		}})
		got := fmt.Sprintf("%+v", read(r.Document["resources"].([]any)))
		want := fmt.Sprintf("%+v", m.results(m.world(func(name string) any { return given[name] })))
		if got != want || len(r.Faults) > 0 {
			t.Fatalf("template %d of seed %d: the first evaluator gives\n%s\nthe second\n%s\nof %s\nwith %s; faults %v, problems %v", i, seed, got, want, text, values, r.Faults, r.Problems)
		}
		told := map[string]bool{}
		for _, p := range r.Problems {
			told[p.Expression] = true
		}
		eachText(r.Document, func(text string) {
			if strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "[[") && !told[text] {
				t.Fatalf("template %d of seed %d: %s is open, and no problem tells why: %v", i, seed, text, r.Problems)
			}
		})
		if len(r.Problems) > 0 {
			open++
		} else {
			known++
		}
	}
	t.Logf("%d templates are known as a whole, %d in part", known, open)
}
