package main

import (
	"strings"
	"time"

	"github.com/nsgd/nsgd/cmd/nsgctl/yamlfile"
	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/ruleset"
)

// maxWaivers bounds the waivers of a file.
const maxWaivers = 10_000

// waiverFile is a file of waivers.
type waiverFile struct {
	Waivers []writtenWaiver `yaml:"waivers"`
}

type writtenWaiver struct {
	yamlfile.Position
	Code     string `yaml:"code"`
	Resource string `yaml:"resource"`
	Reason   string `yaml:"reason"`
	Until    string `yaml:"until"`
}

// readWaivers reads a file of waivers. The error names each fault with its line.
func readWaivers(path string) ([]ask.Waiver, error) {
	var file waiverFile
	if err := yamlfile.Read(path, &file); err != nil {
		return nil, err
	}
	if n := len(file.Waivers); n > maxWaivers {
		return nil, yamlfile.Faults{file.Waivers[maxWaivers].Errorf("waivers: %d of them; allowed are %d", n, maxWaivers)}.In(path)
	}
	var waivers []ask.Waiver
	var faults yamlfile.Faults
	for i := range file.Waivers {
		w := &file.Waivers[i]
		faults = append(faults, w.faults(i)...)
		waivers = append(waivers, ask.Waiver{Code: w.Code, Resource: w.Resource, Reason: w.Reason, Until: w.Until, File: path, Line: w.Line, Column: w.Column})
	}
	if len(faults) > 0 {
		return nil, faults.In(path)
	}
	return waivers, nil
}

func (w *writtenWaiver) faults(i int) (faults yamlfile.Faults) {
	for _, field := range []struct {
		key  string
		text *string
	}{{"code", &w.Code}, {"resource", &w.Resource}, {"reason", &w.Reason}, {"until", &w.Until}} {
		*field.text = strings.TrimSpace(*field.text)
		if *field.text == "" && field.key != "until" {
			faults = append(faults, w.Errorf("waivers[%d].%s: missing: each waiver has a code, a resource and a reason", i, field.key))
		}
	}
	if w.Code != "" && ask.CheckOf(w.Code) == nil {
		faults = append(faults, w.Errorf("waivers[%d].code %q: allowed are the codes that nsgctl lint --help lists", i, ruleset.Clip(w.Code)))
	}
	if _, err := time.Parse(time.DateOnly, w.Until); w.Until != "" && err != nil {
		faults = append(faults, w.Errorf("waivers[%d].until %q: allowed is a day such as 2027-01-31", i, ruleset.Clip(w.Until)))
	}
	return faults
}
