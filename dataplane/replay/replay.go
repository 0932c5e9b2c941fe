// Package replay says what a policy would have done to the packets of captures. The engine itself
// decides, one packet at a time, with the capture's times for its clock. So flows begin, go on and
// time out as they would have then.
//
// With NICs chosen, a packet is theirs when its source or destination is one of their addresses. Only
// their own rules are asked, as nsgctl verify does. Without NICs the capture is one of nsgctl
// capture: its interfaces are the daemon's attachments, and the whole path is judged.
//
// Azure's flow logs are read too. A row says less than a packet, so the rules of its end are asked; see FlowLogs.
// With another policy beside, or with flow logs alone, the flows that would have fared otherwise are told; see Against.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nsgd/nsgd/conntrack"
	"github.com/nsgd/nsgd/dataplane"
	"github.com/nsgd/nsgd/dataplane/fragment"
	"github.com/nsgd/nsgd/dataplane/packet"
	"github.com/nsgd/nsgd/dataplane/pcap"
	"github.com/nsgd/nsgd/dataplane/topology"
	"github.com/nsgd/nsgd/ruleset/policy"
	"github.com/nsgd/nsgd/tun"
)

// Options configure a replay.
type Options struct {
	Policy       *policy.Set
	Topology     topology.Options // Alone is set by New
	Subscription topology.Subscription
	// NetworkInterfaces are those whose own rules decide; none: the captures' interfaces are
	// attachments.
	NetworkInterfaces []*policy.NetworkInterface
	// Flows and Fragments are the daemon's settings; what is zero takes the default.
	Flows     conntrack.Options
	Fragments fragment.Options
	// Top is how many of the largest flows the summary lists.
	Top int
	// Compare holds each packet against the verdict that nsgctl capture has written beside it.
	Compare bool
	// Against is another policy that is asked beside Policy; nil: none.
	Against *policy.Set
	// Changed is how many of the flows that fare otherwise the summary lists.
	Changed int
	// Each, if not nil, is called with every packet, or with OnlyDifferences with those that
	// Compare finds different. The packet is borrowed until it returns.
	Each            func(*Packet) error
	OnlyDifferences bool
	// Began, if not nil, is called with every flow that begins, and with every row of a flow log that is judged.
	Began func(*Beginning) error
	// Idle, if not nil, is called before the next packet has to be waited for.
	Idle func() error
}

// Replay carries the packets of captures, one after the other. It is owned by one goroutine.
type Replay struct {
	o        Options
	carrier  *dataplane.Carrier // nil until the attachments are known
	keys     []topology.RuleKey
	owners   map[packet.Addr]int // attachments of the NICs' addresses
	byName   map[string]int      // attachments by an interface's name, without NICs
	internet int
	platform int

	rival   *rival // under Against; nil: none
	changes *changes
	logs    logs

	seen    tally
	top     top
	file    *File
	last    time.Time // of a packet that had a time
	carried dataplane.Carried
	frame   [tun.BufferLen + padding]byte
	decoder packet.Decoder
	shown   Packet
}

// New makes a replay.
func New(o Options) (*Replay, error) {
	r := &Replay{o: o, top: top{most: o.Top}, changes: newChanges(o.Changed)}
	if len(o.NetworkInterfaces) == 0 {
		return r, nil
	}
	r.o.Topology.Isolated = true
	r.owners = map[packet.Addr]int{}
	var specs []topology.Spec
	for i, nic := range o.NetworkInterfaces {
		specs = append(specs, topology.Spec{Kind: topology.NetworkInterface, Reference: nic.ID})
		for j := range nic.IPConfigurations {
			r.owners[packet.AddrFrom(nic.IPConfigurations[j].Address)] = i
		}
	}
	r.internet, r.platform = len(specs), len(specs)+1
	return r, r.attach(append(specs, topology.Spec{Kind: topology.Internet}, topology.Spec{Kind: topology.Platform}))
}

func (r *Replay) attach(specs []topology.Spec) error {
	o := dataplane.Options{Attachments: specs, Flows: r.o.Flows, Fragments: r.o.Fragments, Topology: r.o.Topology, Subscription: r.o.Subscription}
	if o.Flows.Seed == [2]uint64{} {
		o.Flows.Seed = [2]uint64{1, 1} // the same every time
	}
	var err error
	if r.carrier, err = dataplane.NewCarrier(r.o.Policy, o); err != nil {
		return err
	}
	r.keys = r.carrier.Engine().Registry().Keys()
	if r.o.Against == nil {
		return nil
	}
	r.rival = &rival{}
	if r.rival.carrier, err = dataplane.NewCarrier(r.o.Against, o); err != nil {
		return fmt.Errorf("the other policy: %w", err)
	}
	r.rival.keys = r.rival.carrier.Engine().Registry().Keys()
	return nil
}

// ErrNoAttachment is a capture whose interfaces are no attachments.
var ErrNoAttachment = errors.New("no attachment of the policy (other captures are replayed with --nic or --all)")

// attachInterfaces makes the interfaces of the first capture attachments.
func (r *Replay) attachInterfaces(names []string) error {
	var specs []topology.Spec
	r.byName = map[string]int{}
	for _, name := range names {
		if _, known := r.byName[name]; known {
			continue
		}
		spec, err := specOf(r.o.Policy, name)
		if err != nil {
			return err
		}
		r.byName[name] = len(specs)
		specs = append(specs, spec)
	}
	if len(specs) == 0 {
		return fmt.Errorf("it names no interfaces: there is %w", ErrNoAttachment)
	}
	return r.attach(specs)
}

// specOf is the attachment that has a name in nsgctl status and in nsgctl capture.
func specOf(policy *policy.Set, name string) (topology.Spec, error) {
	switch name {
	case topology.Internet.String():
		return topology.Spec{Kind: topology.Internet}, nil
	case topology.Platform.String():
		return topology.Spec{Kind: topology.Platform}, nil
	}
	if network, ok := strings.CutSuffix(name, "/GatewaySubnet"); ok && network != "" {
		return topology.Spec{}, fmt.Errorf("interface %q is a gateway, and a capture does not say what is behind it: choose network interfaces instead", name)
	}
	if nic, err := policy.NetworkInterface(name); err == nil {
		return topology.Spec{Kind: topology.NetworkInterface, Reference: nic.ID}, nil
	}
	if subnet, err := policy.Subnet(name); err == nil {
		return topology.Spec{Kind: topology.Subnet, Reference: subnet.ID}, nil
	}
	return topology.Spec{}, fmt.Errorf("interface %q is %w; attachments are network interfaces, subnets, internet and platform", name, ErrNoAttachment)
}

// File carries a capture's packets. When the capture can be read only in part, what was
// read counts, and the summary and the error say so. When ctx is done it stops between
// two packets with ctx's cause.
func (r *Replay) File(ctx context.Context, name string, in io.Reader) error {
	r.seen.files = append(r.seen.files, File{File: name})
	r.file = &r.seen.files[len(r.seen.files)-1]
	err := r.read(ctx, in)
	if err != nil {
		r.file.Error = err.Error()
		err = fmt.Errorf("%s: %w", name, err)
	}
	return err
}

func (r *Replay) read(ctx context.Context, in io.Reader) error {
	stream, err := pcap.NewStream(ctx, in)
	if err != nil {
		return err
	}
	defer stream.Close()
	if isFlowLog(stream) {
		return r.readFlowLog(ctx, stream)
	}
	reader, err := stream.Capture()
	if err != nil {
		return err
	}
	if r.carrier == nil {
		if err := r.attachInterfaces(reader.Interfaces()); err != nil {
			return err
		}
	}
	var p pcap.Packet
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if r.o.Idle != nil && reader.Waits() {
			if err := r.o.Idle(); err != nil {
				return err
			}
		}
		switch err := reader.Next(&p); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && r.file.Packets > 0:
			return fmt.Errorf("after packet %d: %w", r.file.Packets, err)
		case err != nil:
			return err
		}
		r.file.Packets++
		r.file.Bytes += uint64(p.Length)
		if err := r.packet(&p); err != nil {
			return fmt.Errorf("packet %d: %w", p.Number, err)
		}
	}
}

// packet judges one packet of a capture.
func (r *Replay) packet(p *pcap.Packet) error {
	r.clock(p)
	from, frame, skip, err := r.frameOf(p)
	if err != nil {
		return err
	}
	if skip != NotSkipped {
		r.seen.skipped[skip]++
	} else {
		var before []byte
		if r.rival != nil { // translation changes the frame
			before = r.rival.frame[:copy(r.rival.frame[:], frame)]
		}
		r.carrier.Carry(p.Time, from, frame, &r.carried)
		if r.rival != nil {
			r.compete(p.Time, from, before)
		}
		if r.o.Began != nil && r.carried.Began {
			if err := r.began(p.Time, from); err != nil {
				return err
			}
		}
		if c := &r.carried; c.InFlow && r.o.Top > 0 {
			r.top.offer(r.carrier, c)
		}
	}
	different := r.o.Compare && r.differs(p, skip)
	if r.o.Each == nil || r.o.OnlyDifferences && !different {
		return nil
	}
	r.show(p, from, skip)
	r.shown.Differs = different
	return r.o.Each(&r.shown)
}

// clock completes and notes a packet's time.
func (r *Replay) clock(p *pcap.Packet) {
	if p.Time.IsZero() {
		if p.Time = r.last; p.Time.IsZero() {
			p.Time = time.Unix(0, 0).UTC()
		}
		return
	}
	if r.seen.first.IsZero() {
		r.seen.first = p.Time
	}
	if p.Time.Before(r.last) {
		r.seen.back++
		return
	}
	r.last = p.Time
}

// frameOf finds the IP packet, makes a frame of it, and says which attachment it came from.
func (r *Replay) frameOf(p *pcap.Packet) (from int, frame []byte, skip Skip, err error) {
	ip, length, content := p.IP()
	if skip = skipOf(content); skip != NotSkipped {
		return -1, nil, skip, nil
	}
	if r.owners == nil {
		var known bool
		if from, known = r.byName[p.Interface]; !known {
			return -1, nil, 0, fmt.Errorf("interface %q is %w, or was not told of before the first packet", p.Interface, ErrNoAttachment)
		}
	} else if from, skip = r.sender(ip); skip != NotSkipped {
		return -1, nil, skip, nil
	}
	frame, whole := r.frameWith(ip, length)
	if !whole {
		return from, nil, SkipCut, nil
	}
	r.segment(frame, p.Comment)
	return from, frame, NotSkipped, nil
}

// sender tells by its addresses which attachment a packet comes from.
func (r *Replay) sender(ip []byte) (from int, skip Skip) {
	var src, dst packet.Addr
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		src, dst = packet.AddrFrom4([4]byte(ip[12:])), packet.AddrFrom4([4]byte(ip[16:]))
	case len(ip) >= 40 && ip[0]>>4 == 6:
		src, dst = packet.AddrFrom16([16]byte(ip[8:])), packet.AddrFrom16([16]byte(ip[24:]))
	case len(ip) > 0 && ip[0]>>4 != 4 && ip[0]>>4 != 6:
		return -1, SkipNotIP
	default:
		return -1, SkipCut
	}
	if nic, ok := r.owners[src]; ok {
		return nic, NotSkipped
	}
	if _, ok := r.owners[dst]; !ok {
		return -1, SkipOthers
	}
	for _, a := range topology.PlatformAddresses {
		if src == packet.AddrFrom(a) {
			return r.platform, NotSkipped
		}
	}
	return r.internet, NotSkipped
}
