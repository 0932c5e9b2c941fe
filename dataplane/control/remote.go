package control

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve"
)

// The bounds of clients from elsewhere. They have connections of their own, so that nobody out there ends one of the
// socket.
const (
	maxRemoteConnections = 64
	maxRemoteAnswers     = 8
	maxRemoteStreams     = 32
	// dialPatience bounds the connection to a daemon elsewhere, and its TLS.
	dialPatience = 10 * time.Second
)

// ServeRemote answers clients with certificates, until Shutdown. Those with a name among mayChange may change, all
// others may look. Call it once.
func (s *Server) ServeRemote(l net.Listener, mutual *serve.Mutual, mayChange []string) error {
	s.mutual, s.mayChange = mutual, mayChange
	return s.remote.Serve(mutual.Listen(l))
}

// NewRemoteClient returns a client for the daemon that listens on host:port. It connects with the first question, and
// reads the files for each connection.
func NewRemoteClient(address string, files serve.MutualFiles) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		config, err := files.Load()
		if err != nil {
			return nil, err
		}
		if config.ServerName, _, err = net.SplitHostPort(address); err != nil {
			return nil, fmt.Errorf("%q: allowed is NAME:PORT: %w", address, err)
		}
		ctx, cancel := context.WithTimeout(ctx, dialPatience)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("%w on %s: %w", ErrNoDaemon, address, err)
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secured, nil
	}
	return &Client{http: http.Client{Transport: &http.Transport{DialTLSContext: dial}}, scheme: "https", host: address}
}

// explained says what is wrong where TLS ends a connection.
func explained(err error) error {
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &certificate):
		return fmt.Errorf("the daemon's certificate is not of the CA that --ca gives, or not for this name: %w", err)
	case errors.As(err, &alert) && alert.Op == "remote error":
		return fmt.Errorf("permission denied: the daemon does not take this client's certificate; needed is one of the CA in control.clientCA of its configuration: %w", err)
	}
	return err
}
