package arm

import (
	"cmp"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Codes of Azure for requests and resources as a whole.
const (
	CodeInvalidJSON              = "InvalidJson"
	CodeInvalidRequestFormat     = "InvalidRequestFormat"
	CodeInvalidResourceType      = "InvalidResourceType"
	CodeInvalidResourceReference = "InvalidResourceReference"
	CodeParentNotFound           = "ParentResourceNotFound"
)

// Codes of ours for what only a reader of files meets.
const (
	CodePathNotFound   = "PathNotFound"
	CodeFileUnreadable = "FileUnreadable"
	// CodeInvalidServiceTags marks what is wrong with a service tag file.
	CodeInvalidServiceTags = "InvalidServiceTagFile"
	// CodeDuplicateResource: ARM would take the second as an update of the first.
	CodeDuplicateResource = "DuplicateResource"
	// CodeTemplateExpression marks what Documents.Unresolved lists.
	CodeTemplateExpression = "TemplateExpression"
	// CodeAddressNotAssigned marks a NIC in Documents.Unresolved whose private
	// address is chosen only when it is deployed.
	CodeAddressNotAssigned = "PrivateIPAddressNotAssigned"
)

// Documents is what Load read.
type Documents struct {
	// Set holds what could be read without a fault; never nil. It is fit for
	// use as a policy when both lists are empty.
	Set *policy.Set
	// Faults are all faults, in the order of the documents.
	Faults ruleset.Faults
	// Unresolved lists what the documents leave open and therefore was not
	// read, wholly or in part: it is neither valid nor invalid.
	Unresolved ruleset.Faults
	// Warnings are what Azure takes and is seldom meant, and what of public addresses and
	// load balancers is not known, so that nothing is translated by it.
	Warnings ruleset.Faults

	files  map[*ruleset.NSG]string       // where the groups of Set are from
	routes map[*policy.RouteTable]string // where the route tables are from
	order  map[string]int                // of files
}

// FaultsWithUnknownTags are Faults and UnknownTags, in the order of the documents.
func (d *Documents) FaultsWithUnknownTags() ruleset.Faults {
	faults := slices.Concat(d.Faults, d.UnknownTags())
	d.sort(faults)
	return faults
}

// sort puts faults into the order of the documents, and keeps that within a document.
func (d *Documents) sort(faults ruleset.Faults) {
	slices.SortStableFunc(faults, func(a, b ruleset.Fault) int { return cmp.Compare(d.order[a.File], d.order[b.File]) })
}

// UnknownTags are the faults of a policy that has no service tag file: rules and routes that
// name a tag other than those that need none. Load takes every well-formed name.
func (d *Documents) UnknownTags() ruleset.Faults {
	var faults ruleset.Faults
	for _, t := range d.Set.RouteTables {
		for i := range t.Routes {
			if r := &t.Routes[i]; r.Tag != "" {
				faults = append(faults, ruleset.Fault{
					Code: CodeInvalidRoutePrefix, File: d.routes[t], Resource: kindPaths[routeTableKind] + "/" + t.Name + "/" + kindPaths[routeKind] + "/" + r.Name,
					Field: "addressPrefix", Value: r.Tag, Message: "no tag of that name is known without a service tag file",
				})
			}
		}
	}
	for _, g := range d.Set.Groups() {
		code, place, fields := ruleset.CodeInvalidAddressPrefix, kindPaths[groupKind]+"/"+g.Name, [2]string{"sourceAddressPrefix", "destinationAddressPrefix"}
		if g.Admin {
			code, place, fields = ruleset.CodeAdminInvalidAddress, kindPaths[collectionKind]+"/"+g.Name, [2]string{"sources", "destinations"}
		}
		for i := range g.Rules {
			r := &g.Rules[i]
			for _, side := range namedTags(r) {
				faults = append(faults, ruleset.Fault{
					Code: code, File: d.files[g], Resource: place,
					Rule: r.Name, Field: fields[side.side], Value: side.tag,
					Message: "no tag of that name is known; known without a service tag file are " + ruleset.BuiltInTags,
				})
			}
		}
	}
	return faults
}

// namedTag is a tag of a service tag file, at a rule's source (0) or destination (1).
type namedTag struct {
	side int
	tag  string
}

// namedTags are the tags of a rule that need a service tag file.
func namedTags(r *ruleset.Rule) (tags []namedTag) {
	for i, side := range []*ruleset.Peer{&r.Source, &r.Destination} {
		side.Each(func(p *ruleset.Peer) {
			if p.Tag != "" && !ruleset.IsBuiltInTag(p.Tag) {
				tags = append(tags, namedTag{i, p.Tag})
			}
		})
	}
	return tags
}

// Load reads files, folders (every *.json below, in order of their paths; names
// that begin with a dot are passed over) and file patterns as one policy. It
// reports whatever is wrong in Documents.Faults and never fails as a whole.
func Load(paths ...string) *Documents { return NewReader("", paths...).Read() }

// Parse reads one document from memory; name stands for its file in faults.
func Parse(name string, data []byte) *Documents {
	l := newLoader()
	value, err := parseDocument(data)
	l.readValues(Deployment{})
	value, report := l.evaluate(name, value, nil)
	if report != nil {
		report()
	}
	l.document(name, value, err)
	l.gather()
	return l.finish()
}

// loader collects resources from documents, then builds a Set of them.
type loader struct {
	out       *Documents
	resources []*resource
	orphans   []*resource // children whose parent no document has
	index     index
	known     ruleset.KnownTags
	stale     bool // a resource that was built before is not what it was

	addresses    map[usedAddress]string // the ipConfiguration that has it
	addressCount map[*policy.VirtualNetwork]int
	inRegion     map[region]int
	peerings     map[*policy.VirtualNetwork][]*fields // where its Peerings stand
	publicUsers  map[*policy.PublicIPAddress]string   // the place that has it
	holders      map[netip.Addr]*policy.PublicIPAddress
	// What translating resources say of others, until those are there.
	publicClaims  []publicClaim
	gatewayClaims []gatewayClaim
	memberClaims  []memberClaim
	balancers     []*balancer
	owners        map[*policy.IPConfiguration]*policy.NetworkInterface

	values  *values
	reasons map[string]map[string]string // why expressions stay open, by file and text
}

func newLoader() *loader {
	return &loader{
		out:   &Documents{Set: &policy.Set{}, files: map[*ruleset.NSG]string{}, routes: map[*policy.RouteTable]string{}, order: map[string]int{}},
		index: newIndex(), addresses: map[usedAddress]string{}, addressCount: map[*policy.VirtualNetwork]int{}, inRegion: map[region]int{},
		peerings: map[*policy.VirtualNetwork][]*fields{}, owners: map[*policy.IPConfiguration]*policy.NetworkInterface{}, publicUsers: map[*policy.PublicIPAddress]string{}, holders: map[netip.Addr]*policy.PublicIPAddress{}, values: &values{}, reasons: map[string]map[string]string{},
	}
}

// gather relates children to parents, and builds what rules refer to.
func (l *loader) gather() {
	l.adopt()
	l.buildASGs()
}

// finish turns the other resources into a Set: first what others refer to.
func (l *loader) finish() *Documents {
	l.buildGroups()
	l.buildRouteTables()
	l.buildPublicAddresses()
	l.buildNATGateways()
	l.buildNetworks()
	l.relatePeerings()
	l.buildAdmin()
	l.buildInterfaces()
	l.relateGateways()
	l.buildLoadBalancers()
	l.relatePublicAddresses()
	l.checkMembers()
	l.out.Warnings = append(l.out.Warnings, l.lint()...)
	l.out.sort(l.out.Faults)
	l.out.sort(l.out.Unresolved)
	l.out.sort(l.out.Warnings)
	return l.out
}

func (l *loader) fault(f ruleset.Fault) { l.out.Faults = append(l.out.Faults, f) }

// note lists what is left open and no packet needs to be judged: a policy with it is fit for use.
func (l *loader) note(f ruleset.Fault) { l.out.Warnings = append(l.out.Warnings, f) }

func (l *loader) unresolved(f ruleset.Fault) { l.out.Unresolved = append(l.out.Unresolved, f) }

// fileFault drops the path from the message of a *fs.PathError: the fault has it.
func (l *loader) fileFault(code, file string, err error) {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	l.fault(ruleset.Fault{Code: code, File: file, Message: err.Error()})
}

// files lists the documents of paths, each once.
func (l *loader) files(paths []string) []string {
	var files []string
	seen := map[string]bool{}
	add := func(file string) {
		key := file
		if absolute, err := filepath.Abs(file); err == nil {
			key = absolute
		}
		if !seen[key] {
			seen[key] = true
			files = append(files, file)
		}
	}
	for _, path := range paths {
		for _, match := range l.expand(path) {
			info, err := os.Stat(match)
			switch {
			case err != nil:
				l.fileFault(CodePathNotFound, match, err)
			case info.IsDir():
				l.folder(match, add)
			case !info.Mode().IsRegular():
				// A pipe or device would make the reader wait for ever.
				l.fileFault(CodeFileUnreadable, match, errors.New("neither a regular file nor a folder"))
			default:
				add(match)
			}
		}
	}
	return files
}

// expand resolves a pattern. What exists under the very name is never taken for one.
func (l *loader) expand(path string) []string {
	if _, err := os.Stat(path); err == nil || !strings.ContainsAny(path, "*?[") {
		return []string{path}
	}
	matches, err := filepath.Glob(path)
	if err == nil && len(matches) == 0 {
		err = errors.New("the pattern matches no file")
	}
	if err != nil {
		l.fileFault(CodePathNotFound, path, err)
	}
	return matches
}

// folder adds the documents below root. Symbolic links to files are followed,
// since a mounted ConfigMap consists of them; those to folders are not, and
// neither are dot folders, where a ConfigMap keeps the same files again.
func (l *loader) folder(root string, add func(file string)) {
	var found []string
	// The separator makes a root that is a symbolic link a folder.
	root = strings.TrimSuffix(root, "/") + "/"
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			l.fileFault(CodeFileUnreadable, path, err)
			return nil
		case path != root && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir() || !strings.EqualFold(filepath.Ext(path), ".json"):
			return nil
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			l.fileFault(CodeFileUnreadable, path, err)
		case info.Mode().IsRegular():
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		l.fileFault(CodeFileUnreadable, root, err)
	}
	if len(found) == 0 {
		l.fileFault(CodePathNotFound, root, errors.New("the folder has no *.json file"))
	}
	slices.Sort(found)
	for _, file := range found {
		add(file)
	}
}
