package projecttest_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"testing"
)

var (
	// configNames are the exported structs that a user fills in.
	configNames = regexp.MustCompile(`^[A-Z]\w*(Config|Policy|Limits|Auth|Spec)$|^(Config|Policy|Limits|Spec)$`)
	// preparingNames are the functions that look at configuration before anybody uses it. A field that
	// only they read is checked, filled in and copied, and then ignored, unless it went to another field.
	preparingNames = regexp.MustCompile(`(?i)^(validate|withDefaults$|clone$)`)
)

// Every exported field of an exported configuration struct is read by code of the library, beyond
// validation and defaults, or is listed in notread.txt. That list can only shrink.
func TestAudit_H25_EveryConfigFieldIsRead(t *testing.T) {
	t.Parallel()
	packages := slices.DeleteFunc(checkSources(t, moduleRoot(t), "./..."), func(p *checkedPackage) bool {
		return isTestOnly(p.path) || within(p.path, modulePath+"/gen")
	})
	if !slices.ContainsFunc(packages, func(p *checkedPackage) bool {
		return p.path == modulePath && slices.Contains(configFields(p), modulePath+".ServeConfig.TLS")
	}) {
		t.Error("ServeConfig.TLS was not found: the test looks at the wrong code")
	}

	notRead := readLines(t, "notread.txt")
	unread := unreadFields(packages)
	for _, field := range unread {
		if !slices.Contains(notRead, field) {
			t.Errorf("no code reads %s", field)
		}
	}
	var gone []string
	for _, field := range notRead {
		if !slices.Contains(unread, field) {
			gone = append(gone, field)
		}
	}
	if *shrink {
		shrinkList(t, gone, "notread.txt")
		return
	}
	for _, field := range gone {
		t.Errorf("is read or gone by now, remove it from notread.txt (-shrink does): %s", field)
	}
}

func TestUnreadFields(t *testing.T) {
	t.Parallel()
	const source = `package p

type Limits struct{ Read, Deep int }

type Config struct {
	Read, Ignored, OnlyWritten, OnlyValidated, OnlyDefaulted, OnlyCounted, Taken, Moved int
	Limits
	private int
}

type Other struct{ Ignored int }

func (c *Config) Validate() error { _ = c.OnlyValidated; return nil }

func (c Config) withDefaults() Config {
	if c.OnlyDefaulted == 0 {
		c.OnlyDefaulted = 1
	}
	c.OnlyDefaulted = max(c.OnlyDefaulted, 2)
	c.Read = max(c.Read, c.Moved)
	return c
}

func use(c *Config, o Other) (int, *int) {
	c.OnlyWritten = o.Ignored
	c.OnlyCounted++
	d := Config{Ignored: 1}
	_ = d
	return c.Read + c.Deep, &c.Taken
}
`
	got := unreadFields([]*checkedPackage{checkText(t, source)})
	want := []string{
		"p.Config.Ignored", "p.Config.OnlyCounted", "p.Config.OnlyDefaulted", "p.Config.OnlyValidated",
		"p.Config.OnlyWritten", "p.Limits.Read",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// unreadFields returns the fields of configuration structs that no code reads, sorted.
func unreadFields(packages []*checkedPackage) []string {
	read := make(map[string]bool)
	for _, p := range packages {
		for _, file := range p.files {
			collectReads(p.info, file, read)
		}
	}
	var unread []string
	for _, p := range packages {
		for _, field := range configFields(p) {
			if !read[field] {
				unread = append(unread, field)
			}
		}
	}
	slices.Sort(unread)
	return unread
}

// configFields returns the exported fields of the configuration structs of a package, without embedded
// ones, which are there for their methods.
func configFields(p *checkedPackage) []string {
	var fields []string
	for _, name := range p.Scope().Names() {
		obj, isType := p.Scope().Lookup(name).(*types.TypeName)
		if !isType || obj.IsAlias() || !configNames.MatchString(name) {
			continue
		}
		s, isStruct := obj.Type().Underlying().(*types.Struct)
		if !isStruct {
			continue
		}
		for f := range s.Fields() {
			if f.Exported() && !f.Embedded() {
				fields = append(fields, fieldName(obj.Type(), f))
			}
		}
	}
	return fields
}

// collectReads notes each field whose value a file uses, except where it only prepares configuration.
func collectReads(info *types.Info, file *ast.File, read map[string]bool) {
	written := make(map[ast.Expr]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if preparingNames.MatchString(n.Name.Name) {
				collectMoves(info, n, read)
				return false
			}
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					written[e] = true
				}
			}
		case *ast.IncDecStmt:
			written[n.X] = true
		case *ast.SelectorExpr:
			if s := info.Selections[n]; s != nil && s.Kind() == types.FieldVal {
				noteRead(s, written[n], read)
			}
		}
		return true
	})
}

// collectMoves notes each field that a preparing function assigns to another field: whoever reads that
// one uses it.
func collectMoves(info *types.Info, prepare *ast.FuncDecl, read map[string]bool) {
	ast.Inspect(prepare, func(n ast.Node) bool {
		assign, ok := n.(*ast.AssignStmt)
		if !ok || len(assign.Lhs) != len(assign.Rhs) {
			return true
		}
		for i, left := range assign.Lhs {
			target, ok := left.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			ast.Inspect(assign.Rhs[i], func(n ast.Node) bool {
				source, ok := n.(*ast.SelectorExpr)
				if !ok || source.Sel.Name == target.Sel.Name {
					return true
				}
				if s := info.Selections[source]; s != nil && s.Kind() == types.FieldVal {
					noteRead(s, false, read)
				}
				return true
			})
		}
		return true
	})
}

// noteRead notes the fields on the way of a selection, and its last one unless that is written.
func noteRead(s *types.Selection, written bool, read map[string]bool) {
	recv := s.Recv()
	for i, index := range s.Index() {
		if p, ok := types.Unalias(recv).(*types.Pointer); ok {
			recv = p.Elem()
		}
		owner, ok := recv.Underlying().(*types.Struct)
		if !ok {
			return
		}
		field := owner.Field(index)
		if last := i == len(s.Index())-1; !last || !written {
			read[fieldName(recv, field)] = true
		}
		recv = field.Type()
	}
}

// fieldName writes a field as package path, type and field.
func fieldName(owner types.Type, field *types.Var) string {
	return fmt.Sprintf("%s.%s", types.TypeString(types.Unalias(owner), (*types.Package).Path), field.Name())
}
