package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"slices"
)

// The values of LogConfig.Format.
const (
	logText = "text"
	logJSON = "json"
)

// logLevels are the values of LogConfig.Level, from everything to errors alone.
var logLevels = []string{"debug", "info", "warn", "error"}

// LogConfig says what the daemon's log on standard error looks like.
type LogConfig struct {
	// Format is text, which is the default, or json: an object a line.
	Format string `yaml:"format"`
	// Level is the least level that is logged; empty: info.
	Level string `yaml:"level"`
}

func (v *validator) log(c *LogConfig) {
	if !slices.Contains([]string{"", logText, logJSON}, c.Format) {
		v.fail(at("log", "format"), "%q: allowed are %s and %s", c.Format, logText, logJSON)
	}
	if c.Level != "" && !slices.Contains(logLevels, c.Level) {
		v.fail(at("log", "level"), "%q: allowed are %v", c.Level, logLevels)
	}
}

// handler writes the log. The configuration is valid.
func (c *LogConfig) handler(w io.Writer) slog.Handler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cmp.Or(c.Level, "info"))); err != nil {
		panic(err) // every one of logLevels is one of slog's
	}
	lines := forJournal(w)
	var h slog.Handler = slog.NewTextHandler(lines, &slog.HandlerOptions{Level: level})
	if c.Format == logJSON {
		h = slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: level, ReplaceAttr: inWords})
	}
	if journal, is := lines.(*journalLines); is {
		return journalHandler{h, journal}
	}
	return h
}

// inWords writes what has words in words, as text does: JSON would have a number for a duration or an offload.
func inWords(_ []string, a slog.Attr) slog.Attr {
	if kind := a.Value.Kind(); kind != slog.KindAny && kind != slog.KindDuration {
		return a
	}
	if words, ok := a.Value.Any().(fmt.Stringer); ok {
		a.Value = slog.StringValue(fmt.Sprint(words)) // which takes nil too
	}
	return a
}
