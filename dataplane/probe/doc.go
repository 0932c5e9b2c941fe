// Package probe asks the backends of load balancers whether they live, as Azure's health
// probes do: with real connections from 168.63.129.16, which go through the engine and its
// network security groups like any other packet. A rule that blocks the tag AzureLoadBalancer
// takes a backend out of rotation.
package probe
