package projecttest_test

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var updateDocs = flag.Bool("update-docs", false, "copy the code that documents quote into them")

const (
	maxReadmeLines = 180
	regionBegin    = "//docs:region "
	regionEnd      = "//docs:end"
)

// languages are those that a block of code may be in. Text, and what names no language, is no code: a
// diagram, what a program prints.
var languages = []string{"go", "sh", "text", "", "proto", "yaml", "json", "toml", "python", "js", "ts"}

var (
	errQuote = errors.New("cannot be quoted")
	nolint   = regexp.MustCompile(`(?m)[ \t]+//nolint:.*$`)
)

// Every block of Go in a document is the text of a file that its own package compiles, or of a region of one.
func TestGoInDocumentsIsCompiled(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	read := func(path string) (string, error) {
		raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		return string(raw), err
	}
	quotes := 0
	for _, d := range documents(t) {
		problems := slices.Concat(blockProblems(d), quoteProblems(d, read))
		text, n := requote(d, read)
		quotes += n
		if *updateDocs && text != d.text {
			if err := os.WriteFile(filepath.Join(root, d.path), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, p := range problems {
			t.Error(p)
		}
	}
	if quotes < 12 {
		t.Errorf("only %d blocks are quoted: the test reads something else", quotes)
	}
}

func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join(moduleRoot(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(raw), "\n"); n > maxReadmeLines {
		t.Errorf("README.md has %d lines, at most %d", n, maxReadmeLines)
	}
}

// blockProblems says which blocks have no language, or Go that nothing compiles.
func blockProblems(d document) []string {
	var problems []string
	for _, b := range d.blocks {
		at := fmt.Sprintf("%s:%d: ", d.path, b.line)
		switch {
		case !slices.Contains(languages, b.language):
			problems = append(problems, at+fmt.Sprintf("the language %q is none of %q", b.language, languages))
		case b.language == "go" && b.mark == "":
			problems = append(problems, at+"Go without a line <!-- code: file --> or <!-- code: file#region --> before it")
		case b.language != "go" && b.mark != "":
			problems = append(problems, at+"a quotation that is not in the language go")
		case (b.language == "text" || b.language == "") && isGo(b.code):
			problems = append(problems, at+"this text is Go")
		}
	}
	return problems
}

// isGo reports whether a text parses as declarations, or as statements that do something.
func isGo(code string) bool {
	for _, source := range []string{code, "package p\n" + code} {
		if f, err := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution); err == nil && len(f.Decls) > 0 {
			return true
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc f() {\n"+code+"\n}", parser.SkipObjectResolution)
	if err != nil || len(f.Decls) != 1 {
		return false
	}
	return slices.ContainsFunc(f.Decls[0].(*ast.FuncDecl).Body.List, func(s ast.Stmt) bool {
		expr, ok := s.(*ast.ExprStmt)
		if !ok {
			return true
		}
		_, ok = expr.X.(*ast.CallExpr)
		return ok
	})
}

// quoteProblems says which quotations differ from what they quote.
func quoteProblems(d document, read func(path string) (string, error)) []string {
	var problems []string
	for _, b := range d.blocks {
		if b.mark == "" {
			continue
		}
		at := fmt.Sprintf("%s:%d: %s: ", d.path, b.line, b.mark)
		switch want, err := quote(b.mark, read); {
		case err != nil:
			problems = append(problems, at+err.Error())
		case want != b.code:
			problems = append(problems, at+"differs: run go test ./internal/projecttest -update-docs")
		}
	}
	return problems
}

// requote returns the text of a document with its quotations as they should be, and how many there are.
func requote(d document, read func(path string) (string, error)) (string, int) {
	text, n := d.text, 0
	for _, b := range slices.Backward(d.blocks) {
		if b.mark == "" {
			continue
		}
		n++
		if want, err := quote(b.mark, read); err == nil {
			text = text[:b.begin] + want + text[b.begin+len(b.code):]
		}
	}
	return text, n
}

// quote returns what a mark names, without what is meant for the linters.
func quote(mark string, read func(path string) (string, error)) (string, error) {
	path, region, isRegion := strings.Cut(mark, "#")
	if !strings.HasSuffix(path, ".go") || strings.Contains("/"+path, "/testdata/") {
		return "", fmt.Errorf("%w: no package compiles it", errQuote)
	}
	source, err := read(path)
	if err != nil {
		return "", err
	}
	if strings.Contains(source, "//go:build ignore") {
		return "", fmt.Errorf("%w: its package leaves it out", errQuote)
	}
	if isRegion {
		if source, err = regionOf(source, region); err != nil {
			return "", err
		}
	}
	lines := slices.DeleteFunc(strings.SplitAfter(nolint.ReplaceAllString(source, ""), "\n"), func(line string) bool {
		return strings.HasPrefix(strings.TrimSpace(line), "//docs:")
	})
	return strings.Join(lines, ""), nil
}

// regionOf returns the lines between //docs:region NAME and //docs:end, moved to the left.
func regionOf(source, name string) (string, error) {
	var found []string
	within, times := false, 0
	for line := range strings.Lines(source) {
		switch trimmed := strings.TrimSpace(line); {
		case trimmed == regionBegin+name:
			within = true
			times++
		case trimmed == regionEnd:
			within = false
		case within:
			found = append(found, line)
		}
	}
	if times != 1 || len(found) == 0 {
		return "", fmt.Errorf("%w: the file has %d regions %q, with %d lines", errQuote, times, name, len(found))
	}
	indent := found[0][:len(found[0])-len(strings.TrimLeft(found[0], "\t"))]
	for i, line := range found {
		found[i] = strings.TrimPrefix(line, indent)
	}
	return strings.Trim(strings.Join(found, ""), "\n") + "\n", nil
}

// The judgement itself, on documents that are wrong.
func TestSnippets(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"a.go":          "package a\n\nfunc f() {\n\t//docs:region x\n\tg() //nolint:errcheck // why\n\t//docs:end\n}\n",
		"old.go":        "//go:build ignore\n\npackage a\n",
		"testdata/b.go": "package b\n",
	}
	read := func(path string) (string, error) {
		if text, ok := files[path]; ok {
			return text, nil
		}
		return "", os.ErrNotExist
	}
	for _, tt := range []struct{ name, text, problem string }{
		{"a region", "<!-- code: a.go#x -->\n```go\ng()\n```\n", ""},
		{"a file", "<!-- code: a.go -->\n```go\npackage a\n\nfunc f() {\n\tg()\n}\n```\n", ""},
		{"other languages", "```sh\nls\n```\n~~~text\n(a)\n~~~\n", ""},
		{"no mark", "```go\ng()\n```\n", "doc.md:1: Go without a line"},
		{"a mark too early", "<!-- code: a.go#x -->\n\n```go\ng()\n```\n", "doc.md:3: Go without a line"},
		{"no end", "```go\ng()\n", "doc.md:1: Go without a line"},
		{"no language", "```\ng()\n```\n", "doc.md:1: this text is Go"},
		{"Go under another name", "```golang\ng()\n```\n", `doc.md:1: the language "golang"`},
		{"Go as text", "```text\na := f()\n```\n", "doc.md:1: this text is Go"},
		{"declarations as text", "```text\nfunc f() {}\n```\n", "doc.md:1: this text is Go"},
		{"a difference", "<!-- code: a.go#x -->\n```go\nh()\n```\n", "doc.md:2: a.go#x: differs"},
		{"no such region", "<!-- code: a.go#y -->\n```go\ng()\n```\n", "doc.md:2: a.go#y: cannot be quoted"},
		{"no such file", "<!-- code: b.go -->\n```go\ng()\n```\n", "doc.md:2: b.go: file does not exist"},
		{"nobody compiles it", "<!-- code: old.go -->\n```go\npackage a\n```\n", "doc.md:2: old.go: cannot be quoted"},
		{"testdata", "<!-- code: testdata/b.go -->\n```go\npackage b\n```\n", "doc.md:2: testdata/b.go: cannot be quoted"},
	} {
		d := parseDocument("doc.md", tt.text)
		got := strings.Join(slices.Concat(blockProblems(d), quoteProblems(d, read)), "\n")
		if tt.problem == "" && got != "" || !strings.HasPrefix(got, tt.problem) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.problem)
		}
	}
	d := parseDocument("doc.md", "before\n<!-- code: a.go#x -->\n```go\nh()\n```\nafter\n")
	if text, _ := requote(d, read); text != "before\n<!-- code: a.go#x -->\n```go\ng()\n```\nafter\n" {
		t.Errorf("rewritten: %q", text)
	}
}
