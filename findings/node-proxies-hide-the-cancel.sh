#!/usr/bin/env bash
# Guess: a reverse proxy of Node in front of a service in Go, as tools and development servers have one, tells the service that a caller has gone, as
# httputil.ReverseProxy does: a call that is cancelled ends there, also while nothing is sent, and what is sent arrives as it was sent.
# Seen: on Node with connectrpc.com/connect v1.21.1 on both sides over HTTP/1.1, in Connect and in gRPC-Web: http-proxy 1.18.1 (npm) tells nothing: the
# handlers of a unary call and of a stream that is silent go on for nobody. @fastify/http-proxy 11.6.3 (@fastify/reply-from 12.6.5) tells of a stream whose
# head has come and not of a unary call. express-http-proxy 2.1.2 tells of both, and holds back the request: of a client stream the service has the first
# message when the caller has sent the last. http-proxy-3 2.0.1, httpxy 0.5.6, http-proxy-middleware 4.2.1, hono 4.13.19 (hono/proxy) and h3 2.0.8
# (proxyRequest) do all of it. Streams of the service arrive as they are sent through each of them.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save http-proxy@1.18.1 http-proxy-3@2.0.1 httpxy@0.5.6 http-proxy-middleware@4.2.1 express@5.3.0 fastify@5.12.8 @fastify/http-proxy@11.6.3 express-http-proxy@2.1.2 hono@4.13.19 @hono/node-server@2.1.9 h3@2.0.8 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const patience = 3 * time.Second

// word is what is heard within the patience, or the other word.
func word(heard <-chan string, other string) string {
	select {
	case said := <-heard:
		return said
	case <-time.After(patience):
		return other
	}
}

// see returns what a service behind a URL, which is new for each, hears of its callers.
func see(url func(service string) (string, func()), option connect.ClientOption) string {
	begun, ended := make(chan string, 10), make(chan string, 10)
	wait := func(ctx context.Context) error {
		begun <- "begun"
		select {
		case <-ctx.Done():
			ended <- "told"
		case <-time.After(patience + time.Second):
		}
		return context.Canceled
	}
	mux := http.NewServeMux()
	mux.Handle("/e.S/One", connect.NewUnaryHandler("/e.S/One", func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		return nil, wait(ctx)
	}))
	mux.Handle("/e.S/Many", connect.NewServerStreamHandler("/e.S/Many", func(ctx context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		if err := s.Send(&text{}); err != nil {
			return err
		}
		return wait(ctx)
	}))
	mux.Handle("/e.S/Up", connect.NewClientStreamHandler("/e.S/Up", func(_ context.Context, s *connect.ClientStream[text]) (*connect.Response[text], error) {
		for s.Receive() {
			begun <- "at once"
		}
		return connect.NewResponse(&text{}), nil
	}))
	service := httptest.NewServer(mux)
	defer service.CloseClientConnections()
	to, end := url(service.URL)
	defer end()
	client := func(name string) *connect.Client[text, text] {
		return connect.NewClient[text, text](&http.Client{Transport: &http.Transport{}}, to+"/e.S/"+name, option)
	}

	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = client("One").CallUnary(ctx, connect.NewRequest(&text{})) }()
	word(begun, "")
	cancel()
	unary := word(ended, "not told")

	ctx, cancel = context.WithCancel(context.Background())
	stream := must(client("Many").CallServerStream(ctx, connect.NewRequest(&text{})))
	first := make(chan string, 1)
	go func() { stream.Receive(); first <- "at once" }()
	word(begun, "")
	down := word(first, "held back")
	cancel()
	many := word(ended, "not told")

	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	send := client("Up").CallClientStream(ctx)
	if err := send.Send(&text{}); err != nil {
		panic(err)
	}
	up := word(begun, "held back")
	return fmt.Sprintf("unary %s, stream %s, its message %s, a client stream's %s", unary, many, down, up)
}

func main() {
	const all = "unary told, stream told, its message at once, a client stream's at once"
	changed := false
	for _, c := range [][2]string{
		{"none", all},
		{"http-proxy", "unary not told, stream not told, its message at once, a client stream's at once"},
		{"@fastify/http-proxy", "unary not told, stream told, its message at once, a client stream's at once"},
		{"express-http-proxy", "unary told, stream told, its message at once, a client stream's held back"},
		{"http-proxy-3", all}, {"httpxy", all}, {"http-proxy-middleware", all}, {"hono", all}, {"h3", all},
	} {
		for protocol, option := range map[string]connect.ClientOption{"Connect": connect.WithClientOptions(), "gRPC-Web": connect.WithGRPCWeb()} {
			seen := see(func(service string) (string, func()) {
				if c[0] == "none" {
					return service, func() {}
				}
				node := exec.Command("node", "proxy.mjs", c[0], service)
				in, out := must(node.StdinPipe()), must(node.StdoutPipe())
				if err := node.Start(); err != nil {
					panic(err)
				}
				return strings.TrimSpace(must(bufio.NewReader(out).ReadString('\n'))), func() { in.Close(); _ = node.Wait() }
			}, option)
			fmt.Printf("%s, %s: %s\n", c[0], protocol, seen)
			changed = changed || seen != c[1]
		}
	}
	if changed {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > proxy.mjs <<'EOT'
import http from 'node:http';

const [, , name, target] = process.argv;
const listen = (handler) => {
  const server = http.createServer(handler).listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
};
const classic = (proxy) => {
  proxy.on('error', (_err, _request, response) => response.destroy());
  listen((request, response) => proxy.web(request, response, { target }));
};
const proxies = {
  'http-proxy': async () => classic((await import('http-proxy')).default.createProxyServer({})),
  'http-proxy-3': async () => classic((await import('http-proxy-3')).createProxyServer({})),
  httpxy: async () => classic((await import('httpxy')).createProxyServer({})),
  'http-proxy-middleware': async () => listen((await import('express')).default().use((await import('http-proxy-middleware')).createProxyMiddleware({ target }))),
  'express-http-proxy': async () => listen((await import('express')).default().use((await import('express-http-proxy')).default(target))),
  '@fastify/http-proxy': async () => {
    const app = (await import('fastify')).default();
    await app.register((await import('@fastify/http-proxy')).default, { upstream: target });
    console.log(await app.listen({ port: 0, host: '127.0.0.1' }));
  },
  hono: async () => {
    const { Hono } = await import('hono');
    const { proxy } = await import('hono/proxy');
    const app = new Hono().all('*', (c) => proxy(target + c.req.path, c.req));
    (await import('@hono/node-server')).serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, ({ port }) => console.log(`http://127.0.0.1:${port}`));
  },
  h3: async () => {
    const { H3, proxyRequest, serve } = await import('h3');
    const server = await serve(new H3().all('/**', (event) => proxyRequest(event, target + event.url.pathname)), { port: 0, hostname: '127.0.0.1', silent: true }).ready();
    console.log(server.url.replace(/\/$/, ''));
  },
};
process.on('uncaughtException', () => {});
process.stdin.resume().on('end', () => process.exit());
await proxies[name]();
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect
node -p '"Node " + process.version + ", " + ["http-proxy", "@fastify/http-proxy", "@fastify/reply-from", "express-http-proxy", "http-proxy-3", "httpxy", "http-proxy-middleware", "hono", "h3"].map((name) => name + " " + JSON.parse(require("fs").readFileSync(`node_modules/${name}/package.json`)).version).join(", ")'
GOTOOLCHAIN=local go build -o finding .
timeout 180 ./finding
