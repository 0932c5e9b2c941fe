package serve

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadlines counts the times that its writes got.
type deadlines struct {
	*httptest.ResponseRecorder
	set, writes int
	last        time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set++
	d.last = t
	return nil
}

func (d *deadlines) Write(b []byte) (int, error) {
	d.writes++
	return d.ResponseRecorder.Write(b)
}

// An answer of 500 MB was cut off after ten seconds, though its reader read all the time.
func TestEachPartOfALongAnswerHasItsTime(t *testing.T) {
	for length, want := range map[int]int{0: 1, 1: 1, writeAtOnce: 1, writeAtOnce + 1: 2, 5 * writeAtOnce: 5} {
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		a := &writer{ResponseWriter: d, server: &Server{options: Options{Timeout: time.Minute}}, control: http.NewResponseController(d)}
		text := bytes.Repeat([]byte("0123456789"), length/10+1)[:length]
		n, err := a.Write(text)
		if n != length || err != nil || d.writes != want || d.set != want || !bytes.Equal(d.Body.Bytes(), text) {
			t.Errorf("%d bytes: %d written in %d parts with %d deadlines, want %d: %v", length, n, d.writes, d.set, want, err)
		}
	}
}

// A part's time alone let who read one part in almost that time hold an old policy for hours.
func TestWhoReadsSlowlyIsNotWaitedForLong(t *testing.T) {
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	a := &writer{ResponseWriter: d, server: &Server{options: Options{Timeout: time.Minute}}, control: http.NewResponseController(d)}
	for _, tt := range []struct {
		since time.Duration
		sent  int
		left  bool
	}{{0, 0, true}, {50 * time.Second, 64 << 10, true}, {70 * time.Second, 64 << 10, false}, {time.Hour, pacedBytes, false}, {time.Hour, 60 * pacedBytes, true}} {
		a.begun, a.sent = time.Now().Add(-tt.since), tt.sent
		if a.Write([]byte("x")); d.last.After(time.Now()) != tt.left {
			t.Errorf("%d bytes after %v: the next has until %v", tt.sent, tt.since, d.last)
		}
	}
}
