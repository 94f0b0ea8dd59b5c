package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// image reads .proto files that buf made one image of.
func image(t testing.TB, path string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		t.Fatal(err)
	}
	return set
}

func testImage(t testing.TB) *descriptorpb.FileDescriptorSet {
	t.Helper()
	return image(t, filepath.Join("testdata", "protos.binpb"))
}

// request is what buf asks a plugin for; without names it asks for every file that is
// no import of the others' makers.
func request(set *descriptorpb.FileDescriptorSet, parameter string, names ...string) *pluginpb.CodeGeneratorRequest {
	if names == nil {
		for _, f := range set.GetFile() {
			if !strings.HasPrefix(f.GetName(), "google/") && !strings.HasPrefix(f.GetName(), "connectplugin/") {
				names = append(names, f.GetName())
			}
		}
	}
	return &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: new(parameter), ProtoFile: set.GetFile()}
}

// ask runs the program as buf does.
func ask(t testing.TB, req *pluginpb.CodeGeneratorRequest) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	in, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	if code := run(nil, bytes.NewReader(in), &out, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	return response(t, out.Bytes())
}

func response(t testing.TB, raw []byte) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	res := &pluginpb.CodeGeneratorResponse{}
	if err := proto.Unmarshal(raw, res); err != nil {
		t.Fatal(err)
	}
	return res
}

// files returns what was generated, by name.
func files(t testing.TB, res *pluginpb.CodeGeneratorResponse) map[string]string {
	t.Helper()
	if res.Error != nil {
		t.Fatal(res.GetError())
	}
	out := map[string]string{}
	for _, f := range res.GetFile() {
		if _, twice := out[f.GetName()]; twice {
			t.Errorf("%s is generated twice", f.GetName())
		}
		out[f.GetName()] = f.GetContent()
	}
	return out
}
