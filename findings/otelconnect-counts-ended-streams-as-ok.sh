#!/usr/bin/env bash
# Guess: a caller's duration histogram (rpc.client.call.duration) has a stream that ended by the caller's deadline or cancellation
# under the code that the caller got, as a unary call, and under the same word in Go's two instrumentations.
# Seen: connectrpc.com/otelconnect v0.12.0 ends a client's stream as soon as its context ends, before Receive has said why: with
# connectrpc.com/connect v1.21.1 and connectrpc.com/connect/v2 v2.0.2 alike server streams that the caller cancelled are counted with
# rpc.response.status_code OK, nearly all of them, and so are many, up to all, of those whose deadline passed. Unary calls are
# counted as they ended. otelgrpc v0.72.0 with gRPC-Go v1.85.0 counts both right; it writes CANCELLED, otelconnect CANCELED.
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
	connectrpc.com/connect/v2 v2.0.2
	connectrpc.com/otelconnect v0.12.0
	go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc v0.72.0
	go.opentelemetry.io/otel/sdk/metric v1.47.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	connect2 "connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

type empty = emptypb.Empty

const (
	unary    = "/e.E/Unary"
	stream   = "/e.E/Stream"
	calls    = 40
	deadline = 500 * time.Millisecond
)

var h2c *http.Client

func wait(ctx context.Context, _ *connect.Request[empty]) (*connect.Response[empty], error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// endless sends one message and waits until its caller is gone.
func endless(ctx context.Context, _ *connect.Request[empty], s *connect.ServerStream[empty]) error {
	if err := s.Send(&empty{}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// caller calls once, is counted by meters, and returns the code that it got.
type caller func(ctx context.Context, meters *metric.MeterProvider, addr string) string

func observed(meters *metric.MeterProvider) connect.ClientOption {
	interceptor, err := otelconnect.NewInterceptor(otelconnect.WithMeterProvider(meters), otelconnect.WithoutTracing())
	if err != nil {
		panic(err)
	}
	return connect.WithInterceptors(interceptor)
}

func v1Unary(ctx context.Context, meters *metric.MeterProvider, addr string) string {
	_, err := connect.NewClient[empty, empty](h2c, "http://"+addr+unary, observed(meters)).CallUnary(ctx, connect.NewRequest(&empty{}))
	return connect.CodeOf(err).String()
}

func v1Stream(ctx context.Context, meters *metric.MeterProvider, addr string) string {
	s, err := connect.NewClient[empty, empty](h2c, "http://"+addr+stream, observed(meters)).CallServerStream(ctx, connect.NewRequest(&empty{}))
	if err != nil {
		return connect.CodeOf(err).String()
	}
	defer s.Close()
	for s.Receive() {
	}
	return connect.CodeOf(s.Err()).String()
}

func v2Stream(ctx context.Context, meters *metric.MeterProvider, addr string) string {
	interceptor, err := otelconnect.NewClientInterceptor(otelconnect.WithMeterProvider(meters), otelconnect.WithoutTracing())
	if err != nil {
		panic(err)
	}
	client := connect2.NewClient(connecthttp.NewTransport(h2c, "http://"+addr), interceptor)
	s, err := client.CallServerStream(ctx, connect2.Spec{Procedure: stream, StreamType: connect2.StreamTypeServer}, &empty{})
	if err != nil {
		return connect2.CodeOf(err).String()
	}
	defer s.Close()
	for err == nil {
		err = s.Receive(&empty{})
	}
	return connect2.CodeOf(err).String()
}

func grpcStream(ctx context.Context, meters *metric.MeterProvider, addr string) string {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithMeterProvider(meters))))
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, stream)
	if err == nil {
		err = errors.Join(s.SendMsg(&empty{}), s.CloseSend())
	}
	for err == nil {
		err = s.RecvMsg(&empty{})
	}
	return strings.ToLower(strings.ReplaceAll(status.Code(err).String(), "lineE", "line_e"))
}

// counted returns how often the histogram has each rpc.response.status_code.
func counted(reader metric.Reader) map[string]uint64 {
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		panic(err)
	}
	codes := map[string]uint64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if histogram, ok := m.Data.(metricdata.Histogram[float64]); ok && m.Name == "rpc.client.call.duration" {
				for _, p := range histogram.DataPoints {
					code, _ := p.Attributes.Value("rpc.response.status_code")
					codes[code.Emit()] += p.Count
				}
			}
		}
	}
	return codes
}

// many calls and returns the codes that the callers got and those that were counted.
func many(call caller, cancels bool, addr string) (got map[string]int, codes map[string]uint64) {
	reader := metric.NewManualReader()
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	got = map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), deadline)
			defer cancel()
			if cancels {
				ctx, cancel = context.WithCancel(context.Background())
				time.AfterFunc(deadline, cancel)
			}
			code := call(ctx, meters, addr)
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	wg.Wait()
	for range 100 { // the last may be counted a moment later
		codes = counted(reader)
		var sum uint64
		for _, n := range codes {
			sum += n
		}
		if sum == calls {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return got, codes
}

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle(unary, connect.NewUnaryHandler(unary, wait))
	mux.Handle(stream, connect.NewServerStreamHandler(stream, endless))
	var only http.Protocols
	only.SetUnencryptedHTTP2(true)
	go (&http.Server{Handler: mux, Protocols: &only}).Serve(l)
	h2c = &http.Client{Transport: &http.Transport{Protocols: &only}}
	holds := true
	for _, t := range []struct {
		name     string
		call     caller
		canceled string // as it is counted where that is right
		right    bool
	}{
		{"otelconnect, connect v1, unary", v1Unary, "CANCELED", true},
		{"otelconnect, connect v1, stream", v1Stream, "CANCELED", false},
		{"otelconnect, connect v2, stream", v2Stream, "CANCELED", false},
		{"otelgrpc, gRPC-Go, stream", grpcStream, "CANCELLED", true},
	} {
		for _, code := range []string{"deadline_exceeded", "canceled"} {
			got, codes := many(t.call, code == "canceled", l.Addr().String())
			fmt.Println(t.name+": callers got", got, "counted are", codes)
			word := map[bool]string{true: t.canceled, false: "DEADLINE_EXCEEDED"}[code == "canceled"]
			holds = holds && got[code] == calls && codes[word]+codes["OK"] == calls && (codes["OK"] == 0) == t.right
		}
	}
	if !holds {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
EOT
export GOFLAGS=-mod=mod GOTOOLCHAIN=local
go mod tidy > /dev/null 2>&1
go list -m connectrpc.com/connect connectrpc.com/connect/v2 connectrpc.com/otelconnect go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc google.golang.org/grpc
go run .
