package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/nsgd/nsgd/dataplane/packet/packettest"
)

var captured = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// writeCaptures writes the captures that scripts replay.
func writeCaptures(dir string) error {
	const vm1, client = "10.0.1.4", "203.0.113.10"
	tcp := func(src, dst string, from, to uint16, flags string, payload int) []byte {
		return packettest.TCP(packettest.Spec{Src: src, Dst: dst, SrcPort: from, DstPort: to, Flags: flags, Payload: payload})
	}
	packets := [][]byte{
		tcp(client, vm1, 4000, 80, "S", 0), tcp(vm1, client, 80, 4000, "SA", 0), tcp(client, vm1, 4000, 80, "A", 100),
		tcp(client, vm1, 4001, 22, "S", 0),
		packettest.UDP(packettest.Spec{Src: "10.0.1.5", Dst: "10.0.2.4", SrcPort: 1, DstPort: 2}),
	}
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		return err
	}
	for i, ip := range packets {
		frame := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00"), ip...)
		info := gopacket.CaptureInfo{Timestamp: captured.Add(time.Duration(i) * time.Second), CaptureLength: len(frame), Length: len(frame)}
		if err := w.WritePacket(info, frame); err != nil {
			return err
		}
	}
	recorded := pcapng([]string{"vm1-nic", "internet"},
		comment{1, packets[0], `verdict=Allow nsg=NSG2 rule=securityRules/AllowHttpInBound`},
		comment{0, packets[1], `verdict=Allow nsg=NSG2 rule=securityRules/AllowHttpInBound`},
		comment{1, packets[3], `verdict=Allow nsg=NSG1 rule=securityRules/AllowSshInBound`})
	for name, b := range map[string][]byte{"web.pcap": file.Bytes(), "cut.pcap": file.Bytes()[:file.Len()-3], "recorded.pcapng": recorded} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// comment is a packet with its comment.
type comment struct {
	id   uint32
	ip   []byte
	text string
}

// pcapng is a capture of raw IP, as nsgctl capture makes them.
func pcapng(interfaces []string, packets ...comment) (file []byte) {
	order := binary.LittleEndian
	block := func(kind uint32, body []byte) {
		length := uint32(len(body) + 12)
		file = order.AppendUint32(order.AppendUint32(file, kind), length)
		file = order.AppendUint32(append(file, body...), length)
	}
	option := func(body []byte, code uint16, value string) []byte {
		body = order.AppendUint16(order.AppendUint16(body, code), uint16(len(value)))
		return pad(append(body, value...))
	}
	block(0x0a0d0d0a, append([]byte{0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0}, bytes.Repeat([]byte{0xff}, 8)...))
	for _, name := range interfaces {
		block(1, option([]byte{101, 0, 0, 0, 0, 0, 0, 0}, 2, name))
	}
	for _, p := range packets {
		stamp := uint64(captured.UnixMicro())
		body := order.AppendUint32(order.AppendUint32(order.AppendUint32(nil, p.id), uint32(stamp>>32)), uint32(stamp))
		body = order.AppendUint32(order.AppendUint32(body, uint32(len(p.ip))), uint32(len(p.ip)))
		block(6, option(pad(append(body, p.ip...)), 1, p.text))
	}
	return file
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// A capture shows what others send, and root may write it into a folder of everybody.
func TestHostile18LockSymlink(t *testing.T) {
	dir := t.TempDir()
	victim, name := filepath.Join(dir, "victim"), filepath.Join(dir, "capture.pcapng")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		out := &lateFile{name: name, begun: func() {}}
		_, err := out.Write([]byte("packets"))
		return errors.Join(err, out.close())
	}
	if err := os.Symlink(victim, name); err != nil {
		t.Fatal(err)
	}
	if err := write(); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("through a symbolic link: %v", err)
	}
	for _, before := range []string{"nothing", "another name of a file", "a file that everybody may read"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		switch before {
		case "another name of a file":
			if err := os.Link(victim, name); err != nil {
				t.Fatal(err)
			}
		case "a file that everybody may read":
			if err := os.WriteFile(name, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if err := write(); err != nil {
			t.Errorf("%s: %v", before, err)
		}
		info, err := os.Lstat(name)
		if err != nil || info.Mode() != 0o600 || info.Size() != int64(len("packets")) {
			t.Errorf("%s: %v, %v", before, info, err)
		}
	}
	if text, err := os.ReadFile(victim); string(text) != "precious" || err != nil {
		t.Errorf("the victim: %q, %v", text, err)
	}
	if list, err := os.ReadDir(dir); len(list) != 2 || err != nil {
		t.Errorf("left in the folder: %v, %v", list, err)
	}
}

// These names are links, but to what the process has open already.
func TestACaptureGoesToADescriptorOfTheProcess(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, folder := range []string{"/dev/fd/", "/proc/self/fd/"} {
		out := &lateFile{name: fmt.Sprintf("%s%d", folder, w.Fd()), begun: func() {}}
		if _, err := out.Write([]byte("packets")); err != nil {
			t.Fatal(err)
		}
		if err := out.close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil { // the process' own is open still
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); string(text) != "packetspackets" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	for name, want := range map[string]int{"/dev/stdout": 1, "/dev/stderr": 2, "/dev/fd/63": 63, "/proc/self/fd/1": 1,
		"/dev/fd/": -1, "/dev/fd/-1": -1, "/dev/fd/1/x": -1, "/dev/fd/../x": -1, "/dev/fd/4294967296": -1, "/dev/null": -1} {
		if fd, ok := ownDescriptor(name); ok != (want >= 0) || ok && fd != want {
			t.Errorf("%s: %d, %t", name, fd, ok)
		}
	}
	if _, err := createCapture("/dev/fd/1023"); err == nil || !strings.Contains(err.Error(), "/dev/fd/1023") {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}
