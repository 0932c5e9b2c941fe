package top

import (
	"slices"

	tea "charm.land/bubbletea/v2"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// binding is what keys do.
type binding struct {
	keys  []string
	shown string // in the help
	short string // in the help line; empty: not there
	long  string
	do    func(m *Model) tea.Cmd
}

func turn(i int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd { return m.show(inspect.TopViews()[i]) }
}

func move(rows func(m *Model) int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd {
		m.scroll(rows(m))
		return m.askForRows()
	}
}

func order(steps int) func(*Model) tea.Cmd {
	return func(m *Model) tea.Cmd { return m.reorder(m.nextOrder(steps), m.state().reverse) }
}

// bindings are all keys, in the order of the help.
func bindings() []binding {
	return []binding{
		{[]string{"q", "ctrl+c"}, "q", "quit", "quit", func(*Model) tea.Cmd { return tea.Quit }},
		{[]string{"1"}, "1", "", "rules", turn(0)},
		{[]string{"2"}, "2", "", "flows", turn(1)},
		{[]string{"3"}, "3", "", "talkers", turn(2)},
		{[]string{"4"}, "4", "", "drops", turn(3)},
		{[]string{"tab"}, "Tab", "", "the next view", func(m *Model) tea.Cmd {
			all := inspect.TopViews()
			return m.show(all[(slices.Index(all, m.view)+1)%len(all)])
		}},
		{[]string{"s", "right", ">"}, "s", "sort", "sort by the next column (right, >)", order(1)},
		{[]string{"S", "left", "<"}, "S", "", "sort by the column before (left, <)", order(-1)},
		{[]string{"r"}, "r", "reverse", "reverse the order", func(m *Model) tea.Cmd {
			return m.reorder(m.state().order, !m.state().reverse)
		}},
		{[]string{"b"}, "b", "", "talkers by pair, source, destination", (*Model).nextBy},
		{[]string{"/"}, "/", "filter", "filter: Enter takes it, Esc does not", func(m *Model) tea.Cmd {
			text := m.state().filter
			m.typing = &text
			return nil
		}},
		{[]string{"esc"}, "Esc", "", "no filter", func(m *Model) tea.Cmd { return m.filter("") }},
		{[]string{"p", "space"}, "p", "pause", "pause and go on (also space)", func(m *Model) tea.Cmd {
			if m.paused = !m.paused; m.paused {
				return nil
			}
			return m.ask()
		}},
		{[]string{"up", "k"}, "Up", "", "a row up (also k)", move(func(*Model) int { return -1 })},
		{[]string{"down", "j"}, "Down", "", "a row down (also j)", move(func(*Model) int { return 1 })},
		{[]string{"pgup"}, "PgUp", "", "a screen up", move(func(m *Model) int { return -m.page() })},
		{[]string{"pgdown"}, "PgDn", "", "a screen down", move(func(m *Model) int { return m.page() })},
		{[]string{"home", "g"}, "Home", "", "to the first row (also g)", move(func(m *Model) int { return -m.state().first })},
		{[]string{"end", "G"}, "End", "", "to the last row (also G)", move(func(*Model) int { return inspect.MaxTopLimit })},
		{[]string{"ctrl+z"}, "Ctrl+Z", "", "to the shell; fg comes back", func(*Model) tea.Cmd { return tea.Suspend }},
		{[]string{"?", "h"}, "?", "help", "this help", func(m *Model) tea.Cmd {
			m.help = true
			return nil
		}},
	}
}

func (m *Model) press(key tea.KeyPressMsg) tea.Cmd {
	name := key.String()
	switch {
	case name == "ctrl+c":
		return tea.Quit
	case m.typing != nil:
		return m.typeKey(name, key.Text)
	case m.help:
		m.help = false
		return nil
	}
	for _, b := range bindings() {
		if slices.Contains(b.keys, name) {
			return b.do(m)
		}
	}
	return nil
}

func (m *Model) typeKey(name, text string) tea.Cmd {
	switch name {
	case "enter":
		filter := *m.typing
		m.typing = nil
		return m.filter(filter)
	case "esc":
		m.typing = nil
	case "backspace":
		if runes := []rune(*m.typing); len(runes) > 0 {
			*m.typing = string(runes[:len(runes)-1])
		}
	case "ctrl+u":
		*m.typing = ""
	default:
		m.typed(text)
	}
	return nil
}

func (m *Model) typed(text string) {
	if text = *m.typing + printable(text); len(text) <= inspect.MaxTopFilter {
		m.typing = &text
	}
}

func (m *Model) filter(text string) tea.Cmd {
	s := m.state()
	if text == s.filter {
		return nil
	}
	s.filter, s.first = text, 0
	return m.ask()
}

func (m *Model) nextBy() tea.Cmd {
	if m.view != inspect.TopTalkers {
		return nil
	}
	all := inspect.TalkersBys()
	m.by = all[(slices.Index(all, m.by)+1)%len(all)]
	return m.ask()
}
