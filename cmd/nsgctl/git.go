package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
	out, err := git(ctx, filepath.Dir(absolute), "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	root := strings.TrimSuffix(string(out), "\n")
	inside := make([]string, len(paths))
	for i, path := range paths {
		if inside[i], err = insideOf(root, path); err != nil {
			return nil, err
		}
	}
	archive, err := git(ctx, root, append([]string{"archive", "--format=tar", reference, "--"}, inside...)...)
	if err != nil {
		return nil, usageError{fmt.Errorf("--git %q: %w", reference, err)}
	}
	folder, err := os.MkdirTemp("", "nsgctl-diff-")
	if err != nil {
		return nil, err
	}
	t := &gitTree{reference: reference, folder: folder}
	for _, path := range inside {
		t.paths = append(t.paths, filepath.Join(folder, path))
	}
	if err := t.unpack(archive); err != nil {
		t.remove()
		return nil, err
	}
	return t, nil
}

// insideOf is a path as the repository names it.
func insideOf(root, path string) (string, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if folder, err := filepath.EvalSymlinks(filepath.Dir(absolute)); err == nil { // as git names its root
		absolute = filepath.Join(folder, filepath.Base(absolute))
	}
	inside, err := filepath.Rel(root, absolute)
	if err != nil || !filepath.IsLocal(inside) {
		return "", usageError{fmt.Errorf("--git: %s is not in the repository %s", path, root)}
	}
	return inside, nil
}

func git(ctx context.Context, folder string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir = folder
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

// unpack writes the files of an archive below the folder.
func (t *gitTree) unpack(archive []byte) error {
	root, err := os.OpenRoot(t.folder)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("git archive: %w", err)
		}
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
		case tar.TypeDir:
			err = root.MkdirAll(filepath.Clean(h.Name), 0o700)
		case tar.TypeReg:
			err = writeFile(root, h.Name, r)
		default:
			err = fmt.Errorf("--git: %s of %s is neither a file nor a folder", h.Name, t.reference)
		}
		if err != nil {
			return err
		}
	}
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

func (t *gitTree) remove() { os.RemoveAll(t.folder) }
