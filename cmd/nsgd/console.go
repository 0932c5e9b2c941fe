package main

import (
	"github.com/nsgd/nsgd/dataplane/console"
	pages "github.com/nsgd/nsgd/deploy/console"
	"github.com/nsgd/nsgd/metrics"
)

// keptPolicies is how many earlier policies the console can compare.
const keptPolicies = 4

// earlierPolicies is how many are kept; 0: nobody asks for them.
func (c *Config) earlierPolicies() int {
	if c.Console {
		return keptPolicies
	}
	return 0
}

// console is what answers the console's pages; nil: they are not served.
func (d *daemon) console() (metrics.Console, error) {
	if !d.config.Console || d.metrics == nil {
		return nil, nil
	}
	return console.New(console.Options{Service: d.service, Pages: pages.Files})
}

// console refuses a console that nobody can open, and one that anybody can.
func (v *validator) console(c *Config) {
	switch {
	case !c.Console:
	case c.Metrics.Listen == metricsOff:
		v.fail(at("console"), "true: it is served where the metrics are, and metrics.listen is %s", metricsOff)
	case c.Metrics.open():
		v.fail(at("console"), "true: it shows live traffic, and %s is open to others: set metrics.webConfig, or a loopback address as metrics.listen", c.Metrics.Listen)
	}
}

// consoleURL is where a browser on this host finds the console; empty: nowhere.
func (c *Config) consoleURL() string {
	if !c.Console || c.Metrics.Listen == metricsOff {
		return ""
	}
	return "http://" + c.Metrics.Listen + metrics.ConsolePath
}
