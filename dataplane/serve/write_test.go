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
}

func (d *deadlines) SetWriteDeadline(time.Time) error { d.set++; return nil }

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
