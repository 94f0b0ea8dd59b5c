package main

import (
	"bytes"
	"go/format"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args           []string
		stdin          string
		code           int
		stdout, stderr string
	}{
		"version":     {args: []string{"-version"}, stdout: program + " "},
		"--version":   {args: []string{"--version"}, stdout: program + " "},
		"help":        {args: []string{"-h"}, code: 2, stderr: "layout=flat"},
		"argument":    {args: []string{"x.proto"}, code: 2, stderr: "neither is started by hand"},
		"flag":        {args: []string{"-x"}, code: 2, stderr: "-x"},
		"not protoc":  {stdin: "hello", code: 1, stderr: "no request of buf or protoc"},
		"no services": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(tt.args, strings.NewReader(tt.stdin), &stdout, &stderr)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("exit code %d\nstdout: %s\nstderr: %s", code, stdout.String(), stderr.String())
			}
		})
	}
}

func TestParametersAreRefused(t *testing.T) {
	t.Parallel()
	set := protoFile(nil, "L")
	for parameter, says := range map[string]string{
		"flat":                    "flat: is no parameter",
		"simple=yes":              "true or false",
		"layout=deep":             "flat or nested",
		"package_suffix=a-b":      "package",
		"type=kv":                 "name the service",
		"type=p.L:":               "and its type",
		"version=":                "write a semantic version",
		"version=p.L:":            "write a semantic version",
		"requires=a;soon":         `"soon"`,
		"version=p.Typo:1.0.0":    "no such service",
		"requires=p.Typo:storage": "no such service",
	} {
		t.Run(parameter, func(t *testing.T) {
			t.Parallel()
			if res := ask(t, request(set, parameter)); !strings.Contains(res.GetError(), says) || len(res.GetFile()) > 0 {
				t.Errorf("%q, %d files; want an error that says %q", res.GetError(), len(res.GetFile()), says)
			}
		})
	}
	for _, parameter := range []string{"simple=false,layout=nested,package_suffix=", "version=elsewhere.v1.S:1.0.0", "simple="} {
		if made := files(t, ask(t, request(set, parameter))); len(made) != 2 {
			t.Errorf("%s: %d files", parameter, len(made))
		}
	}
}

// A parameter about a service that is not there says so, whichever it is and however the name is wrong. Where the service may
// be in another directory, of which buf says nothing, that is a warning.
func TestAParameterOfNoService(t *testing.T) {
	t.Parallel()
	set := protoFile(nil, "L", "PipeService")
	for service, want := range map[string]struct {
		says string
		warn bool // where buf asks
	}{
		"PipeService":          {"no such service; write p.PipeService", false},
		"pipeservice":          {"write p.PipeService", false},
		"Nothing":              {"write its full name", false},
		"p":                    {"write its full name", false},
		"p.Typo":               {"no such service", false},
		"p.pipeservice":        {"write p.PipeService", false},
		".p.PipeService":       {"write p.PipeService", false},
		"p/PipeService":        {"write its full name", false},
		"a.b.Nothing":          {"no such service", true},
		"p.v2.PipeService":     {"no such service", true},
		"p.PipeService.Method": {"no such service", true},
	} {
		for _, parameter := range []string{"version=" + service + ":2.1.0", "type=" + service + ":x", "requires=" + service + ":func"} {
			for _, by := range []*pluginpb.Version{nil, {Major: new(int32(5)), Minor: new(int32(29)), Patch: new(int32(3))}} {
				req := request(set, parameter)
				req.CompilerVersion = by
				in, err := proto.Marshal(req)
				if err != nil {
					t.Fatal(err)
				}
				var out, stderr bytes.Buffer
				code := run(nil, bytes.NewReader(in), &out, &stderr)
				res := response(t, out.Bytes())
				says, made := res.GetError(), 0
				if want.warn && by == nil {
					says, made = stderr.String(), 2
				}
				if code != 0 || len(res.GetFile()) != made || !strings.Contains(says, service+": there is") || !strings.Contains(says, want.says) {
					t.Errorf("%s, by %v: error %q, %d files, %q", parameter, by, res.GetError(), len(res.GetFile()), stderr.String())
				}
			}
		}
	}
}

// Two files that would be one are refused.
func TestFlatLayoutRefusesToMergePackages(t *testing.T) {
	t.Parallel()
	set := protoFile(nil, "L")
	other := proto.Clone(set.GetFile()[0]).(*descriptorpb.FileDescriptorProto)
	other.Name, other.Package = new("other/p.proto"), new("other")
	other.Options.GoPackage = new("example.com/other;p")
	set.File = append(set.File, other)
	if res := ask(t, request(set, "layout=flat")); !strings.Contains(res.GetError(), "would both be") {
		t.Errorf("error %q", res.GetError())
	}
	if made := files(t, ask(t, request(set, ""))); len(made) != 4 {
		t.Errorf("nested: %d files", len(made))
	}
}

// The same request gives the same bytes, the order of files does not matter for what
// is in them, and gofmt has nothing to say.
func TestOutputIsDeterministicAndFormatted(t *testing.T) {
	t.Parallel()
	req := request(testImage(t), "requires=a,requires=b")
	first := ask(t, req)
	for range 5 {
		if !proto.Equal(first, ask(t, req)) {
			t.Fatal("the same request gave something else")
		}
	}
	for name, content := range files(t, first) {
		formatted, err := format.Source([]byte(content))
		if err != nil || string(formatted) != content {
			t.Errorf("%s: gofmt would change it (%v)", name, err)
		}
	}
	features := uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL | pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS)
	if first.GetSupportedFeatures() != features || first.GetMaximumEdition() != int32(descriptorpb.Edition_EDITION_2024) {
		t.Errorf("features %b up to edition %d", first.GetSupportedFeatures(), first.GetMaximumEdition())
	}
}

// Comments of .proto files cannot become directives, nor end the comment.
func TestCommentsStayComments(t *testing.T) {
	t.Parallel()
	set := protoFile(nil, "L")
	set.File[0].SourceCodeInfo = &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{{
		Path: []int32{6, 0}, Span: []int32{0, 0, 0},
		LeadingComments: new("go:generate rm -rf /\n*/ import \"os\"\r\nline:x.go:1\x00\x0b\uFEFF\n\n\n"),
	}}}
	for name, content := range files(t, ask(t, request(set, ""))) {
		lines := strings.Split(content, "\n")
		if strings.Contains(name, "delegate") != slices.Contains(lines, "// go:generate rm -rf /") {
			t.Errorf("%s:\n%s", name, content)
		}
		for _, l := range lines {
			if strings.Contains(l, "import \"os\"") && !strings.HasPrefix(l, "// ") {
				t.Errorf("%s: %s", name, l)
			}
		}
	}
}
