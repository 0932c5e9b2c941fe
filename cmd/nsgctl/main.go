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
	"time"

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

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		by := interruption{(<-signals).(syscall.Signal)}
		signal.Stop(signals) // the second signal has its ordinary effect
		cancel(by)
		time.Sleep(endsWithin)
		fmt.Fprintf(os.Stderr, "nsgctl: %v\n", by)
		os.Exit(by.code())
	}()
	os.Exit(execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// endsWithin is how long a verb has to end after a signal: to print what it has counted, say.
const endsWithin = 2 * time.Second

// interruption is a signal that ends a verb.
type interruption struct{ signal syscall.Signal }

func (i interruption) Error() string { return "ended by a signal: " + i.signal.String() }

// code is the exit code that shells give to who is ended by the signal.
func (i interruption) code() int { return 128 + int(i.signal) }

// interruptible is what a function returns, or at once the cause when the context ends. The function then goes on beside
// the end of the program, and its result is nobody's.
func interruptible[T any](ctx context.Context, compute func() (T, error)) (none T, err error) {
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := compute()
		done <- answer{value, err}
	}()
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// execute runs a command line and returns the exit code.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	command, err := root.ExecuteContextC(ctx)
	var usage usageError
	var by interruption
	switch {
	case err == nil:
		return 0
	case errors.As(err, &by), errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &by):
		fmt.Fprintf(stderr, "nsgctl: %v\n", by)
		return by.code()
	case errors.Is(err, errNegative):
		return exitNegative
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "nsgctl: %s\n%s --help shows what is allowed\n", printableLines(err.Error()), command.CommandPath())
		return exitUsage
	case errors.Is(err, control.ErrNoDaemon):
		hint := "nsgd run starts a daemon; with --policy these need none: " + verbsWithPolicy(root)
		if errors.Is(err, fs.ErrPermission) {
			hint = "the socket is for root, and for the group that control.group of the daemon's configuration names"
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
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(c, args[0])
			}
			return nil
		},
		Long: `Ask nsgd, or policy files, what network security groups do.

Exit codes: 0 done, 1 a negative answer, 2 wrong use, 3 no daemon, 130 and 143 ended by a signal.`,
		Example: `  nsgctl validate policy
  nsgctl verify --policy policy --nic vm1-nic --direction Inbound --protocol TCP --local 10.0.1.4:https --remote 203.0.113.10:*
  nsgctl status`,
	}
	root.RunE = func(*cobra.Command, []string) error {
		return usageError{errors.New("a command is missing: " + strings.Join(commandNames(root.Commands()), ", "))}
	}
	root.SetVersionTemplate("nsgctl {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	var g global
	g.daemon.flags(root)
	root.PersistentFlags().StringVarP(&g.output, "output", "o", outputTable, "output: table, json, yaml or tsv; some verbs have more")
	root.PersistentFlags().StringVar(&g.query, "query", "", "a JMESPath expression that chooses from the answer, as az has it; -o json when no format is given")
	complete(root, "output", formatsOf)
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return g.check(c) }
	for _, verb := range verbs {
		root.AddCommand(verb(&g))
	}
	root.InitDefaultHelpCmd()
	help, _, _ := root.Find([]string{"help"})
	help.Args = func(_ *cobra.Command, args []string) error { return checkTopic(root, args) } // cobra's own succeeds
	root.InitDefaultCompletionCmd()
	completion, _, _ := root.Find([]string{"completion"})
	needCommand(completion)
	for _, shell := range completion.Commands() {
		shell.Args = noArgs
	}
	return root
}

// needCommand makes a command that has only subcommands refuse to go without.
func needCommand(c *cobra.Command) {
	c.Args = noArgs
	c.RunE = func(*cobra.Command, []string) error {
		return usageError{fmt.Errorf("%s: a command is missing: %s", verbName(c), strings.Join(commandNames(c.Commands()), ", "))}
	}
}

// checkTopic refuses to help with a command that there is not.
func checkTopic(root *cobra.Command, args []string) error {
	if parent, rest, _ := root.Find(args); len(rest) > 0 {
		return unknownCommand(parent, rest[0])
	}
	return nil
}

// besideDaemon is the annotation of a verb that asks the daemon though it has a policy.
const besideDaemon = "daemon"

func verbsWithPolicy(root *cobra.Command) string {
	var list []*cobra.Command
	for _, c := range root.Commands() {
		if c.Flags().Lookup("policy") != nil && c.Annotations[besideDaemon] == "" {
			list = append(list, c)
		}
	}
	return strings.Join(commandNames(list), ", ")
}

// commandNames lists commands, without help, completion and hidden ones.
func commandNames(commands []*cobra.Command) []string {
	var list []string
	for _, c := range commands {
		if !c.Hidden && c.Name() != "help" && c.Name() != "completion" {
			list = append(list, c.Name())
		}
	}
	return list
}

// noArgs refuses arguments as wrong use.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 && c.HasSubCommands() {
		return unknownCommand(c, args[0])
	}
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q", verbName(c), args[0])}
	}
	return nil
}

// verbName is a command's path behind nsgctl.
func verbName(c *cobra.Command) string { return strings.TrimPrefix(c.CommandPath(), "nsgctl ") }
