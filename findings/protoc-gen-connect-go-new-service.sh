#!/usr/bin/env bash
# Guess: what is generated from a valid .proto file compiles, as with protoc-gen-go, which renames what collides.
# Seen: with connectrpc.com/connect v1.21.1 (cmd/protoc-gen-connect-go) services KV and NewKV in one package give two of
# NewKVClient, the constructor for KV and the interface of NewKV, and the package does not compile.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
go mod init example.com/finding > /dev/null 2>&1
go get connectrpc.com/connect@v1.21.1 google.golang.org/protobuf@v1.36.12 > /dev/null 2>&1
go build -o . google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
mkdir find
cat > find/main.go <<'EOF'
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const collision = "NewKVClient redeclared in this block"

func main() {
	os.Exit(find("."))
}

func find(dir string) int {
	version, _ := run(dir, nil, "./protoc-gen-connect-go", "--version")

	service := func(name string) *descriptorpb.ServiceDescriptorProto {
		return &descriptorpb.ServiceDescriptorProto{Name: &name}
	}
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{"kv.proto"}, Parameter: proto.String("module=example.com/finding"),
		ProtoFile: []*descriptorpb.FileDescriptorProto{{
			Name: proto.String("kv.proto"), Package: proto.String("kv"), Syntax: proto.String("proto3"),
			Options: &descriptorpb.FileOptions{GoPackage: proto.String("example.com/finding/kv")},
			Service: []*descriptorpb.ServiceDescriptorProto{service("KV"), service("NewKV")},
		}},
	})
	check(err)
	for _, generator := range []string{"./protoc-gen-go", "./protoc-gen-connect-go"} {
		out, _ := run(dir, in, generator)
		res := &pluginpb.CodeGeneratorResponse{}
		check(proto.Unmarshal([]byte(out), res))
		for _, f := range res.GetFile() {
			path := filepath.Join(dir, f.GetName())
			check(os.MkdirAll(filepath.Dir(path), 0o700))
			check(os.WriteFile(path, []byte(f.GetContent()), 0o600))
		}
	}

	_, said := run(dir, nil, "go", "build", "./kv/...")
	fmt.Printf("protoc-gen-connect-go %sgo build: %s", version, said)
	if !strings.Contains(said, collision) {
		fmt.Println("CHANGED: what is generated compiles")
		return 1
	}
	return 0
}

// run runs a program and returns what it wrote to both outputs.
func run(dir string, stdin []byte, name string, args ...string) (stdout, stderr string) {
	var out, errors bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, bytes.NewReader(stdin), &out, &errors
	_ = cmd.Run()
	return out.String(), errors.String()
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
EOF
go run ./find
