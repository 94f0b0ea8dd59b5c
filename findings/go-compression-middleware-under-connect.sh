#!/usr/bin/env bash
# Guess: a middleware that compresses what clients want compressed is transparent to Connect: a stream's message arrives when it was sent, since connect-go
# flushes behind each, and an answer that has a Content-Encoding already is left as it is.
# Seen: before a server of connectrpc.com/connect v1.21.1, for a client of @connectrpc/connect-web 2.3.0 on fetch, github.com/NYTimes/gziphandler v1.1.1 and
# github.com/CAFxX/httpcompression v0.0.8 hold back the first message of a stream, in Connect and in gRPC-Web, until the stream ends or has brought as much as
# is worth to compress, 1400 and 200 bytes by default: Flush does nothing until then. A watch that has little to say says nothing. connect-go's client does
# not see it, as it asks for no such compression of streams. middleware.Gzip of github.com/labstack/echo/v5 v5.4.4 compresses again what connect-go has
# compressed, and says gzip once: each unary call whose answer is not empty fails, with invalid_argument in Go and unknown in TypeScript, while errors arrive.
# gzhttp of github.com/klauspost/compress v1.20.4 and middleware.Compress of github.com/go-chi/chi/v5 v5.5.0 (its types with application/*) do neither.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund --no-save @connectrpc/connect@2.3.0 @connectrpc/connect-web@2.3.0 @bufbuild/protobuf@2.17.0 > /dev/null 2>&1
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/CAFxX/httpcompression v0.0.8
	github.com/NYTimes/gziphandler v1.1.1
	github.com/go-chi/chi/v5 v5.5.0
	github.com/klauspost/compress v1.20.4
	github.com/labstack/echo/v5 v5.4.4
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/CAFxX/httpcompression"
	"github.com/NYTimes/gziphandler"
	chi "github.com/go-chi/chi/v5/middleware"
	"github.com/klauspost/compress/gzhttp"
	"github.com/labstack/echo/v5"
	"github.com/labstack/echo/v5/middleware"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// handler serves Many, which waits after its first message until the client has it, or for five seconds.
func handler() http.Handler {
	mux := http.NewServeMux()
	arrived := make(chan struct{}, 1)
	mux.HandleFunc("/arrived", func(http.ResponseWriter, *http.Request) { arrived <- struct{}{} })
	mux.Handle("/e.S/Many", connect.NewServerStreamHandler("/e.S/Many", func(_ context.Context, _ *connect.Request[text], s *connect.ServerStream[text]) error {
		select { // what an earlier stream was too late for
		case <-arrived:
		default:
		}
		if err := s.Send(wrapperspb.String("first")); err != nil {
			return err
		}
		select {
		case <-arrived:
			return s.Send(wrapperspb.String("arrived at once"))
		case <-time.After(5 * time.Second):
			return s.Send(wrapperspb.String("held back"))
		}
	}))
	mux.Handle("/e.S/One", connect.NewUnaryHandler("/e.S/One", func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(wrapperspb.String(strings.Repeat("text", 1000))), nil
	}))
	mux.Handle("/e.S/Fail", connect.NewUnaryHandler("/e.S/Fail", func(context.Context, *connect.Request[text]) (*connect.Response[text], error) {
		return nil, connect.NewError(connect.CodeNotFound, errors.New(strings.Repeat("text", 1000)))
	}))
	return mux
}

func inGo(url string) string {
	ctx := context.Background()
	client := func(name string) *connect.Client[text, text] { return connect.NewClient[text, text](http.DefaultClient, url+"/e.S/"+name) }
	stream := must(client("Many").CallServerStream(ctx, connect.NewRequest(&text{})))
	defer stream.Close()
	stream.Receive()
	must(http.Post(url+"/arrived", "", nil)).Body.Close()
	stream.Receive()
	said := stream.Msg().Value
	code := func(name string) string {
		if _, err := client(name).CallUnary(ctx, connect.NewRequest(&text{})); err != nil {
			return connect.CodeOf(err).String()
		}
		return "ok"
	}
	return fmt.Sprintf("Connect: stream %s, unary %s, error %s", said, code("One"), code("Fail"))
}

func main() {
	e := echo.New()
	e.Use(middleware.Gzip())
	e.Any("/*", echo.WrapHandler(handler()))
	const whole, brief = "stream arrived at once, unary ok, error not_found", "stream held back, unary ok, error not_found"
	changed := false
	for _, c := range []struct {
		name    string
		handler http.Handler
		want    []string
	}{
		{"none", handler(), []string{"Connect: " + whole, "Connect: " + whole, "gRPC-Web: " + whole}},
		{"gzhttp", gzhttp.GzipHandler(handler()), []string{"Connect: " + whole, "Connect: " + whole, "gRPC-Web: " + whole}},
		{"chi", chi.Compress(5, "application/*")(handler()), []string{"Connect: " + whole, "Connect: " + whole, "gRPC-Web: " + whole}},
		{"gziphandler", gziphandler.GzipHandler(handler()), []string{"Connect: " + whole, "Connect: " + brief, "gRPC-Web: " + brief}},
		{"httpcompression", must(httpcompression.DefaultAdapter())(handler()), []string{"Connect: " + whole, "Connect: " + brief, "gRPC-Web: " + brief}},
		{"echo", e, []string{"Connect: stream arrived at once, unary invalid_argument, error not_found", "Connect: stream arrived at once, unary unknown, error not_found", "gRPC-Web: " + whole}},
	} {
		s := httptest.NewServer(c.handler)
		node := exec.Command("node", "main.mjs", s.URL)
		node.Stderr = os.Stderr
		seen := append([]string{inGo(s.URL)}, strings.Split(strings.TrimSpace(string(must(node.Output()))), "\n")...)
		fmt.Printf("%s, in Go: %s\n", c.name, seen[0])
		for _, line := range seen[1:] {
			fmt.Printf("%s, on fetch: %s\n", c.name, line)
		}
		changed = changed || !slices.Equal(seen, c.want)
	}
	if changed {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
cat > main.mjs <<'EOT'
import { create } from '@bufbuild/protobuf';
import { StringValueSchema } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { createConnectTransport, createGrpcWebTransport } from '@connectrpc/connect-web';

const baseUrl = process.argv[2];
const method = (name, methodKind) => ({ kind: 'rpc', name, methodKind, parent: { typeName: 'e.S' }, input: StringValueSchema, output: StringValueSchema });
const message = create(StringValueSchema);
for (const [protocol, transport] of [['Connect', createConnectTransport({ baseUrl })], ['gRPC-Web', createGrpcWebTransport({ baseUrl })]]) {
  const stream = await transport.stream(method('Many', 'server_streaming'), undefined, undefined, {}, (async function* () { yield message; })());
  let said;
  for await (const { value } of stream.message) {
    if (value === 'first') await fetch(`${baseUrl}/arrived`, { method: 'POST' });
    else said = value;
  }
  const code = (name) => transport.unary(method(name, 'unary'), undefined, undefined, {}, message).then(() => 'ok', (err) => Code[err.code].replace(/(?!^)[A-Z]/g, '_$&').toLowerCase());
  console.log(`${protocol}: stream ${said}, unary ${await code('One')}, error ${await code('Fail')}`);
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect github.com/NYTimes/gziphandler github.com/CAFxX/httpcompression github.com/labstack/echo/v5 github.com/klauspost/compress github.com/go-chi/chi/v5
node -p '["connect", "connect-web"].map((name) => `@connectrpc/${name} ` + JSON.parse(require("fs").readFileSync(`node_modules/@connectrpc/${name}/package.json`)).version).join(", ")'
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
