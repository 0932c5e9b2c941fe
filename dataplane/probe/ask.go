package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/nsgd/nsgd/dataplane/topology"
)

const (
	// maxTimeout is how long Azure waits for an answer at most.
	maxTimeout = 30 * time.Second
	// maxHeader bounds what an answer's header may hold, in bytes.
	maxHeader = 64 << 10
	userAgent = "Load Balancer Agent" // what Azure's probes call themselves
)

// timeout is how long a probe waits for its answer: the interval, or less.
func timeout(p *topology.Probe) time.Duration { return min(p.Interval, maxTimeout) }

// ask sends one probe and returns nil when the backend gives the right answer in time.
func (p *Prober) ask(ctx context.Context, t *topology.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(t))
	defer cancel()
	to := netip.AddrPortFrom(t.Address, t.Port)
	conn, err := p.dial(ctx, t)
	if err != nil {
		return describe(err, t)
	}
	defer conn.Close()
	if t.Protocol == topology.ProbeTCP {
		return nil
	}
	plain := conn
	defer context.AfterFunc(ctx, func() { plain.SetDeadline(time.Unix(1, 0)) })()
	if t.Protocol == topology.ProbeHTTPS {
		// Azure checks no certificate either.
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := secure.HandshakeContext(ctx); err != nil {
			return describe(err, t)
		}
		conn = secure
	}
	return describe(get(conn, to, t.Path), t)
}

// get asks for a path and wants 200. It follows no redirection and reads no content.
func get(conn net.Conn, to netip.AddrPort, path string) error {
	u, err := url.ParseRequestURI(path)
	if err != nil {
		u = &url.URL{Path: path}
	}
	request := &http.Request{
		Method: http.MethodGet, URL: u, Host: to.String(), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header: http.Header{"User-Agent": {userAgent}, "Accept": {"*/*"}},
	}
	if err := request.Write(conn); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxHeader)), request)
	if err != nil {
		return err
	}
	// The body is not closed: that would read the rest of the content.
	if response.StatusCode != http.StatusOK {
		return refusal{fmt.Errorf("HTTP status %d", response.StatusCode)}
	}
	return nil
}

// describe says in a few words why a probe failed. It marks refusals.
func describe(err error, t *topology.Probe) error {
	var timedOut net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusal{errors.New("connection refused")}
	case errors.Is(err, syscall.ECONNRESET):
		return refusal{errors.New("connection reset")}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timedOut) && timedOut.Timeout():
		return fmt.Errorf("no answer within %v", timeout(t))
	}
	return err
}
