package intercept

// names are those of the counters in struct counts of programs.c, in its order. From dropsFrom on they are
// reasons why a program dropped a frame.
var names = [...]string{
	capturedOut: "capturedOut", capturedIn: "capturedIn", delivered: "delivered", sentOn: "sentOn", passed: "passed", sent: "sent",
	dropsFrom: "malformed", "vlan", "ethertype", "spoofed_mac", "spoofed_address", "server_answer", "not_addressed", "group",
	"no_mac", "no_sender", "no_device", "for_gateway",
}

const (
	capturedOut = iota
	capturedIn
	delivered
	sentOn
	passed
	sent // every frame of the NIC
	dropsFrom
)

// counts is struct counts.
type counts [len(names)]uint64

// sum adds up the processors' shares.
func sum(perCPU []counts) (total counts) {
	for _, c := range perCPU {
		for i, n := range c {
			total[i] += n
		}
	}
	return total
}

// drops are the reasons with a frame.
func (c *counts) drops() map[string]uint64 {
	m := map[string]uint64{}
	for i, n := range c[dropsFrom:] {
		if n > 0 {
			m[names[dropsFrom+i]] = n
		}
	}
	return m
}
