package control

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestWhoLooksChangesNothing(t *testing.T) {
	own := uint32(os.Geteuid())
	for uid, may := range map[uint32]bool{0: true, own: true, own + 1: false, 65534: false} {
		err := permit(uid)
		var e *Error
		if may && err != nil || !may && (!errors.As(err, &e) || e.Status != http.StatusForbidden) {
			t.Errorf("user %d: %v", uid, err)
		}
	}
	if who, _ := new(Server).client(new(http.Request)); who.denied == nil || clientOf(t.Context()).denied == nil {
		t.Error("a request of nobody may change")
	}
}

// A route that is new belongs to root until somebody adds it here.
func TestTheseAreTheRoutesOfWhoLooks(t *testing.T) {
	want := []string{"candidate", "candidateFlows", "diagnose", "drops", "effective", "effectiveRoutes", "endedFlows", "explain", "flows", "followFlows", "hosts", "names", "next-hop", "reach", "reloads", "rules", "securityGroupView",
		"status", "tag", "tags", "top", "trace", "verify"}
	var got []string
	for _, r := range routes {
		if r.role == look {
			got = append(got, r.path)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Between bind and chmod the socket had the mode of the umask.
func TestTheSocketIsNobodyElsesForAnyMoment(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "nsgd.sock")
	l, err := listenAlone(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|ownMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// They stand in the log, so that whoever signs certificates must not fill it.
func TestTheNamesOfACertificateAreBounded(t *testing.T) {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: strings.Repeat("x", MaxNameLen+1)}, EmailAddresses: []string{"a@example.org", ""}, URIs: []*url.URL{{Scheme: "spiffe", Host: "b"}}}
	if got, want := certificateNames(c), []string{"a@example.org", "spiffe://b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c.DNSNames = slices.Repeat([]string{"many"}, 1000)
	if got := certificateNames(c); len(got) != maxNames {
		t.Errorf("%d names", len(got))
	}
}
