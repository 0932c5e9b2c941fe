package serve

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/exporter-toolkit/web"
)

// maxWeb bounds a web configuration file, in bytes. The library reads it for each connection and each request, before
// it knows whose they are: so it is what any peer's request costs.
const maxWeb = 64 << 10

// CheckWeb finds out whether ServeWeb can use a file.
func CheckWeb(file string) error {
	if info, err := os.Stat(file); err == nil && (!info.Mode().IsRegular() || info.Size() > maxWeb) {
		return fmt.Errorf("%s: a regular file of at most %d bytes is needed: each request reads it", file, maxWeb)
	}
	if err := web.Validate(file); err != nil {
		return fmt.Errorf("%s: %w: allowed is what https://prometheus.io/docs/prometheus/latest/configuration/https describes", file, err)
	}
	return nil
}

// ServeWeb is Serve with TLS, client certificates and users as a web configuration file of Prometheus says. The file is
// read again for each connection and each request. Peers that it keeps out are bounded as all others are.
func (s *Server) ServeWeb(l net.Listener, file string, log *slog.Logger) error {
	err := web.Serve(l, &s.http, &web.FlagConfig{WebConfigFile: &file}, log)
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// onlyHTTP1 is what the bounds are made for: HTTP/2 has many answers at a time on one connection.
func onlyHTTP1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// socketOf is the connection below TLS. Closing it waits for nobody; TLS would tell the peer first.
func socketOf(c net.Conn) net.Conn {
	if secured, ok := c.(*tls.Conn); ok {
		return secured.NetConn()
	}
	return c
}
