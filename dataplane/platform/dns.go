package platform

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"golang.org/x/net/dns/dnsmessage"
)

const (
	ttl = 10 // seconds: a reload may change every answer
	// maxQuery bounds a query in bytes. Resolvers send one name, with some options.
	maxQuery = 1024
)

// datagrams answers DNS over UDP until conn is closed.
func (s *services) datagrams(ctx context.Context, conn *net.UDPConn) {
	var wait sync.WaitGroup
	defer wait.Wait()
	buffer := make([]byte, maxQuery+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		answer, forward := s.answer(buffer[:n], from.Addr().Unmap())
		if forward && s.busy.enter(from.Addr()) {
			query := append([]byte{}, buffer[:n]...)
			wait.Go(func() {
				defer s.busy.leave(from.Addr())
				if answer := s.forward(ctx, "udp", query); answer != nil {
					conn.WriteToUDPAddrPort(answer, from)
				}
			})
			continue
		}
		if forward {
			answer = failure(buffer[:n], dnsmessage.RCodeServerFailure)
		}
		if answer != nil {
			conn.WriteToUDPAddrPort(answer, from)
		}
	}
}

// streams answers DNS over TCP until ctx ends or the listener is closed.
func (s *services) streams(ctx context.Context, listener net.Listener) {
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(ctx) // a client that was cut off would never end by itself
	defer cancel()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
		from := peer.Addr().Unmap()
		if err != nil || !s.busy.enter(from) {
			conn.Close()
			continue
		}
		wait.Go(func() {
			defer s.busy.leave(from)
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.converse(ctx, conn, from)
		})
	}
}

// converse answers the messages of a connection.
func (s *services) converse(ctx context.Context, conn net.Conn, from netip.Addr) {
	for {
		conn.SetDeadline(time.Now().Add(idle))
		query, err := ReadMessage(conn, maxQuery)
		if err != nil {
			return
		}
		answer, forward := s.answer(query, from)
		if forward {
			answer = s.forward(ctx, "tcp", query)
		}
		if answer == nil || WriteMessage(conn, answer) != nil {
			return
		}
	}
}

// ReadMessage reads a message of DNS over TCP, which follows its length (RFC 1035, section 4.2.2), of at most most bytes.
func ReadMessage(r io.Reader, most int) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > most {
		return nil, fmt.Errorf("a message of %d bytes: at most %d", n, most)
	}
	message := make([]byte, n)
	_, err := io.ReadFull(r, message)
	return message, err
}

// WriteMessage writes a message of DNS over TCP.
func WriteMessage(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...))
	return err
}

// parse reads the head and the one question of a query.
func parse(query []byte) (h dnsmessage.Header, q dnsmessage.Question, ok bool) {
	var parser dnsmessage.Parser
	h, err := parser.Start(query)
	if err != nil || h.Response || len(query) > maxQuery {
		return h, q, false
	}
	q, err = parser.Question()
	return h, q, err == nil
}

// answer answers a query of an asker. A panic costs the answer: what a machine sends must not end the daemon.
func (s *services) answer(query []byte, from netip.Addr) (answer []byte, forward bool) {
	s.options.Faults.Try(fault.Services, func() { answer, forward = s.find(query, from) })
	return answer, forward
}

// find answers a query of an asker. It returns nil for bytes that are no query. forward says that others know the name.
func (s *services) find(query []byte, from netip.Addr) (answer []byte, forward bool) {
	h, q, ok := parse(query)
	if !ok {
		return nil, false
	}
	d := s.directory()
	asker := d.byAddress[from]
	switch {
	case h.OpCode != 0:
		return failure(query, dnsmessage.RCodeNotImplemented), false
	case asker == nil:
		return failure(query, dnsmessage.RCodeRefused), false
	case q.Class != dnsmessage.ClassINET:
		return failure(query, dnsmessage.RCodeNameError), false
	}
	name := q.Name.String()
	if machine, internal := d.reverse(asker, name); machine != "" && q.Type == dnsmessage.TypePTR {
		if target, err := dnsmessage.NewName(machine); err == nil {
			return reply(&h, &q, dnsmessage.RCodeSuccess, &dnsmessage.PTRResource{PTR: target}), false
		}
	} else if internal {
		return failure(query, dnsmessage.RCodeNameError), false
	}
	nics, internal := d.machine(asker, name)
	if len(nics) == 0 {
		return failure(query, dnsmessage.RCodeNameError), !internal && len(s.options.Forwarders) > 0
	}
	var records []dnsmessage.ResourceBody
	switch q.Type {
	case dnsmessage.TypeA:
		for _, a := range addresses(nics, false) {
			records = append(records, &dnsmessage.AResource{A: a.As4()})
		}
	case dnsmessage.TypeAAAA:
		for _, a := range addresses(nics, true) {
			records = append(records, &dnsmessage.AAAAResource{AAAA: a.As16()})
		}
	}
	return reply(&h, &q, dnsmessage.RCodeSuccess, records...), false
}

// failure answers a query with a code alone.
func failure(query []byte, code dnsmessage.RCode) []byte {
	h, q, ok := parse(query)
	if !ok {
		return nil
	}
	return reply(&h, &q, code)
}

func reply(h *dnsmessage.Header, q *dnsmessage.Question, code dnsmessage.RCode, records ...dnsmessage.ResourceBody) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, Authoritative: code != dnsmessage.RCodeServerFailure,
			RecursionDesired: h.RecursionDesired, RecursionAvailable: true, RCode: code},
		Questions: []dnsmessage.Question{*q},
	}
	for _, body := range records {
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: ttl}, Body: body})
	}
	packed, err := m.Pack()
	if err != nil {
		return nil
	}
	return packed
}
