package arm

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nsgd/nsgd/ruleset"
)

// Reader reads a policy's files, and when it reads them again parses only what
// changed: the service tag file and documents that hold nothing but network
// security groups are known again by their content. What it returns is what a new
// Reader would return, except that a group of an unchanged document is the same
// *ruleset.NSG. It is not safe for concurrent use.
type Reader struct {
	paths      []string
	tagFile    string
	deployment Deployment
	made       time.Time

	tags *tagFile
	// groups of documents without faults, by file; fit for use while what rules
	// refer to is as it was: environment and the tag file.
	groups      map[string]groupFile
	environment []referable // the application security groups
}

// referable is what decides which application security group an id means.
type referable struct {
	name, id string
	open     bool
}

type digest = [sha256.Size]byte

// tagFile is a service tag file as it was read.
type tagFile struct {
	digest digest
	*ServiceTags
}

// groupFile is what is kept of a document that holds only NSGs.
type groupFile struct {
	digest digest
	groups []*resource
}

// NewReader makes a reader of a policy's files, folders and file patterns, and of
// its service tag file; an empty name is none.
func NewReader(serviceTags string, paths ...string) *Reader {
	return &Reader{paths: paths, tagFile: serviceTags, made: time.Now()}
}

// ServiceTags is the service tag file as it was last read: nil when there is none, or
// its last reading failed.
func (r *Reader) ServiceTags() *ServiceTags {
	if r.tags == nil {
		return nil
	}
	return r.tags.ServiceTags
}

// Read reads the files as Load does. With a service tag file, tags that it lacks are
// faults; without one, every well-formed tag is taken, see Documents.UnknownTags.
func (r *Reader) Read() *Documents {
	l := newLoader()
	data := r.readTags(l)
	deployment := r.deployment
	if deployment.Now.IsZero() {
		deployment.Now = r.made
	}
	l.readValues(deployment)
	documents := l.readAll(r.documents(l), r.groups)
	l.checkParameters()
	l.gather()
	environment := l.index.environment()
	if len(r.groups) > 0 && !slices.Equal(environment, r.environment) {
		// Rules name groups by ids that may mean something else now.
		r.groups = nil
		return r.Read()
	}
	out := l.finish()
	if l.stale {
		r.groups = nil
		return r.Read()
	}
	r.groups, r.environment = l.groupFiles(documents), environment
	r.useTags(l, data)
	return out
}

// documents are the files of the policy; the tag file may lie among them.
func (r *Reader) documents(l *loader) []string {
	files := l.files(r.paths)
	tags, err := os.Stat(r.tagFile)
	if r.tagFile == "" || err != nil {
		return files
	}
	return slices.DeleteFunc(files, func(file string) bool {
		info, err := os.Stat(file)
		return err == nil && os.SameFile(info, tags)
	})
}

// environment lists application security groups.
func (x *index) environment() []referable {
	var list []referable
	for name, entries := range x.byName[asgKind] {
		for _, e := range entries {
			list = append(list, referable{name, e.id, e.object == nil})
		}
	}
	slices.SortFunc(list, func(a, b referable) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.id, b.id))
	})
	return list
}

// readTags reads the service tag file, and parses it when its content is not the last
// one's. The result is the content; nil when there is no file or it is unfit.
func (r *Reader) readTags(l *loader) []byte {
	if r.tagFile == "" {
		return nil
	}
	l.out.order[r.tagFile] = 0
	data, err := readRegular(r.tagFile)
	if err != nil {
		r.tags, r.groups = nil, nil
		code := CodeFileUnreadable
		if errors.Is(err, fs.ErrNotExist) {
			code = CodePathNotFound
		}
		l.fileFault(code, r.tagFile, err)
		return nil
	}
	if d := sha256.Sum256(data); r.tags == nil || r.tags.digest != d {
		r.tags, r.groups = nil, nil
		tags, faults := ParseServiceTags(r.tagFile, data)
		l.out.Faults = append(l.out.Faults, faults...)
		if tags == nil {
			return nil
		}
		tags.digest = d
		r.tags = &tagFile{d, tags}
	}
	clear(r.tags.problems) // a new Reader would give its hints to the names of this reading
	l.known = r.tags.Known
	return data
}

// useTags gives the policy the prefixes of the tags that it names, and forgets all
// others. A tag that was forgotten is read again.
func (r *Reader) useTags(l *loader, data []byte) {
	if r.tags == nil {
		return
	}
	used := map[string][]netip.Prefix{}
	for _, g := range l.out.Set.Groups() {
		for i := range g.Rules {
			for _, named := range namedTags(&g.Rules[i]) {
				used[named.tag] = r.tags.Prefixes(named.tag)
			}
		}
	}
	for _, t := range l.out.Set.RouteTables {
		for i := range t.Routes {
			if tag := t.Routes[i].Tag; tag != "" {
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
			// The content is that of r.tags, so it has no fault.
			whole, _ = ParseServiceTags(r.tagFile, data)
		}
		used[name] = whole.Prefixes(name)
		r.tags.put(name, used[name])
	}
	r.tags.keep(used)
	l.out.Set.ServiceTags = used
}

// readRegular reads a file; a pipe or device would make the reader wait for ever.
func readRegular(file string) ([]byte, error) {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	return os.ReadFile(file)
}

// parsed is a document from its file, or one that is known already.
type parsed struct {
	file   string
	digest digest
	known  []*resource
	value  any
	unread error // the file could not be read
	err    error // it could, and is no JSON
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
			documents[i] = readDocument(file, known)
			return nil
		})
	}
	group.Wait() // none of them fails
	linked := l.evaluateAll(documents)
	for i := range documents {
		d := &documents[i]
		switch {
		case linked[filepath.Clean(d.file)]: // its resources are in the template that links it
		case d.unread != nil:
			l.fileFault(CodeFileUnreadable, d.file, d.unread)
		case d.known != nil:
			for _, r := range d.known {
				again := *r
				l.resources = append(l.resources, &again)
			}
		default:
			l.document(d.file, d.value, d.err)
		}
		d.value = nil
	}
	return documents
}

func readDocument(file string, known map[string]groupFile) parsed {
	d := parsed{file: file}
	data, err := os.ReadFile(file)
	if err != nil {
		d.unread = err
		return d
	}
	d.digest = sha256.Sum256(data)
	if k, ok := known[file]; ok && k.digest == d.digest {
		d.known = k.groups
		return d
	}
	d.value, d.err = parseDocument(data)
	return d
}

// groupFiles are the documents that hold NSGs only, all of them without a fault and
// without a part in another document.
func (l *loader) groupFiles(documents []parsed) map[string]groupFile {
	unfit := map[string]bool{}
	for _, list := range []ruleset.Faults{l.out.Faults, l.out.Unresolved} {
		for i := range list {
			unfit[list[i].File] = true
		}
	}
	groups := map[string][]*resource{}
	for _, r := range l.resources {
		if r.built == nil || r.nameUnknown || len(r.children) > 0 {
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
			files[d.file] = groupFile{d.digest, list}
		}
	}
	return files
}
