// Nsgctl asks nsgd, or policy files without a daemon, what network security groups do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/spf13/cobra"
)

// version is set at link time.
var version = "unknown"

// Exit codes.
const (
	exitNegative = 1 // invalid, denied with --expect allow, refused
	exitUsage    = 2
	exitNoDaemon = 3
)

// usageError is a command line that can't be understood.
type usageError struct{ error }

// errNegative is a negative answer that has been printed already.
var errNegative = errors.New("negative answer")

const defaultSocket = "/run/nsgd/nsgd.sock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A verb that cannot be interrupted, such as one that waits for input, ends with the
	// next signal, which has its ordinary effect again.
	context.AfterFunc(ctx, stop)
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNegative):
		return exitNegative
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "nsgctl: %s\nnsgctl --help shows what is allowed\n", printableLines(err.Error()))
		return exitUsage
	case errors.Is(err, control.ErrNoDaemon):
		hint := "nsgd run starts a daemon; verify, diagnose, effective, security-group-view, next-hop, tags, rules and replay need none with --policy"
		if errors.Is(err, fs.ErrPermission) {
			hint = "the socket belongs to the daemon's user: ask as root"
		}
		fmt.Fprintf(stderr, "nsgctl: %s\n%s\n", printableLines(err.Error()), hint)
		return exitNoDaemon
	}
	fmt.Fprintf(stderr, "nsgctl: %s\n", printableLines(err.Error()))
	return exitNegative
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "nsgctl",
		Short:         "Ask nsgd, or policy files, what network security groups do",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("a command is missing: validate, verify, diagnose, effective, security-group-view, next-hop, tags, rules, flows, top, trace, capture, replay, status or reload")}
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Long: `Ask nsgd, or policy files, what network security groups do.

Exit codes: 0 done, 1 a negative answer, 2 wrong use, 3 no daemon.`,
	}
	root.SetVersionTemplate("nsgctl {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	var g global
	root.PersistentFlags().StringVar(&g.socket, "socket", defaultSocket, "the daemon's control socket")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", outputTable, "output: json or table")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return g.check() }
	root.AddCommand(newValidate(&g), newVerify(&g), newDiagnose(&g), newEffective(&g), newSecurityGroupView(&g), newNextHop(&g), newTags(&g), newRules(&g), newFlows(&g), newTop(&g), newTrace(&g), newCapture(&g), newReplay(&g), newStatus(&g), newReload(&g))
	return root
}

// noArgs refuses arguments as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q", c.CommandPath(), args[0])}
	}
	return nil
}
