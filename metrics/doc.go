// Package metrics shows a running engine to Prometheus. The engine counts for itself,
// worker by worker; a scrape sums what they counted and makes constant metrics of it, so
// that the packet path knows nothing of Prometheus. Names and labels are a contract;
// label sets are bounded by the configuration and the policy, never by traffic.
package metrics
