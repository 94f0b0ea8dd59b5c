#!/usr/bin/env bash
# Guess: a client of gRPC-Go that finds a service by etcd's resolver calls what stands in etcd: it fails at once where nobody offers the service, and after
# etcd was away for a while it goes on with what has changed meanwhile.
# Seen: with go.etcd.io/etcd/client/v3 v3.7.3 (naming/resolver, naming/endpoints) and google.golang.org/grpc v1.85.0 (1) a call to a service that nobody has offered yet
# waits until its deadline, deadline_exceeded, as the resolver says nothing to gRPC where it finds nothing; once the last endpoint has gone, calls are unavailable
# at once. (2) A client that etcd's watch was away from while the endpoint moved and etcd was compacted, as it is every so often, keeps the endpoints
# that it had: it is told of no later change, and nothing says so. A new client has the right ones. Without a compaction it goes on.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	go.etcd.io/etcd/client/v3 v3.7.3
	go.etcd.io/etcd/server/v3 v3.7.3
	go.uber.org/zap v1.27.1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/gorilla/websocket v1.5.3 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus v1.1.0 // indirect
	github.com/grpc-ecosystem/go-grpc-middleware/v2 v2.3.3 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.29.0 // indirect
	github.com/jonboulle/clockwork v0.5.0 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/prometheus/client_golang v1.23.2 // indirect
	github.com/prometheus/client_model v0.6.2 // indirect
	github.com/prometheus/common v0.67.5 // indirect
	github.com/prometheus/procfs v0.16.1 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/soheilhy/cmux v0.1.5 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	github.com/tmc/grpc-websocket-proxy v0.0.0-20220101234140-673ab2c3ae75 // indirect
	github.com/xiang90/probing v0.0.0-20221125231312-a49e3df8f510 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.etcd.io/etcd/api/v3 v3.7.3 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.7.3 // indirect
	go.etcd.io/etcd/pkg/v3 v3.7.3 // indirect
	go.etcd.io/raft/v3 v3.7.0 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.68.0 // indirect
	go.opentelemetry.io/otel v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace v1.45.0 // indirect
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc v1.45.0 // indirect
	go.opentelemetry.io/otel/metric v1.45.0 // indirect
	go.opentelemetry.io/otel/sdk v1.45.0 // indirect
	go.opentelemetry.io/otel/trace v1.45.0 // indirect
	go.opentelemetry.io/proto/otlp v1.11.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v2 v2.4.3 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
	gopkg.in/natefinch/lumberjack.v2 v2.2.1 // indirect
	k8s.io/utils v0.0.0-20260108192941-914a6e750570 // indirect
	sigs.k8s.io/yaml v1.6.0 // indirect
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
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

var ctx = context.Background()

func listen() net.Listener { return must(net.Listen("tcp", "127.0.0.1:0")) }

func free() string {
	l := listen()
	defer l.Close()
	return l.Addr().String()
}

// service starts one that answers with its name.
func service(name string) endpoints.Endpoint {
	l := listen()
	go grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		return s.SendMsg(wrapperspb.String(name))
	})).Serve(l)
	return endpoints.Endpoint{Addr: l.Addr().String()}
}

// start starts etcd with what it had before.
func start(clients, peers string) (stop func()) {
	c := embed.NewConfig()
	c.Dir, c.LogLevel = "data", "panic"
	c.ListenClientUrls = []url.URL{{Scheme: "http", Host: clients}}
	c.ListenPeerUrls = []url.URL{{Scheme: "http", Host: peers}}
	c.AdvertiseClientUrls, c.AdvertisePeerUrls = c.ListenClientUrls, c.ListenPeerUrls
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e := must(embed.StartEtcd(c))
	<-e.Server.ReadyNotify()
	return e.Close
}

func client(address string) *clientv3.Client {
	return must(clientv3.New(clientv3.Config{Endpoints: []string{address}, Logger: zap.NewNop()}))
}

// register puts a service there, in place of the one before.
func register(c *clientv3.Client, name string) {
	check(must(endpoints.NewManager(c, "plugins/kv")).AddEndpoint(ctx, "plugins/kv/1", service(name)))
}

func main() {
	address, peers := free(), free()
	stop := start(address, peers)
	own := client(address)
	dial := func(name string) *grpc.ClientConn {
		return must(grpc.NewClient("etcd:///"+name, grpc.WithResolvers(must(resolver.NewBuilder(client(address)))),
			grpc.WithTransportCredentials(insecure.NewCredentials())))
	}
	call := func(conn *grpc.ClientConn) string {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		var out wrapperspb.StringValue
		if err := conn.Invoke(ctx, "/e.E/Get", &emptypb.Empty{}, &out); err != nil {
			return status.Code(err).String()
		}
		return out.Value
	}
	// settled calls until the answer is the one that is waited for, or does not come.
	settled := func(conn *grpc.ClientConn, want string) (answer string) {
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end) && answer != want; time.Sleep(100 * time.Millisecond) {
			answer = call(conn)
		}
		return answer
	}
	var seen []string
	say := func(what, answer string) {
		seen = append(seen, what+": "+answer)
		fmt.Println(seen[len(seen)-1])
	}
	conn := dial("plugins/kv")
	say("nobody yet", call(conn))
	register(own, "first")
	say("registered", settled(conn, "first"))
	must(own.Delete(ctx, "plugins/kv/1"))
	say("gone", settled(conn, "Unavailable"))
	register(own, "second")
	say("back", settled(conn, "second"))
	for _, compact := range []bool{false, true} {
		// While the client cannot reach it, etcd is at another address.
		stop()
		other := free()
		stop = start(other, peers)
		c := client(other)
		register(c, "moved")
		register(c, fmt.Sprintf("moved, compacted %t", compact))
		if compact {
			must(c.Compact(ctx, must(c.Get(ctx, "any")).Header.Revision))
		}
		c.Close()
		stop()
		stop = start(address, peers)
		say(fmt.Sprintf("etcd is back, compacted %t", compact), settled(conn, fmt.Sprintf("moved, compacted %t", compact)))
	}
	register(own, "third")
	say("moved again", settled(conn, "third"))
	say("a new client", settled(dial("plugins/kv"), "third"))
	stop()
	if !slices.Equal(seen, []string{
		"nobody yet: DeadlineExceeded", "registered: first", "gone: Unavailable", "back: second",
		"etcd is back, compacted false: moved, compacted false",
		"etcd is back, compacted true: moved, compacted false", "moved again: moved, compacted false", "a new client: third",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m go.etcd.io/etcd/client/v3 google.golang.org/grpc
GOTOOLCHAIN=local go build -o finding .
timeout 180 ./finding
