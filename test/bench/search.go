package main

import "fmt"

const (
	// lossLimit is the share of datagrams that may be lost at a rate that counts as carried.
	lossLimit = 0.005
	// searchTrials and searchPrecision end a search.
	searchTrials    = 12
	searchPrecision = 0.03
)

// outcome is one trial of a rate: datagrams a second.
type outcome struct {
	sent, received float64
}

func (o outcome) loss() float64 {
	if o.sent == 0 {
		return 1
	}
	return 1 - o.received/o.sent
}

// search finds the highest rate at which at most lossLimit is lost, as RFC 2544 section 26.1
// asks for: it halves the span between a rate that passed and one that failed. flooded is what came
// through when the sender did what it could, which is where the search begins; when that
// passes, the sender is the limit. On a machine that others share a trial can fail for reasons of
// its own, so that a rate fails when two trials in a row do.
func search(flooded outcome, attempt func(rate float64) (outcome, error)) (outcome, error) {
	if flooded.loss() <= lossLimit {
		return flooded, nil
	}
	var best outcome
	low, high := 0.0, flooded.sent
	rate := min(max(flooded.received, high/100), high*0.9)
	for trials := 0; trials < searchTrials; trials++ {
		o, err := attempt(rate)
		if err != nil {
			return best, err
		}
		if o.loss() > lossLimit && o.loss() < 10*lossLimit && trials < searchTrials-1 {
			trials++
			if o, err = attempt(rate); err != nil {
				return best, err
			}
		}
		if o.loss() <= lossLimit {
			low = rate
			if o.received > best.received {
				best = o
			}
			if o.sent < rate*(1-searchPrecision) { // the sender can't do more
				return best, nil
			}
		} else {
			high = rate
		}
		if high-low <= searchPrecision*high {
			break
		}
		if rate = (low + high) / 2; low == 0 {
			rate = high * 0.7 // nothing says that half as much is needed
		}
	}
	if best.received == 0 {
		return best, fmt.Errorf("UDP: more than %.1f %% was lost at every rate down to %.0f datagrams a second", lossLimit*100, high)
	}
	return best, nil
}
