package ask

import "slices"

// warningCodes are the checks by the code of a document's warning. Any other is LintWarning.
var warningCodes = map[string]string{
	"UnknownProperty": LintUnknownProperty, "PropertyNotRead": LintNotRead, "ResourceNotRead": LintNotRead,
	"NothingRead": LintNothingRead, "IncompleteList": LintIncomplete, "VirtualNetworkTagIsEverything": LintEverythingIsNetwork,
}

// chosenCodes are warnings about values that the reader chose: they say nothing about the policy.
var chosenCodes = []string{"PublicIPAddressNotAssigned", "PrivateIPAddressNotAssigned", "PlaceholderReplaced"}

// documents lists what the reader of the documents warns of, as validate does.
func (l *linter) documents() {
	for i := range l.Warnings {
		w := &l.Warnings[i]
		code := warningCodes[w.Code]
		switch {
		case slices.Contains(chosenCodes, w.Code):
			continue
		case code == "":
			code = LintWarning
		}
		message := w.Code + ": "
		if w.Field != "" {
			message += w.Field
			if w.Value != "" {
				message += " " + w.Value
			}
			message += ": "
		}
		f := l.find(code, w.Resource, message+w.Message)
		f.Rule, f.File, f.Line, f.Column = w.Rule, w.File, w.Line, w.Column
	}
}
