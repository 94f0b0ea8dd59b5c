#!/usr/bin/env bash
# Guess: a file of checksums that coreutils writes for several files of a release serves go-getter for each of them, "?checksum=file:…", as it serves
# sha256sum -c: the line of a file is the one with its name.
# Seen: github.com/hashicorp/go-getter/v2 v2.2.5 with coreutils 9.1 (Debian 12) refuses good downloads, "Checksums did not match", where it takes the line of another
# file: (1) of any file whose name has a blank, if that stands first, as go-getter splits lines at blanks and holds what has three parts for a sum without a
# name; in the form of sha256sum --tag it passes over such a line; (2) of the same name in another directory, if that stands first; (3) a sum of b2sum, which is
# as long as one of SHA-512, is held for that. Lines of SHA-384 and SHA-224, and names with a whole path, are "no checksum found".
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require github.com/hashicorp/go-getter/v2 v2.2.5
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-getter/v2"
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

func main() {
	dir := filepath.Join(must(os.Getwd()), "release")
	check(os.MkdirAll(filepath.Join(dir, "arm64"), 0o755))
	for _, name := range []string{"plugin", "read me", "arm64/plugin"} {
		check(os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	go http.Serve(l, http.FileServer(http.Dir(dir)))
	holds := true
	for i, c := range [][3]string{
		{"sha256sum plugin", "plugin", "takes it"},
		{"sha256sum --tag plugin", "plugin", "takes it"},
		{"sha512sum plugin", "plugin", "takes it"},
		{"sha256sum plugin 'read me'", "plugin", "takes it"},
		{"sha256sum 'read me' plugin", "plugin", "Checksums did not match"},
		{"sha256sum --tag 'read me' plugin", "plugin", "takes it"},
		{"sha256sum arm64/plugin plugin", "arm64/plugin", "takes it"},
		{"sha256sum plugin arm64/plugin", "arm64/plugin", "Checksums did not match"},
		{"b2sum plugin", "plugin", "Checksums did not match"},
		{"sha384sum plugin", "plugin", "no checksum found"},
		{"sha224sum plugin", "plugin", "no checksum found"},
		{"sha256sum $PWD/plugin", "plugin", "no checksum found"},
	} {
		sums := exec.Command("bash", "-c", c[0])
		sums.Dir = dir
		name := fmt.Sprint("sums", i)
		check(os.WriteFile(filepath.Join(dir, name), must(sums.Output()), 0o644))
		seen := "takes it"
		source := fmt.Sprintf("http://%s/%s?checksum=file:http://%s/%s", l.Addr(), c[1], l.Addr(), name)
		if _, err := getter.GetFile(context.Background(), filepath.Join(dir, "got", fmt.Sprint(i)), source); err != nil {
			seen = err.Error()
			for _, why := range []string{"Checksums did not match", "no checksum found"} {
				if strings.Contains(seen, why) {
					seen = why
				}
			}
		}
		fmt.Printf("%s, for %s: %s\n", c[0], c[1], seen)
		holds = holds && seen == c[2]
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/hashicorp/go-getter/v2
sha256sum --version | sed -n 1p
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
