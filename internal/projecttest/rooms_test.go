package projecttest_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The files of the root package stand in the rooms that the table of ARCHITECTURE.md lists, and name
// only what their room may.
func TestRooms(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := parseRooms(string(text))
	if err != nil {
		t.Fatal(err)
	}
	packages := checkSources(t, root, ".")
	last := packages[len(packages)-1]
	if last.path != modulePath || len(last.files) == 0 {
		t.Fatalf("%s was checked in place of the root package", last.path)
	}
	for _, problem := range roomProblems(rooms, last.fileNames(), namingsOf(last)) {
		t.Error(problem)
	}
	all, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if len(all) > mostRootFiles {
		t.Errorf("the root shows %d files, more than %d: what needs no RPC belongs in internal, tests from outside in test", len(all), mostRootFiles)
	}
	product := 0
	for _, path := range all {
		if !strings.HasSuffix(path, "_test.go") {
			product++
		}
	}
	if product != len(last.files) {
		t.Errorf("%d files of the root are for other systems only, where no arrow is checked: they belong in internal", product-len(last.files))
	}
	for _, problem := range tableProblems(rooms, last.fileNames()) {
		t.Error(problem)
	}
}

// mostRootFiles is how many Go files a newcomer finds in the root, tests included.
const mostRootFiles = 85

// tableProblems holds the table against itself: each beginning has a file, each room a
// side of the wire, and arrows go down only.
func tableProblems(rooms []room, files []string) []string {
	var problems []string
	reaches := map[string][]string{}
	for _, r := range rooms {
		for _, beginning := range r.beginnings {
			alone := []room{{name: r.name, beginnings: []string{beginning}}}
			if !slices.ContainsFunc(files, func(f string) bool { return roomOf(alone, f) != nil }) && !r.toCome {
				problems = append(problems, r.name+": no file begins with "+beginning)
			}
		}
		for other, how := range r.mayName {
			if how == everything {
				reaches[r.name] = append(reaches[r.name], other)
			}
		}
	}
	named := slices.Concat(hostSide, pluginSide, []string{"words", "tools"})
	for _, r := range rooms {
		if !slices.Contains(named, r.name) {
			problems = append(problems, r.name+" is on no side of the wire: add it to hostSide or pluginSide")
		}
		if slices.Contains(reachable(reaches, r.name), r.name) {
			problems = append(problems, "arrows from "+r.name+" lead back to it")
		}
	}
	for _, name := range named {
		if !slices.ContainsFunc(rooms, func(r room) bool { return r.name == name }) {
			problems = append(problems, "the table has no room "+name)
		}
	}
	slices.Sort(problems)
	return problems
}

// reachable returns where arrows lead from a room, one after the other.
func reachable(arrows map[string][]string, from string) []string {
	var found []string
	for next := slices.Clone(arrows[from]); len(next) > 0; {
		name := next[0]
		next = next[1:]
		if !slices.Contains(found, name) {
			found = append(found, name)
			next = append(next, arrows[name]...)
		}
	}
	return found
}

// room is a row of the table of rooms.
type room struct {
	name       string
	beginnings []string         // of names of files; "x" is x.go and x_*.go, "x.go" that file alone
	mayName    map[string]reach // by room
	toCome     bool             // it may have no files yet
}

// reach is how much of another room may be named.
type reach int

const (
	everything reach = iota + 1
	typesOnly
)

// naming is a declaration in one file that names something that is declared in another.
type naming struct {
	from, to      string // files
	namedBy, name string // "Type.Method" for a method, "Type" for its fields
	isType        bool
}

func (n naming) String() string {
	return fmt.Sprintf("%s:%s → %s:%s", n.from, n.namedBy, n.to, n.name)
}

// hostSide and pluginSide never name each other, whatever the table says: they run in different processes.
var (
	hostSide   = []string{"identity", "serving", "config", "services", "host", "platform"}
	pluginSide = []string{"plugin"}
)

// roomProblems holds the rooms against the files that there are and what they name.
func roomProblems(rooms []room, files []string, namings []naming) []string {
	var problems []string
	in := make(map[string]*room, len(files))
	used := make(map[string]bool)
	for _, file := range files {
		r := roomOf(rooms, file)
		if r == nil {
			problems = append(problems, file+" is in no room")
			continue
		}
		in[file] = r
		used[r.name] = true
	}
	for _, n := range namings {
		from, to := in[n.from], in[n.to]
		if from == nil || to == nil || from == to {
			continue
		}
		allowed := from.mayName[to.name]
		if allowed == 0 || allowed == typesOnly && !n.isType || acrossTheWire(from.name, to.name) {
			problems = append(problems, fmt.Sprintf("%s may not name %s: %s", from.name, to.name, n))
		}
		used[from.name+" names "+to.name] = true
	}
	for _, r := range rooms {
		if r.toCome {
			continue
		}
		if !used[r.name] {
			problems = append(problems, r.name+" has no file")
		}
		for other := range r.mayName {
			if arrow := r.name + " names " + other; !used[arrow] {
				problems = append(problems, "nothing uses the arrow: "+arrow)
			}
		}
	}
	slices.Sort(problems)
	return problems
}

// roomOf returns the room of a file: that with the longest beginning.
func roomOf(rooms []room, file string) *room {
	var found *room
	longest := 0
	for i := range rooms {
		for _, b := range rooms[i].beginnings {
			matches := file == b || file == b+".go" || strings.HasPrefix(file, b+"_")
			if matches && len(b) > longest {
				found, longest = &rooms[i], len(b)
			}
		}
	}
	return found
}

func acrossTheWire(a, b string) bool {
	return slices.Contains(hostSide, a) && slices.Contains(pluginSide, b) ||
		slices.Contains(pluginSide, a) && slices.Contains(hostSide, b)
}

var (
	codeSpan  = regexp.MustCompile("`([^`]+)`")
	typesMark = " (types only)"
)

// parseRooms reads the table whose first column is headed "Room".
func parseRooms(markdown string) ([]room, error) {
	var rooms []room
	inTable := false
	for line := range strings.Lines(markdown) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case cells[0] == "Room":
			inTable = true
		case !inTable || strings.HasPrefix(cells[0], "--"):
		case len(cells) < 3:
			return nil, fmt.Errorf("the row of %s has no three columns", cells[0])
		default:
			rooms = append(rooms, parseRoom(cells))
		}
	}
	for _, r := range rooms {
		for other := range r.mayName {
			if !slices.ContainsFunc(rooms, func(o room) bool { return o.name == other && o.name != r.name }) {
				return nil, fmt.Errorf("%s may name %s, which is no other room", r.name, other)
			}
		}
	}
	if len(rooms) == 0 {
		return nil, fmt.Errorf("there is no table of rooms")
	}
	return rooms, nil
}

func parseRoom(cells []string) room {
	r := room{name: cells[0], mayName: map[string]reach{}, toCome: strings.Contains(cells[1], "(to come)")}
	for _, b := range codeSpan.FindAllStringSubmatch(cells[1], -1) {
		r.beginnings = append(r.beginnings, b[1])
	}
	for other := range strings.SplitSeq(cells[2], ",") {
		other = strings.TrimSpace(other)
		if name, ok := strings.CutSuffix(other, typesMark); ok {
			r.mayName[name] = typesOnly
		} else if other != "" && other != "—" {
			r.mayName[other] = everything
		}
	}
	return r
}

// namingsOf returns what the files of a package name of each other, each thing once.
func namingsOf(p *checkedPackage) []naming {
	var namings []naming
	for _, file := range p.files {
		for _, decl := range file.Decls {
			ast.Inspect(decl, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				obj := p.info.Uses[id]
				if obj == nil || obj.Pkg() != p.Package || !declaredForAll(obj) {
					return true
				}
				_, isType := obj.(*types.TypeName)
				namings = append(namings, naming{
					from: p.fileOf(id.Pos()), to: p.fileOf(obj.Pos()), namedBy: declName(decl, id.Pos()), name: objectName(obj), isType: isType,
				})
				return true
			})
		}
	}
	namings = slices.DeleteFunc(namings, func(n naming) bool { return n.from == n.to })
	slices.SortFunc(namings, func(a, b naming) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(namings)
}

// declaredForAll tells whether an object is of the package, a method or a field.
func declaredForAll(obj types.Object) bool {
	switch o := obj.(type) {
	case *types.Func:
		return o.Signature().Recv() != nil || o.Parent() == o.Pkg().Scope()
	case *types.Var:
		return o.IsField() || o.Parent() == o.Pkg().Scope()
	default:
		return obj.Parent() == obj.Pkg().Scope()
	}
}

// objectName is the name of an object, with its type's where it is a method.
func objectName(obj types.Object) string {
	f, ok := obj.(*types.Func)
	if !ok || f.Signature().Recv() == nil {
		return obj.Name()
	}
	t := f.Signature().Recv().Type()
	if ptr, ok := t.(*types.Pointer); ok {
		t = ptr.Elem()
	}
	if named, ok := t.(*types.Named); ok {
		return named.Obj().Name() + "." + obj.Name()
	}
	return obj.Name()
}

// declName is the name of the declaration around a position.
func declName(decl ast.Decl, pos token.Pos) string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			return d.Name.Name
		}
		t := d.Recv.List[0].Type
		if star, ok := t.(*ast.StarExpr); ok {
			t = star.X
		}
		return types.ExprString(t) + "." + d.Name.Name
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			if pos < spec.Pos() || spec.End() < pos {
				continue
			}
			switch s := spec.(type) {
			case *ast.TypeSpec:
				return s.Name.Name
			case *ast.ValueSpec:
				return s.Names[0].Name
			}
		}
	}
	return "?"
}

func (p *checkedPackage) fileOf(pos token.Pos) string {
	return filepath.Base(p.fset.Position(pos).Filename)
}

func (p *checkedPackage) fileNames() []string {
	names := make([]string, 0, len(p.files))
	for _, f := range p.files {
		names = append(names, p.fileOf(f.Pos()))
	}
	return names
}
