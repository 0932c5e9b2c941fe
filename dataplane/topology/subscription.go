package topology

import (
	"fmt"

	"github.com/nsgd/nsgd/dataplane/packet"
)

// Subscription decides whether Azure blocks TCP port 25 to the internet. The zero value is an
// enterprise agreement, which does not block it.
type Subscription struct {
	// Type is enterprise, payg (pay as you go), msdn (and other benefit, student and trial
	// offers) or csp (cloud solution provider); empty: enterprise.
	Type string
	// CreatedBefore20171115 and SMTPExempt unblock a payg or csp subscription.
	CreatedBefore20171115, SMTPExempt bool
}

// SubscriptionTypes are the values of Subscription.Type, in words.
const SubscriptionTypes = "enterprise, payg, msdn and csp"

// Check says what is wrong with the subscription. field is the configuration's key.
func (s *Subscription) Check() (field string, err error) {
	switch s.Type {
	case "payg", "csp":
		return "", nil
	case "", "enterprise", "msdn":
		why := map[bool]string{true: "port 25 is blocked always", false: "port 25 is not blocked"}[s.Type == "msdn"]
		switch {
		case s.CreatedBefore20171115:
			return "createdBefore20171115", fmt.Errorf("true: allowed with subscription payg and csp only; with %s %s", s.name(), why)
		case s.SMTPExempt:
			return "smtpExempt", fmt.Errorf("true: allowed with subscription payg and csp only; with %s %s", s.name(), why)
		}
		return "", nil
	}
	return "subscription", fmt.Errorf("%q: allowed are %s", s.Type, SubscriptionTypes)
}

func (s *Subscription) name() string {
	if s.Type == "" {
		return "enterprise"
	}
	return s.Type
}

// BlocksSMTP reports whether TCP port 25 is blocked towards the internet.
func (s *Subscription) BlocksSMTP() bool {
	switch s.Type {
	case "", "enterprise":
		return false
	case "payg", "csp":
		return !s.CreatedBefore20171115 && !s.SMTPExempt
	}
	return true
}

const smtpPort = 25

// SMTPBlocked reports a flow that the platform blocks whatever the rules say: from a virtual
// network to TCP port 25 outside, under a subscription that blocks it.
func (s *Snapshot) SMTPBlocked(src, dst *Endpoint, k *packet.Tuple) bool {
	return k.DstPort == smtpPort && s.BlockSMTP && k.Proto == packet.ProtoTCP && src != nil && src.Subnet != nil && dst == s.outside
}
