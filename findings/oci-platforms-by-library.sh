#!/usr/bin/env bash
# Guess: an index of OCI gives one image for a platform, whichever library of Go asks for it: what "os", "architecture" and "variant" are stands in image-spec, which also says
# that a variant may be missing and that of more than one that match the first is to be taken.
# Seen: for linux/arm64/v8, github.com/google/go-containerregistry v0.22.1 (remote.Image) and oras.land/oras-go/v2 v2.7.0 (oras.Resolve) find nothing in an index that says
# "arm64" without a variant; github.com/containerd/platforms v0.2.1 (Only) and github.com/regclient/regclient v0.11.7 (platform.Compare) take the two as one. The same goes for
# linux/arm and linux/arm/v7, and for amd64 and amd64/v1. For linux/arm and an index of arm/v6 and arm/v7 the first two take the first, v6, the others v7. And an image of
# arm/v7 or 386 is taken for arm64 and amd64 by containerd/platforms alone, where the index has none of their own.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/containerd/platforms v0.2.1
	github.com/google/go-containerregistry v0.22.1
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
	github.com/regclient/regclient v0.11.7
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	spec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/regclient/regclient/types/platform"
	"oras.land/oras-go/v2"
	orasremote "oras.land/oras-go/v2/registry/remote"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func parse(text string) *spec.Platform {
	parts := append(strings.Split(text, "/"), "")
	return &spec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

func text(p *spec.Platform) string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// push puts an index with an image for each platform into the registry.
func push(ctx context.Context, to *orasremote.Repository, has []string) (out []spec.Descriptor) {
	blob := func(mediaType string, v any) spec.Descriptor {
		b := must(json.Marshal(v))
		d := spec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := to.Push(ctx, d, bytes.NewReader(b)); err != nil {
			panic(err)
		}
		return d
	}
	for _, h := range has {
		config := blob(spec.MediaTypeImageConfig, spec.Image{Platform: *parse(h), RootFS: spec.RootFS{Type: "layers"}})
		d := blob(spec.MediaTypeImageManifest, map[string]any{"schemaVersion": 2, "mediaType": spec.MediaTypeImageManifest, "config": config, "layers": []any{}})
		d.Platform = parse(h)
		out = append(out, d)
	}
	index := blob(spec.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "mediaType": spec.MediaTypeImageIndex, "manifests": out})
	if err := to.Tag(ctx, index, "latest"); err != nil {
		panic(err)
	}
	return out
}

func main() {
	ctx := context.Background()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for i, c := range []struct {
		has  []string
		want string
	}{
		{[]string{"linux/amd64", "linux/arm64"}, "linux/arm64"},
		{[]string{"linux/amd64", "linux/arm64"}, "linux/arm64/v8"},
		{[]string{"linux/amd64", "linux/arm64/v8"}, "linux/arm64"},
		{[]string{"linux/amd64", "linux/arm64/v8"}, "linux/arm64/v8"},
		{[]string{"linux/amd64", "linux/arm"}, "linux/arm/v7"},
		{[]string{"linux/amd64", "linux/arm64"}, "linux/amd64/v1"},
		{[]string{"linux/arm/v6", "linux/arm/v7"}, "linux/arm"},
		{[]string{"linux/arm/v6", "linux/arm/v7"}, "linux/arm64"},
		{[]string{"linux/386"}, "linux/amd64"},
	} {
		repository := must(orasremote.NewRepository(fmt.Sprintf("%s/image%d", host, i)))
		repository.PlainHTTP = true
		images := push(ctx, repository, c.has)

		// by digest, the platform that a library chose.
		chosen := func(d string, err error) string {
			at := slices.IndexFunc(images, func(x spec.Descriptor) bool { return x.Digest.String() == d })
			if err != nil || at < 0 {
				return "none"
			}
			return text(images[at].Platform)
		}
		ggcr := func() string {
			image, err := remote.Image(must(name.ParseReference(repository.Reference.String()+":latest", name.Insecure)), remote.WithPlatform(*must(v1.ParsePlatform(c.want))))
			if err != nil {
				return "none"
			}
			return chosen(must(image.Digest()).String(), nil)
		}()
		options := oras.DefaultResolveOptions
		options.TargetPlatform = parse(c.want)
		d, err := oras.Resolve(ctx, repository, "latest", options)
		byORAS := chosen(d.Digest.String(), err)

		byContainerd, only := "none", platforms.Only(must(platforms.Parse(c.want)))
		ordered := slices.Clone(images)
		slices.SortStableFunc(ordered, func(a, b spec.Descriptor) int {
			switch {
			case only.Less(*a.Platform, *b.Platform):
				return -1
			case only.Less(*b.Platform, *a.Platform):
				return 1
			}
			return 0
		})
		if only.Match(*ordered[0].Platform) {
			byContainerd = text(ordered[0].Platform)
		}

		byRegclient, best, compare := "none", platform.Platform{}, platform.NewCompare(must(platform.Parse(c.want)))
		for _, h := range c.has {
			if p := parse(h); compare.Better(platform.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, best) {
				best, byRegclient = platform.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}, h
			}
		}
		fmt.Printf("%s of %s: go-containerregistry %s, oras-go %s, containerd %s, regclient %s\n", c.want, strings.Join(c.has, " "), ggcr, byORAS, byContainerd, byRegclient)
	}
}
EOT
cat > want <<'EOT'
linux/arm64 of linux/amd64 linux/arm64: go-containerregistry linux/arm64, oras-go linux/arm64, containerd linux/arm64, regclient linux/arm64
linux/arm64/v8 of linux/amd64 linux/arm64: go-containerregistry none, oras-go none, containerd linux/arm64, regclient linux/arm64
linux/arm64 of linux/amd64 linux/arm64/v8: go-containerregistry linux/arm64/v8, oras-go linux/arm64/v8, containerd linux/arm64/v8, regclient linux/arm64/v8
linux/arm64/v8 of linux/amd64 linux/arm64/v8: go-containerregistry linux/arm64/v8, oras-go linux/arm64/v8, containerd linux/arm64/v8, regclient linux/arm64/v8
linux/arm/v7 of linux/amd64 linux/arm: go-containerregistry none, oras-go none, containerd linux/arm, regclient linux/arm
linux/amd64/v1 of linux/amd64 linux/arm64: go-containerregistry none, oras-go none, containerd linux/amd64, regclient linux/amd64
linux/arm of linux/arm/v6 linux/arm/v7: go-containerregistry linux/arm/v6, oras-go linux/arm/v6, containerd linux/arm/v7, regclient linux/arm/v7
linux/arm64 of linux/arm/v6 linux/arm/v7: go-containerregistry none, oras-go none, containerd linux/arm/v7, regclient none
linux/amd64 of linux/386: go-containerregistry none, oras-go none, containerd linux/386, regclient none
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/google/go-containerregistry oras.land/oras-go/v2 github.com/containerd/platforms github.com/regclient/regclient
GOTOOLCHAIN=local go build -o finding .
timeout 60 ./finding | tee seen
cmp -s seen want || { echo CHANGED; exit 1; }
