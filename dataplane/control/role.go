package control

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/serve"
)

// role is what a peer may do. On the socket the kernel says whose a connection is (SO_PEERCRED), elsewhere its
// certificate does: one address serves both roles, and nobody has to know a second one.
type role bool

const (
	// look asks what the daemon does. It changes nothing, reads no file that the peer names and shows no packet's bytes.
	look role = false
	// change does all the rest.
	change role = true
)

// client is who asks.
type client struct {
	name   string // for the log
	denied error  // why it may only look; nil: it may change
}

type clientKey struct{}

// clientOf is who asks a request.
func clientOf(ctx context.Context) client {
	c, ok := ctx.Value(clientKey{}).(client)
	if !ok {
		c.denied = denial("the peer is not known")
	}
	return c
}

// denial refuses what needs another role.
func denial(format string, args ...any) error {
	return refusal(http.StatusForbidden, fmt.Errorf("permission denied: "+format, args...))
}

// client finds out who asks. An error refuses all that it asks.
func (s *Server) client(r *http.Request) (client, error) {
	if r.TLS != nil {
		if s.mutual == nil {
			return client{}, denial("no certificate is known")
		}
		certificate, err := s.mutual.Peer(r.TLS)
		if err != nil {
			return client{}, denial("%w", err)
		}
		return certified(certificate, s.mayChange), nil
	}
	socket, ok := serve.Socket(r.Context()).(*net.UnixConn)
	if !ok {
		return client{denied: denial("the peer is not known")}, nil
	}
	uid, err := serve.PeerUID(socket)
	if err != nil {
		return client{denied: denial("the peer is not known: %w", err)}, nil
	}
	return client{fmt.Sprintf("user %d", uid), permit(uid)}, nil
}

// permit refuses a user who may only look.
func permit(uid uint32) error {
	if own := os.Geteuid(); uid != 0 && int(uid) != own {
		return denial("user %d may look; allowed are root and the daemon's user, %d", uid, own)
	}
	return nil
}

// certified is the client of a certificate. It may change if one of its names is among those that may.
func certified(c *x509.Certificate, mayChange []string) client {
	names := certificateNames(c)
	who := client{name: "certificate " + strings.Join(names, ", ")}
	if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(mayChange, name) }) {
		who.denied = denial("the client of the certificate with the names %q may look; allowed are those that control.mayChange of the daemon's configuration names", names)
	}
	return who
}

// The names of a certificate that count are bounded in number and length: they stand in the log.
const (
	maxNames = 16
	// MaxNameLen is in bytes.
	MaxNameLen = 256
)

// certificateNames are the common name of a certificate and its alternative names.
func certificateNames(c *x509.Certificate) []string {
	var names []string
	for _, list := range [][]string{{c.Subject.CommonName}, c.DNSNames, c.EmailAddresses} {
		names = append(names, list...)
	}
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" || len(name) > MaxNameLen })
	return names[:min(len(names), maxNames)]
}
