package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// terminal is a tmux of its own with one window.
type terminal struct {
	t      *testing.T
	socket string
}

// openTerminal runs a command in a terminal of that size.
func openTerminal(t *testing.T, width, height string, command ...string) *terminal {
	t.Helper()
	dir := t.TempDir()
	term := &terminal{t, filepath.Join(dir, "tmux.sock")}
	// The shell stays to tell the exit code, which is how the end of the command is seen.
	line := "LC_ALL=C.UTF-8 TERM=screen-256color " + strings.Join(command, " ") + `; printf 'exit code %s\n' $?; exec cat`
	term.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, line)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("screen:\n%s", term.screen())
		}
		term.tmux("kill-server")
	})
	return term
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-S", term.socket}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (term *terminal) screen() string { return term.tmux("capture-pane", "-p") }

func (term *terminal) press(keys ...string) {
	term.t.Helper()
	term.tmux(append([]string{"send-keys"}, keys...)...)
}

// shows waits until the screen has text that the pattern matches.
func (term *terminal) shows(pattern string) string {
	term.t.Helper()
	want, screen := regexp.MustCompile("(?m)"+pattern), ""
	eventually(term.t, "the screen shows "+pattern, func() bool {
		screen = term.screen()
		return want.MatchString(screen)
	})
	return screen
}

func TestTopInATerminal(t *testing.T) {
	d := start(t, labPolicy())
	stop := flood(t) // VM3 to VM4
	defer func() { stop() }()
	serveTCP(t, vm1, 80)
	mustConnect(t, internet, vm1, 80)
	mustNotConnect(t, internet, vm1, 8080)
	term := openTerminal(t, "80", "24", program("nsgctl"), "top", "--interval", "250ms")

	term.shows(`^nsgd e2e  policy generation 1  up `)
	term.shows(`^NSG2 +Outbound +65000 +Allow +AllowVnetOutBound.* [0-9.]+[kM]$`)
	term.shows(`flows [1-9][0-9]* of .*[1-9][0-9.]*[kM]? packets/s   [0-9.]+ [kMG]bit/s`)
	lines := strings.Split(strings.TrimRight(term.screen(), "\n"), "\n")
	for _, line := range lines {
		if len([]rune(line)) > 80 {
			t.Errorf("a line is longer than the terminal: %q", line)
		}
	}
	if len(lines) != 24 || !strings.HasPrefix(lines[23], "1-4 view  q quit") {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}

	term.press("2")
	term.shows(`^UDP +10\.0\.2\.4:[0-9]+ +10\.0\.3\.4:[0-9]+ .* [0-9.]+[kM]$`)
	term.press("/")
	term.press("-l", "tcp 203.0.")
	term.shows(`^/tcp 203\.0\._`)
	term.press("Enter")
	term.shows(`filter "tcp 203\.0\."  1-1 of 1$`)
	term.shows(`^TCP +203\.0\.113\.10:[0-9]+ +10\.0\.1\.4:80 `)
	term.press("Escape")
	term.shows(`sort bytesPerSecond▼  1-2 of 2$`)

	term.press("3")
	term.shows(`^10\.0\.2\.4 +10\.0\.3\.4 .* [0-9.]+[kM]$`)
	term.press("s", "r")
	term.shows(`PKT/S▲`)
	term.press("4")
	term.shows(`^rule_deny +[0-9.]+% `)

	term.press("1", "p")
	term.shows(`PAUSED$`)
	term.press("p")
	term.shows(`every 250ms$`)
	term.tmux("resize-window", "-x", "200", "-y", "50")
	term.shows(`^NSG +DIRECTION +PRIO +ACCESS +RULE +PROTO +SOURCE +DESTINATION +PORTS +HITS +PACKETS +BYTES`)

	stop()
	stop = func() {}
	d.stop(syscall.SIGTERM)
	term.shows(`no daemon answers on ` + regexp.QuoteMeta(controlSocket) + `.*asking again every 250ms`)
	startIn(t, d.dir)
	term.shows(`^nsgd e2e  policy generation 1  up `)
	term.press("q")
	term.shows(`^exit code 0$`)
}

func TestTopHasColoursWhereTheyAreWanted(t *testing.T) {
	start(t, labPolicy())
	colour := regexp.MustCompile(`\x1b\[[0-9;]*3[12]m`)
	for command, want := range map[string]bool{"": true, "env NO_COLOR=1 ": false} {
		term := openTerminal(t, "80", "24", command+program("nsgctl"), "top")
		term.shows(` Deny .* DenyAllInBound `)
		if got := colour.MatchString(term.tmux("capture-pane", "-p", "-e")); got != want {
			t.Errorf("%snsgctl top has colours: %v, want %v", command, got, want)
		}
		term.press("q")
		term.shows(`^exit code 0$`)
	}
}

func TestTopEndsWithoutADaemon(t *testing.T) {
	needWorld(t)
	term := openTerminal(t, "80", "24", program("nsgctl"), "top")
	term.shows(`no daemon answers on ` + regexp.QuoteMeta(controlSocket))
	term.shows(`^exit code 3$`)
}

func TestTopOnceNeedsNoTerminal(t *testing.T) {
	start(t, labPolicy())
	stop := flood(t)
	defer stop()
	mustName(t, "nsgctl top", execute(t, "nsgctl", "top"), []string{"is no terminal", "--once"})
	var reading struct {
		Seconds float64
		Flows   []struct {
			From, To       string
			BytesPerSecond float64
		}
	}
	out := nsgctl(t, "top", "--view", "flows", "--filter", "udp", "--interval", "2s", "-o", "json")
	if err := json.Unmarshal([]byte(out), &reading); err != nil {
		t.Fatal(err)
	}
	if len(reading.Flows) != 1 || reading.Seconds < 0.2 {
		t.Fatalf("read %s", out)
	}
	if f := reading.Flows[0]; f.From != "vm3-nic" || f.To != "vm4-nic" || f.BytesPerSecond == 0 {
		t.Errorf("read %+v", f)
	}
	table := nsgctl(t, "top", "--once", "--view", "talkers", "--interval", "250ms")
	if !regexp.MustCompile(`(?m)^SOURCE +DESTINATION .*B/S\n10\.0\.2\.4 +10\.0\.3\.4 +vm3-nic +vm4-nic `).MatchString(table) {
		t.Errorf("printed\n%s", table)
	}
}
