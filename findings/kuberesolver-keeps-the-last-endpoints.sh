#!/usr/bin/env bash
# Guess: a client of gRPC-Go that finds a service by kuberesolver, which watches its EndpointSlices in Kubernetes, calls those endpoints that are there and
# ready; where there is none any more its calls are unavailable, "no endpoints", as with gRPC-Go's own resolvers, whatever the last ones were.
# Seen: with github.com/sercand/kuberesolver/v6 v6.0.1 and google.golang.org/grpc v1.85.0 a service of which no endpoint is left says nothing to the
# client: neither where the last one is not ready, nor where it was scaled to zero, nor where the slice was deleted, which is taken as if it had been
# written anew. The client goes on calling the endpoints that it had last, and whoever has that address now, here the same program, answers. And of a
# service with two slices, as Kubernetes makes them for more than 100 endpoints or while it moves them, the client calls those of the one alone of which it
# was told last, though the other's are ready. Endpoints that are not ready are left out.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/sercand/kuberesolver/v6 v6.0.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sercand/kuberesolver/v6"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type object = map[string]any

// api is what is asked of Kubernetes: the slices of one service, in order, and what changes.
type api struct {
	port    int
	mu      sync.Mutex
	slices  []object
	watches []chan object
}

func (a *api) slice(name string, endpoints ...object) object {
	labels := object{"kubernetes.io/service-name": "greeter"}
	return object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  object{"name": name, "namespace": "default", "resourceVersion": "1", "labels": labels},
		"endpoints": endpoints, "ports": []object{{"name": "grpc", "port": a.port, "protocol": "TCP"}}}
}

func endpoint(ip string, ready bool) object {
	return object{"addresses": []string{ip}, "conditions": object{"ready": ready, "serving": ready, "terminating": false}}
}

func (a *api) tell(change string, slice object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if change == "ADDED" {
		a.slices = append(a.slices, slice)
	}
	for _, w := range a.watches {
		w <- object{"type": change, "object": slice}
	}
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.URL.Path, "/watch/") {
		http.Error(w, "asked for "+r.URL.String(), http.StatusNotFound)
		return
	}
	a.mu.Lock()
	watch := make(chan object, 100)
	a.watches = append(a.watches, watch)
	for _, s := range a.slices {
		watch <- object{"type": "ADDED", "object": s}
	}
	a.mu.Unlock()
	out := json.NewEncoder(w)
	for {
		w.(http.Flusher).Flush()
		select {
		case event := <-watch:
			if err := out.Encode(event); err != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func main() {
	addresses := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
	a := &api{}
	for _, ip := range addresses {
		l := must(net.Listen("tcp", fmt.Sprintf("%s:%d", ip, a.port)))
		a.port = l.Addr().(*net.TCPAddr).Port
		go grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			if err := s.RecvMsg(&emptypb.Empty{}); err != nil {
				return err
			}
			return s.SendMsg(wrapperspb.String(ip))
		})).Serve(l)
	}
	a.tell("ADDED", a.slice("one", endpoint("127.0.0.1", true), endpoint("127.0.0.2", false)))
	server := httptest.NewServer(a)
	conn := must(grpc.NewClient("kubernetes:///greeter.default:grpc",
		grpc.WithResolvers(kuberesolver.NewBuilder(kuberesolver.NewInsecureK8sClient(server.URL), "kubernetes")),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`)))
	var seen []string
	calls := func(what string) {
		time.Sleep(2 * time.Second)
		by := map[string]bool{}
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			var out wrapperspb.StringValue
			if err := conn.Invoke(ctx, "/e.E/Get", &emptypb.Empty{}, &out); err != nil {
				by[status.Code(err).String()] = true
			} else {
				by[out.Value] = true
			}
			cancel()
		}
		line := what + ": " + strings.Join(slices.Sorted(maps.Keys(by)), " ")
		fmt.Println(line)
		seen = append(seen, line)
	}
	calls("one of two is ready")
	a.tell("ADDED", a.slice("two", endpoint("127.0.0.3", true)))
	calls("a second slice")
	a.tell("MODIFIED", a.slice("one", endpoint("127.0.0.1", true), endpoint("127.0.0.2", true)))
	calls("the first slice is told again")
	a.tell("DELETED", a.slice("two", endpoint("127.0.0.3", true)))
	a.tell("MODIFIED", a.slice("one", endpoint("127.0.0.1", false), endpoint("127.0.0.2", false)))
	calls("none is ready")
	a.tell("MODIFIED", a.slice("one"))
	calls("scaled to zero")
	a.tell("DELETED", a.slice("one"))
	calls("deleted")
	if !slices.Equal(seen, []string{
		"one of two is ready: 127.0.0.1",
		"a second slice: 127.0.0.3",
		"the first slice is told again: 127.0.0.1 127.0.0.2",
		"none is ready: 127.0.0.3",
		"scaled to zero: 127.0.0.3",
		"deleted: 127.0.0.3",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/sercand/kuberesolver/v6 google.golang.org/grpc
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
