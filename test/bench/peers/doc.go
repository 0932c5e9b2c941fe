// Package peers measures the packet filters of tailscale and nebula in process, from a packet's bytes to the verdict, with as many rules
// as nsgd's own benchmarks have. `make bench-peers` runs both in turn.
package peers
