package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/platform"
	"golang.org/x/net/dns/dnsmessage"
)

// platformHosts returns the platform's services as destinations of probes.
func platformHosts() (dns, imds Host) {
	return Host{"DNS", PlatformNamespace, platform.DNSAddress}, Host{"IMDS", PlatformNamespace, platform.IMDSAddress}
}

// planPlatform lists probes of DNS over UDP and TCP, and of IMDS, from every virtual machine's
// IPv4 address.
func planPlatform(hosts []Host) (results []Result) {
	dns, imds := platformHosts()
	for _, h := range hosts {
		if h.Family() != IPv4 || h.Name == internetName {
			continue
		}
		results = append(results,
			Result{Source: h, Destination: dns, Protocol: UDP, Port: 53},
			Result{Source: h, Destination: dns, Protocol: TCP, Port: 53},
			Result{Source: h, Destination: imds, Protocol: TCP, Port: 80})
	}
	return results
}

// Lookup asks the platform's DNS server, as a host, for the IPv4 address of a name. An unknown
// name is no error: its code is RCodeNameError.
func Lookup(ctx context.Context, from Host, p Protocol, name string) (netip.Addr, dnsmessage.RCode, error) {
	dns, _ := platformHosts()
	within := Options{}.withDefaults().within
	return lookup(ctx, func(f func() error) error { return within(from.Namespace, f) },
		&Result{Source: from, Destination: dns, Protocol: p, Port: 53}, name)
}

func lookup(ctx context.Context, within within, r *Result, name string) (netip.Addr, dnsmessage.RCode, error) {
	conn, err := dial(ctx, within, r)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer conn.Close()
	if err := setDeadline(ctx, conn); err != nil {
		return netip.Addr{}, 0, err
	}
	asked, err := dnsmessage.NewName(name)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	query := dnsmessage.Message{Header: dnsmessage.Header{ID: uint16(nonce()[0]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	packed, err := query.Pack()
	if err != nil {
		return netip.Addr{}, 0, err
	}
	var answer []byte
	if r.Protocol == TCP {
		if err = platform.WriteMessage(conn, packed); err == nil {
			answer, err = platform.ReadMessage(conn, 1500)
		}
	} else if _, err = conn.Write(packed); err == nil {
		answer = make([]byte, 1500)
		var n int
		n, err = conn.Read(answer)
		answer = answer[:n]
	}
	if err != nil {
		return netip.Addr{}, 0, err
	}
	var m dnsmessage.Message
	if err := m.Unpack(answer); err != nil || m.ID != query.ID || !m.Response {
		return netip.Addr{}, 0, errors.Join(errors.New("lab: no answer to the query"), err)
	}
	if len(m.Answers) == 0 {
		return netip.Addr{}, m.RCode, nil
	}
	a, ok := m.Answers[0].Body.(*dnsmessage.AResource)
	if !ok {
		return netip.Addr{}, m.RCode, fmt.Errorf("lab: DNS answers %v", m.Answers[0].Header)
	}
	return netip.AddrFrom4(a.A), m.RCode, nil
}

// dial connects to a result's destination.
func dial(ctx context.Context, within within, r *Result) (conn net.Conn, err error) {
	err = within(func() (err error) {
		network, dialer := "udp", net.Dialer{LocalAddr: &net.UDPAddr{IP: r.Source.Address.AsSlice()}}
		if r.Protocol == TCP {
			network, dialer.LocalAddr = "tcp", &net.TCPAddr{IP: r.Source.Address.AsSlice()}
		}
		conn, err = dialer.DialContext(ctx, network, netip.AddrPortFrom(r.Destination.Address, r.Port).String())
		return err
	})
	return conn, err
}

// Metadata asks the platform's IMDS as a host. IMDS refuses a request without the header
// Metadata. The caller closes the body.
func Metadata(ctx context.Context, from Host, header bool) (*http.Response, error) {
	_, imds := platformHosts()
	within := Options{}.withDefaults().within
	return metadata(ctx, func(f func() error) error { return within(from.Namespace, f) },
		&Result{Source: from, Destination: imds, Protocol: TCP, Port: 80}, header)
}

func metadata(ctx context.Context, within within, r *Result, header bool) (*http.Response, error) {
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, within, r) }}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+r.Destination.Address.String()+"/metadata/instance?api-version=2021-02-01", nil)
	if err != nil {
		return nil, err
	}
	if header {
		request.Header.Set("Metadata", "true")
	}
	return transport.RoundTrip(request)
}

// askPlatform sends one probe to the platform. The answer must describe the host that asks.
func askPlatform(ctx context.Context, within within, r *Result) error {
	if r.Port != 53 {
		response, err := metadata(ctx, within, r, true)
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("lab: IMDS answers %s", response.Status)
		}
		return nil
	}
	got, code, err := lookup(ctx, within, r, r.Source.Name+".")
	if err == nil && got != r.Source.Address {
		err = fmt.Errorf("lab: DNS answers %v %v", got, code)
	}
	return err
}
