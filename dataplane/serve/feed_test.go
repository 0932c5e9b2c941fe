package serve_test

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nsgd/nsgd/dataplane/serve"
)

// A reader of a feed who does not read loses its connection; a stream's would be waited for.
func TestAFeedEndsWithoutItsReader(t *testing.T) {
	o := usual
	o.Timeout = time.Second
	ended := make(chan error, 1)
	address := start(t, o, func(w http.ResponseWriter, _ *http.Request) {
		if err := serve.Feed(w); err != nil {
			ended <- err
			return
		}
		for {
			if _, err := w.Write(large); err != nil {
				ended <- err
				return
			}
		}
	})
	p := dial(t, address)
	fmt.Fprintf(p, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if err := <-ended; err == nil || errors.Is(err, serve.ErrStreams) {
		t.Errorf("%v, want the end of the connection", err)
	}
}

// One peer leaves half of the streams to others.
func TestAPeerHasHalfOfTheFeeds(t *testing.T) {
	o := usual
	o.Streams = 4
	begun, end := make(chan error), make(chan struct{})
	address := start(t, o, func(w http.ResponseWriter, _ *http.Request) {
		err := serve.Feed(w)
		begun <- err
		if err == nil {
			<-end
		}
	})
	defer close(end)
	for n := range 3 {
		p := dial(t, address)
		fmt.Fprintf(p, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := <-begun; errors.Is(err, serve.ErrStreams) != (n == 2) {
			t.Errorf("feed %d: %v", n, err)
		}
	}
}
