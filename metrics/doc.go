// Package metrics shows a running engine to Prometheus. The engine counts for itself,
// worker by worker; a scrape sums what they counted, so that the packet path knows nothing
// of Prometheus. What has few series goes through a registry (collector.go); rules and
// attachments, of which there are up to 100,000 and 5,000, keep their series ready made and
// sorted (series.go), and a scrape only sets their values. Names and labels are a contract;
// label sets are bounded by the configuration and the policy, never by traffic.
package metrics
