#!/usr/bin/env bash
# Guess: ClientProtocol.Ping of go-plugin tells whether the plugin is well: its guide for plugins in other languages asks for gRPC's health
# service with "plugin" as SERVING, as that is what go-plugin goes by. And Kill gives a plugin two seconds, and then kills it.
# Seen: with github.com/hashicorp/go-plugin v1.8.0 and a plugin of @grpc/grpc-js 1.14.7 and grpc-health-check 2.1.0, Ping returns nil
# while the plugin says NOT_SERVING: any answer will do, only the error of the call counts. Kill's two seconds begin when the plugin has
# answered: one that computes for 6 s is killed after 8. A plugin as in the guide, without go-plugin's own controller service, is not
# asked to end at all, so that Kill always waits the two seconds and then kills it.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 grpc-health-check@2.1.0 > /dev/null 2>&1
cat > plugin.js <<'EOT'
'use strict';
const grpc = require('@grpc/grpc-js');
const { HealthImplementation } = require('grpc-health-check');

const health = new HealthImplementation({ plugin: 'SERVING' });
const server = new grpc.Server();
const raw = (b) => b;
const method = (name) => ({ path: '/e.Work/' + name, requestStream: false, responseStream: false, requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw });
health.addToServer(server);
server.addService({ Drain: method('Drain'), Compute: method('Compute') }, {
  Drain(call, answer) {
    health.setStatus('plugin', 'NOT_SERVING');
    answer(null, Buffer.alloc(0));
  },
  Compute(call, answer) {
    answer(null, Buffer.alloc(0));
    setTimeout(() => { for (const end = Date.now() + 6000; Date.now() < end;); }, 100);
  },
});
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (err, port) => console.log(`1|1|tcp|127.0.0.1:${port}|grpc`));
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/hashicorp/go-hclog v1.6.3
	github.com/hashicorp/go-plugin v1.8.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"
)

// bare gives the connection to the plugin.
type bare struct{ plugin.NetRPCUnsupportedPlugin }

func (bare) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }

func (bare) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// start starts the plugin, and calls the method.
func start(method string) (*plugin.Client, plugin.ClientProtocol, *grpc.ClientConn) {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "FINDING", MagicCookieValue: "yes"},
		Plugins:          plugin.PluginSet{"bare": bare{}},
		Cmd:              exec.Command("node", "plugin.js"),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	protocol := must(client.Client())
	conn := must(protocol.Dispense("bare")).(*grpc.ClientConn)
	if err := conn.Invoke(context.Background(), method, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		panic(err)
	}
	return client, protocol, conn
}

// kill returns how long Kill takes, to the second.
func kill(client *plugin.Client) time.Duration {
	began := time.Now()
	client.Kill()
	return time.Since(began).Round(time.Second)
}

func main() {
	drained, protocol, conn := start("/e.Work/Drain")
	status := must(grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{Service: plugin.GRPCServiceName})).GetStatus()
	ping := protocol.Ping()
	fmt.Println("the plugin says", status, "and Ping says", ping)
	idle := kill(drained)

	busy, _, _ := start("/e.Work/Compute")
	time.Sleep(500 * time.Millisecond)
	computing := kill(busy)
	fmt.Println("Kill takes", idle, "for an idle plugin and", computing, "for one that has some 6 s left to compute")
	if status != grpc_health_v1.HealthCheckResponse_NOT_SERVING || ping != nil || idle < 2*time.Second || computing < 6*time.Second {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
export GOTOOLCHAIN=local GOFLAGS=-mod=mod
go mod tidy > /dev/null 2>&1
echo "node $(node --version)"
go list -m github.com/hashicorp/go-plugin google.golang.org/grpc
timeout 120 go run .
