package projecttest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// testOnly are the packages that exist for tests: no product code imports them, and hosttest may
// import the root package, since it starts a host.
var testOnly = []string{
	modulePath + "/internal/hosttest",
	modulePath + "/internal/assert",
	modulePath + "/internal/projecttest",
}

// internalMayImport are the modules of others that internal packages may import.
var internalMayImport = []string{
	"google.golang.org/protobuf",
	"golang.org/x/net",
	"golang.org/x/time",
	"github.com/Masterminds/semver/v3",
}

func TestArrowsBetweenPackages(t *testing.T) {
	t.Parallel()
	packages := slices.DeleteFunc(goList(t, moduleRoot(t), "-deps", "./..."), func(p listedPackage) bool {
		return p.Standard || p.DepOnly
	})
	if len(packages) == 0 {
		t.Fatal("go list knows no packages")
	}
	for _, problem := range arrowProblems(packages) {
		t.Error(problem)
	}
}

func TestArrowProblems(t *testing.T) {
	t.Parallel()
	internal := modulePath + "/internal/tokenstore"
	for name, tt := range map[string]struct {
		pkg  listedPackage
		want string
	}{
		"internal imports root":     {listedPackage{ImportPath: internal, Deps: []string{modulePath}}, "depends on " + modulePath},
		"internal imports gen":      {listedPackage{ImportPath: internal, Deps: []string{modulePath + "/gen/plugin/v1"}}, "/gen/plugin/v1"},
		"internal imports connect":  {listedPackage{ImportPath: internal, Deps: []string{"connectrpc.com/connect"}}, "connectrpc.com/connect"},
		"internal imports a fifth":  {listedPackage{ImportPath: internal, Imports: []string{"golang.org/x/text/cases"}}, "golang.org/x/text/cases"},
		"root imports examples":     {listedPackage{ImportPath: modulePath, Deps: []string{modulePath + "/examples/x"}}, "/examples/x"},
		"root imports a tool":       {listedPackage{ImportPath: modulePath, Deps: []string{modulePath + "/tools/buf"}}, "/tools/buf"},
		"root imports hosttest":     {listedPackage{ImportPath: modulePath, Deps: []string{testOnly[0]}}, testOnly[0]},
		"root imports an echo":      {listedPackage{ImportPath: modulePath, Deps: []string{testOnly[0] + "/echo"}}, testOnly[0] + "/echo"},
		"root imports testing":      {listedPackage{ImportPath: modulePath, Deps: []string{"testing"}}, "testing"},
		"gen imports root":          {listedPackage{ImportPath: modulePath + "/gen/plugin/v1", Deps: []string{modulePath}}, modulePath},
		"gen imports internal":      {listedPackage{ImportPath: modulePath + "/gen/plugin/v1", Deps: []string{internal}}, internal},
		"a plugin imports root":     {pkg: listedPackage{ImportPath: modulePath + "/gen/loggerv1plugin", Deps: []string{modulePath, internal}}},
		"root imports internal":     {pkg: listedPackage{ImportPath: modulePath, Deps: []string{internal, "connectrpc.com/connect"}}},
		"hosttest imports root":     {pkg: listedPackage{ImportPath: testOnly[0], Deps: []string{modulePath, "testing"}}},
		"an echo imports connect":   {pkg: listedPackage{ImportPath: testOnly[0] + "/echo", Deps: []string{modulePath, "connectrpc.com/connect"}}},
		"internal imports protobuf": {pkg: listedPackage{ImportPath: internal, Imports: []string{"google.golang.org/protobuf/proto", "net/http"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(arrowProblems([]listedPackage{tt.pkg}), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// arrowProblems returns one line for each arrow that points up.
func arrowProblems(packages []listedPackage) []string {
	var problems []string
	for _, p := range packages {
		if isTestOnly(p.ImportPath) {
			continue
		}
		for _, dep := range p.Deps {
			if forbidden(p.ImportPath, dep) {
				problems = append(problems, fmt.Sprintf("%s depends on %s", p.ImportPath, dep))
			}
		}
		if !within(p.ImportPath, modulePath+"/internal") {
			continue
		}
		for _, imported := range p.Imports {
			if !allowedInInternal(imported) {
				problems = append(problems, fmt.Sprintf("%s imports %s", p.ImportPath, imported))
			}
		}
	}
	return problems
}

// forbidden tells whether a package must not depend on another, however indirectly.
func forbidden(pkg, dep string) bool {
	for _, module := range []string{"/examples", "/bench", "/interop", "/tools", "/connectpluginfx", "/connectpluginotel", "/connectpluginv2", "/console"} {
		if within(dep, modulePath+module) {
			return true
		}
	}
	switch {
	case isTestOnly(dep), dep == "testing":
		return true
	case within(pkg, modulePath+"/internal"):
		return dep == modulePath || within(dep, modulePath+"/gen") || within(dep, "connectrpc.com/connect")
	case within(pkg, modulePath+"/gen"):
		// The plugins of our own protos are made for users of the library; nothing of it imports them.
		isPlugin := strings.HasSuffix(pkg, "plugin")
		return !isPlugin && (dep == modulePath || within(dep, modulePath+"/internal"))
	default:
		return false
	}
}

// allowedInInternal tells whether an internal package may import a package directly.
func allowedInInternal(imported string) bool {
	host, _, _ := strings.Cut(imported, "/")
	standard := !strings.Contains(host, ".")
	return standard || within(imported, modulePath+"/internal") ||
		slices.ContainsFunc(internalMayImport, func(m string) bool { return within(imported, m) })
}

// isTestOnly tells whether a package exists for tests: those named above and what lies
// below them.
func isTestOnly(path string) bool {
	return slices.ContainsFunc(testOnly, func(p string) bool { return within(path, p) })
}

// within tells whether an import path is a path or lies below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

func TestRootModuleHasFiveRequirements(t *testing.T) {
	t.Parallel()
	var mod struct {
		Module  struct{ Path string }
		Go      string
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace, Exclude, Tool []any
	}
	if err := json.Unmarshal([]byte(goCommand(t, moduleRoot(t), "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	slices.Sort(direct)
	want := []string{
		"connectrpc.com/connect",
		"github.com/Masterminds/semver/v3",
		"golang.org/x/net",
		"golang.org/x/time",
		"google.golang.org/protobuf",
	}
	if !slices.Equal(direct, want) {
		t.Errorf("direct requirements are %q, want %q", direct, want)
	}
	if mod.Module.Path != modulePath || !strings.HasPrefix(mod.Go+".", "1.26.") {
		t.Errorf("module %s, go %s", mod.Module.Path, mod.Go)
	}
	if len(mod.Replace)+len(mod.Exclude)+len(mod.Tool) != 0 {
		t.Errorf("go.mod replaces, excludes or has tools: %v %v %v", mod.Replace, mod.Exclude, mod.Tool)
	}
}
