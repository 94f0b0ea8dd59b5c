package main

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

var conformanceImage = flag.String("conformance.image", "", "an image of the .proto files of Connect's conformance suite")

const testModule = "example.com/gentest"

// TestGeneratedCodeRuns compiles what the three generators make of the test's .proto
// files, and with the options that change the generated Connect code, and runs programs
// that use it.
func TestGeneratedCodeRuns(t *testing.T) {
	t.Parallel()
	m := newModule(t)
	m.generate(testImage(t), "", "")
	const file = "streams/v1/streams.proto"
	moved := ",M" + file + "=" + testModule + "/simple/streams/v1;streamsv1"
	m.generate(testImage(t), moved, ",simple,package_suffix=rpc", file)
	m.runs("kinds", "names", "streams", "simple")
}

// TestConformanceProtos does the same with the service of Connect's conformance suite,
// whose .proto files are not ours to keep here: `make checkgenerate` compiles them.
func TestConformanceProtos(t *testing.T) {
	t.Parallel()
	if *conformanceImage == "" {
		t.Skip("make checkgenerate runs it")
	}
	set := image(t, *conformanceImage)
	moved := ""
	for _, f := range set.GetFile() {
		if strings.HasPrefix(f.GetName(), "connectrpc/") {
			moved += ",M" + f.GetName() + "=" + testModule + "/conformance/v1;conformancev1"
		}
	}
	m := newModule(t)
	m.generate(set, moved, "")
	m.runs("conformance")
}

// module is a Go module in a temporary directory that requires what the library does,
// and the library itself, with the generators beside it.
type module struct {
	t          *testing.T
	dir        string
	generators string // where they are
}

func newModule(t *testing.T) *module {
	t.Helper()
	m := &module{t: t, dir: t.TempDir()}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mod), "module "+modulePath, "module "+testModule, 1) +
		"\nrequire " + modulePath + " v0.0.0\n\nreplace " + modulePath + " => " + root + "\n"
	m.write("go.mod", text)
	m.write("go.sum", string(sum))
	m.generators = t.TempDir()
	m.build(".", m.generators, ".", "google.golang.org/protobuf/cmd/protoc-gen-go", "connectrpc.com/connect/cmd/protoc-gen-connect-go")
	return m
}

func (m *module) write(name, content string) {
	m.t.Helper()
	path := filepath.Join(m.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// command runs a command in the module, or in the library's, and returns its output.
func (m *module) command(dir string, stdin []byte, name string, args ...string) []byte {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(stdin), &stderr
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

// build builds programs into bin, without what debuggers want, which takes long to link.
func (m *module) build(dir, bin string, programs ...string) {
	m.t.Helper()
	m.tool(dir, "build", append([]string{"-ldflags=-s -w", "-o", bin + string(filepath.Separator)}, programs...)...)
}

// tool runs the go command, which looks for races where this program does: it finds the
// library compiled already.
func (m *module) tool(dir, verb string, args ...string) {
	m.t.Helper()
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append([]string{"-race"}, args...)
	}
	m.command(dir, nil, "go", append([]string{verb}, args...)...)
}

// generate writes what the generators make. moved is for all of them, options for the
// two that make services.
func (m *module) generate(set *descriptorpb.FileDescriptorSet, moved, options string, names ...string) {
	m.t.Helper()
	for generator, extra := range map[string]string{
		"protoc-gen-go": moved, "protoc-gen-connect-go": moved + options, program: moved + options,
	} {
		in, err := proto.Marshal(request(set, "module="+testModule+extra, names...))
		if err != nil {
			m.t.Fatal(err)
		}
		made := files(m.t, response(m.t, m.command(m.dir, in, filepath.Join(m.generators, generator))))
		if len(made) == 0 {
			m.t.Fatalf("%s made nothing", generator)
		}
		for name, content := range made {
			m.write(name, content)
		}
	}
}

// runs vets all that was generated and runs programs of testdata/run.
func (m *module) runs(programs ...string) {
	m.t.Helper()
	for _, p := range programs {
		source, err := os.ReadFile(filepath.Join("testdata", "run", p, "main.go"))
		if err != nil {
			m.t.Fatal(err)
		}
		m.write("cmd/"+p+"/main.go", string(source))
	}
	m.tool(m.dir, "vet", "./...")
	bin := m.t.TempDir()
	m.build(m.dir, bin, "./cmd/...")
	for _, p := range programs {
		out := m.command(m.dir, nil, filepath.Join(bin, p))
		if string(out) != "ok\n" {
			m.t.Errorf("%s: %s", p, out)
		}
	}
}

// TestGolden compares with what was generated before. -update accepts what is
// different.
func TestGolden(t *testing.T) {
	t.Parallel()
	for dir, parameter := range map[string]string{
		"nested": "paths=source_relative",
		"flat":   "layout=flat,simple,package_suffix=rpc,version=3.2.1,requires=storage@>=1.2;startup;watch",
	} {
		t.Run(dir, func(t *testing.T) {
			t.Parallel()
			var names []string
			if dir == "flat" {
				names = []string{"streams/v1/streams.proto", "several/v1/b.proto"}
			}
			compareTree(t, filepath.Join("testdata", "golden", dir), files(t, ask(t, request(testImage(t), parameter, names...))))
		})
	}
}

var update = flag.Bool("update", false, "write testdata/golden")

// compareTree compares the files below a directory with those that were generated.
func compareTree(t *testing.T, dir string, made map[string]string) {
	t.Helper()
	if *update {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		m := &module{t: t, dir: dir}
		for name, content := range made {
			m.write(name, content)
		}
	}
	there := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		there[filepath.ToSlash(name)] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(made)), slices.Sorted(maps.Keys(there)); !slices.Equal(got, want) {
		t.Fatalf("made %q\nthere are %q", got, want)
	}
	for name, content := range made {
		if there[name] != content {
			t.Errorf("%s is different; see it with -update and git diff:\n%s", name, content)
		}
	}
}
