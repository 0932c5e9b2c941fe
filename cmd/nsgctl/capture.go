package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/spf13/cobra"
)

func init() { addVerb(newCapture) }

func newCapture(g *global) *cobra.Command {
	var q inspect.WatchRequest
	var file string
	c := &cobra.Command{
		Use:   "capture -w FILE.pcapng [--denied] [--count N] [--snaplen N] [--per-second N] [--sample N] [FILTER]",
		Short: "Write live packets to a file for Wireshark, with the verdict as each packet's comment",
		Long: `Write live packets to a file for Wireshark, with the verdict, the rule and the drop reason as each packet's
comment. There is an interface for each attachment, and each packet is in the file once, as it came in
from one; a superpacket is one packet.

` + filterHelp,
		RunE: func(c *cobra.Command, args []string) error {
			if file == "" {
				return usageError{errors.New("capture: -w FILE.pcapng is missing; - is the standard output")}
			}
			if err := checkWatch("capture", &q, args); err != nil {
				return err
			}
			return capture(c, g, &q, file)
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "", "the file to write, replaced when it exists; - for the standard output")
	c.Flags().IntVar(&q.SnapLen, "snaplen", 0, fmt.Sprintf("bytes to keep of each packet, at most %d; 0: all", inspect.MaxSnapLen))
	watchFlags(c, &q, 0)
	return c
}

func capture(c *cobra.Command, g *global, q *inspect.WatchRequest, name string) error {
	out := &lateFile{name: name, w: c.OutOrStdout(), begun: func() { fmt.Fprintln(c.ErrOrStderr(), "capturing: Ctrl-C ends") }}
	summary, err := control.NewClient(g.socket).Capture(c.Context(), *q, out)
	if err := errors.Join(err, out.close()); err != nil {
		return watchError("capture", err)
	}
	return printSummary(c.ErrOrStderr(), summary, "captured")
}

// lateFile makes the file with the first write: a refusal must not replace an existing file.
type lateFile struct {
	name string
	w    io.Writer // the standard output, or file
	file *os.File

	begun func() // nil once it was called
}

func (f *lateFile) Write(b []byte) (int, error) {
	if f.file == nil && f.name != "-" {
		file, err := os.Create(f.name)
		if err != nil {
			return 0, err
		}
		f.file, f.w = file, file
	}
	n, err := f.w.Write(b)
	if f.begun != nil && err == nil {
		f.begun()
		f.begun = nil
	}
	return n, err
}

func (f *lateFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
