#!/usr/bin/env bash
# Guess: a gRPC service that is offered over HTTP/1.1 by grpchan's httpgrpc, or in its own process by inprocgrpc, answers as gRPC-Go does, for whose handlers and stubs it is made:
# the package says what it cannot, which is streams in both directions at once over HTTP/1.1.
# Seen: with github.com/fullstorydev/grpchan v1.1.2 and google.golang.org/grpc v1.85.0 (1) a handler that returns its context's error, as most that wait do, gives deadline_exceeded or
# canceled with gRPC-Go, and unknown with both of the others, so that a caller does not see that it ran out of time somewhere behind the service. (2) A method or a service that
# there is not is unimplemented with gRPC-Go and inprocgrpc, and not_found over HTTP. (3) A line break in an error's text is a blank over HTTP. (4) A client stream that
# the handler has refused before the caller was done is told at once by gRPC-Go; over HTTP the caller goes on sending without an error, here for
# two seconds. Details and metadata are the same in all three.
# Exits with 0 as long as this holds.
set -euo pipefail

dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
cd "$dir"
cat > go.mod <<'EOT'
module finding

go 1.26.0

require (
	github.com/fullstorydev/grpchan v1.1.2
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)
EOT
cat > main.go <<'EOT'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/fullstorydev/grpchan/httpgrpc"
	"github.com/fullstorydev/grpchan/inprocgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func get(ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	switch in.Value {
	case "deadline":
		return nil, context.DeadlineExceeded
	case "cancel":
		return nil, context.Canceled
	case "details":
		if err := grpc.SetTrailer(ctx, metadata.Pairs("note", "kept")); err != nil {
			return nil, err
		}
		s, err := status.New(codes.FailedPrecondition, "one\ntwo").WithDetails(&errdetails.ErrorInfo{Reason: "why"})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	return in, nil
}

// service has a unary method, and a client stream that is refused before it is read.
var service = grpc.ServiceDesc{
	ServiceName: "t.S",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.StringValue)
		if err := decode(in); err != nil {
			return nil, err
		}
		return get(ctx, in)
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Put", ClientStreams: true, Handler: func(any, grpc.ServerStream) error {
		return status.Error(codes.ResourceExhausted, "enough")
	}}},
}

// put sends until it is told that the call is over, for two seconds.
func put(cc grpc.ClientConnInterface) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := cc.NewStream(ctx, &service.Streams[0], "/t.S/Put")
	if err != nil {
		return status.Code(err).String()
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err := stream.SendMsg(wrapperspb.String("more")); err != nil {
			return fmt.Sprint(status.Code(stream.RecvMsg(new(wrapperspb.StringValue))))
		}
	}
	return "not told"
}

func main() {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	server.RegisterService(&service, struct{}{})
	go server.Serve(listener)
	defer server.Stop()
	overGRPC, err := grpc.NewClient("passthrough:plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	handlers := httpgrpc.NewServer()
	handlers.RegisterService(&service, struct{}{})
	web := httptest.NewServer(handlers)
	defer web.CloseClientConnections()
	base, err := url.Parse(web.URL)
	if err != nil {
		panic(err)
	}
	var inProcess inprocgrpc.Channel
	inProcess.RegisterService(&service, struct{}{})
	for _, c := range []struct {
		name string
		cc   grpc.ClientConnInterface
	}{{"gRPC-Go", overGRPC}, {"httpgrpc", &httpgrpc.Channel{Transport: web.Client().Transport, BaseURL: base}}, {"inprocgrpc", &inProcess}} {
		ctx := context.Background()
		for _, what := range []string{"deadline", "cancel", "details"} {
			var trailer metadata.MD
			err := c.cc.Invoke(ctx, "/t.S/Get", wrapperspb.String(what), new(wrapperspb.StringValue), grpc.Trailer(&trailer))
			s := status.Convert(err)
			fmt.Printf("%s: handler's %s is %v, %q, %d details, trailer %q\n", c.name, what, s.Code(), s.Message(), len(s.Details()), trailer["note"])
		}
		for _, method := range []string{"/t.S/None", "/t.None/Get"} {
			err := c.cc.Invoke(ctx, method, new(wrapperspb.StringValue), new(wrapperspb.StringValue))
			fmt.Printf("%s: %s is %v\n", c.name, method, status.Code(err))
		}
		fmt.Printf("%s: a client stream that was refused: %s\n", c.name, put(c.cc))
	}
}
EOT
GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod tidy > /dev/null 2>&1
go list -m github.com/fullstorydev/grpchan google.golang.org/grpc
GOTOOLCHAIN=local timeout 300 go run . 2> log | tee seen
cat > want <<'EOT'
gRPC-Go: handler's deadline is DeadlineExceeded, "context deadline exceeded", 0 details, trailer []
gRPC-Go: handler's cancel is Canceled, "context canceled", 0 details, trailer []
gRPC-Go: handler's details is FailedPrecondition, "one\ntwo", 1 details, trailer ["kept"]
gRPC-Go: /t.S/None is Unimplemented
gRPC-Go: /t.None/Get is Unimplemented
gRPC-Go: a client stream that was refused: ResourceExhausted
httpgrpc: handler's deadline is Unknown, "context deadline exceeded", 0 details, trailer []
httpgrpc: handler's cancel is Unknown, "context canceled", 0 details, trailer []
httpgrpc: handler's details is FailedPrecondition, "one two", 1 details, trailer ["kept"]
httpgrpc: /t.S/None is NotFound
httpgrpc: /t.None/Get is NotFound
httpgrpc: a client stream that was refused: not told
inprocgrpc: handler's deadline is Unknown, "context deadline exceeded", 0 details, trailer []
inprocgrpc: handler's cancel is Unknown, "context canceled", 0 details, trailer []
inprocgrpc: handler's details is FailedPrecondition, "one\ntwo", 1 details, trailer ["kept"]
inprocgrpc: /t.S/None is Unimplemented
inprocgrpc: /t.None/Get is Unimplemented
inprocgrpc: a client stream that was refused: ResourceExhausted
EOT
cmp -s seen want || { cat log; echo CHANGED; exit 1; }
