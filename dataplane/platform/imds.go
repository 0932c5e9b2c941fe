package platform

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// instance is IMDS's answer about a virtual machine, in Azure's spelling. It has only what a
// policy knows.
type instance struct {
	Compute struct {
		AzEnvironment     string `json:"azEnvironment"`
		Name              string `json:"name"`
		ResourceGroupName string `json:"resourceGroupName"`
		ResourceID        string `json:"resourceId,omitempty"`
		SubscriptionID    string `json:"subscriptionId"`
	} `json:"compute"`
	Network struct {
		Interface []instanceInterface `json:"interface"`
	} `json:"network"`
}

type instanceInterface struct {
	IPv4       instanceFamily `json:"ipv4"`
	IPv6       instanceFamily `json:"ipv6"`
	MACAddress string         `json:"macAddress"`
}

type instanceFamily struct {
	IPAddress []instanceAddress `json:"ipAddress"`
	Subnet    []instanceSubnet  `json:"subnet,omitempty"`
}

type instanceAddress struct {
	PrivateIPAddress string `json:"privateIpAddress"`
	PublicIPAddress  string `json:"publicIpAddress"` // empty: none of its own
}

type instanceSubnet struct {
	Address string `json:"address"`
	Prefix  string `json:"prefix"`
}

// metadata answers as Azure's instance metadata service: GET of /metadata/instance or of a part of it, with an api-version
// and the header Metadata: true. Requests that a program merely forwards lack the header.
func (s *services) metadata(w http.ResponseWriter, r *http.Request) {
	path, found := strings.CutPrefix(strings.ToLower(strings.Trim(r.URL.Path, "/"))+"/", "metadata/instance/")
	version, format := r.URL.Query().Get("api-version"), r.URL.Query().Get("format")
	_, dated := time.Parse(time.DateOnly, version)
	switch {
	case !found:
		refuse(w, http.StatusNotFound, "Not found")
	case r.Method != http.MethodGet:
		refuse(w, http.StatusMethodNotAllowed, "Method not allowed")
	case !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		refuse(w, http.StatusBadRequest, "Bad request. Required metadata header not specified")
	case len(r.Header.Values("X-Forwarded-For")) > 0:
		refuse(w, http.StatusBadRequest, "Bad request. A forwarded request is not answered")
	case dated != nil:
		refuse(w, http.StatusBadRequest, "Bad request. api-version was not specified in the request as YYYY-MM-DD")
	default:
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		d := s.directory()
		nic := d.byAddress[from.Addr().Unmap()]
		if err != nil || nic == nil {
			refuse(w, http.StatusNotFound, "Not found")
			return
		}
		show(w, d.describe(nic, s.options.MAC), strings.TrimSuffix(path, "/"), format)
	}
}

// show answers with the part of an instance at a path. As in Azure a single value is text, and asks for it.
func show(w http.ResponseWriter, i *instance, path, format string) {
	text, err := json.Marshal(i)
	var part any
	if err == nil {
		err = json.Unmarshal(text, &part)
	}
	for name := range strings.SplitSeq(path, "/") {
		if path != "" {
			part = member(part, name)
		}
	}
	value, leaf := part.(string)
	switch {
	case err != nil:
		refuse(w, http.StatusInternalServerError, "Internal server error")
	case part == nil:
		refuse(w, http.StatusNotFound, "Not found")
	case leaf && format == "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, value)
	case leaf || format != "" && format != "json":
		refuse(w, http.StatusBadRequest, "Bad request. Single values have format=text, everything else format=json")
	default:
		respond(w, http.StatusOK, part)
	}
}

// member is a member of an object by its name in lower case, or an element of a list; nil: there is none.
func member(part any, name string) any {
	switch part := part.(type) {
	case map[string]any:
		for key, value := range part {
			if strings.EqualFold(key, name) {
				return value
			}
		}
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(part) {
			return part[i]
		}
	}
	return nil
}

func refuse(w http.ResponseWriter, status int, why string) {
	respond(w, status, map[string]string{"error": why})
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// describe is the machine of a NIC, with the asking NIC first. mac is Options.MAC.
func (d *directory) describe(nic *policy.NetworkInterface, mac func(*policy.NetworkInterface) net.HardwareAddr) *instance {
	i := &instance{}
	i.Compute.AzEnvironment, i.Compute.Name = "AzurePublicCloud", machineName(nic)
	id := nic.ID
	if nic.VirtualMachineID != "" {
		id, i.Compute.ResourceID = nic.VirtualMachineID, nic.VirtualMachineID
	}
	// /subscriptions/S/resourceGroups/R/...
	if segments := strings.Split(id, "/"); len(segments) > 4 && strings.EqualFold(segments[1], "subscriptions") {
		i.Compute.SubscriptionID, i.Compute.ResourceGroupName = segments[2], segments[4]
	}
	i.Network.Interface = []instanceInterface{describeInterface(nic, mac)}
	for _, other := range d.byName[strings.ToLower(machineName(nic))] {
		same := other != nic && other.VirtualMachineID != "" && strings.EqualFold(other.VirtualMachineID, nic.VirtualMachineID)
		if same && len(i.Network.Interface) < maxAnswers {
			i.Network.Interface = append(i.Network.Interface, describeInterface(other, mac))
		}
	}
	return i
}

func describeInterface(nic *policy.NetworkInterface, mac func(*policy.NetworkInterface) net.HardwareAddr) instanceInterface {
	written := nic.MACAddress
	if written == "" && mac != nil {
		written = mac(nic).String()
	}
	n := instanceInterface{MACAddress: strings.ToUpper(strings.NewReplacer("-", "", ":", "", ".", "").Replace(written))}
	n.IPv4.IPAddress, n.IPv6.IPAddress = []instanceAddress{}, []instanceAddress{}
	for j := range nic.IPConfigurations {
		c := &nic.IPConfigurations[j]
		family := &n.IPv4
		if c.Address.Is6() {
			family = &n.IPv6
		}
		address := instanceAddress{PrivateIPAddress: c.Address.String()}
		if public := c.PublicIPAddress; public != nil && public.Address.IsValid() {
			address.PublicIPAddress = public.Address.String()
		}
		family.IPAddress = append(family.IPAddress, address)
		for _, prefix := range c.Subnet.Prefixes {
			subnet := instanceSubnet{prefix.Addr().String(), strconv.Itoa(prefix.Bits())}
			// Azure shows no subnets for IPv6.
			if prefix.Contains(c.Address) && c.Address.Is4() && !slices.Contains(family.Subnet, subnet) {
				family.Subnet = append(family.Subnet, subnet)
			}
		}
	}
	return n
}
