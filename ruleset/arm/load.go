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

// Azure's codes for requests and resources as a whole.
const (
	CodeInvalidJSON              = "InvalidJson"
	CodeInvalidRequestFormat     = "InvalidRequestFormat"
	CodeInvalidResourceType      = "InvalidResourceType"
	CodeInvalidResourceReference = "InvalidResourceReference"
	CodeParentNotFound           = "ParentResourceNotFound"
)

// Our own codes for faults that only a reader of files meets.
const (
	CodePathNotFound   = "PathNotFound"
	CodeFileUnreadable = "FileUnreadable"
	// CodeInvalidServiceTags is for faults of a service tag file.
	CodeInvalidServiceTags = "InvalidServiceTagFile"
	// CodeDuplicateResource is for resources that are given again and contradict each other.
	CodeDuplicateResource = "DuplicateResource"
	// CodeByNameAlone is in Documents.Warnings: a reference may mean another resource of the name.
	CodeByNameAlone = "ReferenceByNameAlone"
	// CodeTemplateExpression is for entries of Documents.Unresolved.
	CodeTemplateExpression = "TemplateExpression"
	// CodeAddressNotAssigned is in Documents.Warnings: Azure assigns the private addresses of a
	// subnet only when it deploys, and they are chosen here.
	CodeAddressNotAssigned = "PrivateIPAddressNotAssigned"
)

// Documents is the result of reading a policy.
type Documents struct {
	// Set holds the resources that have no fault; never nil. It is fit for use as a policy
	// only when Faults and Unresolved are empty.
	Set *policy.Set
	// Faults are all faults, in the order of the documents.
	Faults ruleset.Faults
	// Unresolved lists resources that were not read, or not wholly, because the documents do
	// not give a value. They are neither valid nor invalid.
	Unresolved ruleset.Faults
	// Warnings lists what Azure accepts but seldom anybody means, and the public addresses,
	// NAT gateways and load balancers that translate nothing because a value is not known.
	Warnings ruleset.Faults

	places places
	files  map[*ruleset.NSG]string              // the files of Set's groups
	bodies map[*ruleset.NSG]map[string]ruleBody // of their rules, by name in lower case
	// objects are where other resources of Set were read.
	objects map[any]ruleBody
	// unchanged are the files whose groups a Reader has from before, and again what RulePosition reads of them.
	unchanged map[string]digest
	again     map[string]*Documents
	routes    map[*policy.RouteTable]string // the files of its route tables
	order     map[string]int                // the position of each file
}

// FaultsWithUnknownTags are Faults and UnknownTags, in the order of the documents.
func (d *Documents) FaultsWithUnknownTags() ruleset.Faults {
	faults := slices.Concat(d.Faults, d.UnknownTags())
	d.sort(faults)
	return faults
}

// sort puts faults into the order of the documents. Faults of one document keep their order.
func (d *Documents) sort(faults ruleset.Faults) {
	slices.SortStableFunc(faults, func(a, b ruleset.Fault) int { return cmp.Compare(d.order[a.File], d.order[b.File]) })
}

// tagFileNeeded says what gives the addresses of a tag.
const tagFileNeeded = "Microsoft's service tag file has it, with --service-tags or as serviceTags of nsgd.yaml"

// UnknownTags are the faults of a policy without a service tag file: rules and routes that
// name a tag of such a file. Load itself accepts every name that looks like a tag.
func (d *Documents) UnknownTags() ruleset.Faults {
	var faults ruleset.Faults
	for _, t := range d.Set.RouteTables {
		for i := range t.Routes {
			if r := &t.Routes[i]; r.Tag != "" {
				faults = append(faults, ruleset.Fault{
					Code: CodeInvalidRoutePrefix, File: d.routes[t], Resource: kindPaths[routeTableKind] + "/" + t.Name + "/" + kindPaths[routeKind] + "/" + r.Name,
					Field: "addressPrefix", Value: r.Tag, Message: "no tag of that name is known; " + tagFileNeeded,
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
				file, line, column := d.RulePosition(g, r.Name, fields[side.side])
				faults = append(faults, ruleset.Fault{
					Code: code, File: file, Line: line, Column: column, Resource: place,
					Rule: r.Name, Field: fields[side.side], Value: side.tag,
					Message: "no tag of that name is known; " + tagFileNeeded + "; known without it are " + ruleset.BuiltInTags,
				})
			}
		}
	}
	return faults
}

// KeepUnknownTags gives Set the tags of UnknownTags, as tags of no address.
func (d *Documents) KeepUnknownTags() {
	empty := map[string][]netip.Prefix{}
	for _, t := range d.Set.RouteTables {
		for i := range t.Routes {
			if tag := t.Routes[i].Tag; tag != "" {
				empty[tag] = nil
			}
		}
	}
	for _, g := range d.Set.Groups() {
		for i := range g.Rules {
			for _, named := range namedTags(&g.Rules[i]) {
				empty[named.tag] = nil
			}
		}
	}
	d.Set.ServiceTags = empty
}

// namedTag is a tag of a service tag file that a rule names as source (0) or destination (1).
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

// Load reads files, folders and file patterns as one policy. Of a folder it reads every
// *.json below, in the order of their paths, except names that begin with a dot. It
// reports all faults in Documents.Faults and never fails as a whole.
func Load(paths ...string) *Documents { return NewReader("", paths...).Read() }

// Parse reads one document from memory. Faults name it as if name were its file.
func Parse(name string, data []byte) *Documents {
	l := newLoader()
	document, err := parseDocument(data)
	l.readValues(Deployment{})
	value, report := l.evaluate(name, document, nil)
	if report != nil {
		report()
	}
	l.document(name, value, err)
	l.run(gathering)
	return l.finish()
}

// fileFault drops the path from the message of a *fs.PathError, since the fault has it.
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
				// Reading a pipe or device could last for ever.
				l.fileFault(CodeFileUnreadable, match, errors.New("neither a regular file nor a folder"))
			default:
				l.named[match] = match == path
				add(match)
			}
		}
	}
	return files
}

// expand resolves a pattern. The name of an existing file is never a pattern.
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

// folder adds the documents below root. It follows symbolic links to files, since a
// mounted ConfigMap consists of them, but not to folders. It passes over dot folders:
// a ConfigMap keeps the same files there again.
func (l *loader) folder(root string, add func(file string)) {
	var found []string
	bicep := ""
	// With the separator, a root that is a symbolic link is walked as a folder.
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
		case entry.IsDir():
			return nil
		case !strings.EqualFold(filepath.Ext(path), ".json"):
			if strings.EqualFold(filepath.Ext(path), ".bicep") {
				bicep = path
			}
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
		l.fileFault(CodePathNotFound, root, errors.New(notJSON(&ruleset.Fault{File: bicep, Message: "the folder has no *.json file"})))
	}
	slices.Sort(found)
	for _, file := range found {
		l.folders[file] = root
		add(file)
	}
}
