package arm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/nsgd/nsgd/ruleset/arm/terraform"
)

// CodeInvalidTemplate is Azure's code for a template's parameters that don't fit it.
const CodeInvalidTemplate = "InvalidTemplate"

// Deployment is what templates among a policy's documents are evaluated with. The zero
// value works: see template.Options for what its fields are by default.
type Deployment struct {
	// Parameters are files in Azure's form, or NAME=VALUE; later ones go first. Each
	// is for the templates that declare its names. Without any value of its own a
	// parameter has that of NAME.parameters.json beside a template NAME.json.
	Parameters []string
	// Subscription is an id, ResourceGroup a name, Location that of the group.
	Subscription, ResourceGroup, Location string
	// Runtime is a file of what only Azure knows: a JSON object of resources as Azure
	// answers for them, by id or name.
	Runtime string
	// Partial leaves out what can't be evaluated, together with all resources of
	// which it is open whether they exist; Documents.Unresolved lists it.
	Partial bool
	// Now is what utcNow() answers; zero: when the Reader was made.
	Now time.Time
}

// SetDeployment says what templates are evaluated with. It belongs before the first Read.
func (r *Reader) SetDeployment(d Deployment) { r.deployment = d }

// IsAssignment tells NAME=VALUE from the name of a parameters file.
func IsAssignment(parameter string) bool {
	name, _, ok := strings.Cut(parameter, "=")
	return ok && !strings.ContainsAny(name, "/.")
}

// values are a Deployment's files, read.
type values struct {
	Deployment
	// parameters are given ones in order, with the file or argument they are from.
	parameters []givenParameter
	used       map[string]bool // names that a template declares, in lower case
	runtime    map[string]any
	templates  int
}

type givenParameter struct {
	source, name string
	value        any
}

// readValues reads a Deployment's files; faults name them.
func (l *loader) readValues(d Deployment) {
	v := &values{Deployment: d, used: map[string]bool{}}
	l.values = v
	for _, p := range d.Parameters {
		if IsAssignment(p) {
			name, value, _ := strings.Cut(p, "=")
			v.parameters = append(v.parameters, givenParameter{"", name, template.Text(value)})
			continue
		}
		given := l.parametersFile(p)
		for _, name := range slices.Sorted(maps.Keys(given)) {
			v.parameters = append(v.parameters, givenParameter{p, name, given[name]})
		}
	}
	if d.Runtime != "" {
		data, err := readRegular(d.Runtime)
		if err != nil {
			l.fileFault(CodeFileUnreadable, d.Runtime, err)
			return
		}
		value, err := parseDocument(data)
		object, ok := value.(map[string]any)
		if err == nil && !ok {
			err = errors.New("allowed is an object of resources by id or name")
		}
		if err != nil {
			l.fault(ruleset.Fault{Code: CodeInvalidJSON, File: d.Runtime, Message: err.Error()})
		}
		v.runtime = object
	}
}

func (l *loader) parametersFile(file string) map[string]any {
	data, err := readRegular(file)
	if err != nil {
		l.fileFault(CodeFileUnreadable, file, err)
		return nil
	}
	parameters, err := template.ParseParameters(data)
	if err != nil {
		l.fault(ruleset.Fault{Code: CodeInvalidJSON, File: file, Message: err.Error()})
	}
	return parameters
}

// isTemplate tells a template from other objects: it has resources, and is none.
func isTemplate(value any) bool {
	body, ok := value.(map[string]any)
	return ok && lookup(body, "resources") != nil && lookup(body, "type") == nil && lookup(body, "id") == nil &&
		lookup(body, "properties") == nil
}

// evaluateAll evaluates the templates among documents. The result are files that others
// link: they are no documents of their own, since their parameters come from there.
func (l *loader) evaluateAll(documents []parsed) map[string]bool {
	linked := map[string]bool{}
	reports := make([]func(), len(documents))
	for i := range documents {
		d := &documents[i]
		d.value, reports[i] = l.evaluate(d.file, d.value, func(path string) ([]byte, error) {
			linked[filepath.Clean(path)] = true
			return readRegular(path)
		})
		d.evaluated = reports[i] != nil
	}
	for i := range documents {
		if reports[i] != nil && !linked[filepath.Clean(documents[i].file)] {
			reports[i]()
		}
	}
	return linked
}

// evaluate turns a template or Terraform's output into resources of ARM, and gives what
// reports the faults of that; other documents are as they are, and report is nil.
func (l *loader) evaluate(file string, value any, read func(string) ([]byte, error)) (_ any, report func()) {
	body, ok := value.(map[string]any)
	if message := terraform.Unreadable(body); message != "" {
		return nil, func() { l.fault(ruleset.Fault{Code: CodeInvalidRequestFormat, File: file, Message: message}) }
	}
	if ok && terraform.Is(body) {
		result := terraform.Convert(body)
		return map[string]any{"resources": result.Resources}, func() {
			for expression, message := range result.Reasons {
				l.because(file, expression, message)
			}
			for _, left := range result.Left {
				l.unresolved(ruleset.Fault{
					Code: CodeTemplateExpression, File: file, Resource: left.Address, Field: left.Field, Value: ruleset.Clip(left.Value),
					Message: left.Message,
				})
			}
		}
	}
	v := l.values
	if !isTemplate(value) || v.Subscription == "" && v.ResourceGroup == "" && template.Plain(body) {
		return value, nil // groups of plain documents are known again when they are unchanged
	}
	v.templates++
	result := template.Evaluate(body, template.Options{
		File: file, Parameters: l.parameters(file, body, read != nil), Subscription: v.Subscription, ResourceGroup: v.ResourceGroup,
		Location: v.Location, Now: v.Now, Runtime: v.runtime, ReadFile: read,
	})
	return result.Document, func() { l.reportTemplate(file, result) }
}

// reportTemplate keeps why expressions of a template stay open, for the fields that the
// policy needs, and lists what concerns the template as a whole.
func (l *loader) reportTemplate(file string, result *template.Result) {
	for _, p := range result.Problems {
		l.because(file, p.Expression, "at "+placeIn(file, p)+": "+p.Message)
	}
	for _, p := range result.Links {
		l.unresolved(ruleset.Fault{
			Code: CodeTemplateExpression, File: file, Resource: placeIn(file, p), Field: "templateLink", Value: ruleset.Clip(p.Expression),
			Message: p.Message,
		})
	}
	for _, p := range result.Faults {
		l.fault(ruleset.Fault{Code: CodeInvalidTemplate, File: file, Resource: placeIn(file, p), Message: p.Message})
	}
}

// placeIn is a problem's place, with its file when that is a linked template.
func placeIn(file string, p *template.Problem) string {
	if p.File == file {
		return p.Place
	}
	return p.File + ": " + p.Place
}

// parameters are the values of a template's parameters: of the file beside it, then
// those of the Deployment that it declares.
func (l *loader) parameters(file string, body map[string]any, onDisk bool) map[string]any {
	out := map[string]any{}
	beside := strings.TrimSuffix(file, filepath.Ext(file)) + ".parameters.json"
	if _, err := os.Stat(beside); err == nil && onDisk {
		for name, value := range l.parametersFile(beside) {
			out[strings.ToLower(name)] = value
		}
	}
	declared := template.Declared(body)
	for _, p := range l.values.parameters {
		if slices.ContainsFunc(declared, func(name string) bool { return strings.EqualFold(name, p.name) }) {
			l.values.used[strings.ToLower(p.name)] = true
			out[strings.ToLower(p.name)] = p.value
		}
	}
	return out
}

// checkParameters reports values that no template declares: a misspelt name would
// leave the default in force.
func (l *loader) checkParameters() {
	for _, p := range l.values.parameters {
		if l.values.used[strings.ToLower(p.name)] {
			continue
		}
		l.values.used[strings.ToLower(p.name)] = true
		l.fault(ruleset.Fault{
			Code: CodeInvalidTemplate, File: p.source, Resource: "parameters." + p.name,
			Message: fmt.Sprintf("none of the %d templates declares a parameter of that name", l.values.templates),
		})
	}
}

// because keeps why an expression of a file stays open: the first of its places is
// told.
func (l *loader) because(file, expression, message string) {
	if l.reasons[file] == nil {
		l.reasons[file] = map[string]string{}
	}
	if _, known := l.reasons[file][expression]; !known {
		l.reasons[file][expression] = message
	}
}

// why says why an expression stays open.
func (l *loader) why(file, expression string) string {
	if message, ok := l.reasons[file][expression]; ok {
		return message
	}
	return "expressions are evaluated in templates only"
}
