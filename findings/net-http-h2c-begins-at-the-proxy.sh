#!/usr/bin/env bash
# Guess: a client that is set to HTTP/2 without TLS and to a proxy, as http.DefaultTransport.Clone() is to the one of the environment, reaches a service
# through the proxy as one with TLS does, by CONNECT: nothing else can carry HTTP/2 through a proxy of HTTP/1.1, and gRPC-Go does it.
# Seen: http.Transport of Go 1.26 whose Protocols are UnencryptedHTTP2 alone opens a connection to the proxy, here github.com/elazarl/goproxy v1.9.4, and
# begins HTTP/2 with the proxy itself ("PRI *"), as if it were the service. A client of connectrpc.com/connect v1.21.1 fails in every call, in Connect and
# in gRPC, mostly with unavailable, "frame header looked like an HTTP/1.1 header" or "client conn could not be established", as it comes, and at times with
# canceled, "broken pipe". None of it names the proxy. With HTTP1 allowed as well it goes to the proxy in HTTP/1.1, as absolute form, so without
# bidirectional streams. With TLS, and from google.golang.org/grpc v1.85.0 without, the proxy is asked for CONNECT, and calls are answered.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	connectrpc.com/connect v1.21.1
	github.com/elazarl/goproxy v1.9.4
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/elazarl/goproxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

const procedure = "/e.E/One"

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func protocols(which ...func(*http.Protocols, bool)) *http.Protocols {
	var p http.Protocols
	for _, set := range which {
		set(&p, true)
	}
	return &p
}

// service answers with the version of HTTP in which it was asked.
func service() http.Handler {
	type version struct{}
	handler := connect.NewUnaryHandler(procedure, func(ctx context.Context, _ *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(wrapperspb.String(ctx.Value(version{}).(string))), nil
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), version{}, r.Proto)))
	})
}

func call(transport *http.Transport, url string, options ...connect.ClientOption) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := connect.NewClient[text, text](&http.Client{Transport: transport}, url+procedure, options...).CallUnary(ctx, connect.NewRequest(&text{}))
	var coded *connect.Error
	switch {
	case err == nil:
		return "answered over " + answer.Msg.GetValue()
	case errors.As(err, &coded) && (coded.Code() == connect.CodeUnavailable || coded.Code() == connect.CodeCanceled) && ctx.Err() == nil:
		return "fails"
	default:
		return err.Error()
	}
}

func main() {
	plain := must(net.Listen("tcp", "127.0.0.1:0"))
	go (&http.Server{Handler: service(), Protocols: protocols((*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)}).Serve(plain)
	secure := httptest.NewUnstartedServer(service())
	secure.EnableHTTP2 = true
	secure.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())

	// The proxy knows where the names are.
	dial := func(network, address string) (net.Conn, error) {
		if address == "service.example:443" {
			return net.Dial(network, secure.Listener.Addr().String())
		}
		return net.Dial(network, plain.Addr().String())
	}
	proxy := goproxy.NewProxyHttpServer()
	proxy.ConnectDial = dial
	proxy.Tr = &http.Transport{Dial: dial}
	asked := make(chan string, 10)
	address := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI
		proxy.ServeHTTP(w, r)
	})).URL
	through := http.ProxyURL(must(url.Parse(address)))
	os.Setenv("HTTPS_PROXY", address) // this is what gRPC-Go goes by

	var seen []string
	say := func(what, end string) {
		line := fmt.Sprintf("%s: %s, the proxy was asked for %s", what, end, <-asked)
		fmt.Println(line)
		seen = append(seen, line)
	}
	h2c := &http.Transport{Proxy: through, Protocols: protocols((*http.Protocols).SetUnencryptedHTTP2)}
	say("connect-go, h2c", call(h2c, "http://service.example"))
	say("connect-go in gRPC, h2c", call(h2c, "http://service.example", connect.WithGRPC()))
	say("connect-go, HTTP/1.1 or h2c", call(&http.Transport{Proxy: through, Protocols: protocols((*http.Protocols).SetHTTP1, (*http.Protocols).SetUnencryptedHTTP2)}, "http://service.example"))
	say("connect-go, TLS", call(&http.Transport{Proxy: through, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}}, "https://service.example"))
	conn := must(grpc.NewClient("service.example:80", grpc.WithTransportCredentials(insecure.NewCredentials())))
	var answer text
	end := "answered over "
	if err := conn.Invoke(context.Background(), procedure, &text{}, &answer); err != nil {
		end = err.Error()
	}
	say("gRPC-Go", end+answer.GetValue())

	if !slices.Equal(seen, []string{
		"connect-go, h2c: fails, the proxy was asked for PRI *",
		"connect-go in gRPC, h2c: fails, the proxy was asked for PRI *",
		"connect-go, HTTP/1.1 or h2c: answered over HTTP/1.1, the proxy was asked for POST http://service.example/e.E/One",
		"connect-go, TLS: answered over HTTP/2.0, the proxy was asked for CONNECT service.example:443",
		"gRPC-Go: answered over HTTP/2.0, the proxy was asked for CONNECT service.example:80",
	}) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go version
go list -m connectrpc.com/connect github.com/elazarl/goproxy google.golang.org/grpc
GOTOOLCHAIN=local timeout 120 go run .
