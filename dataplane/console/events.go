package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
)

const (
	// trafficEvery, rulesEvery and changeEvery are how often a view gets events.
	trafficEvery = time.Second
	rulesEvery   = 2 * time.Second
	changeEvery  = 2 * time.Second
)

// feed sends events to one client.
type feed struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send writes an event. A client who does not read in time has an error.
func (f *feed) send(name string, data []byte) error {
	if _, err := io.WriteString(f.w, "event: "+name+"\ndata: "); err != nil {
		return err
	}
	if _, err := f.w.Write(data); err != nil {
		return err
	}
	if _, err := io.WriteString(f.w, "\n\n"); err != nil {
		return err
	}
	return f.control.Flush()
}

// addEvents adds the streams. Each view of the pages has one.
func (c *Console) addEvents() {
	c.stream("map", func(ctx context.Context, f *feed, _ url.Values) error {
		generation := uint64(0)
		return every(ctx, trafficEvery, func() error {
			if now := c.service.Snapshot().Generation; now != generation {
				body, err := c.answers.get(fmt.Sprintf("map %d", now), trafficEvery, func() (any, error) { return c.service.Map(), nil })
				if err != nil {
					return err
				}
				if err := f.send("map", body); err != nil {
					return err
				}
				generation = now
			}
			body, err := c.answers.get("traffic", trafficEvery*9/10, func() (any, error) { return c.service.MapTraffic(), nil })
			if err != nil {
				return err
			}
			return f.send("traffic", body)
		})
	})
	// networkInterface or networkSecurityGroup.
	c.stream("rules", func(ctx context.Context, f *feed, q url.Values) error {
		nic, group := q.Get("networkInterface"), q.Get("networkSecurityGroup")
		return every(ctx, rulesEvery, func() error {
			body, err := c.answers.get("rules?"+url.Values{"nic": {nic}, "nsg": {group}}.Encode(), rulesEvery*9/10, func() (any, error) { return c.service.RuleView(nic, group) })
			if err != nil {
				return refusal{err}
			}
			return f.send("rules", body)
		})
	})
	c.stream("change", func(ctx context.Context, f *feed, _ url.Values) error {
		return every(ctx, changeEvery, func() error {
			body, err := c.answers.get("change", changeEvery*9/10, func() (any, error) { return c.changes(), nil })
			if err != nil {
				return err
			}
			return f.send("change", body)
		})
	})
	// filter; kind: decided, denied or all.
	c.stream("packets", func(ctx context.Context, f *feed, q url.Values) error {
		return c.taps.follow(ctx, tapKey{q.Get("filter"), q.Get("kind")}, f)
	})
}

// change is what has changed of late, and what a candidate would change.
type change struct {
	Generation  uint64                `json:"generation"`
	Generations []uint64              `json:"generations"` // that can be compared, the newest first
	Reloads     []inspect.ReloadEntry `json:"reloads"`
	// Candidate is absent when none is judged.
	Candidate *inspect.Candidate `json:"candidate,omitempty"`
}

// maxReloads bounds the reloads that are shown.
const maxReloads = 20

func (c *Console) changes() *change {
	reloads := c.service.ReloadList().Reloads
	x := &change{Generation: c.service.Snapshot().Generation, Generations: c.service.Generations(), Reloads: reloads[:min(len(reloads), maxReloads)]}
	if candidate, err := c.service.Candidate(); err == nil {
		x.Candidate = candidate
	}
	return x
}

// refusal ends a stream for good: its client need not come again.
type refusal struct{ error }

// Unwrap is for errors.As.
func (r refusal) Unwrap() error { return r.error }

// stream adds a stream. EventSource shows no status and no body of a refusal: so that is an event, too.
func (c *Console) stream(name string, run func(context.Context, *feed, url.Values) error) {
	c.mux.HandleFunc("GET "+Path+"events/"+name, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Accel-Buffering", "no") // of proxies
		f := &feed{w, http.NewResponseController(w)}
		err := serve.Feed(w)
		if err != nil {
			err = refusal{fmt.Errorf("%w, or close another console", err)}
		} else {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(c.ending, cancel)()
			err = run(ctx, f, r.URL.Query())
		}
		if refused, ok := err.(refusal); ok {
			f.send("refused", mustMarshal(refused.Error())) // fails only when the client went away
		}
	})
}

// every calls send at once and then again and again, until it fails or ctx ends.
func every(ctx context.Context, period time.Duration, send func() error) error {
	ticks := time.NewTicker(period)
	defer ticks.Stop()
	for {
		if err := send(); err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
