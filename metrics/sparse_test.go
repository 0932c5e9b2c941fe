package metrics

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestALineAMinuteIsLoggedAndTheOthersAreCounted(t *testing.T) {
	var text strings.Builder
	var h slog.Handler = &sparse{Handler: slog.NewTextHandler(&text, nil), last: &lastLine{}}
	derived := h.WithAttrs([]slog.Attr{slog.String("port", "metrics")})
	begin := time.Unix(1_800_000_000, 0)
	for i, after := range []time.Duration{0, time.Second, 59 * time.Second, time.Minute, 90 * time.Second, 3 * time.Minute} {
		to := h
		if i%2 == 1 {
			to = derived
		}
		r := slog.NewRecord(begin.Add(after), slog.LevelWarn, after.String(), 0)
		if err := to.Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for line := range strings.Lines(text.String()) {
		_, line, _ = strings.Cut(line, "msg=")
		got = append(got, strings.TrimSpace(line))
	}
	want := []string{"0s", "1m0s port=metrics notShown=2", "3m0s port=metrics notShown=1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
