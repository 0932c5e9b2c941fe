package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nsgd/nsgd/dataplane/inspect"
	"github.com/nsgd/nsgd/ruleset"
	"github.com/nsgd/nsgd/ruleset/arm"
)

// options say how documents are read.
type options struct {
	serviceTags string        // Microsoft's service tag file; empty: none
	limit       time.Duration // the time that one document may take
}

// result is what became of a document as a whole.
type result string

const (
	complete    result = "complete"
	open        result = "open"   // some values are not known
	faulty      result = "faults" // Azure would refuse it
	nothingRead result = "nothing read"
	tooSlow     result = "too slow"
)

// results are all results, in the order of the sums.
var results = []result{complete, open, faulty, nothingRead, tooSlow}

// outcome is what became of one document.
type outcome struct {
	name   string // the path below the folder
	result result
	read   inspect.PolicyCounts
	open   int
	faults int
	// tagged means that the document names service tags, and no file of them was given.
	tagged bool
	// causes are why values are open or nothing was read, each once; codes are those of the faults.
	causes, codes []string
	elapsed       time.Duration
}

// documents lists the *.json files below a folder in order of their paths, without dot files and without the parameters
// files of templates that stand beside them.
func documents(folder string) (files []string, err error) {
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch hidden := path != folder && strings.HasPrefix(entry.Name(), "."); {
		case err != nil:
			return err
		case entry.IsDir() && hidden:
			return fs.SkipDir
		case !entry.Type().IsRegular() || hidden || !strings.EqualFold(filepath.Ext(path), ".json"):
			return nil
		}
		if template, found := strings.CutSuffix(path, ".parameters.json"); found {
			if _, err := os.Stat(template + ".json"); err == nil {
				return nil
			}
		}
		files = append(files, path)
		return nil
	})
	return files, err
}

// read reads one document. A document that takes longer than the limit is given up: its templates end at the limit,
// and what goes on beyond ends with the program.
func read(o *options, folder, file string) *outcome {
	name, err := filepath.Rel(folder, file)
	if err != nil {
		name = file
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.limit)
	defer cancel()
	done := make(chan *arm.Documents, 1)
	start := time.Now()
	go func() {
		reader := arm.NewReader(o.serviceTags, file)
		reader.SetDeployment(arm.Deployment{Context: ctx, Timeout: o.limit})
		done <- reader.Read()
	}()
	select {
	case d := <-done:
		out := outcomeOf(d, o.serviceTags == "")
		out.name, out.elapsed = name, time.Since(start)
		if ctx.Err() != nil {
			out.result = tooSlow
		}
		return out
	case <-ctx.Done():
		return &outcome{name: name, result: tooSlow, elapsed: time.Since(start)}
	}
}

func outcomeOf(d *arm.Documents, withoutTags bool) *outcome {
	out := &outcome{
		result: complete, read: inspect.CountPolicy(d.Set), open: len(d.Unresolved), faults: len(d.Faults),
		tagged: withoutTags && len(d.UnknownTags()) > 0,
	}
	nothing := slices.IndexFunc(slices.Concat(d.Faults, d.Warnings), func(f ruleset.Fault) bool { return f.Code == arm.CodeNothingRead })
	switch {
	case nothing >= 0:
		f := slices.Concat(d.Faults, d.Warnings)[nothing]
		out.result, out.faults, out.causes = nothingRead, 0, []string{kindOf(f.Message)}
		return out
	case out.faults > 0:
		out.result = faulty
	case out.open > 0:
		out.result = open
	}
	for i := range d.Unresolved {
		out.causes = append(out.causes, kindOf(d.Unresolved[i].Message))
	}
	for i := range d.Faults {
		out.codes = append(out.codes, d.Faults[i].Code)
	}
	for _, list := range []*[]string{&out.causes, &out.codes} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return out
}

// specifics are the parts of a message that differ between documents with one cause, and what stands for them.
var specifics = []struct {
	pattern *regexp.Regexp
	kind    string
}{
	{regexp.MustCompile(`^((at )?(resources|variables|outputs)\S*: )+`), ""},
	{regexp.MustCompile(`(: the (resource|rule|reference)s? .*|: nothing is translated by it|; \d+ (resource|rule|more).*|; (give|lay|there) .*)$`), ""},
	{regexp.MustCompile(`https?://\S+`), "URL"},
	{regexp.MustCompile(`/subscriptions/\S+`), "ID"},
	{regexp.MustCompile(`"[^"]*"`), "TEXT"},
	{regexp.MustCompile(`(parameter|property|address of|gives|--parameters|--resource-group) \S+`), "$1 NAME"},
	{regexp.MustCompile(`parameters\.\S+:`), "parameters.NAME:"},
	{regexp.MustCompile(`\d+`), "N"},
}

// kindOf is a message without what is peculiar to its document, so that causes can be counted.
func kindOf(message string) string {
	for _, s := range specifics {
		message = s.pattern.ReplaceAllString(message, s.kind)
	}
	return message
}
