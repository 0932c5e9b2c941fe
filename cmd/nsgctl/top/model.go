// Package top is the live view of a running daemon: rules, flows, talkers and drops that lead,
// in a terminal (Run) or once (WriteTable).
//
// A Model asks for one reading at a time through an Asker, draws it, and asks again. It
// knows nothing of terminals but their size, so a test drives it with messages.
package top

import (
	"context"
	"errors"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/nsgd/nsgd/dataplane/control"
	"github.com/nsgd/nsgd/dataplane/inspect"
)

// Asker makes readings; control.Client is one. It is asked one thing at a time.
type Asker interface {
	Top(ctx context.Context, q inspect.TopQuestion) (*inspect.TopReading, error)
}

// Options say what is shown first and how often.
type Options struct {
	View     inspect.TopView
	Order    string // empty: the view's first
	Reverse  bool
	By       inspect.TalkersBy
	Filter   string
	Limit    int           // of WriteTable's and JSON's rows
	Interval time.Duration // between readings
	ASCII    bool          // the terminal shows no other characters
}

const (
	// patience is how long the daemon may take for an answer.
	patience = 10 * time.Second
	// firstRates is when the second reading is made, which is the first with rates.
	firstRates = 300 * time.Millisecond
	// pageAhead is how many screens of rows are asked for beyond the one that is shown.
	pageAhead = 2
)

// viewState is what one view is shown by.
type viewState struct {
	order   string
	reverse bool
	filter  string
	first   int // row at the top of the screen
	reading *inspect.TopReading
}

// Model is the state of the live view.
type Model struct {
	asker    Asker
	ctx      context.Context
	interval time.Duration
	ascii    bool

	width, height int
	view          inspect.TopView
	by            inspect.TalkersBy
	views         map[inspect.TopView]*viewState
	last          *inspect.TopReading // of any view: the header
	err           error               // of the last question
	question      int                 // number of the last question; answers to others are late
	paused        bool
	help          bool
	typing        *string // the filter that is being typed; nil: none
}

// New returns a model that has asked nothing yet.
func New(ctx context.Context, asker Asker, o Options) *Model {
	m := &Model{asker: asker, ctx: ctx, interval: o.Interval, ascii: o.ASCII, width: 80, height: 24,
		view: o.View, by: o.By, views: map[inspect.TopView]*viewState{}}
	for _, v := range inspect.TopViews() {
		m.views[v] = &viewState{order: inspect.TopOrders(v)[0]}
	}
	s := m.state()
	s.reverse, s.filter = o.Reverse, o.Filter
	if o.Order != "" {
		s.order = o.Order
	}
	return m
}

func (m *Model) state() *viewState { return m.views[m.view] }

// answered is the end of a question.
type answered struct {
	question int
	reading  *inspect.TopReading
	err      error
}

// due is the time for the next question.
type due struct{ question int }

// Init asks the first question.
func (m *Model) Init() tea.Cmd { return m.ask() }

// ask asks for what is shown now; a question before it is forgotten.
func (m *Model) ask() tea.Cmd {
	m.question++
	number, s := m.question, m.state()
	q := inspect.TopQuestion{View: m.view, Order: s.order, Reverse: s.reverse, By: m.by, Filter: s.filter,
		Limit: min(max(s.first+pageAhead*m.page(), inspect.DefaultTopLimit), inspect.MaxTopLimit)}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(m.ctx, patience)
		defer cancel()
		reading, err := m.asker.Top(ctx, q)
		return answered{number, reading, err}
	}
}

// Update takes a message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.scroll(0)
		return m, m.askForRows()
	case answered:
		if msg.question == m.question {
			return m, m.take(msg)
		}
	case due:
		if msg.question == m.question && !m.paused {
			return m, m.ask()
		}
	case tea.KeyPressMsg:
		return m, m.press(msg)
	case tea.PasteMsg:
		if m.typing != nil {
			m.typed(msg.Content)
		}
	}
	return m, nil
}

// take shows an answer and says when to ask again.
func (m *Model) take(a answered) tea.Cmd {
	wait := m.interval
	if m.err = a.err; a.err == nil {
		m.last, m.state().reading = a.reading, a.reading
		m.scroll(0)
		if a.reading.Seconds == 0 {
			wait = min(wait, firstRates)
		}
	}
	if m.paused {
		return nil
	}
	number := m.question
	return tea.Tick(wait, func(time.Time) tea.Msg { return due{number} })
}

// gone reports whether there is no daemon.
func (m *Model) gone() bool { return errors.Is(m.err, control.ErrNoDaemon) }

// page is the number of rows that fit.
func (m *Model) page() int { return max(1, m.height-linesAround) }

// scroll moves the rows.
func (m *Model) scroll(by int) {
	s, n := m.state(), 0
	if s.reading != nil {
		n = rows(s.reading)
	}
	s.first = max(0, min(s.first+by, n-m.page()))
}

// askForRows asks when rows that there are have come onto the screen before they were read.
func (m *Model) askForRows() tea.Cmd {
	s := m.state()
	if m.paused || s.reading == nil {
		return nil
	}
	have := rows(s.reading)
	if have < min(s.reading.Matching, inspect.MaxTopLimit) && s.first+m.page() >= have {
		return m.ask()
	}
	return nil
}

// show turns to another view.
func (m *Model) show(v inspect.TopView) tea.Cmd {
	m.view = v
	if m.paused && m.state().reading != nil {
		return nil
	}
	return m.ask()
}

// reorder shows the rows in another order: those that are here at once, and then those
// that lead by it.
func (m *Model) reorder(order string, reverse bool) tea.Cmd {
	s := m.state()
	s.order, s.reverse, s.first = order, reverse, 0
	if s.reading != nil {
		s.reading.Sort(order, reverse) // an order of the view
	}
	if m.paused {
		return nil
	}
	return m.ask()
}

// nextOrder is the order n steps on.
func (m *Model) nextOrder(n int) string {
	all := inspect.TopOrders(m.view)
	i := slices.Index(all, m.state().order)
	return all[(i+n+len(all))%len(all)]
}
