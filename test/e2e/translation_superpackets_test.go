package e2e

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"
	"time"

	"github.com/nsgd/nsgd/deploy/lab"
	"github.com/vishvananda/netlink"
)

// Superpackets are rewritten whole: as many packets leave the daemon as come in, of many segments
// each.
func TestSuperpacketsStayWholeThroughEachTranslation(t *testing.T) {
	d := startTranslation(t)
	setRules(t, d.dir, "vm-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow", source: "Internet"})
	setRules(t, d.dir, "web-nsg", rule{name: "AllowAllInBound", priority: 100, direction: "Inbound", access: "Allow"})
	nsgctl(t, "reload")
	serveShop(t)
	for _, tt := range []struct {
		name     string
		from, to lab.Host
		port     uint16
	}{
		{"nothing", plainVM, publicVM, 80}, // within the virtual network
		{"a public IP, to it", client, at(vmIP), 80},
		{"a public IP, from it", publicVM, client, 80},
		{"a NAT gateway", gatewayVM, client, 80},
		{"a load balancer", client, at(shopIP), 80},
	} {
		t.Run(tt.name, func(t *testing.T) {
			receiver := tt.to
			if tt.to != at(shopIP) {
				if tt.to == at(vmIP) {
					receiver = publicVM
				}
				close := serveNamed(t, receiver, tt.port)
				defer close()
			}
			conn, s := mustAsk(t, tt.from, tt.to, tt.port)
			if tt.to == at(shopIP) {
				receiver = map[string]lab.Host{"web1": web1, "web2": web2}[s.Host]
			}
			started := received(t, receiver)
			content := make([]byte, 32<<20)
			rand.Read(content)
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Write(content)
				sent <- err
			}()
			got := make([]byte, len(content))
			conn.SetDeadline(time.Now().Add(patience))
			if n, err := io.ReadFull(conn, got); err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Error("other content came back than was sent")
			}
			// The receiver's device counts a superpacket once.
			packets := received(t, receiver) - started
			if each := uint64(len(content)) / packets; each <= 2*1448 {
				t.Errorf("%d packets for %d bytes, %d each: superpackets are cut", packets, len(content), each)
			}
		})
	}
}

// received is how many packets a host's device has received.
func received(t *testing.T, h lab.Host) (packets uint64) {
	t.Helper()
	inside(t, h, func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			packets = link.Attrs().Statistics.RxPackets
		}
		return err
	})
	return packets
}
