#!/usr/bin/env bash
# Guess: a plugin that is pushed to a registry with oras-go and pulled from there can be run, as what comes from an image can: what stands in
# a directory of its own or alone is packed alike.
# Seen: oras.land/oras-go/v2 v2.7.0 (content/file) packs a directory as a tar archive, with the modes of its files, and a single file as its bytes alone. A
# program that was 0755 is 0644 when it is pulled, where the umask is 022, and cannot be started, "permission denied"; in a directory that is added as
# one it keeps its mode. Nothing says so. Where the file is there already, as an older version of the plugin is on a host that was mended by
# chmod, it is written over and keeps the mode that it has: so the first pull alone shows it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/google/go-containerregistry v0.22.1
	github.com/opencontainers/image-spec v1.1.1
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
)

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

const plugin = "#!/bin/sh\necho started\n"

func main() {
	syscall.Umask(0o022)
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	repository := must(remote.NewRepository(strings.TrimPrefix(s.URL, "http://") + "/team/plugin"))
	repository.PlainHTTP = true
	check(os.MkdirAll("source/whole", 0o755))
	for _, in := range []string{"source", "source/whole"} {
		check(os.WriteFile(filepath.Join(in, "plugin"), []byte(plugin), 0o755))
	}
	push(repository)
	pull(repository)
	var seen []string
	for _, name := range []string{"plugin", "whole/plugin"} {
		name = filepath.Join("pulled", name)
		seen = append(seen, fmt.Sprint(name, " ", must(os.Stat(name)).Mode()))
	}
	for _, name := range []string{"pulled/plugin", "pulled/whole/plugin"} {
		out, err := exec.Command("./" + name).CombinedOutput()
		seen = append(seen, fmt.Sprintf("%s: %q, permission denied %t", name, out, errors.Is(err, fs.ErrPermission)))
	}
	check(os.Chmod("pulled/plugin", 0o755))
	pull(repository)
	seen = append(seen, fmt.Sprint("pulled again: ", must(os.Stat("pulled/plugin")).Mode()))
	want := []string{
		"pulled/plugin -rw-r--r--", "pulled/whole/plugin -rwxr-xr-x",
		`pulled/plugin: "", permission denied true`, `pulled/whole/plugin: "started\n", permission denied false`,
		"pulled again: -rwxr-xr-x",
	}
	fmt.Println(strings.Join(seen, "\n"))
	if strings.Join(seen, "\n") != strings.Join(want, "\n") {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

func push(to oras.Target) {
	ctx := context.Background()
	store := must(file.New("source"))
	defer store.Close()
	var layers []v1.Descriptor
	for _, name := range []string{"plugin", "whole"} {
		layers = append(layers, must(store.Add(ctx, name, "application/vnd.example.plugin", "")))
	}
	manifest := must(oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "application/vnd.example.plugin", oras.PackManifestOptions{Layers: layers}))
	check(store.Tag(ctx, manifest, "v1"))
	must(oras.Copy(ctx, store, "v1", to, "v1", oras.DefaultCopyOptions))
}

func pull(from oras.Target) {
	store := must(file.New("pulled"))
	defer store.Close()
	must(oras.Copy(context.Background(), from, "v1", store, "v1", oras.DefaultCopyOptions))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m oras.land/oras-go/v2
GOTOOLCHAIN=local timeout 120 go run .
