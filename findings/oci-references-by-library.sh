#!/usr/bin/env bash
# Guess: a plugin's reference, such as "registry/plugin:1", "plugin:1" or "docker.io/plugin:1", names one repository of one registry in each library of
# Go that reads references: what was pushed with one under a name is pulled with another by the same name.
# Seen: of github.com/distribution/reference v0.6.0, github.com/google/go-containerregistry v0.22.1 (name), oras.land/oras-go/v2 v2.7.0 (registry) and
# github.com/containerd/containerd/v2 v2.4.2 (pkg/reference) only the first two agree: "registry/plugin:1" is on Docker's registry for them, as its first
# part has no dot and no port, and on the host "registry", as one has it in a compose file or a cluster, for the others. "plugin:1" is Docker's, or
# refused, or on the host "plugin" at a port, with no tag. "docker.io/plugin" is "library/plugin" for the first two alone. Of a reference with a tag
# and a digest go-containerregistry and oras-go drop the tag in what they print. A first part with a dot or a port is a host for all four.
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
	github.com/distribution/reference v0.6.0
	github.com/google/go-containerregistry v0.22.1
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"fmt"
	"strings"

	containerd "github.com/containerd/containerd/v2/pkg/reference"
	"github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
	"oras.land/oras-go/v2/registry"
)

const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// Each reads a reference, and says its registry, its repository, and what it prints for the whole.
var libraries = []struct {
	name string
	read func(string) (host, repository, whole string, err error)
}{
	{"distribution", func(s string) (string, string, string, error) {
		r, err := reference.ParseNormalizedNamed(s)
		if err != nil {
			return "", "", "", err
		}
		return reference.Domain(r), reference.Path(r), r.String(), nil
	}},
	{"go-containerregistry", func(s string) (string, string, string, error) {
		r, err := name.ParseReference(s)
		if err != nil {
			return "", "", "", err
		}
		return r.Context().RegistryStr(), r.Context().RepositoryStr(), r.Name(), nil
	}},
	{"oras-go", func(s string) (string, string, string, error) {
		r, err := registry.ParseReference(s)
		return r.Host(), r.Repository, r.String(), err
	}},
	{"containerd", func(s string) (string, string, string, error) {
		r, err := containerd.Parse(s)
		if err != nil {
			return "", "", "", err
		}
		_, repository, _ := strings.Cut(r.Locator, "/")
		return r.Hostname(), repository, r.String(), nil
	}},
}

func main() {
	for _, s := range []string{"example.com/plugin:1", "registry/plugin:1", "plugin:1", "docker.io/plugin:1", "example.com/plugin:1" + digest, "registry:5000/plugin:1"} {
		fmt.Println(strings.ReplaceAll(s, digest, "@digest"))
		for _, library := range libraries {
			host, repository, whole, err := library.read(s)
			if err != nil {
				fmt.Printf("  %s: refused\n", library.name)
				continue
			}
			fmt.Printf("  %s: host %q, repository %q, %s\n", library.name, host, repository, strings.ReplaceAll(whole, digest, "@digest"))
		}
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/distribution/reference github.com/google/go-containerregistry oras.land/oras-go/v2 github.com/containerd/containerd/v2
GOTOOLCHAIN=local timeout 120 go run . | tee seen
cat > want <<'EOT'
example.com/plugin:1
  distribution: host "example.com", repository "plugin", example.com/plugin:1
  go-containerregistry: host "example.com", repository "plugin", example.com/plugin:1
  oras-go: host "example.com", repository "plugin", example.com/plugin:1
  containerd: host "example.com", repository "plugin", example.com/plugin:1
registry/plugin:1
  distribution: host "docker.io", repository "registry/plugin", docker.io/registry/plugin:1
  go-containerregistry: host "index.docker.io", repository "registry/plugin", index.docker.io/registry/plugin:1
  oras-go: host "registry", repository "plugin", registry/plugin:1
  containerd: host "registry", repository "plugin", registry/plugin:1
plugin:1
  distribution: host "docker.io", repository "library/plugin", docker.io/library/plugin:1
  go-containerregistry: host "index.docker.io", repository "library/plugin", index.docker.io/library/plugin:1
  oras-go: refused
  containerd: host "plugin:1", repository "", plugin:1
docker.io/plugin:1
  distribution: host "docker.io", repository "library/plugin", docker.io/library/plugin:1
  go-containerregistry: host "index.docker.io", repository "library/plugin", index.docker.io/library/plugin:1
  oras-go: host "registry-1.docker.io", repository "plugin", docker.io/plugin:1
  containerd: host "docker.io", repository "plugin", docker.io/plugin:1
example.com/plugin:1@digest
  distribution: host "example.com", repository "plugin", example.com/plugin:1@digest
  go-containerregistry: host "example.com", repository "plugin", example.com/plugin@digest
  oras-go: host "example.com", repository "plugin", example.com/plugin@digest
  containerd: host "example.com", repository "plugin", example.com/plugin:1@digest
registry:5000/plugin:1
  distribution: host "registry:5000", repository "plugin", registry:5000/plugin:1
  go-containerregistry: host "registry:5000", repository "plugin", registry:5000/plugin:1
  oras-go: host "registry:5000", repository "plugin", registry:5000/plugin:1
  containerd: host "registry:5000", repository "plugin", registry:5000/plugin:1
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
