package serve

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// revocations are lists of revoked certificates (RFC 5280, section 5). Nothing passes that no list speaks about.
type revocations []revocation

// revocation is one list.
type revocation struct {
	list    *x509.RevocationList
	serials map[string]bool // of the revoked
}

// ErrRevoked says that a certificate, or one that it depends on, is revoked, or that no list in force speaks about it.
var ErrRevoked = errors.New("revoked")

// readRevocations reads a file of lists.
func readRevocations(file string) (all revocations, err error) {
	text, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	const kind = "X509 CRL"
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("%s: a PEM block of type %s: allowed is %s", file, block.Type, kind)
		}
		r := revocation{serials: map[string]bool{}}
		if r.list, err = x509.ParseRevocationList(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, e := range r.list.Extensions { // a list of a part, or of changes, is no whole list
			if e.Critical {
				return nil, fmt.Errorf("%s: the list of %s has the critical extension %v: it is not understood", file, r.list.Issuer, e.Id)
			}
		}
		for i := range r.list.RevokedCertificateEntries {
			r.serials[string(r.list.RevokedCertificateEntries[i].SerialNumber.Bytes())] = true
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no list: a PEM block of type %s is needed", file, kind)
	}
	return all, nil
}

// check reports why no chain, each from a certificate to one that is trusted, is in force; nil: one is.
func (all revocations) check(chains [][]*x509.Certificate, now time.Time) (err error) {
	err = fmt.Errorf("%w: no chain to a CA", ErrRevoked)
	for _, chain := range chains {
		if err = all.checkChain(chain, now); err == nil {
			return nil
		}
	}
	return err
}

func (all revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i := range len(chain) - 1 {
		if err := all.checkOne(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// checkOne looks for a certificate in the lists of who has signed it.
func (all revocations) checkOne(c, issuer *x509.Certificate, now time.Time) error {
	why := fmt.Errorf("%w: %s: there is no list of %s", ErrRevoked, c.Subject, issuer.Subject)
	spoken := false
	for i := range all {
		r := &all[i]
		if !bytes.Equal(r.list.RawIssuer, issuer.RawSubject) || r.list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		if r.serials[string(c.SerialNumber.Bytes())] {
			return fmt.Errorf("%w: %s, by %s", ErrRevoked, c.Subject, issuer.Subject)
		}
		if next := r.list.NextUpdate; !next.IsZero() && now.After(next) {
			why = fmt.Errorf("%w: %s: the list of %s has ended at %s", ErrRevoked, c.Subject, issuer.Subject, next.Format(time.RFC3339))
			continue
		}
		spoken = true
	}
	if !spoken {
		return why
	}
	return nil
}
