package main

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// gitCommit reads a commit of a repository.
type gitCommit struct {
	root, id, reference string
	folders             map[string]map[string]gitEntry // that were listed, by name
}

// gitEntry is a file, folder or link of a commit.
type gitEntry struct{ mode, kind, object, name string }

func (e *gitEntry) isLink() bool { return e.mode == "120000" }

// entries reads a listing of git ls-tree -z.
func entries(list []byte) (all []gitEntry) {
	for _, line := range strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		about, name, _ := strings.Cut(line, "\t")
		if fields := strings.Fields(about); len(fields) == 3 {
			all = append(all, gitEntry{fields[0], fields[1], fields[2], name})
		}
	}
	return all
}

// entry finds what a folder of the commit has by a name.
func (c *gitCommit) entry(ctx context.Context, folder, name string) (e gitEntry, found bool, err error) {
	listed, known := c.folders[folder]
	if !known {
		tree := c.id
		if folder != "." {
			tree += ":" + folder
		}
		list, err := git(ctx, c.root, nil, "ls-tree", "-z", "--full-tree", tree)
		if err != nil {
			return e, false, err
		}
		listed = map[string]gitEntry{}
		for _, one := range entries(list) {
			listed[one.name] = one
		}
		c.folders[folder] = listed
	}
	e, found = listed[name]
	return e, found, nil
}

// mostLinks bounds the links on one path, as the kernel does.
const mostLinks = 40

// resolve follows the links on a path of the commit, as they are stored there. found is false where the commit has no
// such path. A link that leads out of the repository is an error that names it.
func (c *gitCommit) resolve(ctx context.Context, name string) (e gitEntry, found bool, err error) {
	at, rest := ".", strings.Split(filepath.ToSlash(name), "/")
	e = gitEntry{kind: "tree"}
	for links := 0; len(rest) > 0; {
		if rest[0] == "." || e.kind != "tree" {
			if rest[0] != "." {
				return e, false, nil
			}
			rest = rest[1:]
			continue
		}
		next := path.Join(at, rest[0])
		if e, found, err = c.entry(ctx, at, rest[0]); err != nil || !found {
			return e, false, err
		}
		if !e.isLink() {
			at, rest = next, rest[1:]
			continue
		}
		target, err := git(ctx, c.root, nil, "cat-file", "blob", e.object)
		if err != nil {
			return e, false, err
		}
		to := path.Join(at, string(target))
		switch links++; {
		case path.IsAbs(string(target)) || !filepath.IsLocal(to):
			return e, false, usageError{fmt.Errorf("--git %q: the symbolic link %s leads out of the repository, to %s", c.reference, next, target)}
		case links > mostLinks:
			return e, false, usageError{fmt.Errorf("--git %q: the symbolic link %s leads in a circle, or by more than %d others", c.reference, next, mostLinks)}
		}
		at, rest, e = ".", append(strings.Split(to, "/"), rest[1:]...), gitEntry{kind: "tree"}
	}
	e.name = at
	return e, true, nil
}

// filesBelow lists the files of a path, under the names that they have there. Below a folder, links to files are followed and
// links to folders are not, as when files are read. found is false where the commit does not have the path.
func (c *gitCommit) filesBelow(ctx context.Context, name string) (files []gitFile, found bool, err error) {
	at, found, err := c.resolve(ctx, name)
	switch {
	case err != nil || !found:
		return nil, false, err
	case at.kind == "blob":
		return []gitFile{{at.object, name}}, true, nil
	case at.kind != "tree":
		return nil, false, fmt.Errorf("--git: %s of %s is neither a file nor a folder", name, c.reference)
	}
	tree := c.id
	if at.name != "." {
		tree += ":" + at.name
	}
	list, err := git(ctx, c.root, nil, "ls-tree", "-r", "-z", "--full-tree", tree)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries(list) {
		shown, link := path.Join(name, e.name), e.isLink()
		if link && path.Ext(e.name) != ".json" {
			continue // nobody reads it
		}
		if link {
			if e, found, err = c.resolve(ctx, path.Join(at.name, e.name)); err != nil {
				return nil, false, err
			}
			if !found {
				return nil, false, fmt.Errorf("--git: the symbolic link %s of %s leads to nothing", shown, c.reference)
			}
			if e.kind == "tree" {
				continue
			}
		}
		if e.kind != "blob" {
			return nil, false, fmt.Errorf("--git: %s of %s is neither a file nor a folder", shown, c.reference)
		}
		files = append(files, gitFile{e.object, shown})
	}
	return files, true, nil
}
