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
	"strings"
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

// errNegative is a negative answer that is already printed.
var errNegative = errors.New("negative answer")

const defaultSocket = "/run/nsgd/nsgd.sock"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal has its ordinary effect, for a verb that can't be interrupted, such as
	// one that waits for input.
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
		hint := "nsgd run starts a daemon; with --policy these need none: " + verbsWithPolicy(root)
		if errors.Is(err, fs.ErrPermission) {
			hint = "the socket belongs to the daemon's user: ask as root"
		}
		fmt.Fprintf(stderr, "nsgctl: %s\n%s\n", printableLines(err.Error()), hint)
		return exitNoDaemon
	}
	fmt.Fprintf(stderr, "nsgctl: %s\n", printableLines(err.Error()))
	return exitNegative
}

// verbs make the commands. Each verb's file adds its own when the program starts.
var verbs []func(*global) *cobra.Command

func addVerb(verb func(*global) *cobra.Command) { verbs = append(verbs, verb) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "nsgctl",
		Short:         "Ask nsgd, or policy files, what network security groups do",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[0])}
			}
			return nil
		},
		Long: `Ask nsgd, or policy files, what network security groups do.

Exit codes: 0 done, 1 a negative answer, 2 wrong use, 3 no daemon.`,
	}
	root.RunE = func(*cobra.Command, []string) error {
		return usageError{errors.New("a command is missing: " + names(root.Commands()))}
	}
	root.SetVersionTemplate("nsgctl {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	var g global
	root.PersistentFlags().StringVar(&g.socket, "socket", defaultSocket, "the daemon's control socket")
	root.PersistentFlags().StringVarP(&g.output, "output", "o", outputTable, "output: json or table, and what else the verb has")
	complete(root, "output", formatsOf)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return g.check(c) }
	for _, verb := range verbs {
		root.AddCommand(verb(&g))
	}
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Args = func(_ *cobra.Command, args []string) error { return checkTopic(root, args) } // cobra's own succeeds
	return root
}

// checkTopic refuses to help with a command that there is not.
func checkTopic(root *cobra.Command, args []string) error {
	if _, rest, err := root.Find(args); err != nil || len(rest) > 0 {
		return usageError{fmt.Errorf("help: unknown command %q", strings.Join(args, " "))}
	}
	return nil
}

func verbsWithPolicy(root *cobra.Command) string {
	var list []*cobra.Command
	for _, c := range root.Commands() {
		if c.Flags().Lookup("policy") != nil {
			list = append(list, c)
		}
	}
	return names(list)
}

// names lists commands, without help and completion.
func names(commands []*cobra.Command) string {
	var list []string
	for _, c := range commands {
		if c.Name() != "help" && c.Name() != "completion" {
			list = append(list, c.Name())
		}
	}
	return strings.Join(list, ", ")
}

// noArgs refuses arguments as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q", verbName(c), args[0])}
	}
	return nil
}

// verbName is a command's path behind nsgctl.
func verbName(c *cobra.Command) string { return strings.TrimPrefix(c.CommandPath(), "nsgctl ") }
