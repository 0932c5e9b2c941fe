package generation

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Sources are the files of a bundle, where they are on this machine.
type Sources struct {
	// Policy are files, folders and patterns.
	Policy []string
	// ServiceTags and Runtime are files; empty: there is none.
	ServiceTags, Runtime string
	// Parameters are files, or NAME=VALUE where IsValue says so.
	Parameters []string
	IsValue    func(parameter string) bool
	// Read are the files that the reading of the policy took, those above among them.
	Read []string
}

// The folders of a bundle.
const (
	policyFolder, tagsFolder, parametersFolder, runtimeFolder = "policy", "serviceTags", "parameters", "runtime"
)

// Gather reads the files of a bundle and sets the names in its settings. Files of the policy lie to one another as they do
// on this machine, so that a template finds what it links to.
func (b *Bundle) Gather(s *Sources) error {
	b.Files = map[string][]byte{}
	apart := map[string]bool{}
	take := func(file, folder string) (string, error) {
		if file == "" {
			return "", nil
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		apart[path] = true
		name := folder + "/" + filepath.Base(path)
		return name, b.read(name, path)
	}
	var err error
	if b.Settings.ServiceTags, err = take(s.ServiceTags, tagsFolder); err != nil {
		return err
	}
	if b.Settings.Templates.Runtime, err = take(s.Runtime, runtimeFolder); err != nil {
		return err
	}
	b.Settings.Templates.Parameters = nil
	for i, p := range s.Parameters {
		if s.IsValue(p) {
			b.Settings.Templates.Parameters = append(b.Settings.Templates.Parameters, Parameter{Value: p})
			continue
		}
		name, err := take(p, parametersFolder+"/"+strconv.Itoa(i+1))
		if err != nil {
			return err
		}
		b.Settings.Templates.Parameters = append(b.Settings.Templates.Parameters, Parameter{File: name})
	}
	return b.gatherPolicy(s, apart)
}

// gatherPolicy reads the policy's own files.
func (b *Bundle) gatherPolicy(s *Sources, apart map[string]bool) error {
	var paths, files []string
	tags := ""
	if s.ServiceTags != "" {
		var err error
		if tags, err = filepath.Abs(s.ServiceTags); err != nil {
			return err
		}
	}
	for _, p := range s.Policy {
		path, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		paths = append(paths, path)
	}
	for _, f := range s.Read {
		file, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		// The tag file is no document, also where it lies among them.
		if file != tags && (!apart[file] || within(file, paths)) {
			files = append(files, file)
		}
	}
	root := above(append(append([]string{}, paths...), files...))
	name := func(path string) (string, error) {
		below, err := filepath.Rel(root, path)
		return policyFolder + "/" + filepath.ToSlash(below), err
	}
	b.Settings.Policy = nil
	for _, p := range paths {
		n, err := name(p)
		if err != nil {
			return err
		}
		b.Settings.Policy = append(b.Settings.Policy, n)
	}
	for _, f := range files {
		n, err := name(f)
		if err != nil {
			return err
		}
		if err := b.read(n, f); err != nil {
			return err
		}
	}
	return b.check()
}

// within tells that a file is one of the paths, or below one.
func within(file string, paths []string) bool {
	for _, p := range paths {
		if file == p || strings.HasPrefix(file, p+"/") {
			return true
		}
	}
	return false
}

// above is the deepest folder that all paths are in.
func above(paths []string) string {
	common := filepath.Dir(paths[0])
	for _, p := range paths[1:] {
		for common != "/" && !strings.HasPrefix(p, common+"/") {
			common = filepath.Dir(common)
		}
	}
	if i := strings.IndexAny(common, "*?["); i >= 0 { // a pattern is no folder
		common = filepath.Dir(common[:i] + "x")
	}
	return common
}

// read takes a file in under a name.
func (b *Bundle) read(name, file string) error {
	if err := checkName(name); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > MaxExpanded {
		return fmt.Errorf("%s: a regular file of at most %d MiB is needed", file, MaxExpanded>>20)
	}
	b.Files[name], err = os.ReadFile(file)
	return err
}
