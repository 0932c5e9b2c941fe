// Package grafana holds nsgd.json, the dashboard for nsgd's metrics. It reads the dashboard's
// queries, so that tests can compare them with what the daemon exports.
package grafana

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed nsgd.json
var dashboard []byte

// Panel is one panel of the dashboard.
type Panel struct {
	Row, Title, Description string
	Queries                 []Query
}

// Query is a query of a panel or a variable.
type Query struct {
	// Expr is PromQL. It has variables, until Expand replaces them.
	Expr string
	// Legend names a series; {{label}} stands for a label's value.
	Legend string
	// Label is the label that gives a variable its values; empty for a panel.
	Label string
}

// Dashboard holds every query of nsgd.json.
type Dashboard struct {
	Panels []Panel // in reading order
	// Variables by name. Every panel shows Annotations.
	Variables   map[string]Query
	Annotations []Query
}

// Load reads the dashboard.
func Load() (*Dashboard, error) {
	var file struct {
		Panels []struct {
			Type, Title, Description string
			Targets                  []struct{ Expr, LegendFormat string }
		}
		Annotations struct{ List []struct{ Expr string } }
		Templating  struct {
			List []struct {
				Name, Type string
				Query      any // text; an object with the text for a variable of Prometheus
			}
		}
	}
	if err := json.Unmarshal(dashboard, &file); err != nil {
		return nil, fmt.Errorf("nsgd.json: %w", err)
	}
	d := &Dashboard{Variables: map[string]Query{}}
	row := ""
	for _, p := range file.Panels {
		if p.Type == "row" {
			row = p.Title
			continue
		}
		panel := Panel{Row: row, Title: p.Title, Description: p.Description}
		for _, t := range p.Targets {
			panel.Queries = append(panel.Queries, Query{Expr: t.Expr, Legend: t.LegendFormat})
		}
		d.Panels = append(d.Panels, panel)
	}
	for _, a := range file.Annotations.List {
		d.Annotations = append(d.Annotations, Query{Expr: a.Expr})
	}
	for _, v := range file.Templating.List {
		if v.Type != "query" {
			continue
		}
		text, _ := v.Query.(map[string]any)["query"].(string)
		q, err := labelValues(text)
		if err != nil {
			return nil, fmt.Errorf("nsgd.json: variable %s: %w", v.Name, err)
		}
		d.Variables[v.Name] = q
	}
	return d, nil
}

// labelValues reads label_values(SELECTOR, LABEL).
func labelValues(text string) (Query, error) {
	inner, ok := strings.CutPrefix(text, "label_values(")
	inner, closed := strings.CutSuffix(inner, ")")
	comma := strings.LastIndexByte(inner, ',')
	if !ok || !closed || comma < 0 {
		return Query{}, fmt.Errorf("%q: want label_values(SELECTOR, LABEL)", text)
	}
	return Query{Expr: strings.TrimSpace(inner[:comma]), Label: strings.TrimSpace(inner[comma+1:])}, nil
}

// Expand replaces variables: the dashboard's by a pattern that matches everything, Grafana's
// own intervals by a minute and an hour.
func (d *Dashboard) Expand(q Query) Query {
	pairs := []string{"$__rate_interval", "1m", "$__range", "1h"}
	for _, name := range slices.Sorted(maps.Keys(d.Variables)) {
		pairs = append(pairs, "$"+name, ".*")
	}
	q.Expr = strings.NewReplacer(pairs...).Replace(q.Expr)
	return q
}

// All returns the queries of panels, annotations and variables.
func (d *Dashboard) All() []Query {
	all := slices.Clone(d.Annotations)
	for _, p := range d.Panels {
		all = append(all, p.Queries...)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Variables)) {
		all = append(all, d.Variables[name])
	}
	return all
}
