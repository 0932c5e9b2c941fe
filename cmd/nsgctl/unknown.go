package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// unknownCommand refuses a word where a command's name is expected.
func unknownCommand(parent *cobra.Command, word string) error {
	return usageError{fmt.Errorf("unknown command %q%s", word, didYouMean(commandNames(parent.Commands()), word))}
}

// flagError refuses a flag that the command does not have, with those that are near, or a value that is not the flag's.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		if allowed := flagValues[invalid.GetFlag().Value.Type()]; allowed != "" {
			err = fmt.Errorf("--%s %q: allowed is %s", invalid.GetFlag().Name, invalid.GetValue(), allowed)
		}
	}
	if errors.As(err, &unknown) && len(unknown.GetSpecifiedName()) > 1 {
		var flags []string
		c.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
		err = fmt.Errorf("%w%s", err, didYouMean(flags, "--"+unknown.GetSpecifiedName()))
	}
	if c.HasParent() {
		err = fmt.Errorf("%s: %w", verbName(c), err)
	}
	return usageError{err}
}

// flagValues says what flags of a type take.
var flagValues = map[string]string{"int": "a whole number", "bool": "true or false", "duration": "a time such as 30s or 2m"}

// didYouMean asks for the words that are near one that there is not; empty where none is.
func didYouMean(words []string, typed string) string {
	// Cobra knows which commands are near a word.
	near := cobra.Command{SuggestionsMinimumDistance: min(2, len(typed)/2)}
	for _, word := range words {
		near.AddCommand(&cobra.Command{Use: word, Run: func(*cobra.Command, []string) {}})
	}
	list := near.SuggestionsFor(typed)
	if len(list) == 0 {
		return ""
	}
	slices.Sort(list)
	return "; did you mean " + strings.Join(list, " or ") + "?"
}
