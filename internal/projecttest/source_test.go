package projecttest_test

import (
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

const modulePath = "github.com/masegraye/connect-plugin-go"

// shrink rewrites the lists of what is missing, without what is there by now.
var shrink = flag.Bool("shrink", false, "remove from notyet.txt and notread.txt what is not missing any more")

// listedPackage is what these tests use of the output of go list -json.
type listedPackage struct {
	ImportPath string
	Dir        string
	Export     string
	Standard   bool
	DepOnly    bool
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// moduleRoot returns the directory of the root module. It walks the whole tree first, once: go test reuses
// an earlier result unless a file that the test itself looked at has changed, and does not know what
// go list looks at.
func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := walkedRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

var walkedRoot = sync.OnceValues(func() (string, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return "", err
	}
	return root, filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // Somebody is at work in the tree.
			return nil
		case err == nil && d.IsDir() && d.Name() == ".git":
			return filepath.SkipDir
		}
		return err
	})
})

// goCommand runs the go command in a directory and returns what it prints.
func goCommand(t *testing.T, dir string, args ...string) string {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// goList returns the packages that go list prints for the arguments. What it compiles is what is
// compiled already: with the race detector where this program has it.
func goList(t *testing.T, dir string, args ...string) []listedPackage {
	t.Helper()
	list := []string{"list", "-json=ImportPath,Dir,Export,Standard,DepOnly,GoFiles,Imports,Deps"}
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		list = append(list, "-race")
	}
	out := goCommand(t, dir, append(list, args...)...)
	var packages []listedPackage
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var p listedPackage
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// checkedPackage is a package of this project with its types.
type checkedPackage struct {
	*types.Package

	path  string
	fset  *token.FileSet
	files []*ast.File
	info  *types.Info
}

// knownSources are the packages of this project that were checked: several tests look at them, and none
// changes them.
var knownSources = struct {
	sync.Mutex
	sourceImporter
}{sourceImporter: newSourceImporter()}

// checkSources parses and type checks the packages of this project that the pattern names, and those
// that they need, without their tests, each once. What others wrote is read from what the compiler made
// of it. Where something does not compile it goes on: the compiler says that better.
func checkSources(t *testing.T, dir, pattern string) []*checkedPackage {
	t.Helper()
	knownSources.Lock()
	defer knownSources.Unlock()
	known := &knownSources.sourceImporter
	var checked []*checkedPackage
	for _, p := range goList(t, dir, "-e", "-export", "-deps", pattern) {
		if !within(p.ImportPath, modulePath) {
			known.exports[p.ImportPath] = p.Export
			continue
		}
		if known.checked[p.ImportPath] == nil {
			known.checked[p.ImportPath] = checkPackage(t, p, known)
		}
		checked = append(checked, known.checked[p.ImportPath])
	}
	return checked
}

func checkPackage(t *testing.T, p listedPackage, imports types.Importer) *checkedPackage {
	t.Helper()
	fset := token.NewFileSet()
	c := &checkedPackage{path: p.ImportPath, fset: fset, info: newInfo()}
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, file)
	}
	cfg := types.Config{Importer: imports, Error: func(err error) { t.Log(err) }}
	c.Package, _ = cfg.Check(p.ImportPath, fset, c.files, c.info) // Its first error was logged.
	return c
}

// checkText type checks the text of one file that imports nothing.
func checkText(t *testing.T, source string) *checkedPackage {
	t.Helper()
	return checkTexts(t, map[string]string{"p.go": source})
}

// checkTexts type checks a package of files that import nothing.
func checkTexts(t *testing.T, sources map[string]string) *checkedPackage {
	t.Helper()
	c := &checkedPackage{path: "p", fset: token.NewFileSet(), info: newInfo()}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		file, err := parser.ParseFile(c.fset, name, sources[name], parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		c.files = append(c.files, file)
	}
	var err error
	if c.Package, err = new(types.Config).Check("p", c.fset, c.files, c.info); err != nil {
		t.Fatal(err)
	}
	return c
}

func newInfo() *types.Info {
	return &types.Info{
		Uses:       make(map[*ast.Ident]types.Object),
		Selections: make(map[*ast.SelectorExpr]*types.Selection),
	}
}

// sourceImporter finds packages that were checked, and all others where the compiler left them.
type sourceImporter struct {
	checked  map[string]*checkedPackage
	exports  map[string]string // files of the compiler, by the package's path
	compiled types.Importer
}

func newSourceImporter() sourceImporter {
	exports := make(map[string]string)
	compiled := importer.ForCompiler(token.NewFileSet(), "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	return sourceImporter{checked: make(map[string]*checkedPackage), exports: exports, compiled: compiled}
}

func (i *sourceImporter) Import(path string) (*types.Package, error) {
	if c := i.checked[path]; c != nil {
		return c.Package, nil
	}
	return i.compiled.Import(path)
}

// exists tells whether there is such a file or directory.
func exists(t *testing.T, path string) bool {
	t.Helper()
	_, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// readLines returns the lines of a file under testdata that are neither empty nor comments.
func readLines(t *testing.T, name ...string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool {
		return strings.TrimSpace(l) == "" || strings.HasPrefix(l, "#")
	})
}

// shrinkList removes lines from a file under testdata, where the flag asks for it.
func shrinkList(t *testing.T, gone []string, name ...string) {
	t.Helper()
	if !*shrink || len(gone) == 0 {
		return
	}
	path := filepath.Join(append([]string{"testdata"}, name...)...)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(strings.SplitAfter(string(b), "\n"), func(l string) bool {
		return slices.Contains(gone, strings.TrimSuffix(l, "\n"))
	})
	if err := os.WriteFile(path, []byte(strings.Join(kept, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("removed %d lines from %s", len(gone), path)
}
