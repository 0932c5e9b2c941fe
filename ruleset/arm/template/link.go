package template

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// linkedFile is a file that a templateLink or a parametersLink names.
type linkedFile struct {
	place, written string // of the link
	path           string
	data           []byte
}

// follow reads the file that a link names, if it lies below the folder of the template. what names the file in errors.
func (r *instance) follow(place string, link any, what string) (f linkedFile, err error) {
	f = linkedFile{place: place, written: countText(link)}
	v := r.frame.tree(place, link)
	if u, ok := v.(unresolved); ok {
		return f, u.problem
	}
	o, ok := v.(map[string]any)
	if !ok {
		return f, fmt.Errorf("a link is an object, not of type %s", kindOf(v))
	}
	if get(o, "id") != nil {
		return f, fmt.Errorf("the %s is a template spec: only Azure has it", what)
	}
	name := "relativePath"
	if get(o, name) == nil {
		name = "uri"
	}
	f.place += "." + name
	if written, ok := link.(map[string]any); ok {
		f.written = countText(get(written, name))
	}
	if u, ok := get(o, name).(unresolved); ok {
		return f, u.problem
	}
	uri, ok := get(o, name).(string)
	if !ok || uri == "" {
		return f, fmt.Errorf("a link is a text, not of type %s", kindOf(get(o, name)))
	}
	uri, _, _ = strings.Cut(uri, "?") // a shared access signature
	if !strings.Contains(uri, "://") {
		f.path = filepath.Join(filepath.Dir(r.file), filepath.FromSlash(uri))
		if !r.within(f.path) {
			return f, fmt.Errorf("the %s %s is not below the folder of the template", what, clip(uri))
		}
		if f.data, err = r.read(f.path); err != nil {
			err = fmt.Errorf("the %s: %w", what, err)
		}
		return f, err
	}
	paths, sure := r.local(uri)
	for _, path := range paths {
		f.path = path
		if f.data, err = r.read(path); err != nil {
			continue
		}
		if !sure {
			r.result.Guesses = append(r.result.Guesses, r.frame.problem(f.place, f.written,
				fmt.Errorf("the %s %s is read from %s, because their paths end alike", what, clip(uri), path)).problem)
		}
		return f, nil
	}
	return f, fmt.Errorf("the %s %s is remote and is not fetched: lay it below the folder of the template, where the end of its path leads",
		what, clip(uri))
}

// read reads a linked file once.
func (e *engine) read(file string) ([]byte, error) {
	c, known := e.contents[file]
	if !known {
		if err := e.budget.step(stepsOfFile); err != nil {
			return nil, err
		}
		if c.data, c.err = e.options.ReadFile(file); c.err == nil {
			c.err = e.budget.alloc(len(c.data))
		}
		e.contents[file] = c
	}
	return c.data, c.err
}

// content is a linked file's, or why it can't be read.
type content struct {
	data []byte
	err  error
}

// within reports whether a link may name a file: it lies below Options.Folder.
func (e *engine) within(file string) bool {
	folder := e.options.Folder
	if folder == "" {
		folder = filepath.Dir(e.options.File)
	}
	rest, err := filepath.Rel(folder, file)
	return err == nil && filepath.IsLocal(rest) && e.options.ReadFile != nil
}

// local are the files below the template's folder that may be what an absolute link names, the likeliest first. They
// are sure if the link begins with the parameter _artifactsLocation, which by convention is the folder's address.
func (r *instance) local(uri string) (paths []string, sure bool) {
	u, err := url.Parse(uri)
	if err != nil || r.options.ReadFile == nil {
		return nil, false
	}
	folder := filepath.Dir(r.options.File)
	base, _ := r.frame.parameter("_artifactsLocation")
	if base, ok := base.(string); ok && strings.Contains(base, "://") {
		base, _, _ = strings.Cut(base, "?")
		if rest, ok := strings.CutPrefix(uri, strings.TrimSuffix(base, "/")+"/"); ok {
			path := filepath.Join(folder, filepath.FromSlash(rest))
			return slices.DeleteFunc([]string{path}, func(path string) bool { return !r.within(path) }), true
		}
	}
	segments := strings.Split(strings.Trim(u.Path, "/"), "/")
	for i := max(0, len(segments)-deepestLink); i < len(segments); i++ {
		path := filepath.Join(folder, filepath.FromSlash(strings.Join(segments[i:], "/")))
		if r.within(path) && path != filepath.Clean(r.file) && path != filepath.Clean(r.options.File) {
			paths = append(paths, path)
		}
	}
	return paths, false
}

// linked reads the template of a templateLink.
func (r *instance) linked(place string, link any) (map[string]any, string, error) {
	f, err := r.follow(place, link, "linked template")
	var template map[string]any
	if err == nil {
		template, err = r.parsedFile(f)
	}
	if err != nil {
		return nil, "", r.unread(f.place, f.written, err)
	}
	return template, f.path, nil
}

// unread lists a template that was not read.
func (r *instance) unread(place, written string, err error) error {
	p := r.frame.problem(place, written, err).problem
	r.result.Links = append(r.result.Links, p)
	return p
}

// parsedFile parses a linked template once.
func (e *engine) parsedFile(f linkedFile) (map[string]any, error) {
	if known, ok := e.files[f.path]; ok {
		return known, nil
	}
	v, err := parseJSON(string(f.data))
	template, ok := v.(map[string]any)
	if err == nil && !ok {
		err = errors.New("it is of type " + kindOf(v))
	}
	if err != nil {
		return nil, fmt.Errorf("the linked template %s is no JSON object: %w", f.path, err)
	}
	e.files[f.path] = template
	return template, nil
}
