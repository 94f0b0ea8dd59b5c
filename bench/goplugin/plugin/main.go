// Command plugin is a plugin that is built with hashicorp/go-plugin and knows nothing of this
// library: the tests beside it run it as it is, and bench-plugins measures against it.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	handshake := plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "BENCH_PLUGIN", MagicCookieValue: "bench"}
	echo := plugin.PluginSet{"echo": echoPlugin{}}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]plugin.PluginSet{1: echo, 2: echo},
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Warn}),
	})
}

type text = wrapperspb.StringValue

// echoPlugin serves what generated code would.
type echoPlugin struct {
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements plugin.GRPCPlugin.
func (echoPlugin) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error { //nolint:unparam // the interface has it
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.v1.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Say", Handler: say}},
		Streams:     []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true, ClientStreams: true}},
	}, broker)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin.
func (echoPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func say(broker any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // gRPC's order
	in := new(text)
	if err := decode(in); err != nil {
		return nil, err
	}
	handle := func(context.Context, any) (any, error) {
		if b, ok := broker.(*plugin.GRPCBroker); ok && strings.HasPrefix(in.GetValue(), "broker ") {
			return callBack(b, in.GetValue())
		}
		return answer(in), nil
	}
	if intercept == nil {
		return handle(ctx, in)
	}
	return intercept(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/bench.v1.Echo/Say"}, handle)
}

// callBack uses the broker as a plugin does that calls its host back, or is called back by it.
func callBack(broker *plugin.GRPCBroker, what string) (any, error) {
	id := broker.NextId()
	if what == "broker dial" {
		conn, err := broker.Dial(id)
		if err == nil {
			err = conn.Close()
		}
		return wrapperspb.String("dialed"), err
	}
	l, err := broker.Accept(id)
	if err == nil {
		_ = l.Close() // it has removed its socket by then, and says that it is not there
	}
	return wrapperspb.String("accepted"), err
}

// answer returns what it is told, and does what some words ask for.
func answer(in *text) *text {
	switch what, rest, _ := strings.Cut(in.GetValue(), " "); what {
	case "pid":
		return wrapperspb.String(strconv.Itoa(os.Getpid()))
	case "env":
		return wrapperspb.String(strings.Join(os.Environ(), "\n"))
	case "until": // a file is there
		for _, err := os.Stat(rest); err != nil; _, err = os.Stat(rest) {
			<-time.After(time.Millisecond) // polls the file system
		}
	case "collect": // garbage, and give back what is free
		debug.FreeOSMemory()
	case "print":
		fmt.Println(rest)
	case "flood":
		line := strings.Repeat("x", 1<<10-1)
		for range 1 << 10 {
			fmt.Println(line)
		}
	case "crash":
		fmt.Fprintln(os.Stderr, "last words")
		os.Exit(3) //nolint:mnd // a plugin that crashes
	}
	return in
}

// stream returns each message that it gets.
func stream(_ any, s grpc.ServerStream) error {
	for {
		m := new(text)
		if err := s.RecvMsg(m); err != nil {
			return nil //nolint:nilerr // the caller is done
		}
		if err := s.SendMsg(m); err != nil {
			return err //nolint:wrapcheck // gRPC's own, with its code
		}
	}
}
