package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"
)

// progressEvery is how often the line of progress changes.
const progressEvery = 200 * time.Millisecond

// progress shows how much of the captures has been read, on one line; nil shows nothing.
type progress struct {
	w           io.Writer
	read, total int64 // in bytes; total is -1 when it is not known
	shown       time.Time
}

// newProgress shows a line if standard error is a terminal and no lines of packets run through it.
func newProgress(c *cobra.Command, total int64, packetLines bool) *progress {
	if !isTerminal(c.ErrOrStderr()) || packetLines && isTerminal(c.OutOrStdout()) {
		return nil
	}
	return &progress{w: c.ErrOrStderr(), total: total}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(file.Fd())
}

// reader counts what is read from in.
func (p *progress) reader(in io.Reader) io.Reader {
	if p == nil {
		return in
	}
	return io.TeeReader(in, p)
}

// Write implements io.Writer: it counts the bytes.
func (p *progress) Write(b []byte) (int, error) {
	p.read += int64(len(b))
	if time.Since(p.shown) < progressEvery {
		return len(b), nil
	}
	p.shown = time.Now()
	of := ""
	if p.total > 0 {
		of = fmt.Sprintf(" of %d MB, %d %%", p.total/1e6, 100*p.read/p.total)
	}
	fmt.Fprintf(p.w, "\r%d MB read%s", p.read/1e6, of)
	return len(b), nil
}

// clear takes the line away, for text or the end.
func (p *progress) clear() {
	if p != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = time.Time{}
	}
}
