package arm

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/policy"
)

// clean is a reading without a fault or a warning, whose documents depend on their contents alone.
type clean struct {
	set       *policy.Set
	documents []digested
	groups    map[string]groupFile
	files     map[*ruleset.NSG]string // the files of the policy's groups
	// asgs is the index of application security groups, by names in lower case.
	asgs    map[string][]*entry
	entries []asgEntry
	tags    *tagFile // nil: without a service tag file
	partial bool
}

// digested is a document by its content.
type digested struct {
	file   string
	named  bool // the policy's paths name it
	digest digest
}

// Following makes a Reader of a policy that lies in another place. Its first Read takes over what r has read last where
// nothing but rules of NSGs has changed since, and there is nothing to report. The Documents equal those of a new Reader,
// but for Position, and for RulePosition of admin rules, which do not know what was taken over. Both Readers stay fit for use,
// one at a time.
func (r *Reader) Following(serviceTags string, paths ...string) *Reader {
	next := NewReader(serviceTags, paths...)
	next.earlier = r.last
	return next
}

// remember notes what a Reader that follows can take over.
func (r *Reader) remember(l *loader, documents []parsed) {
	r.last = nil
	if len(l.out.Faults)+len(l.out.Unresolved)+len(l.out.Warnings) > 0 || !r.isPlain() {
		return
	}
	c := &clean{set: l.out.Set, groups: r.groups, files: l.out.files, asgs: l.index.byName[asgKind], entries: r.asgs, tags: r.tags, partial: r.deployment.Partial}
	for i := range documents {
		d := &documents[i]
		if d.evaluated {
			return
		}
		c.documents = append(c.documents, digested{d.file, l.named[d.file], d.digest})
	}
	r.last = c
}

// isPlain reports that the deployment names no file that documents depend on.
func (r *Reader) isPlain() bool {
	return len(r.deployment.Parameters) == 0 && r.deployment.Runtime == ""
}

// follow reads what has changed since an earlier reading. It returns nil where that is more than rules of NSGs, or where
// there is anything to report: then all is to be read.
func (r *Reader) follow(s *source, was *clean) (*Documents, []string) {
	l := newLoader()
	l.source = s
	files := l.files(r.paths)
	now := r.documents(files)
	if !r.isPlain() || r.deployment.Partial != was.partial || len(now) != len(was.documents) || (was.tags == nil) != (r.tagPath == "") {
		return nil, nil
	}
	var tags []byte
	if was.tags != nil {
		r.tags = &tagFile{was.tags.digest, was.tags.moved(r.tagPath)}
		if tags = r.readTags(l); r.tags == nil || r.tags.digest != was.tags.digest {
			return nil, nil
		}
	}
	groups, ok := r.followed(l, was, now)
	if !ok {
		return nil, nil
	}
	next, at := map[*ruleset.NSG]*ruleset.NSG{}, map[string]string{}
	for i, file := range now {
		at[was.documents[i].file] = file
		before := was.groups[was.documents[i].file].groups
		for j, g := range groups[file].groups {
			next[before[j].built] = g.built
		}
	}
	for g, file := range was.files {
		l.out.files[cmp.Or(next[g], g)] = at[file]
	}
	l.out.Set = was.set.WithGroups(next)
	l.checkRules()
	l.out.Set.ServiceTags = nil
	if len(l.out.Faults)+len(l.out.Unresolved)+len(l.out.Warnings) > 0 || r.tagPath == "" && len(l.out.UnknownTags()) > 0 {
		return nil, nil
	}
	r.groups, r.asgs = groups, was.entries
	r.useTags(l, tags)
	last := *was
	last.set, last.groups, last.files, last.tags, last.documents = l.out.Set, groups, l.out.files, r.tags, slices.Clone(was.documents)
	for i, file := range now {
		last.documents[i].file = file
		if g, ofGroups := groups[file]; ofGroups {
			last.documents[i].digest = g.digest
		}
	}
	r.last = &last
	return l.out, files
}

// followed are the documents of NSGs as they are now; false: something else has changed.
func (r *Reader) followed(l *loader, was *clean, files []string) (map[string]groupFile, bool) {
	groups, changed := map[string]groupFile{}, []string{}
	for i, file := range files {
		l.out.order[file] = len(l.out.order)
		before := &was.documents[i]
		known, ofGroups := was.groups[before.file]
		data, info, err := l.source.readWith(file)
		if err != nil || l.named[file] != before.named {
			return nil, false
		}
		switch d := sha256.Sum256(data); {
		case d != before.digest && !ofGroups:
			return nil, false
		case d != before.digest:
			changed = append(changed, file)
			continue
		case ofGroups:
			g := groupFile{digest: d, info: info}
			for _, one := range known.groups {
				again := *one
				again.file = file
				g.groups = append(g.groups, &again)
			}
			groups[file] = g
		}
		l.out.unchanged[file] = before.digest
	}
	read := r.readGroups(l, was, changed)
	for i, file := range files {
		before, ofGroups := was.groups[was.documents[i].file]
		if _, same := groups[file]; same || !ofGroups {
			continue
		}
		if groups[file] = read[file]; !slices.EqualFunc(groups[file].groups, before.groups, (*resource).standsFor) {
			return nil, false
		}
	}
	return groups, true
}

// readGroups reads documents, and returns those that hold only NSGs.
func (r *Reader) readGroups(l *loader, was *clean, files []string) map[string]groupFile {
	r.readValues(l)
	if len(was.asgs) > 0 {
		l.index.byName[asgKind] = maps.Clone(was.asgs)
	}
	for _, list := range was.asgs {
		for _, e := range list {
			l.index.byID[strings.ToLower(e.id)] = e
		}
	}
	documents := l.readAll(files, nil)
	l.run(gathering)
	l.run(building[:1]) // NSGs
	return l.groupFiles(documents)
}

// standsFor reports that all else is read alike, whichever of two NSGs is read with it.
func (r *resource) standsFor(other *resource) bool {
	return r.name == other.name && r.id == other.id && r.built.ID == other.built.ID && r.built.Name == other.built.Name && r.built.Location == other.built.Location
}

// checkRules makes the checks of a whole policy that look at the rules of its NSGs.
func (l *loader) checkRules() {
	for _, v := range l.out.Set.VirtualNetworks {
		for _, s := range v.Subnets {
			(&fields{l: l}).checkSpecial(s)
		}
	}
	l.checkMembers()
}
