package projecttest_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// whatIsNamed finds files and packages in prose.
var whatIsNamed = regexp.MustCompile(`\b[a-z][a-z0-9_/]*\.go\b|\binternal/[a-z0-9/]*[a-z0-9]`)

// examplesOfNames are names that stand for others.
var examplesOfNames = map[string]bool{"x.go": true}

// Every file and every package that ARCHITECTURE.md names exists.
func TestArchitectureNamesWhatExists(t *testing.T) {
	t.Parallel()
	root := moduleRoot(t)
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := namedIn(string(text))
	if len(named) < 20 {
		t.Fatalf("only %q are named: the test reads another text", named)
	}
	for _, name := range named {
		if !exists(t, filepath.Join(root, name)) {
			t.Errorf("ARCHITECTURE.md names %s, which does not exist", name)
		}
	}
}

func TestNamedIn(t *testing.T) {
	t.Parallel()
	got := strings.Join(namedIn("router.go: `internal/proxy/h2` and host_serve.go, x.go, x_….go and hub.go. internal/drain."), " ")
	if want := "router.go internal/proxy/h2 host_serve.go hub.go internal/drain"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func namedIn(text string) []string {
	var named []string
	for _, name := range whatIsNamed.FindAllString(text, -1) {
		if !examplesOfNames[name] {
			named = append(named, name)
		}
	}
	return named
}
