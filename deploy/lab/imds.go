package lab

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nsgd/nsgd/ruleset/policy"
)

// instance is IMDS's answer about a virtual machine, in Azure's spelling. It has only what a
// policy knows.
type instance struct {
	Compute struct {
		AzEnvironment     string `json:"azEnvironment"`
		Name              string `json:"name"`
		ResourceGroupName string `json:"resourceGroupName"`
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
}

type instanceSubnet struct {
	Address string `json:"address"`
	Prefix  string `json:"prefix"`
}

// ServeHTTP answers as Azure's instance metadata service: GET /metadata/instance with an
// api-version and the header Metadata: true. Requests that a program merely forwards lack the header.
func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.TrimSuffix(r.URL.Path, "/") != "/metadata/instance":
		refuse(w, http.StatusNotFound, "Not found")
	case r.Method != http.MethodGet:
		refuse(w, http.StatusMethodNotAllowed, "Method not allowed")
	case !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		refuse(w, http.StatusBadRequest, "Bad request. Required metadata header not specified")
	case r.Header.Get("X-Forwarded-For") != "":
		refuse(w, http.StatusBadRequest, "Bad request. A forwarded request is not answered")
	case r.URL.Query().Get("api-version") == "":
		refuse(w, http.StatusBadRequest, "Bad request. api-version was not specified in the request")
	default:
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		nic := p.owner(from.Addr().Unmap())
		if err != nil || nic == nil {
			refuse(w, http.StatusNotFound, "Not found")
			return
		}
		respond(w, http.StatusOK, describe(nic))
	}
}

func refuse(w http.ResponseWriter, status int, why string) {
	respond(w, status, map[string]string{"error": why})
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// owner returns the NIC that has an address; nil when none has.
func (p *platform) owner(a netip.Addr) *policy.NetworkInterface {
	for _, nic := range p.policy().NetworkInterfaces {
		for i := range nic.IPConfigurations {
			if nic.IPConfigurations[i].Address == a {
				return nic
			}
		}
	}
	return nil
}

func describe(nic *policy.NetworkInterface) *instance {
	i := &instance{}
	i.Compute.AzEnvironment, i.Compute.Name = "AzurePublicCloud", machineName(nic)
	// /subscriptions/S/resourceGroups/R/...
	if segments := strings.Split(nic.ID, "/"); len(segments) > 4 && strings.EqualFold(segments[1], "subscriptions") {
		i.Compute.SubscriptionID, i.Compute.ResourceGroupName = segments[2], segments[4]
	}
	n := instanceInterface{MACAddress: nic.MACAddress}
	n.IPv4.IPAddress, n.IPv6.IPAddress = []instanceAddress{}, []instanceAddress{}
	for j := range nic.IPConfigurations {
		c := &nic.IPConfigurations[j]
		family := &n.IPv4
		if c.Address.Is6() {
			family = &n.IPv6
		}
		family.IPAddress = append(family.IPAddress, instanceAddress{c.Address.String()})
		for _, prefix := range c.Subnet.Prefixes {
			if prefix.Contains(c.Address) && c.Address.Is4() { // Azure shows no subnets for IPv6
				family.Subnet = append(family.Subnet, instanceSubnet{prefix.Addr().String(), strconv.Itoa(prefix.Bits())})
			}
		}
	}
	i.Network.Interface = []instanceInterface{n}
	return i
}
