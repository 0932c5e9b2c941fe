package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
)

// gitTree is files of a commit in a folder of their own.
type gitTree struct {
	reference, folder string
	paths             []string // of the folder, in the order of the paths asked for
}

// checkOut reads paths of the repository that they are in, as they were at a commit, branch or tag. The
// work tree is not touched.
func checkOut(ctx context.Context, reference string, paths []string) (*gitTree, error) {
	if strings.HasPrefix(reference, "-") {
		return nil, usageError{fmt.Errorf("--git %q: allowed is a commit, branch or tag", reference)}
	}
	absolute, err := filepath.Abs(paths[0])
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(absolute); err != nil || !info.IsDir() { // a link may lead out of it
		absolute = filepath.Dir(absolute)
	}
	root, err := repositoryOf(ctx, absolute)
	if err != nil {
		return nil, err
	}
	inside := make([]string, len(paths))
	for i, path := range paths {
		if inside[i], err = insideOf(root, path); err != nil {
			return nil, err
		}
	}
	files, inside, err := filesOf(ctx, root, reference, inside)
	if err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "nsgctl-diff-")
	if err != nil {
		return nil, err
	}
	t := &gitTree{reference: reference, folder: folder}
	for _, path := range inside {
		t.paths = append(t.paths, filepath.Join(folder, path))
	}
	if err := t.write(ctx, root, files); err != nil {
		t.remove()
		return nil, err
	}
	return t, nil
}

// repositoryOf is the folder of the repository that a folder is in. A link may lead out of it: then that of a folder above.
func repositoryOf(ctx context.Context, folder string) (root string, err error) {
	for {
		out, failed := git(ctx, folder, nil, "rev-parse", "--show-toplevel")
		if failed == nil {
			return strings.TrimSuffix(string(out), "\n"), nil
		}
		err = cmp.Or(err, failed)
		if folder == filepath.Dir(folder) {
			return "", err
		}
		folder = filepath.Dir(folder)
	}
}

// insideOf is a path as the repository names it. Links on the way are the commit's to follow, unless they lead to the repository.
func insideOf(root, path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	tries := []string{absolute}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(absolute)); err == nil { // as git names its root
		tries = append(tries, filepath.Join(folder, filepath.Base(absolute)))
	}
	if target, err := filepath.EvalSymlinks(absolute); err == nil {
		tries = append(tries, target)
	}
	for _, one := range tries {
		if inside, err := filepath.Rel(root, one); err == nil && filepath.IsLocal(inside) {
			return inside, nil
		}
	}
	return "", usageError{fmt.Errorf("--git: %s is not in the repository %s", path, root)}
}

func git(ctx context.Context, folder string, stdin io.Reader, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir, c.Stdin = folder, stdin
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil && stderr.Len() > 0 {
		return nil, fmt.Errorf("git %s: %s", args[0], strings.TrimSpace(stderr.String()))
	}
	if err != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out, nil
}

// gitFile is a file of a commit.
type gitFile struct{ object, name string }

// filesOf lists the files of a commit below paths, as they are stored: attributes of the repository, which may leave
// files out of archives, have no say. found are the paths that the commit has: at least one. Symbolic links are followed
// as the commit has them.
func filesOf(ctx context.Context, root, reference string, paths []string) (files []gitFile, found []string, err error) {
	commit, err := git(ctx, root, nil, "rev-parse", "--verify", "--end-of-options", reference+"^{commit}")
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("--git %q: %w", reference, err)}
	}
	c := &gitCommit{root: root, id: strings.TrimSpace(string(commit)), reference: reference, folders: map[string]map[string]gitEntry{}}
	for _, path := range paths {
		below, known, err := c.filesBelow(ctx, path)
		if err != nil {
			return nil, nil, err
		}
		if known { // else it is new
			found, files = append(found, path), append(files, below...)
		}
	}
	if len(files) == 0 {
		return nil, nil, usageError{fmt.Errorf("--git %q: it has no %s", reference, strings.Join(paths, ", "))}
	}
	return files, found, nil
}

// write writes files below the folder.
func (t *gitTree) write(ctx context.Context, repository string, files []gitFile) error {
	var objects strings.Builder
	for _, f := range files {
		objects.WriteString(f.object + "\n")
	}
	out, err := git(ctx, repository, strings.NewReader(objects.String()), "cat-file", "--batch")
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(t.folder)
	if err != nil {
		return err
	}
	defer root.Close()
	written := map[string]bool{}
	for _, f := range files {
		header, rest, _ := bytes.Cut(out, []byte("\n"))
		var object, kind string
		var size int
		if _, err := fmt.Sscan(string(header), &object, &kind, &size); err != nil || object != f.object || size < 0 || size >= len(rest) {
			return fmt.Errorf("git cat-file: %s of %s: %q", f.name, t.reference, header)
		}
		if !written[f.name] { // paths may lie in each other
			written[f.name] = true
			if err := writeFile(root, f.name, bytes.NewReader(rest[:size])); err != nil {
				return err
			}
		}
		out = rest[size+1:]
	}
	return nil
}

func writeFile(root *os.Root, name string, from io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}

// named names files as git does, REF:PATH, in place of those in the folder.
func (t *gitTree) named(text string) string {
	return strings.ReplaceAll(text, t.folder+string(filepath.Separator), t.reference+":")
}

// namedIn is an error whose files are named as git does.
func (t *gitTree) namedIn(err error) error {
	var policy *inspect.PolicyError
	if !errors.As(err, &policy) {
		return errors.New(t.named(err.Error()))
	}
	rename := func(faults ruleset.Faults) ruleset.Faults {
		named := slices.Clone(faults)
		for i := range named {
			named[i].File, named[i].Message = t.named(named[i].File), t.named(named[i].Message)
		}
		return named
	}
	return &inspect.PolicyError{Faults: rename(policy.Faults), Unresolved: rename(policy.Unresolved)}
}

func (t *gitTree) remove() { os.RemoveAll(t.folder) }
