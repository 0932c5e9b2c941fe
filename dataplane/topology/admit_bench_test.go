package topology

import (
	"testing"
)

// BenchmarkAdmit is what each packet costs before its flow is looked up.
func BenchmarkAdmit(b *testing.B) {
	s, err := Build(hubAndSpokes(), hubSpecs, NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		at   int
		src  string
	}{
		{"internet", atInternet, "203.0.113.9"}, {"internet-IPv6", atInternet, "2606:4700::1111"}, {"internet-6to4", atInternet, "2002:102:304::1"},
		{"internet-spoofed", atInternet, "10.0.1.4"}, {"network-interface", atFw, "10.0.1.4"}, {"gateway", atGateway, "192.168.7.7"},
	} {
		b.Run(c.name, func(b *testing.B) {
			a, src := s.Attachments[c.at], ip(c.src)
			var e *Endpoint
			for b.Loop() {
				e = s.Admit(a, src)
			}
			kept = e
		})
	}
}

var kept *Endpoint
