package arm

import (
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Our own codes for flow logs.
const (
	CodeInvalidFlowLog = "FlowLogInvalid"
	// CodeFlowLogNotRead is in Documents.Warnings.
	CodeFlowLogNotRead = "FlowLogNotRead"
)

// buildFlowLog reads a network watcher's flow log. It decides no verdict, so that what is open or missing
// is a warning. A log that is not enabled is checked and left out.
func (l *loader) buildFlowLog(r *resource) {
	if r.parent == nil { // adopt has reported it
		return
	}
	f := l.read(r.file, r.place(), "", r.body)
	const field, form = "targetResourceId", "format"
	format, _ := lookup(f.values, form).(map[string]any)
	if v := lookup(format, "version"); v != nil && !isExpression(asText(v)) && asText(v) != "1" && asText(v) != "2" {
		f.fault(CodeInvalidFlowLog, form, asText(v), "allowed are the versions 1 and 2")
	}
	target, enabled, condition := textOf(f.values, field), asText(lookup(f.values, "enabled")), textOf(r.body, "condition")
	for _, text := range []string{r.name, target, enabled, condition} {
		if isExpression(text) {
			l.warn(f.newFault(CodeFlowLogNotRead, field, target, l.reason(r.file, text)+": the flow log was not read"))
			return
		}
	}
	log := &policy.FlowLog{Name: r.name, ID: r.identity()}
	k := kindOfID(target)
	e, problem := l.index.resolve(k, target, r.file)
	switch {
	case k != groupKind && k != networkKind && k != subnetKind && k != interfaceKind:
		f.fault(CodeInvalidFlowLog, field, target, "allowed is the id of a virtual network, a subnet, a network interface or a network security group")
		return
	case e == nil:
		l.warn(f.newFault(CodeFlowLogNotRead, field, target, problem+": the flow log was not read"))
		return
	}
	switch object := e.object.(type) {
	case nil: // why it was not read is told
		return
	case *ruleset.NSG:
		log.NetworkSecurityGroup = object
	case *policy.VirtualNetwork:
		log.VirtualNetwork = object
	case *policy.Subnet:
		log.Subnet = object
	case *policy.NetworkInterface:
		log.NetworkInterface = object
	}
	if !strings.EqualFold(enabled, "false") {
		l.out.Set.FlowLogs = append(l.out.Set.FlowLogs, log)
	}
}
