package console

import (
	"errors"
	"sync"
	"time"
)

const (
	// maxAnswers bounds the answers that are remembered. One more takes the place of the one that was made first.
	maxAnswers = 32
	// share is the greatest part of a processor's time that one answer takes, however many look at it: one of so many.
	share = 50
)

var errBusy = errors.New("too many questions at a time: ask again")

// answers are what several clients look at: each is made once for all of them.
type answers struct {
	now func() time.Time

	mu  sync.Mutex
	all map[string]*shared // guarded by mu
}

// shared is one answer.
type shared struct {
	mu    sync.Mutex
	since time.Time     // when it was made; guarded by mu, as all that follows
	took  time.Duration // to make it
	body  []byte
	err   error
}

// get is the answer to a key, at most so old. An answer that took long is used for longer, so that clients can't ask for
// more than a share of a processor.
func (a *answers) get(key string, every time.Duration, make func() (any, error)) ([]byte, error) {
	one := a.of(key)
	one.mu.Lock()
	defer one.mu.Unlock()
	began := a.now()
	if age := began.Sub(one.since); !one.since.IsZero() && age >= 0 && age < max(every, share*one.took) {
		return one.body, one.err
	}
	v, err := make()
	one.body, one.err = nil, err
	if err == nil {
		one.body = mustMarshal(v)
	}
	one.since = began
	one.took = a.now().Sub(began)
	return one.body, one.err
}

// of is the answer to a key, new where there is none.
func (a *answers) of(key string) *shared {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[string]*shared{}
	}
	if one := a.all[key]; one != nil {
		return one
	}
	if len(a.all) >= maxAnswers {
		clear(a.all) // who still looks has them made again
	}
	one := &shared{}
	a.all[key] = one
	return one
}
