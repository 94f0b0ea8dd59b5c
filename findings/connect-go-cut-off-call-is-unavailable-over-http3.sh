#!/usr/bin/env bash
# Guess: a call of connect-go that its server cuts off while the handler is at work (http.ErrAbortHandler, a reset of the stream) fails with one code over
# HTTP/2 and over HTTP/3: it is the same event, INTERNAL_ERROR in one and H3_INTERNAL_ERROR in the other.
# Seen: with connectrpc.com/connect v1.21.1 and github.com/quic-go/quic-go v0.65.0 (http3) a unary call is internal over HTTP/2 and unavailable over
# HTTP/3, in Connect, gRPC and gRPC-Web. unavailable is the code that retry policies take for a call that did not reach a handler; here it ran. connect
# reads the reset's code from errors of HTTP/2 alone; what http3.Transport returns is for it an error of a client that reached nobody. A stream that has
# given its first message is internal over both.
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
	github.com/quic-go/quic-go v0.65.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/quic-go/quic-go/http3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type number = wrapperspb.Int64Value

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func certificate() (tls.Certificate, *x509.CertPool) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key))
	pool := x509.NewCertPool()
	pool.AddCert(must(x509.ParseCertificate(der)))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// ran counts the calls at whose end the handler was at work.
var ran atomic.Int64

func handlers() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/e.E/Get", connect.NewUnaryHandler("/e.E/Get", func(context.Context, *connect.Request[number]) (*connect.Response[number], error) {
		ran.Add(1)
		panic(http.ErrAbortHandler)
	}))
	mux.Handle("/e.E/Watch", connect.NewServerStreamHandler("/e.E/Watch", func(_ context.Context, _ *connect.Request[number], s *connect.ServerStream[number]) error {
		ran.Add(1)
		if err := s.Send(wrapperspb.Int64(1)); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		panic(http.ErrAbortHandler)
	}))
	return mux
}

// serve returns the address of a server of HTTP/2 or HTTP/3 and a client of it.
func serve(version string) (string, *http.Client) {
	own, pool := certificate()
	if version == "HTTP/3" {
		conn := must(net.ListenPacket("udp", "127.0.0.1:0"))
		server := &http3.Server{Handler: handlers(), TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{own}})}
		go server.Serve(conn)
		return "https://" + conn.LocalAddr().String(), &http.Client{Transport: &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	}
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: handlers(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}}, ErrorLog: log.New(io.Discard, "", 0)}
	go server.ServeTLS(l, "", "")
	return "https://" + l.Addr().String(), &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func main() {
	ctx := context.Background()
	var seen []string
	protocols := []string{"Connect", "gRPC", "gRPC-Web"}
	options := map[string][]connect.ClientOption{"gRPC": {connect.WithGRPC()}, "gRPC-Web": {connect.WithGRPCWeb()}}
	for _, version := range []string{"HTTP/2", "HTTP/3"} {
		url, client := serve(version)
		for _, protocol := range protocols {
			ran.Store(0)
			_, unary := connect.NewClient[number, number](client, url+"/e.E/Get", options[protocol]...).CallUnary(ctx, connect.NewRequest(wrapperspb.Int64(1)))
			stream := must(connect.NewClient[number, number](client, url+"/e.E/Watch", options[protocol]...).CallServerStream(ctx, connect.NewRequest(wrapperspb.Int64(1))))
			for stream.Receive() {
			}
			fmt.Printf("%s, %s: %q, %q\n", version, protocol, unary, stream.Err())
			seen = append(seen, fmt.Sprintf("%s, %s: unary %v, stream %v, handlers ran %d", version, protocol, connect.CodeOf(unary), connect.CodeOf(stream.Err()), ran.Load()))
		}
	}
	var want []string
	for _, version := range [][2]string{{"HTTP/2", "internal"}, {"HTTP/3", "unavailable"}} {
		for _, protocol := range protocols {
			want = append(want, fmt.Sprintf("%s, %s: unary %s, stream internal, handlers ran 2", version[0], protocol, version[1]))
		}
	}
	for _, line := range seen {
		fmt.Println(line)
	}
	if !slices.Equal(seen, want) {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/quic-go/quic-go connectrpc.com/connect
GOTOOLCHAIN=local go build -o finding .
timeout 120 ./finding
