package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// progress shows how much of the captures has been read; nil shows nothing.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress shows a bar if a person looks at the errors, and no lines of packets run through it;
// total is -1 when not known.
func newProgress(c *cobra.Command, total int64, lines bool) *progress {
	stderr, ok := c.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(stderr.Fd())) {
		return nil
	}
	if stdout, ok := c.OutOrStdout().(*os.File); lines && ok && term.IsTerminal(int(stdout.Fd())) {
		return nil
	}
	return &progress{progressbar.NewOptions64(total, progressbar.OptionSetWriter(stderr), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30))}
}

func (p *progress) reader(in io.Reader) io.Reader {
	if p == nil {
		return in
	}
	return io.TeeReader(in, p.bar)
}

// clear makes room for a line of text.
func (p *progress) clear() {
	if p != nil {
		p.bar.Clear()
	}
}

func (p *progress) end() {
	if p != nil {
		p.bar.Exit()
		p.bar.Clear()
	}
}
