#!/usr/bin/env bash
# Guess: what go-containerregistry makes of an image's layers as one archive (mutate.Extract, which crane export writes) is the file system that containerd makes of them: both go by
# image-spec's layers.
# Seen: with github.com/google/go-containerregistry v0.22.1 and github.com/containerd/containerd/v2 v2.4.2 (archive.Apply): (1) where a layer removes one of
# two files that a lower one has hard-linked, the archive has a link to the file that it leaves out: neither GNU tar nor containerd can unpack it. (2) Where a layer replaces one of
# the two, both are replaced. It reads layers from the last to the first.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/containerd/containerd/v2 v2.4.2
	github.com/google/go-containerregistry v0.22.1
)
EOT
cat > main.go <<'EOT'
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/pkg/archive"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// layer makes a layer of entries: "d/" is a folder, "a=1" a file, "b>a" a hard link.
func layer(entries ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o755}
		name, body, _ := strings.Cut(e, "=")
		if from, to, ok := strings.Cut(name, ">"); ok {
			name, h.Linkname, h.Typeflag = from, to, tar.TypeLink
		} else if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		h.Name, h.Size = name, int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			panic(err)
		}
		must(io.WriteString(w, body))
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func list(dir string) string {
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := must(filepath.Rel(dir, path))
		switch {
		case err != nil || name == ".":
			return err
		case d.IsDir():
			out = append(out, name+"/")
		default:
			out = append(out, name+"="+string(must(os.ReadFile(path))))
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	return "[" + strings.Join(out, " ") + "]"
}

// applied is what containerd has after it has applied the layers.
func applied(layers ...[]byte) string {
	dir := must(os.MkdirTemp(".", "applied"))
	for _, l := range layers {
		if _, err := archive.Apply(context.Background(), dir, bytes.NewReader(l), archive.WithNoSameOwner()); err != nil {
			return "cannot be unpacked"
		}
	}
	return list(dir)
}

// extracted is what GNU tar has of the archive that go-containerregistry makes, and what containerd has of it.
func extracted(layers ...[]byte) (string, string) {
	var image v1.Image = empty.Image
	for _, l := range layers {
		image = must(mutate.AppendLayers(image, must(tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(l)), nil }))))
	}
	r := mutate.Extract(image)
	defer r.Close()
	flat := must(io.ReadAll(r))
	dir := must(os.MkdirTemp(".", "extracted"))
	gnu := exec.Command("tar", "-x", "--no-same-owner", "-C", dir)
	gnu.Stdin = bytes.NewReader(flat)
	if gnu.Run() != nil {
		return "cannot be unpacked", applied(flat)
	}
	return list(dir), applied(flat)
}

func main() {
	for _, c := range []struct {
		what   string
		layers [][]byte
	}{
		{"a file is removed", [][]byte{layer("a=1", "b=1"), layer(".wh.a=")}},
		{"a folder is emptied", [][]byte{layer("d/", "d/a=1"), layer("d/", "d/.wh..wh..opq=", "d/b=2")}},
		{"one of two linked files is removed", [][]byte{layer("a=1", "b>a"), layer(".wh.a=")}},
		{"one of two linked files is replaced", [][]byte{layer("a=1", "b>a"), layer("a=2")}},
	} {
		gnu, containerd := extracted(c.layers...)
		fmt.Printf("%s: containerd %s, the archive by GNU tar %s, by containerd %s\n", c.what, applied(c.layers...), gnu, containerd)
	}
}
EOT
cat > want <<'EOT'
a file is removed: containerd [b=1], the archive by GNU tar [b=1], by containerd [b=1]
a folder is emptied: containerd [d/ d/b=2], the archive by GNU tar [d/ d/b=2], by containerd [d/ d/b=2]
one of two linked files is removed: containerd [b=1], the archive by GNU tar cannot be unpacked, by containerd cannot be unpacked
one of two linked files is replaced: containerd [a=2 b=1], the archive by GNU tar [a=2 b=2], by containerd [a=2 b=2]
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/google/go-containerregistry github.com/containerd/containerd/v2
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
