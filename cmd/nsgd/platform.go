package main

import (
	"context"
	"net/netip"

	"github.com/nsgd/nsgd/dataplane/platform"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// servePlatform answers DNS and IMDS where the platform's attachment asks for it, until the daemon stops.
func (d *daemon) servePlatform(ctx context.Context) error {
	a := d.config.platform()
	if a == nil || !a.PlatformServices {
		return nil
	}
	const dns = 53
	o := platform.Options{Namespace: a.Netns, Policy: func() *policy.Set { return d.engine.Snapshot().Policy }, Log: d.log}
	for _, f := range a.DNSForwarders {
		o.Forwarders = append(o.Forwarders, netip.AddrPortFrom(f.Addr, dns))
	}
	stop, err := platform.Serve(ctx, o)
	if err != nil {
		return err
	}
	d.onStop(func() error { stop(); return nil })
	return nil
}
