#!/usr/bin/env bash
# Guess: a program that has no identity is told so: NewX509Source of go-spiffe returns what the Workload API answers, PermissionDenied ("no identity
# issued"), as FetchX509SVID does, or says it at least when its context ends while it was trying again.
# Seen: with github.com/spiffe/go-spiffe/v2 v2.9.0 NewX509Source, NewBundleSource and NewJWTSource try again until their context ends, without one for
# ever, and then return "context deadline exceeded" alone: no code, no text, and nothing is logged unless a logger is given. It is the same for
# an agent that cannot answer yet (Unavailable), for the socket of another service (Unimplemented) and for a program that is not registered. Only
# InvalidArgument is told, and at once.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/spiffe/go-spiffe/v2 v2.9.0
	google.golang.org/grpc v1.85.0
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// agent answers every call with err.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	err error
}

func (a agent) FetchX509SVID(*workload.X509SVIDRequest, workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	return a.err
}

func (a agent) FetchX509Bundles(*workload.X509BundlesRequest, workload.SpiffeWorkloadAPI_FetchX509BundlesServer) error {
	return a.err
}

func (a agent) FetchJWTBundles(*workload.JWTBundlesRequest, workload.SpiffeWorkloadAPI_FetchJWTBundlesServer) error {
	return a.err
}

func main() {
	for _, c := range []codes.Code{codes.PermissionDenied, codes.Unavailable, codes.Unimplemented, codes.InvalidArgument} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		s := grpc.NewServer()
		workload.RegisterSpiffeWorkloadAPIServer(s, agent{err: status.Error(c, "no identity issued")})
		go s.Serve(ln)
		addr := workloadapi.WithAddr("tcp://" + ln.Addr().String())
		show(c, "FetchX509SVID", func(ctx context.Context) error {
			_, err := workloadapi.FetchX509SVID(ctx, addr)
			return err
		})
		show(c, "NewX509Source", func(ctx context.Context) error {
			_, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(addr))
			return err
		})
		show(c, "NewBundleSource", func(ctx context.Context) error {
			_, err := workloadapi.NewBundleSource(ctx, workloadapi.WithClientOptions(addr))
			return err
		})
		show(c, "NewJWTSource", func(ctx context.Context) error {
			_, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClientOptions(addr))
			return err
		})
		s.Stop()
	}
}

// show calls f with a context of 2 s: at least two attempts, with a pause of about 1 s.
func show(c codes.Code, what string, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := f(ctx)
	fmt.Printf("%v: %s: %v | code %v, at the deadline %t\n", c, what, err, status.Code(err), errors.Is(err, context.DeadlineExceeded))
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
grep -E 'go-spiffe|grpc v' go.mod
GOTOOLCHAIN=local timeout 150 go run . | tee seen
: > want
for code in PermissionDenied Unavailable Unimplemented InvalidArgument; do
  told="rpc error: code = $code desc = no identity issued | code $code, at the deadline false"
  silent='context deadline exceeded | code Unknown, at the deadline true'
  [ "$code" = InvalidArgument ] && source=$told || source=$silent
  printf '%s\n' "$code: FetchX509SVID: $told" "$code: NewX509Source: $source" "$code: NewBundleSource: $source" "$code: NewJWTSource: $source" >> want
done
cmp -s seen want || { echo CHANGED; exit 1; }
