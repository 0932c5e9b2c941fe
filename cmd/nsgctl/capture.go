package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

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
		Example: `  nsgctl capture -w web.pcapng --count 1000 port 443
  nsgctl capture -w - --denied nic vm1-nic`,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("output") || g.query != "" {
				return usageError{errors.New("capture: it writes packets: --output and --query are for answers")}
			}
			if file == "" {
				return usageError{errors.New("capture: -w FILE.pcapng is missing; - is the standard output")}
			}
			if err := checkWatch("capture", &q, args); err != nil {
				return err
			}
			return capture(c, g, &q, file)
		},
	}
	c.Flags().StringVarP(&file, "write", "w", "", "the file to write, replaced when it exists; - for the standard output, /dev/fd/N for an open descriptor")
	c.Flags().IntVar(&q.SnapLen, "snaplen", 0, fmt.Sprintf("bytes to keep of each packet, at most %d; 0: all", inspect.MaxSnapLen))
	watchFlags(c, &q, 0)
	c.ValidArgsFunction = filterWords(g)
	return c
}

func capture(c *cobra.Command, g *global, q *inspect.WatchRequest, name string) error {
	out := &lateFile{name: name, w: c.OutOrStdout(), begun: func() { fmt.Fprintln(c.ErrOrStderr(), "capturing: Ctrl-C ends") }}
	summary, err := g.client().Capture(c.Context(), *q, out)
	if err := errors.Join(err, out.close()); err != nil {
		return watchError("capture", err)
	}
	return printSummary(c.ErrOrStderr(), summary, "captured")
}

// ownDescriptor is the number behind a name of one of the process' own descriptors, such as /dev/stdout or /dev/fd/63.
func ownDescriptor(name string) (fd int, ok bool) {
	switch name {
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	for _, folder := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if text, ok := strings.CutPrefix(name, folder); ok {
			n, err := strconv.ParseUint(text, 10, 31)
			return int(n), err == nil
		}
	}
	return 0, false
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
		file, err := createCapture(f.name)
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

// createCapture makes a file that only its owner reads. It takes the place of a file of that name, and follows no
// link. A pipe or a device of the user or of root is opened. A name of one of the process' own descriptors is that one.
func createCapture(name string) (*os.File, error) {
	if fd, ok := ownDescriptor(name); ok {
		again, err := syscall.Dup(fd)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(again), name), nil
	}
	info, err := os.Lstat(name)
	switch {
	case err == nil && info.Mode().Type() == fs.ModeSymlink:
		return nil, fmt.Errorf("%s is a symbolic link: write to what it leads to, or to - for the standard output", name)
	case err == nil && !info.Mode().IsRegular():
		file, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err == nil {
			if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 && owner != uint32(os.Geteuid()) {
				err = fmt.Errorf("%s belongs to user %d, who could read the packets", name, owner)
			}
		}
		if err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*") // has mode 0600
	if err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return nil, errors.Join(err, os.Remove(file.Name()), file.Close())
	}
	return file, nil
}

func (f *lateFile) close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
