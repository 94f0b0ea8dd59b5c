package projecttest_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	span     = regexp.MustCompile("`([^`]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`^#+ +(.*)$`)
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	makes    = regexp.MustCompile(`(?:^|&& )make((?: +[a-z][a-z-]*)+)`)
	goPath   = regexp.MustCompile(`\bgo (?:run|build|test|vet)\b[^|;&#]*`)
	typeName = regexp.MustCompile(`^\*?([A-Z]\w*)\.([A-Za-z]\w*)(\(.*\))?$`)
	oneName  = regexp.MustCompile(`^([A-Z]\w*[a-z]\w*[A-Z]\w*)(\(.*\))?$`)
	filePath = regexp.MustCompile(`^[\w.*-]+(/[\w.*-]+)+/?$|^\w+\.(?:go|md|json|sh)$`)
	// placeholder is a path for which the reader has another name.
	placeholder = regexp.MustCompile(`(?:^|/)(?:[A-Z]{2,}|x\.go)(?:/|$)`)
	cell        = regexp.MustCompile(`^\|([^|]*)\|`)
)

// announcedFile lists what documents may name before the code has it. It can only shrink.
const announcedFile = "announced.txt"

// programDirs are the directories from which documents run programs.
var programDirs = []string{".", "examples", "examples/start", "bench", "interop"}

// Everything that a document names exists: what a link leads to, a target of make, a path, a program, a field or
// a method, a name in the code, and a message of which troubleshooting.md says what it means.
func TestDocumentsNameWhatExists(t *testing.T) {
	t.Parallel()
	n := repositoryNames(t)
	docs := documents(t)
	headings := map[string][]string{}
	for _, d := range docs {
		headings[d.path] = slugs(d)
	}
	came := slices.DeleteFunc(readLines(t, announcedFile), n.announce)
	shrinkList(t, came, announcedFile)
	if len(came) > 0 && !*shrink {
		t.Errorf("%q are there: run go test ./internal/projecttest -shrink, which removes them from %s", came, announcedFile)
	}
	for _, d := range docs {
		for _, p := range referenceProblems(d, n, headings) {
			t.Error(p)
		}
	}
}

// announce takes a file, a field or a name for one that is there, and reports whether it was not.
func (n *names) announce(name string) bool {
	typeName, member, isMember := strings.Cut(name, ".")
	switch {
	case strings.Contains(name, "/"):
		was := n.files[name]
		n.files[name] = true
		return !was
	case isMember && n.members[typeName][member], !isMember && n.words[name]:
		return false
	case isMember:
		n.member(typeName, member)
	default:
		n.words[name] = true
	}
	return true
}

func referenceProblems(d document, n *names, headings map[string][]string) []string {
	var problems []string
	add := func(line int, what string) { problems = append(problems, fmt.Sprintf("%s:%d: %s", d.path, line, what)) }
	required := false // what the findings ask for need not be there yet
	for i, line := range d.prose() {
		if line == strings.TrimSpace(tableBegin) || line == strings.TrimSpace(tableEnd) {
			required = !required
		}
		if required {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(span.ReplaceAllString(line, ""), -1) {
			if !linked(d.path, m[1], n, headings) {
				add(i+1, m[1]+" leads nowhere")
			}
		}
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			if what := nameProblem(d.path, m[1], n); what != "" {
				add(i+1, what)
			}
		}
		if path.Base(d.path) == "troubleshooting.md" {
			for _, m := range span.FindAllStringSubmatch(cell.FindString(line), -1) {
				if !said(m[1], n.texts) {
					add(i+1, "no program says "+m[1])
				}
			}
		}
	}
	for _, b := range d.blocks {
		if b.language != "sh" {
			continue
		}
		for i, line := range strings.Split(b.code, "\n") {
			if what := commandProblem(line, n); what != "" {
				add(b.line+1+i, what)
			}
		}
	}
	return problems
}

// linked reports whether a link leads to a file, and to a heading in it. What is elsewhere is not asked.
func linked(from, target string, n *names, headings map[string][]string) bool {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return true
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = path.Join(path.Dir(from), file)
	}
	return n.files[to] && (anchor == "" || slices.Contains(headings[to], anchor))
}

// slugs returns the anchors of a document, as GitHub makes them.
func slugs(d document) []string {
	var all []string
	for _, line := range d.prose() {
		if m := heading.FindStringSubmatch(line); m != nil {
			all = append(all, strings.ReplaceAll(notSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
		}
	}
	return all
}

// nameProblem says what is wrong with the text between two backquotes.
func nameProblem(from, text string, n *names) string {
	if what := commandProblem(text, n); what != "" {
		return what
	}
	if filePath.MatchString(text) && !placeholder.MatchString(text) {
		if !isPath(from, text, n) {
			return text + " does not exist"
		}
		return ""
	}
	if m := typeName.FindStringSubmatch(text); m != nil {
		if members, ok := n.members[m[1]]; ok && !members[m[2]] {
			return m[1] + " has no " + m[2]
		} else if !ok && !n.words[m[1]] {
			return "there is no " + m[1]
		}
	}
	if m := oneName.FindStringSubmatch(text); len(m) > 1 && !n.words[m[1]] {
		return "there is no " + m[1]
	}
	return ""
}

// isPath reports whether a text that looks like a path is one, from the root or from the document, or begins with
// nothing that is in the root and so is none of ours.
func isPath(from, text string, n *names) bool {
	first, _, nested := strings.Cut(text, "/")
	text = strings.TrimSuffix(strings.ReplaceAll(text, "**", "*"), "/")
	for _, p := range []string{text, path.Join(path.Dir(from), text)} {
		if n.files[p] {
			return true
		}
		if !strings.Contains(p, "*") {
			continue
		}
		for file := range n.files {
			if ok, _ := path.Match(p, file); ok {
				return true
			}
		}
	}
	if !nested {
		return slices.ContainsFunc(mapKeys(n.files), func(f string) bool { return path.Base(f) == text })
	}
	return !n.files[first]
}

func mapKeys(m map[string]bool) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// commandProblem says what a line for the shell names that is not there.
func commandProblem(line string, n *names) string {
	for _, m := range makes.FindAllStringSubmatch(line, -1) {
		for target := range strings.FieldsSeq(m[1]) {
			if !n.targets[target] {
				return "make has no target " + target
			}
		}
	}
	for _, command := range goPath.FindAllString(line, -1) {
		for arg := range strings.FieldsSeq(command) {
			if strings.HasPrefix(arg, "./") && !strings.HasSuffix(arg, "...") && !isProgram(arg, n) {
				return arg + " is no directory of a program"
			}
		}
	}
	return ""
}

func isProgram(arg string, n *names) bool {
	return slices.ContainsFunc(programDirs, func(dir string) bool { return n.files[path.Join(dir, arg)] })
}

// said reports whether each part of a message, around what differs ("…"), is in a text of a program.
func said(message string, texts []string) bool {
	for part := range strings.SplitSeq(message, "…") {
		part = strings.TrimSpace(part)
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, part) }) {
			return false
		}
	}
	return true
}

// The judgement itself, on documents that are wrong.
func TestReferences(t *testing.T) {
	t.Parallel()
	n := &names{files: map[string]bool{}, targets: map[string]bool{}, members: map[string]map[string]bool{}, words: map[string]bool{}}
	n.read(t, "Makefile", "demo: ## x\n")
	n.read(t, "a.go", "package a\n\ntype Config struct{ Addr string }\n\nfunc (*Config) Validate() error { return errors.New(\"is \" + \"taken\") }\n\nfunc NewConfig() {}\n")
	n.read(t, "a.proto", "syntax = \"proto3\";\n\nservice Echo {\n  rpc Say(A) returns (B);\n}\n\nmessage A {\n  string text = 1;\n}\n")
	for _, f := range []string{"docs", "docs/troubleshooting.md", "README.md", "test", "test/host", "examples", "examples/kv"} {
		n.files[f] = true
	}
	headings := map[string][]string{"README.md": slugs(parseDocument("README.md", "# The Words, again!\n"))}
	for _, tt := range []struct{ text, problem string }{
		{"`Config.Addr` `*Config.Validate` `Config.Validate()` `Echo.Say` `A.text` `NewConfig` `http.Server` `SIGTERM` `Accept`", ""},
		{"[a](../README.md#the-words-again) [b](#) `test/host` `README.md` `test/*` `make demo` `application/json` `https://x/y`", ""},
		{"```sh\ncd examples && go run ./kv\nmake demo FLAGS=x\n```", ""},
		{"| `x … taken` | no table of messages |", "no program says x … taken"},
		{"| `is taken` | `whatever` |", ""},
		{"`Config.Port`", "Config has no Port"},
		{"`Confog.Addr`", "there is no Confog"},
		{"`NewConfog(x)`", "there is no NewConfog"},
		{"`Echo.Sing`", "Echo has no Sing"},
		{"`A.tune`", "A has no tune"},
		{"[a](../README.md#words)", "leads nowhere"},
		{"[a](README.md)", "leads nowhere"},
		{"`test/guest`", "test/guest does not exist"},
		{"`other.go`", "other.go does not exist"},
		{"`make tea`", "make has no target tea"},
		{"```sh\nmake demo tea\n```", "make has no target tea"},
		{"```sh\ncd examples\ngo run -race ./vk x\n```", "./vk is no directory"},
	} {
		got := strings.Join(referenceProblems(parseDocument("docs/troubleshooting.md", tt.text), n, headings), "\n")
		if tt.problem == "" && got != "" || !strings.Contains(got, tt.problem) {
			t.Errorf("%s: %q, want %q", tt.text, got, tt.problem)
		}
	}
}
