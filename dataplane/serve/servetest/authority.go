// Package servetest makes certificates for the tests of servers and clients.
package servetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates. Its own is NAME.crt of its folder.
type Authority struct {
	t           testing.TB
	folder      string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewAuthority makes an authority in a folder.
func NewAuthority(t testing.TB, folder, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, folder: folder, key: newKey(t)}
	template := newTemplate(name)
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	a.certificate = template
	der := a.sign(template, &a.key.PublicKey)
	a.Write(name+".crt", "CERTIFICATE", der)
	var err error
	if a.certificate, err = x509.ParseCertificate(der); err != nil { // with what was added to the template
		t.Fatal(err)
	}
	return a
}

// Issue makes NAME.crt and NAME.key, for a server at 127.0.0.1 and for a client.
func (a *Authority) Issue(name string, more func(*x509.Certificate)) {
	a.t.Helper()
	template := newTemplate(name)
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	if more != nil {
		more(template)
	}
	key := newKey(a.t)
	a.Write(name+".crt", "CERTIFICATE", a.sign(template, &key.PublicKey))
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Write(name+".key", "PRIVATE KEY", secret)
}

// Revoke makes NAME with a list of revoked certificates that is in force until a time.
func (a *Authority) Revoke(name string, until time.Time, issued ...string) {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: until}
	for _, one := range issued {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: a.serial(one), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.Write(name, "X509 CRL", der)
}

// serial is the number of NAME.crt.
func (a *Authority) serial(name string) *big.Int {
	a.t.Helper()
	text, err := os.ReadFile(a.Path(name + ".crt"))
	if err != nil {
		a.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		a.t.Fatal(err)
	}
	return c.SerialNumber
}

// Path is that of a file in the authority's folder.
func (a *Authority) Path(name string) string { return filepath.Join(a.folder, name) }

// Write puts PEM in the place of a file at once.
func (a *Authority) Write(name, kind string, der []byte) {
	a.t.Helper()
	next := a.Path(name + ".next")
	err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	if err == nil {
		err = os.Rename(next, a.Path(name))
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PublicKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newTemplate(name string) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
}
