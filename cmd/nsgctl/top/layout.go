package top

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

const (
	gap = 1 // between columns
	// stretch is how much of the room that is left over the last text column gets: numbers stay
	// near the right edge of a narrow terminal, and near their names in a wide one.
	stretch = 24
)

// field is a column that is shown, with its width.
type field struct {
	column
	width int
}

// grid is a table laid out for a width.
type grid struct {
	fields []field
	title  []string
	cells  [][]string // by row
}

// layOut chooses the columns that fit rows first to last-1, and their widths. The column of the order
// is always among them, with the mark.
func layOut(r *inspect.TopReading, columns []column, width, first, last int, mark string) grid {
	fields := make([]field, len(columns))
	cells := make([][]string, len(columns))
	for c := range columns {
		f := &fields[c]
		f.column = columns[c]
		if f.order != "" && f.order == r.Order {
			f.title, f.rank = f.title+mark, 0
		}
		f.width = ansi.StringWidth(f.title)
		for i := first; i < last; i++ {
			text := printable(f.cell(r, i))
			if text == "" {
				text = "-"
			}
			cells[c] = append(cells[c], text)
			f.width = max(f.width, ansi.StringWidth(text))
		}
		if f.right {
			f.width = max(f.width, 5) // so that columns stay where they are while numbers change
		}
	}
	for {
		worst := -1
		for c := range fields {
			if fields[c].width >= 0 && fields[c].rank > 0 && (worst < 0 || fields[c].rank > fields[worst].rank) {
				worst = c
			}
		}
		if worst < 0 || least(fields, fields[worst].rank) <= width {
			break
		}
		fields[worst].width = -1
	}
	return assemble(fields, cells, width, last-first)
}

// least is how wide the fields are when text is cut as far as it may be before columns of a rank go.
func least(fields []field, rank int) int {
	sum := -gap
	for i := range fields {
		f := &fields[i]
		switch {
		case f.width < 0:
		case f.whole > 0 && rank >= f.whole:
			sum += f.width + gap
		default:
			sum += f.floor() + gap
		}
	}
	return sum
}

// floor is the least width of a field.
func (f *field) floor() int {
	if f.least == 0 {
		return f.width
	}
	return min(f.width, f.least)
}

// assemble cuts the widest texts until all fits, and stretches the last text column.
func assemble(fields []field, cells [][]string, width, rows int) grid {
	var g grid
	g.cells = make([][]string, rows)
	total := -gap
	for c, f := range fields {
		if f.width < 0 {
			continue
		}
		total += f.width + gap
		g.fields = append(g.fields, f)
		g.title = append(g.title, f.title)
		for i := range rows {
			g.cells[i] = append(g.cells[i], cells[c][i])
		}
	}
	for ; total > width; total-- {
		widest := -1
		for c := range g.fields {
			f := &g.fields[c]
			if f.width > f.floor() && (widest < 0 || f.width > g.fields[widest].width) {
				widest = c
			}
		}
		if widest < 0 {
			break
		}
		g.fields[widest].width--
	}
	for c := len(g.fields) - 1; c >= 0 && total < width; c-- {
		if !g.fields[c].right {
			g.fields[c].width += min(width-total, stretch)
			break
		}
	}
	return g
}

// cut makes text as short as its field.
func (f *field) cut(text string) string {
	over := ansi.StringWidth(text) - f.width
	if !f.ends || over <= 0 || f.width < 3 {
		return ansi.Truncate(text, f.width, "~")
	}
	tail := f.width / 2 // a port and the end of its address
	return ansi.Truncate(text, f.width-1-tail, "") + "~" + ansi.TruncateLeft(text, over+f.width-tail, "")
}

// line puts a row's cells into their fields.
func (g *grid) line(cells []string) string {
	var b strings.Builder
	for c, text := range cells {
		f := &g.fields[c]
		text = f.cut(text)
		pad := strings.Repeat(" ", max(0, f.width-ansi.StringWidth(text)))
		if c > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		if f.right {
			b.WriteString(pad + text)
		} else {
			b.WriteString(text + pad)
		}
	}
	return b.String()
}
