package arm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
	"github.com/nsgd/nsgd/ruleset/arm/template"
	"github.com/nsgd/nsgd/ruleset/arm/terraform"
)

// CodeInvalidTemplate is Azure's code for parameters that do not fit their template.
const CodeInvalidTemplate = "InvalidTemplate"

// CodePlaceholder is in Documents.Warnings: a parameters file has a placeholder in the place of a value.
const CodePlaceholder = "PlaceholderReplaced"

// Deployment holds the values for evaluating a policy's templates. The zero value works;
// template.Options says what its fields mean by default.
type Deployment struct {
	// Parameters are files in Azure's form, or NAME=VALUE; later ones win. A value goes to
	// all templates that declare its name. A parameter without any value gets the one of
	// NAME.parameters.json beside a template NAME.json.
	Parameters []string
	// Subscription is an id, ResourceGroup a name, Location the location of the group.
	Subscription, ResourceGroup, Location string
	// Runtime is a file of values that only Azure knows: a JSON object of resources in the
	// form of Azure's answers, by id or name.
	Runtime string
	// Partial leaves out resources that cannot be evaluated, or that may not exist.
	// Documents.Unresolved lists them.
	Partial bool
	// PriorOf is the file of a Terraform plan that is read as the state that the plan begins from, and not
	// as what it leads to; empty: none.
	PriorOf string
	// Now is the answer of utcNow(). Zero: the time when the Reader was made.
	Now time.Time
	// Timeout is how long all templates of a reading may take together; 0: template.DefaultTimeout.
	Timeout time.Duration
	// Context ends the evaluation of templates early; nil: nothing does.
	Context context.Context
}

// MaxTimeout is the longest Deployment.Timeout of a configuration.
const MaxTimeout = time.Hour

// evaluating is the time that a reading has for its templates.
func (d *Deployment) evaluating() (context.Context, context.CancelFunc) {
	ctx, timeout := d.Context, cmp.Or(d.Timeout, template.DefaultTimeout)
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithTimeoutCause(ctx, timeout,
		fmt.Errorf("the policy's templates take more than %v to evaluate, the bound (templates.timeout of nsgd, --template-timeout of nsgctl)", timeout))
}

// SetDeployment sets the values for evaluating templates. Call it before the first Read.
func (r *Reader) SetDeployment(d Deployment) { r.deployment = d }

// IsAssignment reports whether parameter is NAME=VALUE and not the name of a file.
func IsAssignment(parameter string) bool {
	name, _, ok := strings.Cut(parameter, "=")
	return ok && !strings.ContainsAny(name, "/.")
}

// values are a Deployment and the contents of its files.
type values struct {
	Deployment
	// parameters are in order, each with the file that has it.
	parameters []givenParameter
	used       map[string]bool // parameters that a template declares, in lower case
	runtime    map[string]any
	asked      map[string]bool // keys of runtime that expressions asked for
	templates  int
	evaluating context.Context // of the templates; nil: without end
}

// givenParameter is a value of a parameter: of a file, or of the command line, which has no source.
type givenParameter struct {
	source string
	file   *template.Parameters
	name   string
	value  any
	// generated means that the value was made up for a placeholder.
	generated bool
}

// scope is where templates are deployed.
func (d *Deployment) scope() scope {
	return scopeOf("/subscriptions/" + cmp.Or(d.Subscription, template.NoSubscription) + "/resourceGroups/" + cmp.Or(d.ResourceGroup, template.NoResourceGroup))
}

// readValues reads the files of a Deployment.
func (l *loader) readValues(d Deployment) {
	v := &values{Deployment: d, used: map[string]bool{}, asked: map[string]bool{}}
	l.values = v
	for _, p := range d.Parameters {
		if IsAssignment(p) {
			name, value, _ := strings.Cut(p, "=")
			v.parameters = append(v.parameters, givenParameter{name: name, value: template.Text(value)})
			continue
		}
		v.parameters = append(v.parameters, l.parametersFile(p)...)
	}
	if d.Runtime != "" {
		data, err := l.source.read(d.Runtime)
		if err != nil {
			l.fileFault(CodeFileUnreadable, d.Runtime, err)
			return
		}
		document, err := parseDocument(data)
		if err == nil {
			object, ok := document.Value.(map[string]any)
			if v.runtime = object; !ok {
				err = errors.New("allowed is an object of resources by id or name")
			}
		}
		if err != nil {
			l.fault(notJSONFault(d.Runtime, err))
		}
	}
}

func (l *loader) parametersFile(file string) []givenParameter {
	data, err := l.source.read(file)
	if err != nil {
		l.fileFault(CodeFileUnreadable, file, err)
		return nil
	}
	parameters, err := template.ParseParameters(data)
	if err != nil {
		l.fault(notJSONFault(file, err))
		return nil
	}
	generated := parameters.FillPlaceholders()
	var given []givenParameter
	for _, name := range slices.Sorted(maps.Keys(parameters.Values)) {
		given = append(given, givenParameter{file, parameters, name, parameters.Values[name], slices.Contains(generated, name)})
	}
	return given
}

// isTemplate reports whether value is a template: it has resources and is none itself.
func isTemplate(value any) bool {
	body, ok := value.(map[string]any)
	return ok && lookup(body, "resources") != nil && lookup(body, "type") == nil && lookup(body, "id") == nil &&
		lookup(body, "properties") == nil
}

// evaluateAll evaluates the templates among documents. It returns the files that other templates
// link. Those are not read as documents, since the linking template gives their parameters.
func (l *loader) evaluateAll(documents []parsed) map[string]bool {
	ctx, cancel := l.values.Deployment.evaluating()
	defer cancel()
	l.values.evaluating = ctx
	links := make([]map[string]bool, len(documents)) // of each document, also by others
	reports := make([]func(), len(documents))
	for i := range documents {
		d := &documents[i]
		links[i] = map[string]bool{}
		d.value, reports[i] = l.evaluate(d.file, d.document, func(path string) ([]byte, error) {
			data, err := l.source.read(path)
			if err == nil && filepath.Clean(path) != filepath.Clean(d.file) {
				links[i][filepath.Clean(path)] = true
			}
			return data, err
		})
		d.evaluated = reports[i] != nil
	}
	linked := linkedOf(documents, links)
	for i := range documents {
		if reports[i] != nil && !linked[filepath.Clean(documents[i].file)] {
			reports[i]()
		}
	}
	return linked
}

// linkedOf are the files that are linked by documents which are none of them. Of templates that link each other the first one
// is read.
func linkedOf(documents []parsed, links []map[string]bool) map[string]bool {
	named, linked := map[string]bool{}, map[string]bool{}
	for i := range links {
		maps.Copy(named, links[i])
	}
	for _, known := range []map[string]bool{named, linked} {
		for i := range documents {
			if !known[filepath.Clean(documents[i].file)] {
				maps.Copy(linked, links[i])
			}
		}
	}
	return linked
}

// evaluate turns a template or Terraform's output into resources of ARM. report adds the
// faults that this met. Other documents stay as they are, with a nil report.
func (l *loader) evaluate(file string, document *jsonc.Document, read func(string) ([]byte, error)) (_ any, report func()) {
	if document == nil {
		return nil, nil
	}
	value := document.Value
	l.places[file] = &written{document: document}
	body, ok := value.(map[string]any)
	if l.values.PriorOf != "" && file == l.values.PriorOf {
		if body, ok = terraform.Prior(body); !ok {
			return nil, func() {
				l.fault(ruleset.Fault{Code: CodeInvalidRequestFormat, File: file, Message: "it is no plan of Terraform: " +
					`give the output of "terraform show -json PLAN"`})
			}
		}
	}
	if message := terraform.Unreadable(body); message != "" {
		return nil, func() { l.fault(ruleset.Fault{Code: CodeInvalidRequestFormat, File: file, Message: message}) }
	}
	if ok && terraform.Is(body) {
		result := terraform.Convert(body)
		return map[string]any{"resources": result.Resources}, func() {
			for expression, message := range result.Reasons {
				l.keepReason(file, expression, message)
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
	if !isTemplate(value) {
		return value, nil
	}
	v.templates++
	given := l.parameters(file, body, read != nil)
	parameters := make(map[string]any, len(given))
	for name, p := range given {
		parameters[name] = p.value
	}
	result := template.Evaluate(body, template.Options{
		Context: v.evaluating,
		File:    file, Parameters: parameters, Subscription: v.Subscription, ResourceGroup: v.ResourceGroup,
		Location: v.Location, Now: v.Now, Runtime: v.runtime, ReadFile: read, Folder: l.folders[file],
	})
	for _, key := range result.Asked {
		v.asked[key] = true
	}
	l.places[file].origin, l.steps[file] = result.Origin, result.Step
	return result.Document, func() { l.reportTemplate(file, given, result) }
}

// reportTemplate keeps the reasons why expressions stay open, for the fields that need
// them, and lists the faults of the template as a whole.
func (l *loader) reportTemplate(file string, given map[string]givenParameter, result *template.Result) {
	for _, p := range result.Problems {
		l.keepReason(file, p.Expression, "at "+placeIn(file, p)+": "+p.Message)
	}
	for _, p := range result.Links {
		c := told(&l.out.Unresolved, l.placeProblem(ruleset.Fault{
			Code: CodeTemplateExpression, File: file, Resource: placeIn(file, p), Field: "templateLink", Value: ruleset.Clip(p.Expression),
			Message: p.Message,
		}, p))
		if l.unread[file] == nil {
			l.unread[file] = c
		}
	}
	for _, p := range result.Guesses {
		l.warn(l.placeProblem(ruleset.Fault{
			Code: CodeTemplateExpression, File: file, Resource: placeIn(file, p), Field: "templateLink", Value: ruleset.Clip(p.Expression),
			Message: p.Message,
		}, p))
	}
	l.warnOfGenerated(given)
	for _, p := range result.Faults {
		name, _ := strings.CutPrefix(p.Place, "parameters.")
		if g := given[strings.ToLower(name)]; p.File == file && g.source != "" {
			l.fault(placed(ruleset.Fault{Code: CodeInvalidTemplate, File: g.source, Resource: p.Place, Message: p.Message}, g.file.Position(name)))
			continue
		}
		l.fault(l.placeProblem(ruleset.Fault{Code: CodeInvalidTemplate, File: file, Resource: placeIn(file, p), Message: p.Message}, p))
	}
}

// warnOfGenerated lists the parameters whose values were made up for placeholders, once for each file.
func (l *loader) warnOfGenerated(given map[string]givenParameter) {
	names := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if g := given[name]; g.generated {
			names[g.source] = append(names[g.source], g.name)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(names)) {
		l.warn(ruleset.Fault{
			Code: CodePlaceholder, File: file, Resource: "parameters", Value: ruleset.Listed(names[file]),
			Message: "the file has placeholders of the quickstart templates (GEN-UNIQUE and the like) in the place of these values: values were made up; " +
				"give your own with --parameters NAME=VALUE",
		})
	}
}

// placeProblem adds the place of a problem to its fault. A linked template's stands in the message.
func (l *loader) placeProblem(f ruleset.Fault, p *template.Problem) ruleset.Fault {
	w := l.places[p.File]
	if w == nil {
		data, err := l.source.read(p.File)
		if err != nil {
			return f
		}
		document, err := parseDocument(data)
		if err != nil {
			return f
		}
		w = &written{document: document}
		l.places[p.File] = w
	}
	place := loopPass.ReplaceAllString(p.Place, "")
	at := w.document.Position(strings.FieldsFunc(place, func(r rune) bool { return strings.ContainsRune(".[]", r) })...)
	if p.File != f.File {
		f.Message = at.String() + ": " + f.Message
		return f
	}
	return placed(f, at)
}

// loopPass is the number of a loop's pass in a problem's place.
var loopPass = regexp.MustCompile(`\(\d+\)`)

// placeIn is a problem's place, with the file's name before it in a linked template.
func placeIn(file string, p *template.Problem) string {
	if p.File == file {
		return p.Place
	}
	return p.File + ": " + p.Place
}

// parameters are the values of a template's parameters. The Deployment's win over those of
// the file beside the template.
func (l *loader) parameters(file string, body map[string]any, onDisk bool) map[string]givenParameter {
	out := map[string]givenParameter{}
	beside := strings.TrimSuffix(file, filepath.Ext(file)) + ".parameters.json"
	if onDisk && l.source.exists(beside) {
		for _, p := range l.parametersFile(beside) {
			out[strings.ToLower(p.name)] = p
		}
	}
	declared := template.Declared(body)
	for _, p := range l.values.parameters {
		if slices.ContainsFunc(declared, func(name string) bool { return strings.EqualFold(name, p.name) }) {
			l.values.used[strings.ToLower(p.name)] = true
			out[strings.ToLower(p.name)] = p
		}
	}
	return out
}

// checkParameters reports values that no template declares. A misspelt name would silently
// leave the default in force.
func (l *loader) checkParameters() {
	for _, p := range l.values.parameters {
		if l.values.used[strings.ToLower(p.name)] {
			continue
		}
		l.values.used[strings.ToLower(p.name)] = true
		var at jsonc.Place
		if p.file != nil {
			at = p.file.Position(p.name)
		}
		l.fault(placed(ruleset.Fault{
			Code: CodeInvalidTemplate, File: p.source, Resource: "parameters." + p.name,
			Message: fmt.Sprintf("none of the %d templates declares a parameter of that name", l.values.templates),
		}, at))
	}
}

// keepReason keeps why an expression of a file stays open. The first reason wins.
func (l *loader) keepReason(file, expression, message string) {
	if l.reasons[file] == nil {
		l.reasons[file] = map[string]string{}
	}
	if _, known := l.reasons[file][expression]; !known {
		l.reasons[file][expression] = message
	}
}

// reason says why an expression stays open.
func (l *loader) reason(file, expression string) string {
	if message, ok := l.reasons[file][expression]; ok {
		return message
	}
	return "expressions are evaluated in templates only"
}
