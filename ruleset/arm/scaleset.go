package arm

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Our own codes for scale sets.
const (
	CodeInvalidCapacity = "VirtualMachineScaleSetInvalidCapacity"
	// CodeNoCapacity is in Documents.Warnings.
	CodeNoCapacity = "VirtualMachineScaleSetWithoutCapacity"
)

// maxInstances is Azure's limit of a scale set.
const maxInstances = 1000

// expandScaleSets makes the network interfaces of the instances of scale sets, as many as the capacity
// says, behind each scale set. It leaves out the sets that have interfaces in the documents.
func (l *loader) expandScaleSets() {
	united := newIndex()
	l.enterParents(&united, func(r *resource) bool { return r.kind == scaleSetKind })
	var all []*resource
	for _, r := range l.resources {
		if r.replaced != nil {
			continue
		}
		all = append(all, r)
		if r.kind == scaleSetKind && !l.listsInstances(r) {
			all = append(all, l.instances(r)...)
		}
	}
	l.resources = all
}

// listsInstances reports whether the documents have network interfaces of a scale set's instances.
func (l *loader) listsInstances(set *resource) bool {
	at := &entry{scope: set.scope(), file: set.file}
	return slices.ContainsFunc(l.resources, func(r *resource) bool {
		switch {
		case r.kind != interfaceKind:
			return false
		case r.parent != nil:
			of := r.parent.parent
			return of != nil && strings.EqualFold(of.name, set.name) && at.near(of.scope(), r.file) != apart
		}
		// A machine of a flexible set has the name of the set, a low line and eight characters.
		machine, _ := propertyOf(r.body, "virtualMachine").(map[string]any)
		id := textOf(machine, "id")
		of, unique, found := cutInstance(lastSegment(id))
		return found && len(unique) == 8 && strings.EqualFold(of, set.name) && at.near(scopeOf(id), r.file) != apart
	})
}

// cutInstance splits the name of a scale set's virtual machine.
func cutInstance(machine string) (set, instance string, found bool) {
	i := strings.LastIndexByte(machine, '_')
	if i < 0 {
		return "", "", false
	}
	return machine[:i], machine[i+1:], true
}

// instances are the network interfaces of a scale set's instances, and their public addresses. The
// instances are numbered from 0 on.
func (l *loader) instances(set *resource) (list []*resource) {
	f := l.read(set.file, set.place(), "", set.body)
	if !f.named(set) {
		return nil
	}
	f.markCondition(set)
	profile := f.inside("virtualMachineProfile").inside("networkProfile")
	configurations := profile.objects("networkInterfaceConfigurations")
	if len(configurations) == 0 && len(f.open) == 0 { // flexible sets may have machines that are made one by one
		return nil
	}
	sku := (&fields{l: l, file: f.file, place: f.place, values: set.body, open: f.open}).inside("sku")
	const field = "capacity"
	count, text := 0, sku.text(field)
	switch {
	case text != "":
		count = sku.number(field, text, CodeInvalidCapacity, 0, maxInstances, "instances")
	case len(f.open) == 0:
		l.warn(f.newFault(CodeNoCapacity, field, "", "sku has no capacity: the scale set is read as one without instances"))
	}
	if len(f.open) > 0 || sku.cause != nil {
		return nil
	}
	first := map[string]*resource{} // of the first instance, by name
	for i := range count {
		instance := &resource{kind: instanceKind, file: set.file, name: strconv.Itoa(i), parent: set, given: set.given}
		for _, body := range configurations {
			for _, r := range instance.interfaces(body) {
				r.like = first[r.name]
				if i == 0 {
					first[r.name] = r
				}
				list = append(list, r)
			}
		}
	}
	return list
}

// collectMachine makes the network interfaces that a virtual machine configures itself, and their public addresses.
// Azure's answers list the made ones instead.
func (l *loader) collectMachine(file string, body map[string]any) {
	var value any = body
	for _, field := range []string{"properties", "networkProfile", "networkInterfaceConfigurations"} {
		o, _ := value.(map[string]any)
		value = lookup(o, field)
		if text, ok := value.(string); ok && isExpression(text) {
			l.listOther(file, body, field, text, "network interfaces that the machine configures were not read")
		}
	}
	configurations, _ := value.([]any)
	machine := newResource(machineKind, file, body, nil)
	if step := l.steps[file]; step != nil {
		machine.step = step(body)
	}
	for _, v := range configurations {
		configuration, ok := v.(map[string]any)
		if !ok {
			l.listOther(file, body, "networkInterfaceConfigurations", asText(v), "the network interface of the machine was not read")
			continue
		}
		for _, field := range []string{"condition", "copy", "location"} {
			if v := lookup(body, field); v != nil {
				configuration = withField(configuration, field, v)
			}
		}
		l.resources = append(l.resources, machine.interfaces(configuration)...)
	}
}

// interfaces are the network interface that an instance of a scale set, or a machine, has by a configuration, and its
// public addresses.
func (r *resource) interfaces(configuration map[string]any) (list []*resource) {
	body := withProperty(configuration, "virtualMachine", map[string]any{"id": r.identity()})
	n := newResource(interfaceKind, r.file, body, nil)
	n.id, n.parent, n.given = "", r, r.given
	configurations, _ := propertyOf(body, kindPaths[configurationKind]).([]any)
	own := make([]any, len(configurations))
	for i, v := range configurations {
		own[i] = v
		c, _ := v.(map[string]any)
		public, _ := propertyOf(c, "publicIPAddressConfiguration").(map[string]any)
		if public == nil {
			continue
		}
		public = maps.Clone(public)
		id := n.identity() + "/" + kindPaths[configurationKind] + "/" + nameIn(c) + "/" + kindPaths[publicAddressKind] + "/" + nameIn(public)
		public["id"] = id
		own[i] = withProperty(c, "publicIPAddress", map[string]any{"id": id})
		address := newResource(publicAddressKind, r.file, public, nil)
		address.given = r.given
		list = append(list, address)
	}
	if configurations != nil {
		body = withProperty(body, kindPaths[configurationKind], own)
	}
	n.body = body
	return append(list, n)
}

// instanceOf is the instance of a scale set that has the network interface of an id; nil when it is of none.
func instanceOf(file, id string) *resource {
	segments := strings.Split(id, "/")
	n := len(segments)
	if n < 6 || !isScaleSet(segments[n-6]) || !strings.EqualFold(segments[n-4], kindPaths[instanceKind]) {
		return nil
	}
	set := &resource{kind: scaleSetKind, file: file, name: segments[n-5], id: strings.Join(segments[:n-4], "/")}
	return &resource{kind: instanceKind, file: file, name: segments[n-3], id: strings.Join(segments[:n-2], "/"), parent: set}
}

func isScaleSet(segment string) bool { return strings.EqualFold(segment, kindPaths[scaleSetKind]) }

// buildAlike builds what a further instance of a scale set has. It is as the first's, so that what is
// wrong with that was told and is wrong with all.
func (l *loader) buildAlike(r *resource, build func(*loader, *resource)) {
	first := l.index.byID[strings.ToLower(r.like.identity())]
	if first == nil || first.object == nil {
		if first != nil {
			l.registerOpen(r, first.cause)
		}
		return
	}
	warnings := len(l.out.Warnings)
	build(l, r)
	l.out.Warnings = l.out.Warnings[:warnings]
}
