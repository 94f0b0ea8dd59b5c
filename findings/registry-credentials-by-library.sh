#!/usr/bin/env bash
# Guess: who has logged in by podman, to a namespace of a registry or to Docker's, is known by these credentials to a host that loads its plugins by go-containerregistry or oras-go from there: both read
# podman's auth.json, and containers-auth.json(5) says that a key may have a path and that the longest one counts.
# Seen: what go.podman.io/image/v5 v5.42.1 (SetCredentials, as podman login) writes github.com/google/go-containerregistry v0.22.1 (DefaultKeychain) and oras.land/oras-go/v2 v2.7.0 (credentials) read
# otherwise. Of localhost:5000/a and localhost:5000/b neither minds the path: each takes now the one, now the other, for a repository of a, and for one of c, for which there are none. With one for
# localhost:5000 as well both take that one for all. Those for docker.io go-containerregistry does not find, as it looks for "https://index.docker.io/v1/" alone; oras-go does.
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
	go.podman.io/image/v5 v5.42.1
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// of says whose credentials are given in 200 tries.
func of(get func() string) string {
	var seen []string
	for range 200 {
		user := get()
		if user == "" {
			user = "none"
		}
		if !slices.Contains(seen, user) {
			seen = append(seen, user)
		}
	}
	slices.Sort(seen)
	return strings.Join(seen, " or ")
}

func main() {
	run, err := os.Getwd()
	must(err)
	must(os.Setenv("HOME", filepath.Join(run, "home")))
	must(os.Setenv("DOCKER_CONFIG", filepath.Join(run, "none")))
	must(os.Setenv("XDG_RUNTIME_DIR", run))
	must(os.MkdirAll("containers", 0o700))
	file := filepath.Join(run, "containers", "auth.json")
	system := &types.SystemContext{AuthFilePath: file}
	for _, keys := range [][]string{{"localhost:5000"}, {"localhost:5000/a", "localhost:5000/b"}, {"localhost:5000", "localhost:5000/a"}, {"docker.io"}} {
		_ = os.Remove(file)
		for _, key := range keys {
			_, err := config.SetCredentials(system, key, "user-of-"+strings.ReplaceAll(key, ":5000", ""), "secret")
			must(err)
		}
		repositories := []string{"localhost:5000/a/plugin", "localhost:5000/c/plugin"}
		if keys[0] == "docker.io" {
			repositories = []string{"docker.io/library/plugin"}
		}
		for _, repository := range repositories {
			named, err := reference.ParseNormalizedNamed(repository)
			must(err)
			ref, err := name.NewRepository(repository)
			must(err)
			fmt.Println(keys, "for", repository)
			fmt.Println("  podman's library:", of(func() string {
				found, err := config.GetCredentialsForRef(system, named)
				must(err)
				return found.Username
			}))
			fmt.Println("  go-containerregistry:", of(func() string {
				found, err := authn.DefaultKeychain.Resolve(ref)
				must(err)
				auth, err := found.Authorization()
				must(err)
				return auth.Username
			}))
			fmt.Println("  oras-go:", of(func() string {
				store, err := credentials.NewStore(file, credentials.StoreOptions{})
				must(err)
				found, err := store.Get(context.Background(), named.Name()[:strings.Index(named.Name(), "/")])
				must(err)
				return found.Username
			}))
		}
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -tags containers_image_openpgp -o credentials . 2> /dev/null
go list -m go.podman.io/image/v5 github.com/google/go-containerregistry oras.land/oras-go/v2
timeout 60 ./credentials | tee seen
cat > want <<'EOT'
[localhost:5000] for localhost:5000/a/plugin
  podman's library: user-of-localhost
  go-containerregistry: user-of-localhost
  oras-go: user-of-localhost
[localhost:5000] for localhost:5000/c/plugin
  podman's library: user-of-localhost
  go-containerregistry: user-of-localhost
  oras-go: user-of-localhost
[localhost:5000/a localhost:5000/b] for localhost:5000/a/plugin
  podman's library: user-of-localhost/a
  go-containerregistry: user-of-localhost/a or user-of-localhost/b
  oras-go: user-of-localhost/a or user-of-localhost/b
[localhost:5000/a localhost:5000/b] for localhost:5000/c/plugin
  podman's library: none
  go-containerregistry: user-of-localhost/a or user-of-localhost/b
  oras-go: user-of-localhost/a or user-of-localhost/b
[localhost:5000 localhost:5000/a] for localhost:5000/a/plugin
  podman's library: user-of-localhost/a
  go-containerregistry: user-of-localhost
  oras-go: user-of-localhost
[localhost:5000 localhost:5000/a] for localhost:5000/c/plugin
  podman's library: user-of-localhost
  go-containerregistry: user-of-localhost
  oras-go: user-of-localhost
[docker.io] for docker.io/library/plugin
  podman's library: user-of-docker.io
  go-containerregistry: none
  oras-go: user-of-docker.io
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
