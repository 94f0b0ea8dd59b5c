package projecttest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// document is a Markdown file of the repository.
type document struct {
	path   string // relative to the root of the repository, with slashes
	text   string
	blocks []block
}

// block is a block of code in a document.
type block struct {
	line     int    // of its first fence, from 1
	mark     string // what the comment `<!-- code: … -->` on the line before says
	language string
	code     string
	begin    int // of the code in the document's text
}

var (
	fence    = regexp.MustCompile("^ *(```+|~~~+) *([A-Za-z0-9]*)")
	codeMark = regexp.MustCompile(`^<!-- code: (\S+) -->$`)
)

// documents returns every document, but for those that are data of tests.
func documents(t *testing.T) []document {
	t.Helper()
	root := moduleRoot(t)
	var docs []document
	for _, path := range repositoryFiles(t) {
		if filepath.Ext(path) != ".md" || strings.Contains("/"+path, "/testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, parseDocument(path, string(text)))
	}
	return docs
}

// repositoryFiles returns the path of every file, relative to the root of the repository. What begins
// with a dot is left out.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	root := moduleRoot(t)
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // Somebody is at work in the tree.
			return nil
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case !d.IsDir():
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func parseDocument(path, text string) document {
	d := document{path: path, text: text}
	var open *block
	var end, mark string
	at, line := 0, 0
	for l := range strings.Lines(text) {
		line++
		trimmed := strings.TrimSpace(l)
		switch m := fence.FindStringSubmatch(l); {
		case open != nil && trimmed == end:
			open.code = text[open.begin:at]
			d.blocks = append(d.blocks, *open)
			open = nil
		case open == nil && m != nil:
			open, end = &block{line: line, mark: mark, language: m[2], begin: at + len(l)}, m[1]
		}
		mark = ""
		if m := codeMark.FindStringSubmatch(trimmed); m != nil && open == nil {
			mark = m[1]
		}
		at += len(l)
	}
	if open != nil {
		open.code = text[open.begin:]
		d.blocks = append(d.blocks, *open)
	}
	return d
}

// prose returns the lines of the document with those of blocks empty, so that each keeps its number.
func (d document) prose() []string {
	lines := strings.Split(d.text, "\n")
	for _, b := range d.blocks {
		for i := range strings.Count(b.code, "\n") {
			lines[b.line+i] = ""
		}
	}
	return lines
}
