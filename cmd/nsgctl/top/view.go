package top

import (
	"fmt"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/nsgd/nsgd/dataplane/inspect"
)

// linesAround are the lines of a screen that are no rows.
const linesAround = 5

// The styles. What they say is also said in words: a terminal may have no colours.
var (
	bold    = ansi.NewStyle().Bold()
	reverse = ansi.NewStyle().Reverse(true)
	red     = ansi.NewStyle().ForegroundColor(ansi.Red)
	green   = ansi.NewStyle().ForegroundColor(ansi.Green)
	alarm   = ansi.NewStyle().Reverse(true).ForegroundColor(ansi.Red)
)

// View draws the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(strings.Join(m.screen(), "\n"))
	v.AltScreen = true
	v.WindowTitle = "nsgctl top"
	return v
}

func (m *Model) screen() []string {
	lines := []string{m.titleLine(), m.trafficLine(), m.tabLine()}
	body := m.page() + 1
	var table []string
	if m.help {
		table = helpLines()
	} else {
		table = m.table()
	}
	table = table[:min(len(table), body)]
	lines = append(lines, table...)
	for len(lines) < body+3 {
		lines = append(lines, "")
	}
	lines = append(lines, m.bottomLine())
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], m.width, "")
	}
	return lines[:min(len(lines), max(1, m.height))]
}

// spread puts one text at each side of a line.
func (m *Model) spread(left, right string) string {
	pad := m.width - ansi.StringWidth(left) - ansi.StringWidth(right)
	if pad < 1 {
		return left
	}
	return left + strings.Repeat(" ", pad) + right
}

func (m *Model) titleLine() string {
	if m.err != nil {
		text := m.err.Error()
		if m.gone() {
			text = strings.TrimPrefix(text, "control: top: ")
		}
		return alarm.Styled(m.spread(printable(text), fmt.Sprintf(" asking again every %v", m.interval)))
	}
	if m.last == nil {
		return "asking the daemon"
	}
	r := m.last
	state := fmt.Sprintf("every %v", m.interval)
	if m.paused {
		state = "PAUSED"
	}
	left := fmt.Sprintf("nsgd %s  policy generation %d  up %s", printable(r.Version), r.Generation, span(r.Time.Sub(r.Started)))
	return m.spread(bold.Styled(left), state)
}

func (m *Model) trafficLine() string {
	r := m.last
	if r == nil {
		return ""
	}
	rate := func(v float64) string {
		if r.Seconds == 0 {
			return "-"
		}
		return amount(v)
	}
	t := &r.Traffic
	return fmt.Sprintf("flows %s of %s   %s packets/s   %sbit/s   %s drops/s", grouped(r.FlowTable.Live), grouped(r.FlowTable.Limit),
		rate(t.PacketsPerSecond), spaced(rate(8*t.BytesPerSecond)), rate(t.DropsPerSecond))
}

// spaced puts the unit's letter beside the unit: 1.20M becomes "1.20 M".
func spaced(amount string) string {
	if n := len(amount); n > 0 && strings.ContainsAny(amount[n-1:], "kMGTPE") {
		return amount[:n-1] + " " + amount[n-1:]
	}
	return amount + " "
}

func (m *Model) tabLine() string {
	var tabs []string
	for i, v := range inspect.TopViews() {
		tab := fmt.Sprintf(" %d %s ", i+1, v)
		if v == m.view {
			tab = reverse.Styled(fmt.Sprintf("[%d %s]", i+1, v))
		}
		tabs = append(tabs, tab)
	}
	left := strings.Join(tabs, "")
	return m.spread(left, m.notes(m.width-ansi.StringWidth(left)-1))
}

// notes say what the rows are, as far as there is room: the order stands in the column's
// title too, so it goes first.
func (m *Model) notes(room int) string {
	s := m.state()
	notes := []string{"sort " + s.order + m.mark()}
	if m.view == inspect.TopTalkers {
		notes = append(notes, "by "+string(m.by))
	}
	if s.filter != "" {
		notes = append(notes, fmt.Sprintf("filter %q", s.filter))
	}
	if r := s.reading; r != nil {
		notes = append(notes, rowsNote(r, s.first, min(s.first+m.page(), rows(r))))
	}
	for {
		text := strings.Join(notes, "  ")
		if len(notes) == 1 || ansi.StringWidth(text) <= room {
			return ansi.Truncate(text, max(0, room), "")
		}
		notes = notes[1:]
	}
}

func rowsNote(r *inspect.TopReading, first, last int) string {
	about := ""
	if r.Approximate {
		about = "more than "
	}
	if last == 0 {
		return fmt.Sprintf("0 of %s%s", about, grouped(int64(r.Matching)))
	}
	return fmt.Sprintf("%d-%d of %s%s", first+1, last, about, grouped(int64(r.Matching)))
}

// mark shows which way rows are ordered.
func (m *Model) mark() string {
	marks := []string{"▼", "▲"}
	if m.ascii {
		marks = []string{"v", "^"}
	}
	s := m.state()
	// These two have their smallest value first.
	if s.reverse != (s.order == "evaluation" || s.order == "idle") {
		return marks[1]
	}
	return marks[0]
}

func (m *Model) table() []string {
	s := m.state()
	if s.reading == nil {
		return nil
	}
	last := min(s.first+m.page(), rows(s.reading))
	g := layOut(s.reading, columnsOf(m.view, s.reading.By), m.width, s.first, last, m.mark())
	lines := []string{reverse.Styled(m.spread(g.line(g.title), " "))}
	for _, cells := range g.cells {
		lines = append(lines, colour(g.line(cells), cells))
	}
	if last == 0 {
		lines = append(lines, emptyNote(m.view, s.filter))
	}
	return lines
}

func emptyNote(v inspect.TopView, filter string) string {
	if filter != "" {
		return fmt.Sprintf("no %s match %q", v, filter)
	}
	return fmt.Sprintf("no %s", v)
}

// colour marks a rule's access.
func colour(line string, cells []string) string {
	for word, style := range map[string]ansi.Style{"Deny": red, "Allow": green} {
		if slices.Contains(cells, word) {
			return strings.Replace(line, " "+word+" ", " "+style.Styled(word)+" ", 1)
		}
	}
	return line
}

func (m *Model) bottomLine() string {
	if m.typing != nil {
		return "/" + *m.typing + "_"
	}
	parts := []string{"1-4 view"}
	for _, b := range bindings() {
		if b.short != "" {
			parts = append(parts, b.shown+" "+b.short)
		}
	}
	return strings.Join(parts, "  ")
}

// helpLines are the keys in two columns.
func helpLines() []string {
	all := bindings()
	half := (len(all) + 1) / 2
	text := func(b *binding) string { return fmt.Sprintf("%-6s %s", b.shown, b.long) }
	var lines []string
	for i := range half {
		line := text(&all[i])
		if i+half < len(all) {
			line = fmt.Sprintf("%-44s %s", ansi.Truncate(line, 44, ""), text(&all[i+half]))
		}
		lines = append(lines, line)
	}
	return append(lines, "",
		"A filter leaves rows that have all of its words: parts of names; for flows and",
		"talkers also an address, its beginning (10.0.1.), a prefix, a port (:443).",
		"Rates are between two readings; packets/s and bit/s above are what came in.",
		"Any key goes back.")
}
