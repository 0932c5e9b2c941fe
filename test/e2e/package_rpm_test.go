package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTheRPMInstallsVerifiesAndGoes uses rpm's own database in a folder. Scripts don't run: nothing that they need is there.
func TestTheRPMInstallsVerifiesAndGoes(t *testing.T) {
	list, _ := filepath.Glob(program("packages/*.rpm"))
	if len(list) != 1 {
		t.Skip("needs the rpm that scripts/e2e builds")
	}
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Skipf("needs rpm: %v", err)
	}
	file, root := list[0], t.TempDir()
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	rpm("-K", "--nosignature", file)
	files := strings.Split(strings.TrimSpace(rpm("-qlp", file)), "\n")
	for _, want := range []string{"/usr/bin/nsgd", "/usr/bin/nsgctl", "/etc/nsgd/nsgd.yaml", "/usr/lib/systemd/system/nsgd.service", "/usr/lib/sysusers.d/nsgd.conf"} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is not in the package", want)
		}
	}
	if got := strings.TrimSpace(rpm("-qcp", file)); got != "/etc/nsgd/nsgd.yaml" {
		t.Errorf("files of configuration: %q", got)
	}
	in := func(args ...string) string { t.Helper(); return rpm(append([]string{"--root", root}, args...)...) }
	in("--initdb")
	in("-i", "--test", "--nodeps", file)
	in("-i", "--nodeps", "--noscripts", file)
	if got := in("-V", "--nodeps", "nsgd"); got != "" {
		t.Errorf("what is installed differs from the package: %s", got)
	}
	if out, err := exec.Command(filepath.Join(root, "usr/bin/nsgd"), "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "nsgd ") {
		t.Errorf("nsgd --version: %v: %s", err, out)
	}
	writeFile(t, filepath.Join(root, "etc/nsgd/nsgd.yaml"), "policy: [policy]\n")
	in("-U", "--force", "--nodeps", "--noscripts", file)
	if got := readFile(t, filepath.Join(root, "etc/nsgd/nsgd.yaml")); got != "policy: [policy]\n" {
		t.Errorf("an upgrade has replaced the configuration: %q", got)
	}
	in("-e", "--noscripts", "nsgd")
	if _, err := os.Stat(filepath.Join(root, "usr/bin/nsgd")); err == nil {
		t.Error("nsgd is still there once it is erased")
	}
}
