#!/usr/bin/env bash
# Guess: an id of go-plugin's GRPCBroker that the host serves with AcceptAndServe, and hands to a plugin as a callback, can be dialled by the plugin when it
# needs the callback, and again after that connection was closed, as long as the host serves it.
# Seen: with github.com/hashicorp/go-plugin v1.8.0 as it comes an id can be dialled once, and within five seconds of AcceptAndServe: where the plugin dials
# later, or a second time, Dial waits five seconds more and fails with "timeout waiting for connection info", as if the host had never served it, while it
# still listens. A plugin that keeps the id until its first event, or that connects again, works in a test and fails in use. With GRPCBrokerMultiplex in the
# host's ClientConfig, the plugin unchanged, the same id is dialled after six seconds, and twice.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
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
	"io"
	"log"
	"os"
	"os/exec"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// serve puts a service with one method on s.
func serve(s *grpc.Server, name string, answer func(context.Context, string) string) {
	s.RegisterService(&grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Ask",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := &text{}
			if err := decode(in); err != nil {
				return nil, err
			}
			return wrapperspb.String(answer(ctx, in.GetValue())), nil
		},
	}}}, nil)
}

type thing struct{ plugin.NetRPCUnsupportedPlugin }

// GRPCServer is the plugin's side: it is told an id, when to dial it, and how often.
func (thing) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error {
	serve(s, "e.Plugin", func(ctx context.Context, in string) (said string) {
		var id uint32
		var wait, times int
		must(fmt.Sscan(in, &id, &wait, &times))
		time.Sleep(time.Duration(wait) * time.Second)
		for range times {
			begin := time.Now()
			conn, err := broker.Dial(id)
			if err != nil {
				said += fmt.Sprintf(" [%v, after %d s]", err, int(time.Since(begin).Seconds()))
				continue
			}
			out := &text{}
			err = conn.Invoke(ctx, "/e.Host/Ask", &text{}, out)
			said += fmt.Sprintf(" [%s %v]", out.GetValue(), err)
			conn.Close()
		}
		return said
	})
	return nil
}

type client struct {
	broker *plugin.GRPCBroker
	conn   *grpc.ClientConn
}

func (thing) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return client{broker, conn}, nil
}

func main() {
	log.SetOutput(io.Discard)
	shake := plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "FINDING", MagicCookieValue: "finding"}
	set := plugin.PluginSet{"thing": thing{}}
	if len(os.Args) > 1 {
		plugin.Serve(&plugin.ServeConfig{HandshakeConfig: shake, Plugins: set, GRPCServer: plugin.DefaultGRPCServer})
		return
	}
	var seen []string
	for _, multiplex := range []bool{false, true} {
		c := plugin.NewClient(&plugin.ClientConfig{HandshakeConfig: shake, Plugins: set, Cmd: exec.Command(os.Args[0], "plugin"),
			AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(), GRPCBrokerMultiplex: multiplex})
		p := must(must(c.Client()).Dispense("thing")).(client)
		for _, how := range []string{"0 1", "3 1", "6 1", "0 2"} {
			id := p.broker.NextId()
			go p.broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
				s := grpc.NewServer(options...)
				serve(s, "e.Host", func(context.Context, string) string { return "answered" })
				return s
			})
			out := &text{}
			if err := p.conn.Invoke(context.Background(), "/e.Plugin/Ask", wrapperspb.String(fmt.Sprint(id, " ", how)), out); err != nil {
				panic(err)
			}
			seen = append(seen, fmt.Sprintf("multiplexed %t, dialled after %s s, %s times:%s", multiplex, how[:1], how[2:], out.GetValue()))
		}
		c.Kill()
	}
	want := []string{
		"multiplexed false, dialled after 0 s, 1 times: [answered <nil>]",
		"multiplexed false, dialled after 3 s, 1 times: [answered <nil>]",
		"multiplexed false, dialled after 6 s, 1 times: [timeout waiting for connection info, after 5 s]",
		"multiplexed false, dialled after 0 s, 2 times: [answered <nil>] [timeout waiting for connection info, after 5 s]",
		"multiplexed true, dialled after 0 s, 1 times: [answered <nil>]",
		"multiplexed true, dialled after 3 s, 1 times: [answered <nil>]",
		"multiplexed true, dialled after 6 s, 1 times: [answered <nil>]",
		"multiplexed true, dialled after 0 s, 2 times: [answered <nil>] [answered <nil>]",
	}
	same := len(seen) == len(want)
	for i, line := range seen {
		fmt.Println(line)
		same = same && line == want[i]
	}
	if !same {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/hashicorp/go-plugin
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
