#!/usr/bin/env bash
# Guess: what oras-go attaches to a plugin's image (an SBOM, say) is found by its type in the registry that go-containerregistry brings, with WithReferrersSupport; the distribution
# specification of OCI (1.1) has the manifest's artifactType in the list, and the answer to the push name the subject in OCI-Subject.
# Seen: github.com/google/go-containerregistry v0.22.1 (pkg/registry) lists what oras.land/oras-go/v2 v2.7.0 attached under the media type of its config, "application/vnd.oci.empty.v1+json", for a new
# client, and none for who asks for "application/x.sbom". It sends no OCI-Subject, so the client that attached takes the registry for one without the list, keeps a tag with a list of its own, and
# lists from then on nothing that go-containerregistry's client attaches. Without WithReferrersSupport, by that tag alone, both clients list both with their types.
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
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	gcr "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func orasClient(address string) *remote.Repository {
	repository, err := remote.NewRepository(address + "/plugin")
	must(err)
	repository.PlainHTTP = true
	return repository
}

// listed gives the types that oras-go lists; artifactType "" asks for all.
func listed(repository *remote.Repository, subject ocispec.Descriptor, artifactType string) []string {
	seen := []string{}
	must(repository.Referrers(context.Background(), subject, artifactType, func(all []ocispec.Descriptor) error {
		for _, one := range all {
			seen = append(seen, one.ArtifactType)
		}
		return nil
	}))
	slices.Sort(seen)
	return seen
}

func try(support bool) {
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(support), registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	fmt.Println("WithReferrersSupport:", support)

	ref, err := name.NewRepository(address + "/plugin")
	must(err)
	must(gcr.Write(ref.Tag("v1"), mutate.MediaType(empty.Image, types.OCIManifestSchema1)))
	attaches := orasClient(address)
	subject, err := attaches.Resolve(context.Background(), "v1")
	must(err)
	_, err = oras.PackManifest(context.Background(), attaches, oras.PackManifestVersion1_1, "application/x.sbom", oras.PackManifestOptions{Subject: &subject})
	must(err)

	head, err := gcr.Head(ref.Tag("v1"))
	must(err)
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/x.other")
	image = mutate.Subject(image, *head).(v1.Image)
	digest, err := image.Digest()
	must(err)
	must(gcr.Write(ref.Digest(digest.String()), image))

	index, err := gcr.Referrers(ref.Digest(subject.Digest.String()))
	must(err)
	manifest, err := index.IndexManifest()
	must(err)
	seen := []string{}
	for _, one := range manifest.Manifests {
		seen = append(seen, one.ArtifactType)
	}
	slices.Sort(seen)
	fmt.Println("  go-containerregistry:", seen)
	fmt.Println("  oras-go, the client that attached:", listed(attaches, subject, ""))
	fmt.Println("  oras-go, a new client:", listed(orasClient(address), subject, ""))
	fmt.Println("  oras-go, a new client, application/x.sbom alone:", listed(orasClient(address), subject, "application/x.sbom"))
}

func main() {
	try(true)
	try(false)
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o referrers . 2> /dev/null
go list -m github.com/google/go-containerregistry oras.land/oras-go/v2
timeout 60 ./referrers | tee seen
cat > want <<'EOT'
WithReferrersSupport: true
  go-containerregistry: [application/vnd.oci.empty.v1+json application/x.other]
  oras-go, the client that attached: [application/x.sbom]
  oras-go, a new client: [application/vnd.oci.empty.v1+json application/x.other]
  oras-go, a new client, application/x.sbom alone: []
WithReferrersSupport: false
  go-containerregistry: [application/x.other application/x.sbom]
  oras-go, the client that attached: [application/x.other application/x.sbom]
  oras-go, a new client: [application/x.other application/x.sbom]
  oras-go, a new client, application/x.sbom alone: [application/x.sbom]
EOT
cmp -s seen want || { echo CHANGED; exit 1; }
