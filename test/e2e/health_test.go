package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/deploy/lab"
	"golang.org/x/crypto/bcrypt"
)

// askHealth asks the port of metrics as a user of its web configuration; empty: without one.
func askHealth(t *testing.T, path, user string) (status int, text string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(metricsURL, "/metrics")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		request.SetBasicAuth(user, "secret")
	}
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// edit replaces a text of a file, which has it once.
func edit(t *testing.T, file, old, text string) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(before), old); n != 1 {
		t.Fatalf("%s has %q %d times", file, old, n)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(before), old, text, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReadinessFollowsTheDevicesAndTheLogIsJSON(t *testing.T) {
	needWorld(t)
	dir := configure(t, labPolicy(), "log: {format: json}")
	file := filepath.Join(dir, lab.ConfigName)
	edit(t, file, "metrics: {", "metrics: {webConfig: web.yaml, pprof: true, ")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte("basic_auth_users: {prometheus: '"+string(hash)+"'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := launch(t, "run", "--config", file)
	d.waitFor(d.stderr, `"msg":"ready"`)
	for _, tt := range []struct {
		path, user string
		want       int
	}{
		{"/metrics", "", 401}, {"/healthz", "nobody", 401}, {"/debug/pprof/", "", 401}, {"/console/", "", 401}, {"/console/events/map", "", 401},
		{"/metrics", "prometheus", 200}, {"/healthz", "prometheus", 200}, {"/", "prometheus", 200}, {"/debug/pprof/heap", "prometheus", 200}, {"/console/", "prometheus", 200}, {"/console/data/names", "prometheus", 200},
	} {
		if status, text := askHealth(t, tt.path, tt.user); status != tt.want {
			t.Errorf("%s as %q: %d %.200s, want %d", tt.path, tt.user, status, text, tt.want)
		}
	}
	if status, text := askHealth(t, "/readyz", "prometheus"); status != 200 || text != "ok\n" {
		t.Errorf("ready: %d %q", status, text)
	}
	command(t, "ip -n nsgd-vm2 link del eth0")
	eventually(t, "readyz names the attachment", func() bool {
		status, text := askHealth(t, "/readyz", "prometheus")
		return status == 503 && strings.Contains(text, "attachment vm2-nic: the device eth0 is gone")
	})
	d.stop(syscall.SIGTERM)
	for line := range strings.Lines(d.stderr.String()) {
		var record struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &record); err != nil || record.Time == "" || record.Level == "" || record.Msg == "" {
			t.Errorf("a line that is no JSON of the log: %q: %v", line, err)
		}
	}
}
