package platform

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/nsgd/nsgd/dataplane/fault"
	"golang.org/x/net/dns/dnsmessage"
)

const (
	// patience is how long a forwarder may take. All of them together stay within idle.
	patience = 2 * time.Second
	// maxAnswer bounds what a forwarder answers, in bytes.
	maxAnswer = 65535
)

// forward asks the forwarders one after the other, and fails when none answers. A panic costs the answer: it is nil.
func (s *services) forward(ctx context.Context, network string, query []byte) (answer []byte) {
	s.options.Faults.Try(fault.Services, func() { answer = s.askOthers(ctx, network, query) })
	return answer
}

func (s *services) askOthers(ctx context.Context, network string, query []byte) []byte {
	_, asked, _ := parse(query)
	for _, to := range s.options.Forwarders {
		// An identifier of our own: the asker must not choose what a forger would have to guess.
		sent := append([]byte{}, query...)
		rand.Read(sent[:2])
		answer, err := s.query(ctx, network, to, sent)
		if err == nil && answers(answer, sent, asked) {
			copy(answer, query[:2])
			return answer
		}
	}
	return failure(query, dnsmessage.RCodeServerFailure)
}

// answers reports that a message answers a query.
func answers(message, query []byte, asked dnsmessage.Question) bool {
	var parser dnsmessage.Parser
	h, err := parser.Start(message)
	if err != nil || !h.Response || h.ID != binary.BigEndian.Uint16(query) {
		return false
	}
	q, err := parser.Question()
	return err == nil && q == asked
}

// exchange sends a query and returns the first message that may be its answer.
func exchange(ctx context.Context, network string, to netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if network == "tcp" {
		return message(conn, query)
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	_, asked, ok := parse(query)
	buffer := make([]byte, maxAnswer)
	for ok {
		n, err := conn.Read(buffer)
		if err != nil {
			return nil, err
		}
		if answers(buffer[:n], query, asked) {
			return append([]byte{}, buffer[:n]...), nil
		}
	}
	return nil, errors.New("no query")
}

func message(conn net.Conn, query []byte) ([]byte, error) {
	if err := WriteMessage(conn, query); err != nil {
		return nil, err
	}
	return ReadMessage(conn, maxAnswer)
}
