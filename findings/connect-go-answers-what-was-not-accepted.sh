#!/usr/bin/env bash
# Guess: a caller that says which compressions it takes (Accept-Encoding and its kin) gets one of them, or none.
# Seen: a handler of connect-go v1.21.1 answers a request that was compressed with gzip with gzip, also where the caller said that it
# takes "identity" alone or only one that the handler does not know: unary and in streams, in Connect, gRPC and gRPC-Web, and
# for the end of a stream too. A caller that compresses what it sends and cannot inflate what it gets cannot say so.
# gRPC-Go v1.85.0 does the same for gRPC. Both leave requests that are not compressed uncompressed.
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
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

type protocol struct{ name, path, contentType, encoding, accept string }

var protocols = []protocol{
	{"Connect unary", "Unary", "application/proto", "Content-Encoding", "Accept-Encoding"},
	{"Connect stream", "Stream", "application/connect+proto", "Connect-Content-Encoding", "Connect-Accept-Encoding"},
	{"gRPC unary", "Unary", "application/grpc", "Grpc-Encoding", "Grpc-Accept-Encoding"},
	{"gRPC stream", "Stream", "application/grpc", "Grpc-Encoding", "Grpc-Accept-Encoding"},
	{"gRPC-Web unary", "Unary", "application/grpc-web", "Grpc-Encoding", "Grpc-Accept-Encoding"},
}

func main() {
	mux := http.NewServeMux()
	mux.Handle("/e.Echo/Unary", connect.NewUnaryHandler("/e.Echo/Unary", func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(r.Msg), nil
	}))
	mux.Handle("/e.Echo/Stream", connect.NewServerStreamHandler("/e.Echo/Stream", func(_ context.Context, r *connect.Request[text], s *connect.ServerStream[text]) error {
		return s.Send(r.Msg)
	}))
	same := true
	for _, server := range []struct {
		name      string
		handler   http.Handler
		protocols []protocol
	}{{"connect-go", mux, protocols}, {"gRPC-Go", grpcServer(), protocols[2:4]}} {
		s := httptest.NewUnstartedServer(server.handler)
		s.EnableHTTP2 = true
		s.StartTLS()
		for _, p := range server.protocols {
			seen := ""
			for _, accept := range []string{"identity", "br"} {
				for _, compressed := range []bool{false, true} {
					seen += fmt.Sprintf(" %s/%v:%v", accept, compressed, gzipped(s, p, accept, compressed))
				}
			}
			fmt.Printf("%s, %s, accepted/request compressed:answer compressed%s\n", server.name, p.name, seen)
			same = same && seen == " identity/false:false identity/true:true br/false:false br/true:true"
		}
		s.Close()
	}
	if !same {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}

func gzipped(s *httptest.Server, p protocol, accept string, compressed bool) bool {
	message, err := proto.Marshal(wrapperspb.String(strings.Repeat("x", 1000)))
	check(err)
	flag := byte(0)
	if compressed {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		w.Write(message)
		w.Close()
		message, flag = b.Bytes(), 1
	}
	if p.contentType != "application/proto" {
		message = append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(message))), message...)
	}
	r, err := http.NewRequest(http.MethodPost, s.URL+"/e.Echo/"+p.path, bytes.NewReader(message))
	check(err)
	r.Header.Set("Content-Type", p.contentType)
	r.Header.Set("Te", "trailers")
	r.Header.Set(p.accept, accept)
	if compressed {
		r.Header.Set(p.encoding, "gzip")
	}
	response, err := s.Client().Do(r)
	check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check(err)
	if response.StatusCode != http.StatusOK || len(body) == 0 {
		check(fmt.Errorf("%s, %s", response.Status, body))
	}
	if p.contentType == "application/proto" {
		return response.Header.Get(p.encoding) == "gzip"
	}
	return body[0]&1 == 1
}

func grpcServer() *grpc.Server {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "e.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			m := new(text)
			return m, decode(m)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
			m := new(text)
			if err := stream.RecvMsg(m); err != nil {
				return err
			}
			return stream.SendMsg(m)
		}}},
	}, nil)
	return server
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
EOT
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect google.golang.org/grpc
go run .
