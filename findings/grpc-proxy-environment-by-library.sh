#!/usr/bin/env bash
# Guess: the environment that tells programs their proxy, https_proxy and no_proxy in small or large letters, means the same to clients of one service in
# Go and in Node: which of them goes through the proxy depends on the service's name.
# Seen: of net/http (Go 1.26, under connectrpc.com/connect), google.golang.org/grpc v1.85.0 and @grpc/grpc-js 1.14.7 (npm) no two agree, with and without
# TLS. (1) HTTPS_PROXY and NO_PROXY in large letters are nothing to grpc-js: with HTTPS_PROXY it looks for the service by itself, with NO_PROXY it goes to
# the proxy all the same. (2) gRPC-Go without TLS takes https_proxy, and not http_proxy, which is the one that net/http takes without TLS; grpc-js takes
# either, with and without TLS. (3) A no_proxy of "*", with a blank after its comma, or with the name in other letters, counts in Go alone. (4) 127.0.0.1
# and localhost are never asked for at the proxy in Go; with grpc-js they are, also between a host and its plugins on one machine.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @grpc/grpc-js@1.14.7 > /dev/null 2>&1
cat > main.js <<'EOT'
'use strict';
const grpc = require('@grpc/grpc-js');
const same = (bytes) => bytes;
for (const [port, credentials] of [['4005', grpc.credentials.createInsecure()], ['4006', grpc.credentials.createSsl()]]) {
  const client = new grpc.Client(process.argv[2] + ':' + port, credentials);
  client.makeUnaryRequest('/e.E/Get', same, same, Buffer.alloc(0), { deadline: Date.now() + 5000 }, () => client.close());
}
EOT
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Each client asks for a port of its own, so that the proxy knows who it is.
var who = []string{"4001 net/http", "4002 net/http TLS", "4003 gRPC-Go", "4004 gRPC-Go TLS", "4005 grpc-js", "4006 grpc-js TLS"}

const (
	goTLS  = "net/http TLS, gRPC-Go, gRPC-Go TLS"
	nodes  = "grpc-js, grpc-js TLS"
	both   = "http_proxy=P https_proxy=P "
	plugin = "plugin.invalid"
)

// table has a service's host, the environment, where P is the proxy and _ a blank, and who asks the proxy for it.
var table = []struct{ host, env, want string }{
	{plugin, "https_proxy=P", goTLS + ", " + nodes},
	{plugin, "HTTPS_PROXY=P", goTLS},
	{plugin, "http_proxy=P", "net/http, " + nodes},
	{plugin, "HTTP_PROXY=P", "net/http"},
	{plugin, both + "no_proxy=plugin.invalid", ""},
	{plugin, both + "no_proxy=.invalid", ""},
	{plugin, both + "NO_PROXY=plugin.invalid", nodes},
	{plugin, both + "no_proxy=*", nodes},
	{plugin, both + "no_proxy=other.invalid,_plugin.invalid", nodes},
	{plugin, both + "no_proxy=PLUGIN.invalid", nodes},
	{"127.0.0.1", both, nodes},
	{"localhost", both, nodes},
}

func main() {
	if len(os.Args) > 1 {
		call(os.Args[1])
		return
	}
	var mu sync.Mutex
	asked := map[string]bool{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				mu.Lock()
				asked[r.Host] = true
				mu.Unlock()
				fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			}()
		}
	}()
	holds := true
	for _, row := range table {
		mu.Lock()
		clear(asked)
		mu.Unlock()
		env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
		for _, variable := range strings.Fields(row.env) {
			name, value, _ := strings.Cut(variable, "=")
			if value == "P" {
				value = "http://" + l.Addr().String()
			}
			env = append(env, name+"="+strings.ReplaceAll(value, "_", " "))
		}
		var all sync.WaitGroup
		for _, cmd := range []*exec.Cmd{exec.Command(os.Args[0], row.host), exec.Command("node", "main.js", row.host)} {
			cmd.Env = env
			all.Go(func() { cmd.Run() })
		}
		all.Wait()
		var by []string
		mu.Lock()
		for _, w := range who {
			if port, name, _ := strings.Cut(w, " "); asked[row.host+":"+port] {
				by = append(by, name)
			}
		}
		mu.Unlock()
		seen := strings.Join(by, ", ")
		fmt.Printf("%s, %s: [%s]\n", row.host, row.env, seen)
		holds = holds && seen == row.want
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

// call calls a service that is not there, or is asked for at the proxy.
func call(host string) {
	var all sync.WaitGroup
	for _, url := range []string{"http://" + host + ":4001/", "https://" + host + ":4002/"} {
		all.Go(func() {
			if r, err := (&http.Client{Timeout: 5 * time.Second}).Get(url); err == nil {
				r.Body.Close()
			}
		})
	}
	for port, c := range map[string]credentials.TransportCredentials{"4003": insecure.NewCredentials(), "4004": credentials.NewTLS(&tls.Config{})} {
		all.Go(func() {
			conn, err := grpc.NewClient(host+":"+port, grpc.WithTransportCredentials(c))
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			conn.Invoke(ctx, "/e.E/Get", &emptypb.Empty{}, &emptypb.Empty{})
		})
	}
	all.Wait()
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m google.golang.org/grpc
node -p "'grpc-js ' + require('@grpc/grpc-js/package.json').version"
GOTOOLCHAIN=local go build -o finding .
timeout 240 ./finding
