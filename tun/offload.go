package tun

import "fmt"

// Offload is how much work the kernel leaves to the far end of a TUN device. All devices of one
// daemon use the same level: a superpacket from one can then be written to any.
type Offload int

const (
	// Auto asks for the most that the kernel has. Open never returns it.
	Auto Offload = iota
	// Off is the plain backend: no virtio-net header, wire packets only.
	Off
	// TSO leaves checksums and TCP segmentation undone.
	TSO
	// USO is TSO and the same for UDP (kernel 6.2).
	USO
)

// ParseOffload reads the configuration's word for a level: auto, tso or off.
func ParseOffload(s string) (Offload, error) {
	switch s {
	case "auto", "":
		return Auto, nil
	case "tso":
		return TSO, nil
	case "off":
		return Off, nil
	}
	return Auto, fmt.Errorf("tun: offload %q: must be auto, tso or off", s)
}

// String is the level's name; for the configurable ones what ParseOffload reads.
func (o Offload) String() string {
	switch o {
	case Auto:
		return "auto"
	case Off:
		return "off"
	case TSO:
		return "tso"
	case USO:
		return "tso+uso"
	}
	return fmt.Sprintf("Offload(%d)", int(o))
}

// ladder lists the levels that Open tries, best first.
func (o Offload) ladder() []Offload {
	switch o {
	case Off:
		return []Offload{Off}
	case TSO:
		return []Offload{TSO, Off}
	}
	return []Offload{USO, TSO, Off}
}
