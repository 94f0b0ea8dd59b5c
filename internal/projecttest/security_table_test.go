package projecttest_test

import (
	"flag"
	"fmt"
	"io/fs"
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

// finding is one row of testdata/findings.md.
type finding struct {
	section  string
	ids      []string
	required string
}

var (
	auditTest = regexp.MustCompile(`(?m)^func (Test(?:Audit)_([A-Z0-9]+)_\w+)\(`)
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
	table := securityTable(findings(t), auditTests(t))
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
	for id, tests := range auditTests(t) {
		if !known[id] {
			t.Errorf("%s: no finding has the id %s", strings.Join(tests, ", "), id)
		}
	}
}

func findings(t *testing.T) []finding {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "findings.md"))
	if err != nil {
		t.Fatal(err)
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

// auditTests returns the names of the tests by the id that they carry.
func auditTests(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(moduleRoot(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range auditTest.FindAllStringSubmatch(string(raw), -1) {
			found[m[2]] = append(found[m[2]], m[1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func securityTable(all []finding, tests map[string][]string) string {
	var b strings.Builder
	section := ""
	for _, f := range all {
		if f.section != section {
			section = f.section
			fmt.Fprintf(&b, "\n### %s\n\n| id | required | tests |\n| --- | --- | --- |\n", section)
		}
		var names []string
		for _, id := range f.ids {
			names = append(names, tests[key(id)]...)
		}
		slices.Sort(names)
		cell := "none yet"
		if len(names) > 0 {
			cell = "`" + strings.Join(slices.Compact(names), "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.Join(f.ids, ", "), f.required, cell)
	}
	b.WriteByte('\n')
	return b.String()
}
