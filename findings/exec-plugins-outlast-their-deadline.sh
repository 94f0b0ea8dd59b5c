#!/usr/bin/env bash
# Guess: a plugin that is a program is given up when the deadline has passed that its caller set: libraries of Go that start such programs with a context,
# or have a timeout of their own, return then, with the deadline as errors.Is finds it or at least a word of it.
# Seen: with github.com/containernetworking/cni v1.3.1, oras.land/oras-go/v2 v2.7.0 (docker-credential-*) and github.com/aws/aws-sdk-go-v2/credentials
# v1.21.0 (credential_process) on Go 1.26 the call returns when the last process has closed the program's output: the program is killed in time, and where
# it is a shell script, what it had started goes on and holds the output: of 500 ms it becomes the four seconds that a "sleep 4" in the script takes. AWS's
# starts a shell itself, here Debian's dash, so that its Timeout has no effect on a plain program, either. os/exec's Cmd has WaitDelay for it, which none
# of them sets. The error is "signal: killed" for each, AWS's says "timed out" as well, and context.DeadlineExceeded is in none. Where the script gives its
# place to the program ("exec sleep 4"), cni and oras-go return in time.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/aws/aws-sdk-go-v2/credentials v1.21.0
	github.com/containernetworking/cni v1.3.1
	oras.land/oras-go/v2 v2.7.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/containernetworking/cni/pkg/invoke"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

const (
	deadline = 500 * time.Millisecond
	works    = 4 * time.Second
)

func main() {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	holds := true
	for _, plugin := range []struct {
		name, text string
		late       []string
	}{
		{"script", "#!/bin/sh\nsleep 4\necho '{}'\n", []string{"aws", "cni", "oras"}},
		{"exec", "#!/bin/sh\nexec sleep 4\n", []string{"aws"}},
	} {
		file := filepath.Join(dir, "docker-credential-"+plugin.name)
		if err := os.WriteFile(file, []byte(plugin.text), 0o755); err != nil {
			panic(err)
		}
		for _, library := range []string{"aws", "cni", "oras"} {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			begin := time.Now()
			var err error
			switch library {
			case "aws":
				_, err = processcreds.NewProvider(file, func(o *processcreds.Options) { o.Timeout = deadline }).Retrieve(ctx)
			case "cni":
				_, err = new(invoke.RawExec).ExecPlugin(ctx, file, []byte("{}"), os.Environ())
			case "oras":
				_, err = credentials.NewNativeStore(plugin.name).Get(ctx, "registry.example")
			}
			took := time.Since(begin)
			cancel()
			late := took >= works-deadline
			fmt.Printf("%s, %s: %q, the deadline by errors.Is %t, only when sleep ended %t\n", plugin.name, library, err, errors.Is(err, context.DeadlineExceeded), late)
			expected := false
			for _, l := range plugin.late {
				expected = expected || l == library
			}
			holds = holds && late == expected && err != nil && strings.Contains(err.Error(), "killed") && !errors.Is(err, context.DeadlineExceeded)
		}
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/containernetworking/cni oras.land/oras-go/v2 github.com/aws/aws-sdk-go-v2/credentials
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
