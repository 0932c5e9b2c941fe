package topology

// NewProbe is a probe that no load balancer has, for who sends probes by themselves; it is up.
func NewProbe(p Probe) *Probe {
	p.health = newHealth()
	return &p
}
