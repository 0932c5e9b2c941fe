package inspect

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// TopView says what the rows of a reading are.
type TopView string

// The views.
const (
	TopRules   TopView = "rules"
	TopFlows   TopView = "flows"
	TopTalkers TopView = "talkers"
	TopDrops   TopView = "drops"
)

// TopViews are all views.
func TopViews() []TopView { return []TopView{TopRules, TopFlows, TopTalkers, TopDrops} }

// TalkersBy says what one talker is.
type TalkersBy string

// What a talker is: the two addresses of flows, or one of them.
const (
	ByPair        TalkersBy = "pair"
	BySource      TalkersBy = "source"
	ByDestination TalkersBy = "destination"
)

// TalkersBys are all values of TalkersBy.
func TalkersBys() []TalkersBy { return []TalkersBy{ByPair, BySource, ByDestination} }

const (
	// DefaultTopLimit is used when TopQuestion.Limit is 0.
	DefaultTopLimit = 100
	// MaxTopLimit bounds an answer, whatever the number of flows.
	MaxTopLimit = 1000
	// MaxTopFilter is the longest filter in bytes. It bounds the words that each flow is compared with.
	MaxTopFilter = 200
)

// TopQuestion asks for the leading rows by an order.
type TopQuestion struct {
	View TopView
	// Order is one of TopOrders(View); empty: the first.
	Order   string
	Reverse bool
	// By is for TopTalkers; empty: ByPair.
	By TalkersBy
	// Filter leaves rows that have each of its words. A word is part of a name, in any case. For
	// flows and talkers it may also be a port, or an address at either end, the address's
	// beginning (10.0.1. or fd00:) or a prefix.
	Filter string
	// Limit is the number of rows, 1 to MaxTopLimit; 0: DefaultTopLimit.
	Limit int
}

// complete puts the defaults in and checks the rest.
func (q *TopQuestion) complete() error {
	if !slices.Contains(TopViews(), q.View) {
		return fmt.Errorf("view: %q: allowed are rules, flows, talkers and drops", q.View)
	}
	if q.By == "" {
		q.By = ByPair
	}
	if !slices.Contains(TalkersBys(), q.By) {
		return fmt.Errorf("by: %q: allowed are pair, source and destination", q.By)
	}
	if q.Order == "" {
		q.Order = TopOrders(q.View)[0]
	}
	if _, err := findOrder(q.View, q.Order); err != nil {
		return err
	}
	if q.Limit == 0 {
		q.Limit = DefaultTopLimit
	}
	if q.Limit < 1 || q.Limit > MaxTopLimit {
		return errTopLimit(strconv.Itoa(q.Limit))
	}
	if len(q.Filter) > MaxTopFilter {
		return fmt.Errorf("filter: %d bytes: allowed are %d", len(q.Filter), MaxTopFilter)
	}
	return nil
}

func errTopLimit(text string) error {
	return fmt.Errorf("limit: %q: allowed are 1 to %d", text, MaxTopLimit)
}

// TopReading is the daemon at a glance, and the leading rows of one view.
type TopReading struct {
	Time time.Time `json:"time"`
	// Seconds is the time that the rates are measured over: between the last two readings at
	// least a fifth of a second apart. 0: this is the first reading, and all rates are 0.
	Seconds    float64   `json:"seconds"`
	Version    string    `json:"version"`
	Started    time.Time `json:"started"`
	Generation uint64    `json:"generation"`
	FlowTable  FlowUse   `json:"flowTable"`
	Traffic    Traffic   `json:"traffic"`
	View       TopView   `json:"view"`
	Order      string    `json:"order"`
	Reverse    bool      `json:"reverse"`
	By         TalkersBy `json:"by,omitempty"` // of talkers
	Filter     string    `json:"filter,omitempty"`
	// Matching is the number of rows that the filter leaves, listed or not.
	Matching int `json:"matching"`
	// Approximate is set when there are more talkers than are followed. Then Matching is too low,
	// and each row may lack up to Uncounted of the figure that orders the rows. A talker with no
	// more than Uncounted may be missing.
	Approximate bool    `json:"approximate,omitempty"`
	Uncounted   float64 `json:"uncounted,omitempty"`

	Rules   []TopRule   `json:"rules,omitzero"`
	Flows   []TopFlow   `json:"flows,omitzero"`
	Talkers []TopTalker `json:"talkers,omitzero"`
	Drops   []TopDrop   `json:"drops,omitzero"`
}

// Traffic counts what came in at all attachments, and what was dropped. Its rates are between the
// last two readings of any view.
type Traffic struct {
	Packets          uint64  `json:"packets"`
	Bytes            uint64  `json:"bytes"`
	Drops            uint64  `json:"drops"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
	DropsPerSecond   float64 `json:"dropsPerSecond"`
}

// TopRule is a rule with the rates of its counters.
type TopRule struct {
	Rule
	// Position is the rule's place in RuleList.
	Position         int     `json:"position"`
	HitsPerSecond    float64 `json:"hitsPerSecond"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
}

// TopFlow is a live flow with its rates, of both directions together.
type TopFlow struct {
	Flow
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
}

// TopTalker is all live flows between two addresses, from one, or to one.
type TopTalker struct {
	// Source began the flows. When talkers are by source, Destination and To are empty, and by
	// destination Source and From.
	Source           string  `json:"source,omitempty"`
	Destination      string  `json:"destination,omitempty"`
	From             string  `json:"from,omitempty"`
	To               string  `json:"to,omitempty"`
	Flows            uint64  `json:"flows"`
	Packets          uint64  `json:"packets"`
	BytesSent        uint64  `json:"bytesSent"`     // by the source
	BytesReceived    uint64  `json:"bytesReceived"` // by the source
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
}

// TopDrop is a reason for which packets were not carried.
type TopDrop struct {
	Reason           string  `json:"reason"`
	Packets          uint64  `json:"packets"`
	PacketsPerSecond float64 `json:"packetsPerSecond"`
	// Share is the reason's part of all packets not carried, 0 to 1.
	Share float64 `json:"share"`
}
