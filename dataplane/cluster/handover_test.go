package cluster

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// flowsOf is a network interface whose flows are what a function writes.
type flowsOf func(io.Writer) error

func (flowsOf) Freeze() {}

func (write flowsOf) Write(w io.Writer) (int, error) { return 0, write(w) }

// A handover that fails is told by who has failed: this host, the other one, or the connection.
func TestAHandoverSaysWhyItFails(t *testing.T) {
	for _, tt := range []struct {
		name   string
		flows  func(io.Writer) error
		theirs func(*line)
		want   string
	}{
		{"this host can't write its flows", func(io.Writer) error { return errors.New("no room for an image") },
			func(conn *line) { io.Copy(io.Discard, conn) }, "flows to b: no room for an image"},
		{"the other host refuses the flows before it has all of them", func(w io.Writer) (err error) {
			for part := make([]byte, 64<<10); err == nil; {
				_, err = w.Write(part)
			}
			return err
		}, func(conn *line) { send(conn, &outcome{Fault: "flows from a: more than 5"}) }, "b: flows from a: more than 5"},
		{"the other host refuses the flows when it has them", func(io.Writer) error { return nil }, func(conn *line) {
			receive(conn, &hello{})
			send(conn, &outcome{Fault: "the claim has changed"})
		}, "b: the claim has changed"},
		{"the connection ends", func(io.Writer) error { return nil }, func(conn *line) { receive(conn, &hello{}) }, "b: the connection has broken off: EOF"},
		{"a message is too long", func(io.Writer) error { return nil }, func(conn *line) {
			receive(conn, &hello{})
			conn.Write(binary.BigEndian.AppendUint32(nil, maxMessage+1))
		}, "b: a message of 16385 bytes: at most 16384"},
		{"a message is no JSON", func(io.Writer) error { return nil }, func(conn *line) {
			receive(conn, &hello{})
			conn.Write([]byte{0, 0, 0, 1, '?'})
		}, "b: a message that can't be read: invalid character '?' looking for beginning of value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own, hash, err := newIdentity(time.Now())
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			e := openEntrance(l, own, hash)
			defer e.close()
			conn, err := call(t.Context(), dialHere, l.Addr().String(), own, hash)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(handWait))
			there := <-e.come
			var theirs sync.WaitGroup
			theirs.Go(func() { tt.theirs(there); there.Close() })
			taken, err := hand(conn, flowsOf(tt.flows), "nic1", &Move{MoveRecord: MoveRecord{To: "b"}}, &MoveState{})
			conn.Close()
			theirs.Wait()
			if taken || err == nil || err.Error() != tt.want {
				t.Errorf("taken %v, %v, want %q", taken, err, tt.want)
			}
		})
	}
}
