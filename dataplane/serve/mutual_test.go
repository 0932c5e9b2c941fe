package serve_test

import (
	"crypto/x509"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/nsgd/nsgd/dataplane/serve"
	"github.com/nsgd/nsgd/dataplane/serve/servetest"
)

// Each fault names its file, and none makes anybody wait.
func TestFilesOfCertificatesAreBounded(t *testing.T) {
	ca := servetest.NewAuthority(t, t.TempDir(), "ca")
	ca.Issue("server", nil)
	ca.Issue("other", func(c *x509.Certificate) {})
	good := serve.MutualFiles{Certificate: ca.Path("server.crt"), Key: ca.Path("server.key"), CA: ca.Path("ca.crt")}
	if _, err := good.Load(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(ca.Path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good.CA)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.Path("long"), append(text, make([]byte, 1<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*serve.MutualFiles)
		want   string
	}{
		"a file that is not there":    {func(f *serve.MutualFiles) { f.Key = ca.Path("nowhere") }, "nowhere: no such file"},
		"a pipe":                      {func(f *serve.MutualFiles) { f.CA = ca.Path("pipe") }, "pipe: a regular file is needed"},
		"a folder":                    {func(f *serve.MutualFiles) { f.CA = ca.Path("") }, "a regular file is needed"},
		"a file that is too long":     {func(f *serve.MutualFiles) { f.CA = ca.Path("long") }, "longer than 1048576 bytes"},
		"another's key":               {func(f *serve.MutualFiles) { f.Key = ca.Path("other.key") }, "server.crt and "},
		"no certificate in the CA":    {func(f *serve.MutualFiles) { f.CA = ca.Path("server.key") }, "server.key: no certificate"},
		"no certificate in the first": {func(f *serve.MutualFiles) { f.Certificate = f.Key }, "server.key and "},
	} {
		files := good
		tt.change(&files)
		if _, err := files.Load(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
