package projecttest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// names are what the repository has that a document may name.
type names struct {
	files   map[string]bool            // files and directories, without a final slash
	targets map[string]bool            // of the Makefile
	members map[string]map[string]bool // fields and methods, and RPCs, by type
	words   map[string]bool            // identifiers in Go, and words in .proto files and in other languages
	texts   []string                   // constant texts in Go
}

// sources are the ends of names of files in which something is named.
var sources = []string{".go", ".proto", ".py", ".ts"}

var (
	makeTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	protoType   = regexp.MustCompile(`(?s)\n(?:service|message) (\w+) \{(?:\}|.*?\n\})`)
	protoMember = regexp.MustCompile(`(?m)\brpc (\w+)\(|\b(\w+) = \d+`)
	word        = regexp.MustCompile(`\w+`)
)

// repositoryNames reads what there is. It parses every Go file and checks no types: that is cheap, and
// what does not compile the compiler says.
func repositoryNames(t *testing.T) *names {
	t.Helper()
	root := moduleRoot(t)
	n := &names{files: map[string]bool{}, targets: map[string]bool{}, members: map[string]map[string]bool{}, words: map[string]bool{}}
	for _, file := range repositoryFiles(t) {
		for p := file; p != "."; p = path.Dir(p) {
			n.files[p] = true
		}
		if file != "Makefile" && !slices.Contains(sources, path.Ext(file)) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
		if err != nil {
			t.Fatal(err)
		}
		n.read(t, file, string(raw))
	}
	return n
}

func (n *names) read(t *testing.T, file, text string) {
	t.Helper()
	switch path.Ext(file) {
	case ".go":
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil && !strings.Contains(file, "testdata/") {
			t.Fatal(err)
		}
		if err == nil {
			ast.Inspect(parsed, n.visit)
		}
	case ".proto", ".py", ".ts":
		for _, w := range word.FindAllString(text, -1) {
			n.words[w] = true
		}
		for _, m := range protoType.FindAllStringSubmatch(text, -1) {
			for _, member := range protoMember.FindAllStringSubmatch(m[0], -1) {
				n.member(m[1], member[1]+member[2])
			}
		}
	default:
		for _, m := range makeTarget.FindAllStringSubmatch(text, -1) {
			n.targets[m[1]] = true
		}
	}
}

func (n *names) visit(node ast.Node) bool {
	switch x := node.(type) {
	case *ast.Ident:
		n.words[x.Name] = true
	case *ast.TypeSpec:
		n.typeMembers(x)
	case *ast.FuncDecl:
		if x.Recv != nil {
			n.member(receiver(x.Recv.List[0].Type), x.Name.Name)
		}
	case *ast.BinaryExpr, *ast.BasicLit:
		if s, ok := constantText(x.(ast.Expr)); ok {
			n.texts = append(n.texts, s)
			return false
		}
	}
	return true
}

func (n *names) typeMembers(spec *ast.TypeSpec) {
	var fields *ast.FieldList
	switch x := spec.Type.(type) {
	case *ast.StructType:
		fields = x.Fields
	case *ast.InterfaceType:
		fields = x.Methods
	default:
		return
	}
	for _, f := range fields.List {
		for _, name := range f.Names {
			n.member(spec.Name.Name, name.Name)
		}
	}
}

func (n *names) member(typeName, name string) {
	if n.members[typeName] == nil {
		n.members[typeName] = map[string]bool{}
	}
	n.members[typeName][name] = true
}

// receiver returns the name of a receiver's type.
func receiver(expr ast.Expr) string {
	switch x := expr.(type) {
	case *ast.StarExpr:
		return receiver(x.X)
	case *ast.IndexExpr:
		return receiver(x.X)
	case *ast.IndexListExpr:
		return receiver(x.X)
	case *ast.Ident:
		return x.Name
	default:
		return ""
	}
}

// constantText returns a text that is written out, also one that is put together of several.
func constantText(expr ast.Expr) (string, bool) {
	switch x := expr.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(x.Value)
		return s, err == nil && x.Kind == token.STRING
	case *ast.BinaryExpr:
		left, ok := constantText(x.X)
		right, ok2 := constantText(x.Y)
		return left + right, ok && ok2 && x.Op == token.ADD
	default:
		return "", false
	}
}
