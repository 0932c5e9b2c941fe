package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// installBelow runs scripts/install with the programs of these tests.
func installBelow(t *testing.T, dest string, args ...string) (files []string) {
	t.Helper()
	needWorld(t)
	c := exec.Command("../../scripts/install", append(args, filepath.Dir(program("nsgd")))...)
	c.Env = append(os.Environ(), "DESTDIR="+dest, "PREFIX=/opt/nsgd", "SOURCE_DATE_EPOCH=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := filepath.WalkDir(dest, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, dest))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPackageless installs without a package, and removes what was installed.
func TestPackageless(t *testing.T) {
	dest := t.TempDir()
	const config = "/etc/nsgd/nsgd.yaml"
	files := installBelow(t, dest)
	for _, want := range []string{"/opt/nsgd/bin/nsgctl", "/opt/nsgd/share/man/man8/nsgd.8.gz", "/opt/nsgd/share/bash-completion/completions/nsgctl", config} {
		if !slices.Contains(files, want) {
			t.Errorf("%s is missing among %q", want, files)
		}
	}
	for file, want := range map[string]string{"/opt/nsgd/lib/systemd/system/nsgd.service": "ExecStart=/opt/nsgd/bin/nsgd run", config: "policy: [/opt/nsgd/share/nsgd/lab/]"} {
		if text, err := os.ReadFile(dest + file); err != nil || !strings.Contains(string(text), "\n"+want) {
			t.Errorf("%s has no line %q (%v):\n%s", file, want, err, text)
		}
	}
	writeFile(t, dest+config, "mine")
	installBelow(t, dest)
	if text, _ := os.ReadFile(dest + config); string(text) != "mine" {
		t.Errorf("a second installation wrote over the configuration: %q", text)
	}
	if left := installBelow(t, dest, "-u"); !slices.Equal(left, []string{config}) {
		t.Errorf("left behind: %q", left)
	}
}

// TestThePackagesManualNamesEveryCommand holds the page that people write to what nsgd says of itself.
func TestThePackagesManualNamesEveryCommand(t *testing.T) {
	needWorld(t)
	page, err := os.ReadFile("../../deploy/packaging/nsgd.8")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(execute(t, "nsgd", "--help").stdout, "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if name != "completion" && name != "help" && !strings.Contains(string(page), "\n.B "+name+"\n") {
			t.Errorf("nsgd.8 has nothing of nsgd %s", name)
		}
	}
}

// TestTheImageOfThePackage reads the image as registries do.
func TestTheImageOfThePackage(t *testing.T) {
	needWorld(t)
	tars, _ := filepath.Glob(program("packages/*.oci.tar"))
	if len(tars) != 1 {
		t.Skip("needs the image that scripts/e2e builds")
	}
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo")
	}
	for _, source := range []string{"docker-archive:" + tars[0], "oci:" + strings.TrimSuffix(tars[0], ".tar")} {
		out, err := exec.Command("skopeo", "inspect", "--config", source).Output()
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		var image struct {
			OS     string
			Config struct {
				Entrypoint []string
				User       string
			}
		}
		if err := json.Unmarshal(out, &image); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(image.Config.Entrypoint, " "); image.OS != "linux" || got != "/usr/bin/nsgd keep -- /usr/bin/nsgd run --config /etc/nsgd/nsgd.yaml" {
			t.Errorf("%s: %s", source, out)
		}
	}
}
