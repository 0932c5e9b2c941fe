package privileged

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/rpc"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// maxMessage bounds a message: the ports of 10,000 interfaces have some 5 MB.
	maxMessage = 64 << 20
	// maxDescriptors bounds those of a message, and perControl those that the kernel takes at a time (SCM_MAX_FD).
	maxDescriptors, perControl = 1 << 16, 253
	// headLen is the head of a message: its length and the number of its descriptors.
	headLen = 8
)

// message is one request or one answer.
type message struct {
	Method string          `json:",omitempty"`
	Number uint64          // of the request, which the answer repeats
	Error  string          `json:",omitempty"`
	Body   json.RawMessage `json:",omitempty"`
}

// Descriptors are what an answer carries besides its fields.
type Descriptors struct{ list []int }

func (d *Descriptors) descriptors() *[]int { return &d.list }

// carrier is an answer with descriptors.
type carrier interface{ descriptors() *[]int }

// wire sends and receives messages over a socket. One goroutine at a time receives.
type wire struct {
	conn    *net.UnixConn
	sending sync.Mutex
	// body and descriptors are of the message that was received last.
	body        json.RawMessage
	descriptors []int
}

// Close ends the connection; a receive under way returns.
func (w *wire) Close() error {
	if err := w.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// send sends a message with descriptors, which stay open here.
func (w *wire) send(m message, body any) error {
	var list []int
	if c, ok := body.(carrier); ok {
		list = *c.descriptors()
	}
	var err error
	if m.Body, err = json.Marshal(body); err != nil {
		return err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(text) > maxMessage || len(list) > maxDescriptors {
		return fmt.Errorf("privileged: a message of %d bytes and %d descriptors: allowed are %d and %d", len(text), len(list), maxMessage, maxDescriptors)
	}
	head := make([]byte, headLen)
	binary.NativeEndian.PutUint32(head, uint32(len(text)))
	binary.NativeEndian.PutUint32(head[4:], uint32(len(list)))
	w.sending.Lock()
	defer w.sending.Unlock()
	for bytes := head; bytes != nil; bytes = []byte{0} { // each further batch of descriptors goes with a byte of its own
		batch := list[:min(len(list), perControl)]
		list = list[len(batch):]
		if _, _, err := w.conn.WriteMsgUnix(bytes, unix.UnixRights(batch...), nil); err != nil {
			return err
		}
		if len(list) == 0 {
			break
		}
	}
	_, err = w.conn.Write(text)
	return err
}

// receive takes the next message. Its body and its descriptors stay in w until they are taken.
func (w *wire) receive() (m message, err error) {
	w.drop()
	head := make([]byte, headLen)
	if err := w.read(head); err != nil {
		return m, err
	}
	length, count := binary.NativeEndian.Uint32(head), binary.NativeEndian.Uint32(head[4:])
	if length > maxMessage || count > maxDescriptors {
		return m, fmt.Errorf("privileged: a message of %d bytes and %d descriptors: allowed are %d and %d", length, count, maxMessage, maxDescriptors)
	}
	for len(w.descriptors) < int(count) {
		before := len(w.descriptors)
		if err := w.read(make([]byte, 1)); err != nil {
			return m, err
		}
		if len(w.descriptors) == before {
			return m, errors.New("privileged: a message without the descriptors that it announces")
		}
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(w.conn, text); err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("privileged: %w", err)
	}
	w.body = m.Body
	return m, nil
}

// read fills b, whose first byte may come with descriptors.
func (w *wire) read(b []byte) error {
	control := make([]byte, unix.CmsgSpace(perControl*4))
	n, got, flags, _, err := w.conn.ReadMsgUnix(b, control)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return err
	}
	parts, err := unix.ParseSocketControlMessage(control[:got])
	if err != nil {
		return err
	}
	for i := range parts {
		list, err := unix.ParseUnixRights(&parts[i])
		if err != nil {
			return err
		}
		w.descriptors = append(w.descriptors, list...)
	}
	if flags&unix.MSG_CTRUNC != 0 || len(w.descriptors) > maxDescriptors {
		return fmt.Errorf("privileged: more descriptors in a message than %d, or more in all than this process may have (RLIMIT_NOFILE, LimitNOFILE= of a unit)", maxDescriptors)
	}
	_, err = io.ReadFull(w.conn, b[n:])
	return err
}

// take gives the body of the message to a value, and its descriptors if the value carries some.
func (w *wire) take(body any) error {
	defer w.drop()
	if body == nil {
		return nil
	}
	if err := json.Unmarshal(w.body, body); err != nil {
		return fmt.Errorf("privileged: %w", err)
	}
	if c, ok := body.(carrier); ok {
		*c.descriptors(), w.descriptors = w.descriptors, nil
	}
	return nil
}

// drop closes the descriptors that nobody took.
func (w *wire) drop() {
	closeAll(w.descriptors)
	w.body, w.descriptors = nil, nil
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		unix.Close(fd)
	}
}

// asker is the daemon's end: it implements rpc.ClientCodec.
type asker struct{ wire }

func (a *asker) WriteRequest(r *rpc.Request, body any) error {
	return a.send(message{Method: r.ServiceMethod, Number: r.Seq}, body)
}

func (a *asker) ReadResponseHeader(r *rpc.Response) error {
	m, err := a.receive()
	r.Seq, r.Error = m.Number, m.Error
	return err
}

func (a *asker) ReadResponseBody(body any) error { return a.take(body) }

// maxAtOnce bounds the requests that are worked on at a time. A further one waits unread.
const maxAtOnce = 64

// answerer is the privileged end: it implements rpc.ServerCodec.
type answerer struct {
	wire
	room chan struct{} // holds one for each request that is worked on
	end  func()        // called when no request comes any more
}

func (a *answerer) ReadRequestHeader(r *rpc.Request) error {
	a.room <- struct{}{}
	m, err := a.receive()
	r.ServiceMethod, r.Seq = m.Method, m.Number
	if err != nil {
		a.end()
	}
	return err
}

func (a *answerer) ReadRequestBody(body any) error { return a.take(body) }

func (a *answerer) WriteResponse(r *rpc.Response, body any) error {
	defer func() { <-a.room }()
	err := a.send(message{Number: r.Seq, Error: r.Error}, body)
	if c, ok := body.(carrier); ok {
		closeAll(*c.descriptors())
	}
	return err
}
