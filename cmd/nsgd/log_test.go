package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/tun"
	"github.com/nsgd/nsgd/tun/intercept"
)

func TestTheLogHasTheFormAndTheLevelThatAreAskedFor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		config LogConfig
		want   []string // in the text without its time
		not    string
	}{
		{"text", LogConfig{}, []string{"level=INFO msg=begun offload=tso after=1.5s"}, "msg=detail"},
		{"everything", LogConfig{Level: "debug"}, []string{"level=DEBUG msg=detail", "msg=begun"}, "{"},
		{"warnings", LogConfig{Level: "warn"}, []string{"level=WARN msg=late"}, "msg=begun"},
		{"JSON", LogConfig{Format: logJSON}, []string{`"level":"INFO","msg":"begun","offload":"tso","after":"1.5s"}`}, "detail"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var text strings.Builder
			log := slog.New(tt.config.handler(&text))
			log.Debug("detail")
			log.Info("begun", "offload", tun.TSO, "after", 1500*time.Millisecond)
			log.Warn("late", "nobody", (*tun.RunningError)(nil))
			for _, want := range tt.want {
				if !strings.Contains(text.String(), want) {
					t.Errorf("%s lacks %s", &text, want)
				}
			}
			if strings.Contains(text.String(), tt.not) {
				t.Errorf("%s has %s", &text, tt.not)
			}
		})
	}
}

// Who is ready knows an open interface by its name.
func TestAnInterfaceThatMayBeOpenHasOneName(t *testing.T) {
	if intercept.Replaced != inspect.Replaced {
		t.Errorf("%q and %q", intercept.Replaced, inspect.Replaced)
	}
}
