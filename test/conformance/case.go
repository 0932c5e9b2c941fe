package conformance

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

//go:embed cases policies facts.yaml
var data embed.FS

// File is one topic.
type File struct {
	Name  string `yaml:"-"` // the file's name
	Topic string `yaml:"topic"`
	// Policy is the base for cases that name none.
	Policy string  `yaml:"policy"`
	Cases  []*Case `yaml:"cases"`
}

// Case is a policy and what is expected.
type Case struct {
	Name   string   `yaml:"name"`
	Source []string `yaml:"source"` // ids of facts
	Policy `yaml:",inline"`
	// Wire makes test/e2e send the script's packets, or one for each verdict, through a running
	// daemon.
	Wire bool `yaml:"wire"`

	Verdicts []Verdict `yaml:"verdicts"`
	Path     []Verdict `yaml:"path"`
	Faults   []Fault   `yaml:"faults"`
	Answers  []Answer  `yaml:"answers"`
	Daemon   Daemon    `yaml:"daemon"`
	Script   []Step    `yaml:"script"`
}

// Daemon configures a script's engine. Zero values are the daemon's defaults.
type Daemon struct {
	TCPStrict            bool `yaml:"tcpStrict"`
	MaxFlowsPerInterface int  `yaml:"maxFlowsPerInterface"`
	MaxFlows             int  `yaml:"maxFlows"`
}

// Fault is a fault that nsgctl validate must print. Empty fields are not compared. Message is
// only a part of the printed one.
type Fault struct {
	Code     string `yaml:"code"`
	Resource string `yaml:"resource"`
	Rule     string `yaml:"rule"`
	Field    string `yaml:"field"`
	Value    string `yaml:"value"`
	Message  string `yaml:"message"`
}

// Answer is a run of nsgctl, with --policy and -o json added, and a part of what it prints. An
// object needs the given fields, and a list needs all its elements in order. {has: [...]} needs
// a list with these elements among others.
type Answer struct {
	Run  string `yaml:"run"`
	Exit int    `yaml:"exit"`
	JSON any    `yaml:"json"`
}

// Load reads every case, in the order of the file names. Case names are unique.
func Load() ([]*File, error) {
	names, err := fs.Glob(data, "cases/*.yaml")
	if err != nil {
		return nil, err
	}
	var files []*File
	seen := map[string]string{}
	for _, name := range names {
		f := &File{Name: path.Base(name)}
		if err := readYAML(name, f); err != nil {
			return nil, err
		}
		for _, c := range f.Cases {
			if c.Policy.Base == "" && c.Document == nil {
				c.Policy.Base = f.Policy
			}
			if problem := c.problem(); problem != "" {
				return nil, fmt.Errorf("%s: case %q: %s", name, c.Name, problem)
			}
			if other, dup := seen[c.Name]; dup {
				return nil, fmt.Errorf("%s: case %q is in %s already", name, c.Name, other)
			}
			seen[c.Name] = name
		}
		files = append(files, f)
	}
	return files, nil
}

func (c *Case) problem() string {
	switch {
	case c.Name == "" || strings.Contains(c.Name, "/"):
		return "it needs a name without a slash"
	case len(c.Source) == 0:
		return "source is missing: the facts that the expectation comes from"
	case c.Checks() == 0:
		return "nothing is expected"
	}
	return ""
}

// Checks is the number of expectations.
func (c *Case) Checks() int {
	n := len(c.Verdicts) + len(c.Path) + len(c.Faults) + len(c.Answers)
	for i := range c.Script {
		if c.Script[i].Packet != nil || c.Script[i].Flows != nil {
			n++
		}
	}
	return n
}

// readYAML reads one of the embedded files; an unknown key is an error.
func readYAML(name string, into any) error {
	content, err := data.ReadFile(name)
	if err != nil {
		return err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
