package top

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/term"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// Terminal says why the live view can't be shown here, or nothing.
func Terminal(in io.Reader, out io.Writer, getenv func(string) string) error {
	for what, stream := range map[string]any{"standard input": in, "standard output": out} {
		file, ok := stream.(*os.File)
		if !ok || !term.IsTerminal(file.Fd()) {
			return fmt.Errorf("%s is no terminal", what)
		}
	}
	if t := getenv("TERM"); t == "" || t == "dumb" {
		return fmt.Errorf("a terminal of type %q (TERM) can't move its cursor", t)
	}
	return nil
}

// ASCII reports whether the locale has no other characters.
func ASCII(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(getenv(name)); v != "" {
			return !strings.Contains(v, "utf-8") && !strings.Contains(v, "utf8")
		}
	}
	return true
}

// Run shows the live view until it is quit or ctx ends. Without a daemon it does not begin; one
// that goes away later is waited for.
func Run(ctx context.Context, asker Asker, o Options, in io.Reader, out io.Writer) error {
	m := New(ctx, asker, o)
	first, ok := m.ask()().(answered)
	if ok && first.err != nil {
		return first.err
	}
	// The program may want another size first: what was read is shown at once all the same.
	m.take(first)
	_, err := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

// Once makes one reading with rates, from two questions an interval apart.
func Once(ctx context.Context, asker Asker, o Options) (*inspect.TopReading, error) {
	q := inspect.TopQuestion{View: o.View, Order: o.Order, Reverse: o.Reverse, By: o.By, Filter: o.Filter, Limit: o.Limit}
	if _, err := asker.Top(ctx, q); err != nil {
		return nil, err
	}
	timer := time.NewTimer(o.Interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return asker.Top(ctx, q)
}

// WriteTable writes a reading with all columns, whatever their width.
func WriteTable(w io.Writer, r *inspect.TopReading) error {
	g := layOut(r, columnsOf(r.View, r.By), 1<<20, 0, rows(r), "")
	for c := range g.fields {
		if f := &g.fields[c]; !f.right {
			f.width = len([]rune(f.title))
			for _, cells := range g.cells {
				f.width = max(f.width, len([]rune(cells[c])))
			}
		}
	}
	for _, cells := range append([][]string{g.title}, g.cells...) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(g.line(cells), " ")); err != nil {
			return err
		}
	}
	return nil
}
