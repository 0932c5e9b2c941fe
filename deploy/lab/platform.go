package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
	"golang.org/x/net/dns/dnsmessage"
)

// PlatformNamespace holds the lab's platform, which stands for the Azure host below a virtual
// machine.
const PlatformNamespace = "nsgd-platform"

// The addresses of the platform's services.
var (
	DNSAddress  = netip.MustParseAddr("168.63.129.16")
	IMDSAddress = netip.MustParseAddr("169.254.169.254")
)

// dnsDomain ends the names that the lab's DNS server knows. Names without a domain are known too.
const dnsDomain = "internal.cloudapp.net."

const (
	dnsTTL = 10
	// dnsIdle is how long a TCP client of the DNS server may be silent.
	dnsIdle = 10 * time.Second
)

// ServePlatform answers DNS and IMDS in the platform's namespace until ctx ends or stop is
// called. It reads the policy anew for each request. stop waits until the servers have ended.
func ServePlatform(ctx context.Context, policy func() *policy.Set) (stop func(), err error) {
	p := &platform{policy: policy}
	var listener, web net.Listener
	var datagrams *net.UDPConn
	err = tun.Do(PlatformNamespace, func() (err error) {
		var config net.ListenConfig
		dns := netip.AddrPortFrom(DNSAddress, 53)
		if listener, err = config.Listen(ctx, "tcp", dns.String()); err != nil {
			return err
		}
		if datagrams, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(dns)); err != nil {
			return errors.Join(err, listener.Close())
		}
		if web, err = config.Listen(ctx, "tcp", netip.AddrPortFrom(IMDSAddress, 80).String()); err != nil {
			return errors.Join(err, listener.Close(), datagrams.Close())
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lab: platform: %w", err)
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: dnsIdle, IdleTimeout: dnsIdle}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, func() {
		datagrams.Close()
		listener.Close()
		server.Close()
	})
	var wait sync.WaitGroup
	wait.Go(func() { serveUDP(datagrams, p.dns) })
	wait.Go(func() { serveTCP(ctx, listener, p.converse) })
	wait.Go(func() { server.Serve(web) })
	return func() {
		cancel()
		wait.Wait()
	}, nil
}

// platform answers DNS and IMDS from a policy.
type platform struct{ policy func() *policy.Set }

// converse answers the messages of a connection. Each message follows its length (RFC 1035
// section 4.2.2).
func (p *platform) converse(conn net.Conn) {
	for {
		conn.SetDeadline(time.Now().Add(dnsIdle))
		question, err := readMessage(conn)
		if err != nil {
			return
		}
		answer := p.dns(question)
		if answer == nil || writeMessage(conn, answer) != nil {
			return
		}
	}
}

func readMessage(r io.Reader) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(r, message)
	return message, err
}

func writeMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

// dns answers a query. It returns nil when the bytes are not a query.
func (p *platform) dns(query []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil || header.Response {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	answer := dnsmessage.Message{
		Header: dnsmessage.Header{ID: header.ID, Response: true, OpCode: header.OpCode, Authoritative: true,
			RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	nic := p.machine(question.Name.String())
	switch {
	case header.OpCode != 0:
		answer.RCode = dnsmessage.RCodeNotImplemented
	case nic == nil || question.Class != dnsmessage.ClassINET:
		answer.RCode = dnsmessage.RCodeNameError
	default:
		answer.Answers = addressRecords(nic, question)
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// addressRecords returns a NIC's addresses of the family that was asked for. There may be none.
func addressRecords(nic *policy.NetworkInterface, question dnsmessage.Question) (list []dnsmessage.Resource) {
	head := dnsmessage.ResourceHeader{Name: question.Name, Type: question.Type, Class: question.Class, TTL: dnsTTL}
	for i := range nic.IPConfigurations {
		switch a := nic.IPConfigurations[i].Address; {
		case a.Is4() && question.Type == dnsmessage.TypeA:
			list = append(list, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && question.Type == dnsmessage.TypeAAAA:
			list = append(list, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return list
}

// machine finds the NIC of the virtual machine with a DNS name; nil when no machine has it.
func (p *platform) machine(name string) *policy.NetworkInterface {
	host, domain, _ := strings.Cut(strings.ToLower(name), ".")
	if domain != "" && domain != dnsDomain {
		return nil
	}
	for _, nic := range p.policy().NetworkInterfaces {
		if strings.EqualFold(host, machineName(nic)) {
			return nic
		}
	}
	return nil
}

// machineName derives a machine's name from its NIC's, which the lab names after the machine.
func machineName(nic *policy.NetworkInterface) string { return strings.TrimSuffix(nic.Name, "-nic") }
