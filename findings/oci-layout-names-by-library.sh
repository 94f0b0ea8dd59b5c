#!/usr/bin/env bash
# Guess: a name in a layout of OCI is one image, whichever library of Go writes it and reads it: its index.json has it as the annotation org.opencontainers.image.ref.name.
# Seen: github.com/google/go-containerregistry v0.22.1 adds a second entry of the name where a newer image is appended under one that the layout has (layout.AppendImage). From then on
# oras.land/oras-go/v2 v2.7.0 reads the newer of the two (the last), github.com/regclient/regclient v0.11.7 the older (the first). And an entry whose name is a whole reference,
# docker.io/library/plugin:v1, is found by oras-go and go-containerregistry by just that, and by regclient, which takes none of that kind, as "v1", which the others do not find.
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
	github.com/regclient/regclient v0.11.7
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/regclient/regclient"
	"github.com/regclient/regclient/types/ref"
	"oras.land/oras-go/v2/content/oci"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func do(err error) {
	if err != nil {
		panic(err)
	}
}

// read says which of the images each library has for a name.
func read(dir, name string, images map[string]string) string {
	ctx := context.Background()
	byORAS, byRegclient := "none", "none"
	if d, err := must(oci.New(dir)).Resolve(ctx, name); err == nil {
		byORAS = images[d.Digest.String()]
	}
	if r, err := ref.New("ocidir://" + dir + ":" + name); err != nil {
		byRegclient = "invalid"
	} else if m, err := regclient.New().ManifestHead(ctx, r); err == nil {
		byRegclient = images[m.GetDescriptor().Digest.String()]
	}
	var all []string
	for _, d := range must(must(must(layout.FromPath(dir)).ImageIndex()).IndexManifest()).Manifests {
		if match.Name(name)(d) {
			all = append(all, images[d.Digest.String()])
		}
	}
	return fmt.Sprintf("%s: in the index %v, oras-go %s, regclient %s", name, all, byORAS, byRegclient)
}

func main() {
	older, newer := must(random.Image(10, 1)), must(random.Image(10, 1))
	images := map[string]string{must(older.Digest()).String(): "the older", must(newer.Digest()).String(): "the newer"}
	named := func(name string) layout.Option {
		return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})
	}
	write := func(dir, name string, images ...v1.Image) layout.Path {
		path := must(layout.Write(dir, empty.Index))
		for _, i := range images {
			do(path.AppendImage(i, named(name)))
		}
		return path
	}
	write("once", "v1", older)
	fmt.Println("one image,", read("once", "v1", images))
	write("twice", "v1", older, newer)
	fmt.Println("appended again,", read("twice", "v1", images))
	do(write("replaced", "v1", older).ReplaceImage(newer, match.Name("v1"), named("v1")))
	fmt.Println("replaced,", read("replaced", "v1", images))
	write("whole", "docker.io/library/plugin:v1", older)
	fmt.Println("a whole reference,", read("whole", "docker.io/library/plugin:v1", images))
	fmt.Println("a whole reference,", read("whole", "v1", images))
}
EOT
cat > want <<'EOT'
one image, v1: in the index [the older], oras-go the older, regclient the older
appended again, v1: in the index [the older the newer], oras-go the newer, regclient the older
replaced, v1: in the index [the newer], oras-go the newer, regclient the newer
a whole reference, docker.io/library/plugin:v1: in the index [the older], oras-go the older, regclient invalid
a whole reference, v1: in the index [], oras-go none, regclient the older
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/google/go-containerregistry oras.land/oras-go/v2 github.com/regclient/regclient
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
