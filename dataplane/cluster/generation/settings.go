package generation

import (
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// Settings say how the files of a generation are read. They are what nsgd.yaml says without a cluster.
type Settings struct {
	// Policy are files, folders and patterns, by their names in the bundle.
	Policy []string `json:"policy"`
	// ServiceTags is Microsoft's service tag file in the bundle; empty: there is none.
	ServiceTags string `json:"serviceTags,omitempty"`
	// Templates is what ARM templates are evaluated with.
	Templates Templates `json:"templates,omitzero"`
	// AllowPartial, AzureQuirks and DefaultOutboundAddress are those of nsgd.yaml.
	AllowPartial           bool       `json:"allowPartial,omitempty"`
	AzureQuirks            bool       `json:"azureQuirks,omitempty"`
	DefaultOutboundAddress netip.Addr `json:"defaultOutboundAddress,omitzero"`
	// Platform is the subscription.
	Platform Platform `json:"platform,omitzero"`
}

// Templates is the deployment that ARM templates are read as.
type Templates struct {
	// Parameters are files in the bundle, or NAME=VALUE: Files tells them apart.
	Parameters []Parameter `json:"parameters,omitempty"`
	// Subscription is an id, ResourceGroup a name, Location that of the group.
	Subscription  string `json:"subscription,omitempty"`
	ResourceGroup string `json:"resourceGroup,omitempty"`
	Location      string `json:"location,omitempty"`
	// Runtime is a file in the bundle of what only Azure knows; empty: there is none.
	Runtime string `json:"runtime,omitempty"`
	// Timeout is in nanoseconds; 0: the default.
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Parameter is one of File and Value.
type Parameter struct {
	File  string `json:"file,omitempty"`
	Value string `json:"value,omitempty"` // NAME=VALUE
}

// Platform is the subscription, as far as Azure's platform treats subscriptions differently.
type Platform struct {
	Subscription          string `json:"subscription,omitempty"`
	CreatedBefore20171115 bool   `json:"createdBefore20171115,omitempty"`
	SMTPExempt            bool   `json:"smtpExempt,omitempty"`
}

const (
	// maxName and maxDepth bound the name of a file in a bundle, in bytes and in folders.
	maxName, maxDepth = 512, 32
	// maxSettings bounds lists of settings.
	maxSettings = 4096
)

// checkName refuses what is no plain path below a folder.
func checkName(name string) error {
	switch {
	case !fs.ValidPath(name) || name == ".":
		return fmt.Errorf("name %q: allowed is a path below the bundle, without . and .. in it", name)
	case len(name) > maxName:
		return fmt.Errorf("name %.60q...: %d bytes: at most %d", name, len(name), maxName)
	case strings.Count(name, "/") >= maxDepth:
		return fmt.Errorf("name %.60q...: at most %d folders", name, maxDepth)
	case strings.ContainsFunc(name, func(r rune) bool { return unicode.IsControl(r) || r == '\\' || r == unicode.ReplacementChar }):
		return fmt.Errorf("name %q: it has a character that file names must not have", name)
	}
	return nil
}

// check holds the names of the settings against the files of their bundle.
func (s *Settings) check(files map[string][]byte) error {
	if len(s.Policy) == 0 || len(s.Policy) > maxSettings {
		return fmt.Errorf("settings: policy: %d paths: allowed are 1 to %d", len(s.Policy), maxSettings)
	}
	if len(s.Templates.Parameters) > maxSettings {
		return fmt.Errorf("settings: templates.parameters: %d of them: at most %d", len(s.Templates.Parameters), maxSettings)
	}
	for _, name := range s.Policy {
		if err := checkName(name); err != nil {
			return fmt.Errorf("settings: policy: %w", err)
		}
	}
	named := []struct{ field, file string }{{"serviceTags", s.ServiceTags}, {"templates.runtime", s.Templates.Runtime}}
	for _, p := range s.Templates.Parameters {
		if (p.File == "") == (p.Value == "") {
			return fmt.Errorf("settings: templates.parameters: file %q, value %q: exactly one of them is needed", p.File, p.Value)
		}
		named = append(named, struct{ field, file string }{"templates.parameters", p.File})
	}
	for _, n := range named {
		if _, there := files[n.file]; n.file != "" && !there {
			return fmt.Errorf("settings: %s: %q is not in the bundle", n.field, n.file)
		}
	}
	return nil
}
