package report

import (
	"cmp"
	"encoding/xml"
	"io"
	"strings"
)

// The elements that readers of JUnit agree on, as testmoapp/junitxml lists them. The format has no
// standard.
type (
	junitSuites struct {
		XMLName  xml.Name   `xml:"testsuites"`
		Tests    int        `xml:"tests,attr"`
		Failures int        `xml:"failures,attr"`
		Suite    junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr,omitempty"`
		Line    int           `xml:"line,attr,omitempty"`
		Failure *junitFailure `xml:"failure"`
		Output  string        `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit makes warnings and errors failures. The text of a note is what its case has printed.
func writeJUnit(w io.Writer, r *Report) error {
	suite := junitSuite{Name: "nsgctl " + r.Verb, Tests: len(r.Entries)}
	for i := range r.Entries {
		e := &r.Entries[i]
		c := junitCase{Name: e.title(), Class: e.Resource, File: e.File, Line: e.Line}
		if c.Class == "" {
			c.Class = e.File
		}
		switch {
		case e.Level.failure():
			suite.Failures++
			first, _, _ := strings.Cut(e.Message, "\n")
			c.Failure = &junitFailure{Message: first, Type: cmp.Or(e.Code, e.Level.String()), Text: e.details()}
		case e.Level == Note:
			c.Output = e.details()
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(junitSuites{Tests: suite.Tests, Failures: suite.Failures, Suite: suite}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
