package projecttest_test

import (
	"fmt"
	"go/types"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every line of the API of the library that this one replaces is exported with that very signature, or
// is listed in notyet.txt. That list can only shrink.
func TestAPIOfTheReplacedLibrary(t *testing.T) {
	t.Parallel()
	want := readLines(t, "api", "connectplugin.txt")
	notYet := readLines(t, "api", "notyet.txt")
	problems, built := compareAPI(want, exportedAPI(t), notYet)
	if *shrink {
		shrinkList(t, built, "api", "notyet.txt")
		built = nil
	}
	for _, line := range built {
		problems = append(problems, "exists by now, remove it from notyet.txt (-shrink does): "+line)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

func TestCompareAPI(t *testing.T) {
	t.Parallel()
	const (
		serve   = "pkg connectplugin, func Serve(cfg *ServeConfig) error"
		serve2  = "pkg connectplugin, func Serve(cfg ServeConfig) error"
		service = "pkg connectplugin, func ServeAll()"
		field   = "pkg connectplugin, type Rate struct, Burst int"
		field2  = "pkg connectplugin, type Rate struct, Burst uint"
	)
	for name, tt := range map[string]struct {
		want, have, notYet []string
		problem            string
		built              []string
	}{
		"same":                     {want: []string{serve, field}, have: []string{field, serve, service}},
		"missing":                  {want: []string{serve}, have: []string{service}, problem: "missing: " + serve},
		"not yet":                  {want: []string{serve}, have: []string{service}, notYet: []string{serve}},
		"built":                    {want: []string{serve}, have: []string{serve}, notYet: []string{serve}, built: []string{serve}},
		"other signature":          {want: []string{serve}, have: []string{serve2}, problem: serve2},
		"other signature, not yet": {want: []string{serve}, have: []string{serve2}, notYet: []string{serve}, problem: serve2},
		"other type of a field":    {want: []string{field}, have: []string{field2}, problem: field2},
		"unknown line in the list": {notYet: []string{serve}, problem: "not in the API"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			problems, built := compareAPI(tt.want, tt.have, tt.notYet)
			got := strings.Join(problems, "\n")
			if (got == "") != (tt.problem == "") || !strings.Contains(got, tt.problem) {
				t.Errorf("problems %q, want %q", got, tt.problem)
			}
			if !slices.Equal(built, tt.built) {
				t.Errorf("built %q, want %q", built, tt.built)
			}
		})
	}
}

// compareAPI returns what is wrong, and which lines of notYet exist.
func compareAPI(want, have, notYet []string) (problems, built []string) {
	bySymbol := make(map[string]string, len(have))
	for _, line := range have {
		bySymbol[symbolOf(line)] = line
	}
	for _, line := range want {
		is, exists := bySymbol[symbolOf(line)]
		listed := slices.Contains(notYet, line)
		switch {
		case exists && is != line:
			problems = append(problems, fmt.Sprintf("changed:\n\twant %s\n\thave %s", line, is))
		case exists && listed:
			built = append(built, line)
		case !exists && !listed:
			problems = append(problems, "missing: "+line)
		}
	}
	for _, line := range notYet {
		if !slices.Contains(want, line) {
			problems = append(problems, "in notyet.txt but not in the API: "+line)
		}
	}
	return problems, built
}

// symbolOf cuts a line off before what may not change: "pkg p, func F", "pkg p, type T",
// "pkg p, type T struct, F".
func symbolOf(line string) string {
	pkg, decl, _ := strings.Cut(line, ", ")
	kind, decl, _ := strings.Cut(decl, " ")
	var name string
	switch kind {
	case "method":
		receiver, method, _ := strings.Cut(decl, ") ")
		method, _, _ = strings.Cut(method, "(")
		name = receiver + ") " + method
	case "type":
		typ, member, isMember := strings.Cut(decl, ", ")
		name, _, _ = strings.Cut(typ, " ")
		if isMember && !strings.HasPrefix(member, "embeds ") {
			member = member[:strings.IndexAny(member+" ", " (")]
		}
		name += ", " + member
	default: // const, func, var
		name = decl[:strings.IndexAny(decl+" ", " ([")]
	}
	return pkg + ", " + kind + " " + name
}

// exportedAPI returns the exported names of the packages that the API consists of, those that exist,
// in the format of connectplugin.txt.
func exportedAPI(t *testing.T) []string {
	t.Helper()
	root := moduleRoot(t)
	checked := checkSources(t, root, "./...")
	if fx := filepath.Join(root, "connectpluginfx"); exists(t, fx) {
		checked = append(checked, checkSources(t, fx, ".")...)
	}
	var lines []string
	for _, path := range []string{"", "/internal/depgraph", "/connectpluginfx"} {
		i := slices.IndexFunc(checked, func(c *checkedPackage) bool { return c.path == modulePath+path })
		if i >= 0 {
			lines = append(lines, describePackage(checked[i].Package)...)
		}
	}
	return lines
}

// describePackage writes the exported names of a package, one a line.
func describePackage(pkg *types.Package) []string {
	qualify := func(p *types.Package) string {
		if p == pkg {
			return ""
		}
		return p.Name()
	}
	d := describer{prefix: "pkg " + pkg.Name() + ", ", qualify: qualify}
	for _, name := range pkg.Scope().Names() {
		if obj := pkg.Scope().Lookup(name); obj.Exported() {
			d.object(obj)
		}
	}
	return d.lines
}

// describer collects the lines of one package.
type describer struct {
	prefix  string
	qualify types.Qualifier
	lines   []string
}

func (d *describer) addf(format string, args ...any) {
	d.lines = append(d.lines, d.prefix+fmt.Sprintf(format, args...))
}

func (d *describer) typ(t types.Type) string { return types.TypeString(t, d.qualify) }

// signature writes a function's type without the leading func.
func (d *describer) signature(t types.Type) string { return strings.TrimPrefix(d.typ(t), "func") }

func (d *describer) object(obj types.Object) {
	switch obj := obj.(type) {
	case *types.Const:
		d.addf("const %s %s = %s", obj.Name(), d.typ(obj.Type()), obj.Val().ExactString())
	case *types.Var:
		d.addf("var %s %s", obj.Name(), d.typ(obj.Type()))
	case *types.Func:
		d.addf("func %s%s", obj.Name(), d.signature(obj.Type()))
	case *types.TypeName:
		d.typeName(obj)
	}
}

func (d *describer) typeName(obj *types.TypeName) {
	named, ok := types.Unalias(obj.Type()).(*types.Named)
	if obj.IsAlias() || !ok {
		d.addf("type %s = %s", obj.Name(), d.typ(types.Unalias(obj.Type())))
		return
	}
	for m := range named.Methods() {
		if m.Exported() {
			d.addf("method (%s) %s%s", d.typ(m.Signature().Recv().Type()), m.Name(), d.signature(m.Type()))
		}
	}
	switch u := named.Underlying().(type) {
	case *types.Struct:
		d.addf("type %s struct", obj.Name())
		d.fields(obj.Name(), u)
	case *types.Interface:
		d.addf("type %s interface", obj.Name())
		d.interfaceMembers(obj.Name(), u)
	default:
		d.addf("type %s %s", obj.Name(), d.typ(u))
	}
}

func (d *describer) fields(name string, s *types.Struct) {
	for f := range s.Fields() {
		switch {
		case f.Embedded():
			d.addf("type %s struct, %s %s (embedded)", name, f.Name(), d.typ(f.Type()))
		case f.Exported():
			d.addf("type %s struct, %s %s", name, f.Name(), d.typ(f.Type()))
		}
	}
}

func (d *describer) interfaceMembers(name string, i *types.Interface) {
	for e := range i.EmbeddedTypes() {
		d.addf("type %s interface, embeds %s", name, d.typ(e))
	}
	for m := range i.Methods() {
		if m.Exported() {
			d.addf("type %s interface, %s%s", name, m.Name(), d.signature(m.Type()))
		}
	}
}

// The lines of the API are distinct symbols, or a changed line could hide behind another.
func TestSymbolsOfTheAPIAreDistinct(t *testing.T) {
	t.Parallel()
	lines := readLines(t, "api", "connectplugin.txt")
	symbols := maps.Collect(func(yield func(string, bool) bool) {
		for _, l := range lines {
			if !yield(symbolOf(l), true) {
				return
			}
		}
	})
	if len(symbols) != len(lines) {
		t.Errorf("%d lines name %d symbols", len(lines), len(symbols))
	}
}
