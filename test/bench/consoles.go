package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// withConsoles chooses what -consoles is about.
func (o *options) withConsoles() {
	o.setups = "consoles"
	if o.measures == "all" {
		o.measures = "tcp1,connects"
	}
}

// consoleStreams are what ten open consoles have open: each view, that which opens first more often.
var consoleStreams = []string{
	"map", "map", "map", "map", "rules?networkInterface=b-nic", "rules?networkInterface=a-nic", "packets", "packets?kind=denied", "change", "change",
}

// consoles are nsgd while nobody looks at its console, and while ten do.
func consoles(binary string) []setup {
	with := func(name string, streams []string) setup {
		return setup{name: name, start: func() (*network, error) {
			n, err := startDaemon(binary, "console: true\nmetrics: {listen: '"+consoleAddress+"'}", rules(fewRules))
			if err != nil {
				return nil, err
			}
			stop, err := look(streams)
			if err != nil {
				n.stop()
				return nil, err
			}
			end := n.stop
			n.stop = func() { stop(); end() }
			return n, nil
		}}
	}
	return []setup{with("no console", nil), with("ten consoles", consoleStreams)}
}

// consoleAddress is in this program's own network namespace.
const consoleAddress = "127.0.0.1:9646"

// look reads streams of the console as fast as they come, until stop is called.
func look(streams []string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	stop = func() {
		cancel()
		readers.Wait()
	}
	for _, s := range streams {
		q, err := http.NewRequestWithContext(ctx, "GET", "http://"+consoleAddress+"/console/events/"+s, nil)
		if err != nil {
			stop()
			return nil, err
		}
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			stop()
			return nil, err
		}
		first := make([]byte, len("event: refused"))
		if _, err := io.ReadFull(answer.Body, first); err != nil || answer.StatusCode != http.StatusOK || strings.HasSuffix(string(first), "refused") {
			answer.Body.Close()
			stop()
			return nil, fmt.Errorf("console: %s: %s %q: %w", s, answer.Status, first, err)
		}
		readers.Go(func() {
			defer answer.Body.Close()
			io.Copy(io.Discard, answer.Body)
		})
	}
	return stop, nil
}
