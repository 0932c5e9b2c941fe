package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jmespath/go-jmespath"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

const (
	outputYAML = "yaml"
	// outputTSV is az's: a row for each element of a list, without a header.
	outputTSV = "tsv"
)

// programFormats are the formats that every verb with an answer has, and that --query is for.
var programFormats = []string{outputJSON, outputYAML, outputTSV}

// compile reads --query. Its answer is JSON where no format is given, as az's is.
func (g *global) compile(c *cobra.Command) (err error) {
	if g.query == "" {
		return nil
	}
	if !c.Flags().Changed("output") {
		g.output = outputJSON
	}
	if !slices.Contains(programFormats, g.output) {
		return usageError{fmt.Errorf("--query: its answer has no %s: allowed are -o %s", g.output, strings.Join(programFormats, ", "))}
	}
	if g.compiled, err = jmespath.Compile(quoteLiterals(g.query)); err != nil {
		return usageError{fmt.Errorf("--query %q: %w", g.query, err)}
	}
	return nil
}

// quoteLiterals writes literals between backticks that are no JSON as strings: az takes `Allow` for `"Allow"`, as
// jmespath.py does, and the library here takes JSON alone.
func quoteLiterals(query string) string {
	var b strings.Builder
	for rest := query; rest != ""; {
		quote := rest[0]
		if !strings.ContainsRune("`'\"", rune(quote)) {
			b.WriteByte(quote)
			rest = rest[1:]
			continue
		}
		end := 1
		for end < len(rest) && rest[end] != quote {
			if rest[end] == '\\' && (quote != '\'' || strings.HasPrefix(rest[end+1:], "'")) {
				end++
			}
			end++
		}
		if end >= len(rest) { // it does not end, which the library says
			return b.String() + rest
		}
		literal := rest[1:end]
		if quoted := `"` + strings.TrimLeft(literal, " \t\r\n") + `"`; quote == '`' && !json.Valid(unescaped(literal)) && json.Valid(unescaped(quoted)) {
			literal = quoted
		}
		b.WriteByte(quote)
		b.WriteString(literal)
		b.WriteByte(quote)
		rest = rest[end+1:]
	}
	return b.String()
}

// unescaped is the JSON of a literal between backticks.
func unescaped(literal string) []byte { return []byte(strings.ReplaceAll(literal, "\\`", "`")) }

// answers write what programs read.
type answers struct {
	w      io.Writer
	format string
	query  *jmespath.JMESPath // nil: all of it
	text   string             // of the query
	lines  bool               // one of many: JSON on one line, YAML as a document of its own, nothing when the query finds nothing
}

// answer writes one answer.
func (g *global) answer(w io.Writer) *answers {
	return &answers{w: w, format: g.output, query: g.compiled, text: g.query}
}

// lines writes answers as they come.
func (g *global) lines(w io.Writer) *answers {
	a := g.answer(w)
	a.lines = true
	return a
}

// Encode writes one answer.
func (a *answers) Encode(v any) error {
	text, err := a.find(v)
	if err != nil || text == nil {
		return err
	}
	if a.format != outputJSON {
		return a.encodeTree(text)
	}
	if !a.lines {
		var indented bytes.Buffer
		if err := json.Indent(&indented, text, "", "  "); err != nil {
			return err
		}
		text = indented.Bytes()
	}
	_, err = a.w.Write(text)
	return err
}

// find is the answer as JSON, or what the query finds in it; nil for nothing among many.
func (a *answers) find(v any) ([]byte, error) {
	text, err := jsonLine(v)
	if err != nil || a.query == nil {
		return text, err
	}
	var data any
	if err := json.Unmarshal(text, &data); err != nil {
		return nil, err
	}
	found, err := a.query.Search(data)
	if err != nil {
		return nil, usageError{fmt.Errorf("--query %q: %s", a.text, strings.ReplaceAll(err.Error(), "[]jmespath.jpType", ""))}
	}
	if found == nil && a.lines {
		return nil, nil
	}
	return jsonLine(found)
}

// jsonLine is JSON on one line, with its end.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return b.Bytes(), err
}

func (a *answers) encodeTree(text []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	root, err := tree(decoder)
	if err != nil {
		return err
	}
	if a.format == outputTSV {
		return writeTSV(a.w, a.rows(root))
	}
	if a.lines {
		if _, err := io.WriteString(a.w, "---\n"); err != nil {
			return err
		}
	}
	encoder := yaml.NewEncoder(a.w)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	return encoder.Close()
}

// tree reads one JSON value, and keeps the order of its fields.
func tree(d *json.Decoder) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{}
	switch t := token.(type) {
	case json.Delim:
		n.Kind = yaml.SequenceNode
		if t == '{' {
			n.Kind = yaml.MappingNode
		}
		for d.More() { // the keys of an object are values too
			child, err := tree(d)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err = d.Token() // its end
	case json.Number:
		n.Kind, n.Value = yaml.ScalarNode, t.String()
	default:
		err = n.Encode(t)
	}
	return n, err
}

// rows are what TSV has a row for: one of many answers, each element of a list, or the answer. An answer that
// begins with a list stands for it.
func (a *answers) rows(root *yaml.Node) []*yaml.Node {
	switch {
	case a.lines:
	case root.Kind == yaml.SequenceNode:
		return root.Content
	case a.query == nil && root.Kind == yaml.MappingNode && len(root.Content) > 1 && root.Content[1].Kind == yaml.SequenceNode:
		return root.Content[1].Content
	}
	return []*yaml.Node{root}
}

// writeTSV writes rows as az does: the cells are the values of a list or, by the order of their names, of an object.
func writeTSV(w io.Writer, rows []*yaml.Node) error {
	var b strings.Builder
	for _, row := range rows {
		switch {
		case row.Kind == yaml.ScalarNode && row.Tag == "!!bool":
			b.WriteString(row.Value)
		case row.Kind == yaml.ScalarNode:
			b.WriteString(tsvCell(row))
		default:
			cells := valuesOf(row)
			for i, cell := range cells {
				if i > 0 {
					b.WriteByte('\t')
				}
				b.WriteString(tsvCell(cell))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// valuesOf are the elements of a list, or an object's values by name.
func valuesOf(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	pairs := slices.SortedFunc(slices.Chunk(n.Content, 2), func(a, b []*yaml.Node) int { return cmp.Compare(a[0].Value, b[0].Value) })
	values := make([]*yaml.Node, len(pairs))
	for i, pair := range pairs {
		values[i] = pair[1]
	}
	return values
}

// tsvCell is a value as az writes it: of a list its length, of an object nothing.
func tsvCell(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return fmt.Sprint(len(n.Content))
	case n.Kind == yaml.MappingNode:
		return ""
	case n.Tag == "!!null":
		return "None"
	case n.Tag == "!!bool":
		return strings.ToUpper(n.Value[:1]) + n.Value[1:]
	}
	return printable(n.Value)
}
