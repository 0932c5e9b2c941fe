package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/nsgd/nsgd/dataplane/ask"
	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/dataplane/serve"
)

const (
	// maxStates bounds the work of a question about all packets.
	maxStates = 100_000
	// maxChanges bounds the changes that a comparison lists.
	maxChanges = 200
	// maxCuts bounds the live flows that a candidate would cut and that are listed.
	maxCuts = 200
	// maxPairs bounds the pairs of dropped packets that are listed.
	maxPairs = 1000
	// flowsEvery, slowEvery: how old answers are at most.
	flowsEvery = 2 * time.Second
	slowEvery  = 10 * time.Second
)

// addData adds the questions that have one answer each. Their query says what is asked.
func (c *Console) addData() {
	c.answer("names", func(context.Context, url.Values) (any, error) { return c.service.Names(), nil })
	c.answer("status", func(context.Context, url.Values) (any, error) { return c.service.Status(), nil })
	// from, to: as of nsgctl explain.
	c.answer("explain", func(ctx context.Context, q url.Values) (any, error) {
		return c.service.Explain(ctx, &ask.ExplainParameters{From: q.Get("from"), To: q.Get("to"), MaxStates: maxStates})
	})
	// filter, limit: live flows.
	c.remember("flows", flowsEvery, []string{"filter", "limit"}, func(q url.Values) (any, error) {
		limit, err := number(q, "limit", 1000, inspect.MaxFlowsBy)
		if err != nil {
			return nil, err
		}
		return c.service.FlowsBy(q.Get("filter"), limit)
	})
	// filter, since: dropped packets of late.
	c.remember("drops", flowsEvery, []string{"filter", "since"}, func(q url.Values) (any, error) {
		var since time.Duration
		if text := q.Get("since"); text != "" {
			var err error
			if since, err = time.ParseDuration(text); err != nil {
				return nil, fmt.Errorf("since: %q: allowed is a time such as 10m", text)
			}
		}
		return c.service.Drops(inspect.DropQuestion{Filter: q.Get("filter"), Since: since, Limit: maxPairs})
	})
	c.remember("lint", slowEvery, nil, func(url.Values) (any, error) { return c.service.Lint(), nil })
	// old, new: numbers of generations, or candidate.
	c.remember("compare", slowEvery, []string{"old", "new"}, func(q url.Values) (any, error) {
		return c.service.Compare(q.Get("old"), q.Get("new"), maxStates, maxChanges)
	})
	c.remember("cuts", flowsEvery, nil, func(url.Values) (any, error) { return c.service.CandidateFlows(maxCuts) })
	c.mux.HandleFunc("GET "+Path+"data/capture", c.capture)
}

// answer adds a question.
func (c *Console) answer(name string, make func(context.Context, url.Values) (any, error)) {
	c.ask(name, func(ctx context.Context, q url.Values) ([]byte, error) {
		v, err := make(ctx, q)
		if err != nil {
			return nil, err
		}
		return mustMarshal(v), nil
	})
}

// remember adds a question whose answer all get who ask the same within a time.
func (c *Console) remember(name string, every time.Duration, keys []string, make func(url.Values) (any, error)) {
	c.ask(name, func(_ context.Context, q url.Values) ([]byte, error) {
		asked := url.Values{}
		for _, key := range keys {
			asked.Set(key, q.Get(key))
		}
		return c.answers.get(name+"?"+asked.Encode(), every, func() (any, error) { return make(asked) })
	})
}

func (c *Console) ask(name string, answer func(context.Context, url.Values) ([]byte, error)) {
	c.mux.HandleFunc("GET "+Path+"data/"+name, func(w http.ResponseWriter, r *http.Request) {
		done, err := c.place(r.Context(), c.questions)
		if err != nil {
			refuse(w, statusOf(err), err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		body, err := func() ([]byte, error) {
			defer done()
			defer cancel()
			return answer(ctx, r.URL.Query())
		}()
		if err != nil {
			refuse(w, statusOf(err), err)
			return
		}
		serve.Hold(w)
		writeJSON(w, http.StatusOK, body)
	})
}

// place waits for a place, up to serve.Timeout. done gives it back.
func (c *Console) place(ctx context.Context, places chan struct{}) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, serve.Timeout)
	defer cancel()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, errBusy
	}
}

// number reads a whole number from 1 on.
func number(q url.Values, name string, absent, most int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s: %q: allowed are 1 to %d", name, text, most)
	}
	return n, nil
}

const (
	// maxCaptures bounds the captures at a time. One more waits as other questions do.
	maxCaptures = 1
	// maxSeconds and maxPackets bound one capture.
	maxSeconds = 60
	maxPackets = 10_000
	// capturePerSecond bounds the packets of a second.
	capturePerSecond = 2000
)

// capture answers with pcapng of the next packets: their headers alone. Its query has filter, denied (true), seconds and count.
func (c *Console) capture(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	seconds, err := number(q, "seconds", 10, maxSeconds)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	count, err := number(q, "count", maxPackets, maxPackets)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	done, err := c.place(r.Context(), c.captures)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	defer done()
	if err := serve.Feed(w); err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	stream, err := c.service.Watch(inspect.WatchRequest{Filter: q.Get("filter"), Denied: q.Get("denied") == "true", Count: count, PerSecond: capturePerSecond, Headers: true}, true)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	defer stream.Close()
	h := w.Header()
	h.Set("Content-Type", "application/x-pcapng")
	h.Set("Content-Disposition", `attachment; filename="nsgd.pcapng"`)
	h.Set("Cache-Control", "no-store")
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(seconds)*time.Second)
	defer cancel()
	defer context.AfterFunc(c.ending, cancel)()
	if stream.Capture(ctx, w, http.NewResponseController(w).Flush) != nil {
		panic(http.ErrAbortHandler) // the client sees that the answer is cut off
	}
}
