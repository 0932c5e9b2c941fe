package arm

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm/jsonc"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// Reader reads a policy's files. When it reads them again, it does not parse an unchanged
// service tag file, nor unchanged documents, other than templates, that hold only network security groups; these it does
// not even read if their times say that they are unchanged, on file systems whose times can't be chosen. The
// result equals that of a new Reader, except that the groups of such documents are the
// same *ruleset.NSG as before. A Reader is not safe for concurrent use.
type Reader struct {
	paths      []string
	tagPath    string
	deployment Deployment
	made       time.Time
	open       func(file string) ([]byte, fs.FileInfo, error)
	now        func() time.Time
	pause      func(time.Duration) // between two tries

	tags *tagFile
	// groups are those of documents without faults, by file. They hold as long as asgs and
	// the names of tags, which rules refer to, do not change.
	groups map[string]groupFile
	asgs   []asgEntry // the application security groups
	// named are the service tags that each group of the last policy names, each once.
	named map[*ruleset.NSG][]string
	taken []string
	// last is what a Reader that follows takes over, and earlier what this one takes over at its first Read; nil: nothing.
	last, earlier *clean
}

// asgEntry is one name under which references find an application security group.
type asgEntry struct {
	name, id string
	open     bool
}

type digest = [sha256.Size]byte

// tagFile is a parsed service tag file.
type tagFile struct {
	digest digest
	*ServiceTags
}

// groupFile is a document that holds only NSGs.
type groupFile struct {
	digest digest
	info   fs.FileInfo // of the file; nil when its time may not tell of a later change
	groups []*resource
}

// NewReader makes a reader of a policy's files, folders and file patterns, and of a
// service tag file unless that name is empty.
func NewReader(serviceTags string, paths ...string) *Reader {
	return &Reader{paths: paths, tagPath: serviceTags, made: time.Now(), open: readRegular, now: time.Now, pause: time.Sleep}
}

// ServiceTags is the service tag file of the last Read; nil when there is none, or when it
// could not be read.
func (r *Reader) ServiceTags() *ServiceTags {
	if r.tags == nil {
		return nil
	}
	return r.tags.ServiceTags
}

// Taken are the files that the last Read took, sorted: those of the policy, and what they and the deployment name.
func (r *Reader) Taken() []string { return r.taken }

// Read reads the files as Load does. With a service tag file, a tag that is not in it is a
// fault. Without one, every name that looks like a tag is accepted; see
// Documents.UnknownTags.
//
// The files are read as one state: when one changes meanwhile, comes or goes, all are read again. A file that does
// so again and again is a fault.
func (r *Reader) Read() *Documents {
	for try, pause := 1, firstPause; ; try, pause = try+1, min(2*pause, lastPause) {
		s := &source{open: r.open, now: r.now, seen: map[string]seenFile{}}
		out, files := r.readOnce(s)
		file := r.unsettled(s, files)
		if file == "" {
			r.taken = s.taken()
			return out
		}
		if try == maxTries {
			r.groups, r.last = nil, nil
			out.Faults = append(out.Faults, ruleset.Fault{Code: CodeFileUnreadable, File: file,
				Message: fmt.Sprintf("it changed while the policy was read, %d times: replace files at once, or write first and reload then", maxTries)})
			return out
		}
		r.pause(pause)
	}
}

// readOnce also returns the files that it found.
func (r *Reader) readOnce(s *source) (*Documents, []string) {
	if was := r.earlier; was != nil {
		r.earlier = nil
		if out, files := r.follow(s, was); out != nil {
			return out, files
		}
	}
	l := newLoader()
	l.source = s
	if r.deployment.Runtime != "" { // what Azure shows may be of any group
		r.groups = nil
	}
	files := l.files(r.paths)
	data := r.readTags(l)
	r.readValues(l)
	documents := l.readAll(r.documents(files), r.groups)
	l.checkParameters()
	l.run(gathering)
	asgs := l.index.asgEntries()
	if len(r.groups) > 0 && !slices.Equal(asgs, r.asgs) {
		// The ids in known rules may now mean other groups.
		r.groups = nil
		return r.readOnce(s)
	}
	out := l.finish()
	if l.stale {
		r.groups = nil
		return r.readOnce(s)
	}
	r.groups, r.asgs = l.groupFiles(documents), asgs
	r.useTags(l, data)
	r.remember(l, documents)
	return out, files
}

// readValues reads the files of the deployment.
func (r *Reader) readValues(l *loader) {
	deployment := r.deployment
	if deployment.Now.IsZero() {
		deployment.Now = r.made
	}
	l.readValues(deployment)
}

// documents are the files of the policy without the tag file, which may lie among them.
func (r *Reader) documents(files []string) []string {
	tags, err := os.Stat(r.tagPath)
	if r.tagPath == "" || err != nil {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), func(file string) bool {
		info, err := os.Stat(file)
		return err == nil && os.SameFile(info, tags)
	})
}

// asgEntries lists the application security groups by the names that references may use.
func (x *index) asgEntries() []asgEntry {
	var list []asgEntry
	for name, entries := range x.byName[asgKind] {
		for _, e := range entries {
			list = append(list, asgEntry{name, e.id, e.object == nil})
		}
	}
	slices.SortFunc(list, func(a, b asgEntry) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	return list
}

// readTags reads the service tag file, and parses it if its content has changed. It
// returns the content; nil when there is no file or it has faults.
func (r *Reader) readTags(l *loader) []byte {
	if r.tagPath == "" {
		return nil
	}
	l.out.order[r.tagPath] = 0
	data, err := l.source.read(r.tagPath)
	if err != nil {
		r.tags, r.groups = nil, nil
		code := CodeFileUnreadable
		if errors.Is(err, fs.ErrNotExist) {
			code = CodePathNotFound
		}
		l.fileFault(code, r.tagPath, err)
		return nil
	}
	if d := sha256.Sum256(data); r.tags == nil || r.tags.digest != d {
		r.tags = nil
		tags, faults := ParseServiceTags(r.tagPath, data)
		l.out.Faults = append(l.out.Faults, faults...)
		if tags == nil {
			r.groups = nil
			return nil
		}
		tags.digest = d
		r.tags = &tagFile{d, tags}
		if !r.knowsNamed() {
			r.groups = nil
		}
	}
	r.tags.Written = l.source.written(r.tagPath)
	clear(r.tags.problems) // each reading has all hints to give
	l.knownTags = r.tags.Known
	return data
}

// knowsNamed reports that the tag file has the names of tags that groups have, as those have them.
func (r *Reader) knowsNamed() bool {
	for _, tags := range r.named {
		for _, tag := range tags {
			if canonical, problem := r.tags.Known(tag); problem != "" || canonical != tag {
				return false
			}
		}
	}
	return true
}

// nameTags finds the service tags that the groups of a policy name. It does not look at rules of an earlier policy again.
func (r *Reader) nameTags(set *policy.Set) {
	before := r.named
	r.named = map[*ruleset.NSG][]string{}
	for _, g := range set.Groups() {
		tags, known := before[g]
		if !known {
			seen := map[string]bool{}
			for i := range g.Rules {
				for _, named := range namedTags(&g.Rules[i]) {
					seen[named.tag] = true
				}
			}
			tags = slices.Collect(maps.Keys(seen))
		}
		r.named[g] = tags
	}
}

// useTags gives the policy the prefixes of the tags that it names, and drops all others
// from memory. Dropped prefixes that are needed again are parsed again.
func (r *Reader) useTags(l *loader, data []byte) {
	r.nameTags(l.out.Set)
	if r.tags == nil {
		return
	}
	used := map[string][]netip.Prefix{}
	for _, tags := range r.named {
		for _, tag := range tags {
			used[tag] = r.tags.Prefixes(tag)
		}
	}
	for _, t := range l.out.Set.RouteTables {
		for i := range t.Routes {
			if tag := t.Routes[i].Tag; tag != "" {
				used[tag] = r.tags.Prefixes(tag)
			}
		}
	}
	for _, v := range l.out.Set.VirtualNetworks {
		for _, s := range v.Subnets {
			for _, tag := range s.ServiceEndpoints {
				used[tag] = r.tags.Prefixes(tag)
			}
		}
	}
	var whole *ServiceTags
	for name, prefixes := range used {
		if prefixes != nil {
			continue
		}
		if whole == nil {
			// The same content was parsed before without a fault.
			whole, _ = ParseServiceTags(r.tagPath, data)
		}
		used[name] = whole.Prefixes(name)
		r.tags.put(name, used[name])
	}
	r.tags.keep(used)
	l.out.Set.ServiceTags = used
}

// parsed is a document out of its file.
type parsed struct {
	file      string
	digest    digest
	info      fs.FileInfo // see groupFile
	unchanged []*resource
	document  *jsonc.Document
	value     any   // what is read of it: the document's value, or the evaluated template
	unread    error // the file could not be read
	err       error // the file is not JSON
	// evaluated documents depend on more than their content.
	evaluated bool
}

// readAll parses documents on all cores and collects their resources in order.
func (l *loader) readAll(files []string, known map[string]groupFile) []parsed {
	documents := make([]parsed, len(files))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, file := range files {
		l.out.order[file] = len(l.out.order)
		group.Go(func() error {
			documents[i] = l.readDocument(file, known)
			return nil
		})
	}
	group.Wait() // the functions return no error
	linked := l.evaluateAll(documents)
	var readings []reading
	for i := range documents {
		d := &documents[i]
		switch {
		case linked[filepath.Clean(d.file)]: // its resources are in the template that links it
		case d.unread != nil:
			l.fileFault(CodeFileUnreadable, d.file, d.unread)
		case d.unchanged != nil:
			l.out.unchanged[d.file] = d.digest
			for _, r := range d.unchanged {
				again := *r
				l.resources = append(l.resources, &again)
			}
		default:
			before := len(l.resources)
			if l.document(d.file, d.value, d.err); len(l.resources) == before {
				readings = append(readings, aboutUnread(d.file, d.value))
			}
		}
		d.value, d.document = nil, nil
	}
	l.checkRead(readings)
	return documents
}

func (l *loader) readDocument(file string, known map[string]groupFile) parsed {
	d := parsed{file: file}
	k, ok := known[file]
	if ok && l.source.still(file, k.info) {
		d.digest, d.info, d.unchanged = k.digest, k.info, k.groups
		return d
	}
	data, info, err := l.source.readWith(file)
	if err != nil {
		d.unread = err
		return d
	}
	d.digest, d.info = sha256.Sum256(data), info
	if ok && k.digest == d.digest {
		d.unchanged = k.groups
		return d
	}
	d.document, d.err = parseDocument(data)
	return d
}

// groupFiles are the documents that hold only NSGs, if there is nothing to report of them and they have no rule in
// another document.
func (l *loader) groupFiles(documents []parsed) map[string]groupFile {
	unfit := maps.Clone(l.depending)
	for _, s := range l.inSubnets {
		unfit[s.file] = true
	}
	for _, list := range []ruleset.Faults{l.out.Faults, l.out.Unresolved, l.out.Warnings} {
		for i := range list {
			unfit[list[i].File] = true
		}
	}
	groups := map[string][]*resource{}
	for _, r := range l.resources {
		if r.built == nil || r.again || r.nameUnknown || len(r.children) > 0 {
			unfit[r.file] = true
			continue
		}
		groups[r.file] = append(groups[r.file], &resource{
			kind: r.kind, file: r.file, name: r.name, id: r.id, built: r.built,
		})
	}
	files := map[string]groupFile{}
	for i := range documents {
		d := &documents[i]
		if list := groups[d.file]; len(list) > 0 && !unfit[d.file] && !d.evaluated {
			files[d.file] = groupFile{d.digest, d.info, list}
		}
	}
	return files
}
