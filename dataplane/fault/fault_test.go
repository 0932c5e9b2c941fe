package fault

import (
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/logring/logringtest"
)

func TestTryGoesOnAndTellsOnceAMinute(t *testing.T) {
	text := &logringtest.Buffer{}
	var now time.Duration
	l := NewLog(slog.New(slog.NewTextHandler(text, nil)), func() time.Duration { return now })
	if !l.Try(Lane, func() {}) {
		t.Error("what ends well has not")
	}
	for range 3 {
		if l.Try(Probe, func() { panic("a fault for a test") }) {
			t.Error("a panic is an end")
		}
	}
	if n := l.Counts(); n[Probe] != 3 || n[Lane] != 0 {
		t.Errorf("%v", n)
	}
	if s := text.String(); strings.Count(s, "a fault for a test") != 1 || !strings.Contains(s, "part=probe") || !strings.Contains(s, "TestTryGoesOn") {
		t.Errorf("the log has not one line with the panic and its stack: %s", s)
	}
	now += 2 * every
	l.Try(Probe, func() { panic("a fault for a test") })
	l.Try(Lane, func() { panic("another") })
	if s := text.String(); strings.Count(s, "a fault for a test") != 2 || strings.Count(s, "part=lane") != 1 {
		t.Errorf("%s", s)
	}
	var none *Log
	if none.Try(Lane, func() { panic("a fault for a test") }) || none.Counts() != ([NumParts]uint64{}) {
		t.Error("a nil log")
	}
}

func TestPartsHaveNames(t *testing.T) {
	names := map[string]bool{}
	for p := range NumParts {
		names[p.String()] = true
	}
	if len(names) != int(NumParts) || names[""] {
		t.Errorf("%v", names)
	}
}

// childEnv says what a child that this test starts is to do.
const childEnv = "NSGD_TEST_FAULT"

// TestEndEndsTheProcessWhoeverRecovers starts children that panic where net/http, say, would recover.
func TestEndEndsTheProcessWhoeverRecovers(t *testing.T) {
	recovering := func(do func()) {
		defer func() { recover() }()
		do()
	}
	switch os.Getenv(childEnv) {
	case "end":
		recovering(func() {
			defer End()
			panic("half written")
		})
		os.Exit(0)
	case "end if half written":
		recovering(func() {
			defer EndIf(func() bool { return true })
			panic("half written")
		})
		os.Exit(0)
	case "end if whole":
		recovering(func() {
			defer EndIf(func() bool { return false })
			panic("whole")
		})
		os.Exit(0)
	}
	for _, tt := range []struct {
		child, want string
		status      int
	}{{"end", "half written", 2}, {"end if half written", "half written", 2}, {"end if whole", "", 0}} {
		t.Run(tt.child, func(t *testing.T) {
			c := exec.Command(os.Args[0], "-test.run=^TestEndEndsTheProcessWhoeverRecovers$")
			c.Env = append(os.Environ(), childEnv+"="+tt.child)
			out, _ := c.CombinedOutput()
			if status := c.ProcessState.ExitCode(); status != tt.status || !strings.Contains(string(out), tt.want) {
				t.Errorf("status %d: %s", status, out)
			}
		})
	}
}
