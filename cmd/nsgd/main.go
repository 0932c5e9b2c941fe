// Nsgd is the daemon: it attaches networks through TUN devices and carries packets
// between them as the policy's network security groups allow.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set at link time.
var version = "unknown"

// Exit codes, the same as nsgctl's.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a command line that can't be understood.
type usageError struct{ error }

func main() {
	if len(os.Args) > 1 && os.Args[1] == "keep" { // which has signals of its own
		os.Exit(execute(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A reader of flow logs or of the log that closes its pipe must not end the daemon.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "nsgd: %v\nnsgd --help shows what is allowed\n", err)
		return exitUsage
	}
	// The log has the same reader, who may read no more.
	told := make(chan struct{})
	go func() {
		defer close(told)
		for line := range strings.Lines(fmt.Sprintf("nsgd: %v\n", err)) {
			io.WriteString(forJournal(stderr), line)
		}
	}()
	select {
	case <-told:
	case <-time.After(logPatience):
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "nsgd",
		Short:         "Azure network security groups as a packet filter",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("a command is missing: run, keep, check, close or detach")}
		},
	}
	root.SetVersionTemplate("nsgd {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newRun(), newKeep(), newCheck(), newDetach(), newClose(), newPrivileged())
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Args = func(_ *cobra.Command, args []string) error { // cobra's own shows the usage, and succeeds
		if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
			return usageError{fmt.Errorf("help: unknown command %q", strings.Join(args, " "))}
		}
		return nil
	}
	return root
}

// noArgs refuses arguments as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q", c.Name(), args[0])}
	}
	return nil
}
