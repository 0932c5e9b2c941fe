package template

import (
	"fmt"
	"maps"
	"strings"
)

// partLists are the lists in a resource's properties whose elements have ids of their own, by type in lower case.
var partLists = map[string][]string{
	"microsoft.network/virtualnetworks":        {"subnets", "virtualNetworkPeerings"},
	"microsoft.network/networksecuritygroups":  {"securityRules"},
	"microsoft.network/routetables":            {"routes"},
	"microsoft.network/networkinterfaces":      {"ipConfigurations"},
	"microsoft.network/azurefirewalls":         {"ipConfigurations"},
	"microsoft.network/bastionhosts":           {"ipConfigurations"},
	"microsoft.network/virtualnetworkgateways": {"ipConfigurations"},
	"microsoft.network/loadbalancers": {
		"frontendIPConfigurations", "backendAddressPools", "loadBalancingRules", "probes", "inboundNatRules", "inboundNatPools", "outboundRules",
	},
	"microsoft.network/applicationgateways": {
		"gatewayIPConfigurations", "frontendIPConfigurations", "frontendPorts", "backendAddressPools", "backendHttpSettingsCollection",
		"httpListeners", "requestRoutingRules", "urlPathMaps", "probes", "sslCertificates",
	},
}

// parts are the lists of a resource with the ids of their elements, and with the children that are resources of their
// own.
func (r *instance) parts(properties map[string]any) (map[string]any, error) {
	out := map[string]any{}
	for _, name := range partLists[strings.ToLower(r.kind)] {
		list, ok := get(properties, name).([]any)
		if !ok && get(properties, name) != nil { // an open list
			continue
		}
		if err := r.frame.made(bytesOfNode*len(list), len(list)); err != nil {
			return nil, err
		}
		var elements []any
		inline := map[string]int{}
		for i, e := range list {
			if o, ok := e.(map[string]any); ok {
				inline[strings.ToLower(text(o, "name"))] = i
				e = r.part(name, i, o)
			}
			elements = append(elements, e)
		}
		var added []*instance
		for _, child := range r.childrenOf(name) {
			i, again := inline[strings.ToLower(lastName(child.name))]
			if !again {
				added = append(added, child)
				continue
			}
			elements[i] = r.childPart(name, i, child)
		}
		for i, child := range added {
			at := len(list) + i
			if len(added) == 1 {
				elements = append(elements, r.childPart(name, at, child))
				continue
			}
			elements = append(elements, r.frame.problem(fmt.Sprintf("%s.properties.%s[%d]", r.place, name, at), "["+name+"]",
				fmt.Errorf("several resources are added to %s of %s, and only Azure knows in which order", name, clip(r.id))))
		}
		if elements != nil {
			out[name] = elements
		}
	}
	return out, nil
}

// childrenOf are the resources of the template that a list of this one has too.
func (r *instance) childrenOf(list string) []*instance {
	var found []*instance
	for _, child := range r.engine.children[strings.ToLower(r.id)] {
		if strings.EqualFold(child.kind, r.kind+"/"+list) {
			found = append(found, child)
		}
	}
	return found
}

// part is an element of a list with its id. An address that Azure chooses is open.
func (r *instance) part(list string, i int, element map[string]any) any {
	place := fmt.Sprintf("%s.properties.%s[%d]", r.place, list, i)
	out := maps.Clone(element)
	if get(element, "id") == nil {
		switch name := get(element, "name").(type) {
		case string:
			out["id"] = any(r.id + "/" + list + "/" + name)
			if r.id == "" {
				out["id"] = r.openID()
			}
		case unresolved:
			out["id"] = name
		}
	}
	properties, ok := get(element, "properties").(map[string]any)
	if !ok || list != "ipConfigurations" && list != "frontendIPConfigurations" || get(properties, "subnet") == nil {
		return out
	}
	method, _ := get(properties, "privateIPAllocationMethod").(string)
	if address := get(properties, "privateIPAddress"); strings.EqualFold(method, "Static") && address != nil && address != "" {
		return out
	}
	out["properties"] = overlay(properties, map[string]any{
		"privateIPAddress": r.frame.problem(place+".properties.privateIPAddress", "[privateIPAddress]",
			fmt.Errorf("the address of %s is dynamic: Azure chooses it; give it with --runtime", clip(lastName(r.name)))),
	})
	return out
}

// childPart is a child resource as an element of its parent's list.
func (r *instance) childPart(list string, i int, child *instance) any {
	body, _ := child.evaluated().(map[string]any)
	return r.part(list, i, map[string]any{"id": child.id, "name": lastName(child.name), "properties": get(body, "properties")})
}

// openID is the id of a resource whose name is open.
func (r *instance) openID() any {
	if u, open := r.head["name"].(unresolved); open {
		return u
	}
	return r.frame.problem(r.place+".id", "[id]", fmt.Errorf("the resource has no id, because a name or type of it is open"))
}

// derived are properties that Azure derives, by a documented rule of its public cloud, from
// a resource's name and properties.
func derived(kind, name, location string, properties map[string]any) map[string]any {
	region := strings.ToLower(strings.ReplaceAll(location, " ", ""))
	switch strings.ToLower(kind) {
	case "microsoft.storage/storageaccounts":
		endpoints := map[string]any{}
		for _, service := range []string{"blob", "queue", "table", "file", "dfs"} {
			endpoints[service] = "https://" + name + "." + service + ".core.windows.net/"
		}
		return map[string]any{"primaryEndpoints": endpoints, "primaryLocation": region}
	case "microsoft.network/publicipaddresses":
		if label := text(object(properties, "dnsSettings"), "domainNameLabel"); label != "" {
			fqdn := map[string]any{"fqdn": label + "." + region + ".cloudapp.azure.com"}
			return map[string]any{"dnsSettings": overlay(object(properties, "dnsSettings"), fqdn)}
		}
	case "microsoft.keyvault/vaults":
		return map[string]any{"vaultUri": "https://" + name + ".vault.azure.net/"}
	case "microsoft.web/sites":
		return map[string]any{"defaultHostName": name + ".azurewebsites.net"}
	}
	return nil
}
