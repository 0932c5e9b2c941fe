package report

import (
	"cmp"
	"encoding/json"
	"io"
	"net/url"
	"path/filepath"
	"strings"
)

// The objects of SARIF 2.1.0 that are needed here (OASIS, sarif-v2.1.0). The libraries for it bring the
// whole format and a validator into the program.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		Version        string      `json:"version,omitempty"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string     `json:"id"`
		ShortDescription sarifText  `json:"shortDescription"`
		Help             *sarifText `json:"help,omitempty"`
	}
	// sarifText is a plain text message (3.11.3), which sarifTextOf escapes.
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId,omitempty"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations,omitempty"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	}
	sarifRegion struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
	}
)

// writeSARIF writes what did not pass: code scanning shows every result as an alert.
func writeSARIF(w io.Writer, r *Report) error {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	driver := &run.Tool.Driver
	*driver = sarifDriver{Name: "nsgctl " + r.Verb, Version: r.Version, InformationURI: "https://github.com/nsgd/nsgd", Rules: []sarifRule{}}
	rules := map[string]int{}
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Level == Pass {
			continue
		}
		result := sarifResult{RuleID: e.Code, RuleIndex: -1, Level: e.Level.String(), Message: sarifTextOf(e.message())}
		if e.Code != "" {
			index, known := rules[e.Code]
			if !known {
				index = len(driver.Rules)
				rules[e.Code] = index
				driver.Rules = append(driver.Rules, sarifRuleOf(e))
			}
			result.RuleIndex = index
		}
		result.Locations = sarifLocations(e)
		run.Results = append(run.Results, result)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

// message is the message, or the name where there is none: SARIF wants one.
func (e *Entry) message() string {
	if e.Message == "" {
		return e.Name
	}
	return e.Message
}

// sarifTextOf doubles braces, which would be placeholders (3.11.5), and escapes the brackets of what would be an embedded
// link (3.11.6).
func sarifTextOf(text string) sarifText {
	text = strings.NewReplacer("{", "{{", "}", "}}").Replace(text)
	if strings.Contains(text, "](") {
		text = strings.NewReplacer("[", `\[`, "]", `\]`).Replace(text)
	}
	return sarifText{text}
}

func sarifRuleOf(e *Entry) sarifRule {
	rule := sarifRule{ID: e.Code, ShortDescription: sarifTextOf(cmp.Or(e.Check, e.Name))}
	if e.Help != "" {
		help := sarifTextOf(e.Help)
		rule.Help = &help
	}
	return rule
}

func sarifLocations(e *Entry) []sarifLocation {
	var l sarifLocation
	if e.File != "" {
		l.Physical = &sarifPhysical{}
		l.Physical.Artifact.URI = fileURI(e.File)
		if e.Line > 0 {
			l.Physical.Region = &sarifRegion{StartLine: e.Line, StartColumn: e.Column}
		}
	}
	if e.Resource != "" {
		l.Logical = []sarifLogical{{e.Resource}}
	}
	if l.Physical == nil && l.Logical == nil {
		return nil
	}
	return []sarifLocation{l}
}

// fileURI is a file as a URI, relative when the name is.
func fileURI(file string) string {
	u := url.URL{Path: filepath.ToSlash(file)}
	if filepath.IsAbs(file) {
		u.Scheme = "file"
	}
	return u.String()
}
