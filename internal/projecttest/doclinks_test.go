package projecttest_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unresolved is a link in a comment that go doc prints as it stands.
var unresolved = regexp.MustCompile(`\[\*?(?:[a-z]\w*\.)?[A-Z]\w*(?:\.\w+)*\]`)

// Every link in a comment of a declaration points to something.
func TestDocLinksPointToSomething(t *testing.T) {
	t.Parallel()
	for _, p := range goList(t, moduleRoot(t), "./...") {
		if within(p.ImportPath, modulePath+"/gen") || len(p.GoFiles) == 0 {
			continue
		}
		sources := make([]string, 0, len(p.GoFiles))
		for _, name := range p.GoFiles {
			sources = append(sources, filepath.Join(p.Dir, name))
		}
		links, broken := docLinks(t, p.ImportPath, sources, nil)
		if p.ImportPath == modulePath && links < 100 {
			t.Errorf("only %d links were found in the root package: the test reads something else", links)
		}
		for _, problem := range broken {
			t.Error(problem)
		}
	}
}

func TestDocLinks(t *testing.T) {
	t.Parallel()
	const source = `// Package p has a [T] and a [Q].
package p

import "net/http"

// T has [T.Field], [T.Method] and [T.Nothing], for a [http.Handler] or an [https.Handler].
type T struct {
	// Field is no [Field], it prints [redacted] and indexes a[i] and A[I].
	Field http.Handler
}

// Method is like [Func].
func (T) Method() {}

// Func is like [*T].
func Func() {}
`
	links, broken := docLinks(t, "p", []string{"p.go"}, source)
	want := []string{"p.go:1: [Q]", "p.go:6: [T.Nothing]", "p.go:6: [https.Handler]", "p.go:8: [Field]"}
	if links != 6 || !slices.Equal(broken, want) {
		t.Errorf("%d links, and broken are %q, want %q", links, broken, want)
	}
}

var (
	listedName  = regexp.MustCompile(`(?m)^//   - \[([\w.]+)\]`)
	exampleFunc = regexp.MustCompile(`(?m)^func Example(\w+)\(\) \{$`)
)

// Every name that the package comment of the root lists for authors of hosts and plugins has an example.
func TestListedNamesHaveExamples(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	text, err := os.ReadFile(filepath.Join(root, "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join(root, "example_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var examples []string
	for _, m := range exampleFunc.FindAllStringSubmatch(string(code), -1) {
		examples = append(examples, m[1])
	}
	names := listedName.FindAllStringSubmatch(string(text), -1)
	if len(names) < 12 {
		t.Errorf("the package comment lists %d names", len(names))
	}
	for _, m := range names {
		if !slices.Contains(examples, strings.ReplaceAll(m[1], ".", "_")) {
			t.Errorf("%s has no example in example_test.go", m[1])
		}
	}
}

// docLinks counts the links in the comments of declarations and returns those that point to nothing. The
// text of the files is that in source, unless it is nil.
func docLinks(t *testing.T, path string, names []string, source any) (links int, broken []string) {
	t.Helper()
	fset := token.NewFileSet()
	files := make([]*ast.File, 0, len(names))
	for _, name := range names {
		file, err := parser.ParseFile(fset, name, source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	var comments []*ast.CommentGroup
	for _, file := range files {
		comments = append(comments, docComments(file)...)
	}
	pkg, err := doc.NewFromFiles(fset, files, path, doc.AllDecls|doc.PreserveAST)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range comments {
		for _, text := range plainTexts(pkg.Parser().Parse(c.Text()), &links) {
			for _, link := range unresolved.FindAllStringIndex(text, -1) {
				if link[0] > 0 && isNamePart(text[link[0]-1]) {
					continue // an index
				}
				at := fset.Position(c.Pos())
				broken = append(broken, filepath.Base(at.Filename)+":"+strconv.Itoa(at.Line)+": "+text[link[0]:link[1]])
			}
		}
	}
	return links, broken
}

// docComments returns the comments of declarations and fields, and of the package.
func docComments(file *ast.File) []*ast.CommentGroup {
	found := []*ast.CommentGroup{file.Doc}
	for _, decl := range file.Decls {
		ast.Inspect(decl, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				found = append(found, n.Doc)
				return false
			case *ast.GenDecl:
				found = append(found, n.Doc)
			case *ast.TypeSpec:
				found = append(found, n.Doc)
			case *ast.ValueSpec:
				found = append(found, n.Doc)
			case *ast.Field:
				found = append(found, n.Doc)
			}
			return true
		})
	}
	return slices.DeleteFunc(found, func(c *ast.CommentGroup) bool { return c == nil })
}

// plainTexts returns the texts of a comment that are neither code nor links, and counts the links.
func plainTexts(d *comment.Doc, links *int) []string {
	var texts []string
	var inline func(all []comment.Text)
	inline = func(all []comment.Text) {
		var plain strings.Builder
		for _, text := range all {
			switch text := text.(type) {
			case comment.Plain:
				plain.WriteString(string(text))
			case *comment.DocLink:
				*links++
			case *comment.Link:
				inline(text.Text)
			}
		}
		texts = append(texts, plain.String())
	}
	var block func(all []comment.Block)
	block = func(all []comment.Block) {
		for _, b := range all {
			switch b := b.(type) {
			case *comment.Paragraph:
				inline(b.Text)
			case *comment.Heading:
				inline(b.Text)
			case *comment.List:
				for _, item := range b.Items {
					block(item.Content)
				}
			}
		}
	}
	block(d.Content)
	return texts
}

func isNamePart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
