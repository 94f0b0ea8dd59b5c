package projecttest_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var updateReadme = flag.Bool("update-readme", false, "copy the programs that README.md quotes into it")

// quoted is a block of code in the README with the file that it is.
var quoted = regexp.MustCompile("(?s)(<!-- code: (\\S+) -->\n```go\n)(.*?)(```\n)")

const maxReadmeLines = 180

// TestReadmeQuotesTestedCode checks that the programs in the README are those of
// the examples, which their own tests compile and run.
func TestReadmeQuotesTestedCode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(moduleRoot(t), "README.md")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	want := quoted.ReplaceAllStringFunc(string(raw), func(block string) string {
		m := quoted.FindStringSubmatch(block)
		code, err := os.ReadFile(filepath.Join(moduleRoot(t), m[2]))
		if err != nil {
			t.Fatal(err)
		}
		blocks++
		return m[1] + string(code) + m[4]
	})
	if blocks < 2 {
		t.Fatalf("README.md quotes %d programs", blocks)
	}
	if n := strings.Count(want, "\n"); n > maxReadmeLines {
		t.Errorf("README.md has %d lines, at most %d", n, maxReadmeLines)
	}
	if want == string(raw) {
		return
	}
	if !*updateReadme {
		t.Fatal("README.md differs from the programs that it quotes: run go test ./internal/projecttest -update-readme")
	}
	if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}
