package projecttest_test

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var updateTable = flag.Bool("update-security", false, "rewrite the table of findings in SECURITY.md")

const (
	tableBegin = "<!-- findings: written by go test ./internal/projecttest -update-security -->\n"
	tableEnd   = "<!-- end of findings -->\n"
)

// finding is one row of testdata/findings.md, or of what the authors found themselves, in
// testdata/own.md.
type finding struct {
	section  string
	ids      []string
	required string
}

const auditPrefix = "func TestAudit_"

var (
	auditFunc = regexp.MustCompile(`^func (TestAudit_([A-Z0-9]+)_\w+)\(`)
	notWord   = regexp.MustCompile(`[^A-Z0-9]`)
)

// TestSecurityTable checks that SECURITY.md has every finding with the tests that
// carry its id, and no other.
func TestSecurityTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(moduleRoot(t), "SECURITY.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), tableBegin)
	old, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatal("SECURITY.md has no table of findings")
	}
	table := securityTable(findings(t), auditTests(t, moduleRoot(t)))
	if old == table {
		return
	}
	if !*updateTable {
		t.Fatal("the table of findings in SECURITY.md differs from the tests: run go test ./internal/projecttest -update-security")
	}
	if err := os.WriteFile(path, []byte(before+tableBegin+table+tableEnd+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAuditTestsNameFindings checks that the id that a test carries is one of the
// findings.
func TestAuditTestsNameFindings(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, f := range findings(t) {
		for _, id := range f.ids {
			known[key(id)] = true
		}
	}
	for id, tests := range auditTests(t, moduleRoot(t)) {
		if !known[id] {
			t.Errorf("%v: no finding has the id %s", tests, id)
		}
	}
}

// TestSecurityTable_SaysWhereTestsAre checks that the table tells a reader what to
// run: the tests of a finding by package, each once.
func TestSecurityTable_SaysWhereTestsAre(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for file, tests := range map[string]string{
		"internals_test.go":         "func TestAudit_AB1_C(t *testing.T) {}\nfunc TestAudit_AB2_D(t *testing.T) {}\n",
		"test/router/paths_test.go": "func TestAudit_AB1_B(t *testing.T) {}\nfunc TestOther(t *testing.T) {}\n",
		"test/router/ends_test.go":  "func TestAudit_AB1_A(t *testing.T) {}\n",
	} {
		path := filepath.Join(root, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tests), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	table := securityTable([]finding{
		{section: "One", ids: []string{"AB-1", "AB-2"}, required: "all"}, {section: "One", ids: []string{"AB-3"}, required: "more"},
	}, auditTests(t, root))
	for _, want := range []string{
		"| AB-1, AB-2 | all | `.`: `TestAudit_AB1_C`, `TestAudit_AB2_D`; `./test/router`: `TestAudit_AB1_A`, `TestAudit_AB1_B` |\n",
		"| AB-3 | more | none yet |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
}

func findings(t *testing.T) []finding {
	t.Helper()
	var raw []byte
	for _, file := range []string{"findings.md", "own.md"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, text...)
	}
	var out []finding
	section := ""
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if s, ok := strings.CutPrefix(line, "## "); ok {
			section = s
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 2 || strings.TrimSpace(cells[0]) == "id" || strings.HasPrefix(cells[0], "---") {
			continue
		}
		f := finding{section: section, required: strings.TrimSpace(cells[1])}
		for id := range strings.SplitSeq(cells[0], ",") {
			f.ids = append(f.ids, strings.TrimSpace(id))
		}
		out = append(out, f)
	}
	if len(out) < 50 {
		t.Fatalf("read only %d findings", len(out))
	}
	return out
}

// key is the form of an id in the name of a test.
func key(id string) string { return notWord.ReplaceAllString(strings.ToUpper(id), "") }

// auditTest is a test that carries the id of a finding.
type auditTest struct{ pkg, name string }

// auditTests returns the tests below a directory by the id that they carry.
func auditTests(t *testing.T, root string) map[string][]auditTest {
	t.Helper()
	found := map[string][]auditTest{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(raw)) {
			if !strings.HasPrefix(line, auditPrefix) { // an expression takes far longer to say so
				continue
			}
			if m := auditFunc.FindStringSubmatch(line); m != nil {
				found[m[2]] = append(found[m[2]], auditTest{filepath.ToSlash(dir), m[1]})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func securityTable(all []finding, tests map[string][]auditTest) string {
	var b strings.Builder
	section := ""
	for _, f := range all {
		if f.section != section {
			section = f.section
			fmt.Fprintf(&b, "\n### %s\n\n| id | required | tests |\n| --- | --- | --- |\n", section)
		}
		var carry []auditTest
		for _, id := range f.ids {
			carry = append(carry, tests[key(id)]...)
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(f.ids, ", "), f.required, testCell(carry))
	}
	b.WriteByte('\n')
	return b.String()
}

// testCell lists tests by the package that go test has to be told.
func testCell(tests []auditTest) string {
	if len(tests) == 0 {
		return "none yet"
	}
	byPackage := map[string][]string{}
	for _, a := range tests {
		byPackage[a.pkg] = append(byPackage[a.pkg], a.name)
	}
	var cells []string
	for _, pkg := range slices.Sorted(maps.Keys(byPackage)) {
		names := byPackage[pkg]
		slices.Sort(names)
		if pkg != "." {
			pkg = "./" + pkg
		}
		cells = append(cells, "`"+pkg+"`: `"+strings.Join(slices.Compact(names), "`, `")+"`")
	}
	return strings.Join(cells, "; ")
}
