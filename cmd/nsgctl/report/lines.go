package report

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// writeTAP writes TAP 14 (testanything.org/tap-version-14-specification). Warnings and errors fail.
func writeTAP(w io.Writer, r *Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "TAP version 14\n1..%d\n", len(r.Entries))
	for i := range r.Entries {
		e := &r.Entries[i]
		result := "ok"
		if e.Level.failure() {
			result = "not ok"
		}
		fmt.Fprintf(&b, "%s %d - %s\n", result, i+1, tapEscaper.Replace(Printable(e.title())))
		if e.Level == Pass {
			continue
		}
		b.WriteString("  ---\n")
		for _, field := range []struct{ key, value string }{
			{"severity", e.Level.String()}, {"message", strings.ReplaceAll(e.Message, "\n", "; ")}, {"resource", e.Resource}, {"at", e.place()}, {"help", e.Help},
		} {
			if field.value != "" {
				fmt.Fprintf(&b, "  %s: %s\n", field.key, quoted(field.value))
			}
		}
		b.WriteString("  ...\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

var tapEscaper = strings.NewReplacer(`\`, `\\`, "#", `\#`)

// quoted is a YAML string in double quotes, which JSON's are.
func quoted(text string) string {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.Encode(Printable(text)) // a string never fails
	return strings.TrimSuffix(b.String(), "\n")
}

// The characters that actions/toolkit escapes in a workflow command, packages/core/src/command.ts.
var (
	githubData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// writeGitHub writes a workflow command for each entry that did not pass.
func writeGitHub(w io.Writer, r *Report) error {
	return writeCommands(w, r, func(e *Entry) string {
		command := map[Level]string{Note: "notice", Warning: "warning", Error: "error"}[e.Level]
		var properties []string
		for _, p := range []struct{ key, value string }{
			{"file", e.File}, {"line", number(e.Line)}, {"col", number(e.Column)}, {"title", e.title()},
		} {
			if p.value != "" {
				properties = append(properties, p.key+"="+githubProperty.Replace(p.value))
			}
		}
		return fmt.Sprintf("::%s %s::%s", command, strings.Join(properties, ","), githubData.Replace(e.inOneText()))
	})
}

// The characters that azure-pipelines-task-lib escapes in a logging command, node/taskcommand.ts.
var (
	azureData     = strings.NewReplacer("%", "%AZP25", "\r", "%0D", "\n", "%0A")
	azureProperty = strings.NewReplacer("%", "%AZP25", "\r", "%0D", "\n", "%0A", "]", "%5D", ";", "%3B")
)

// writeAzureDevOps writes a logging command for each entry that did not pass. There are no notes: they
// are warnings.
func writeAzureDevOps(w io.Writer, r *Report) error {
	return writeCommands(w, r, func(e *Entry) string {
		kind := "warning"
		if e.Level == Error {
			kind = "error"
		}
		var properties strings.Builder
		for _, p := range []struct{ key, value string }{
			{"type", kind}, {"sourcepath", e.File}, {"linenumber", number(e.Line)}, {"columnnumber", number(e.Column)}, {"code", e.Code},
		} {
			if p.value != "" {
				properties.WriteString(p.key + "=" + azureProperty.Replace(p.value) + ";")
			}
		}
		return fmt.Sprintf("##vso[task.logissue %s]%s", properties.String(), azureData.Replace(e.Name+": "+e.inOneText()))
	})
}

func writeCommands(w io.Writer, r *Report, command func(*Entry) string) error {
	for i := range r.Entries {
		e := &r.Entries[i]
		if e.Level == Pass {
			continue
		}
		if _, err := fmt.Fprintln(w, command(e)); err != nil {
			return err
		}
	}
	return nil
}

// inOneText is the message with resource and help: an annotation has no fields for them.
func (e *Entry) inOneText() string {
	text := e.message()
	if e.Resource != "" {
		text += "\n" + e.Resource
	}
	if e.Help != "" {
		text += "\n" + e.Help
	}
	return text
}

// number is a number as text; empty for 0.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
