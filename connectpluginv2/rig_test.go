package connectpluginv2_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

func TestMain(m *testing.M) { hosttest.Main(m) }

// specs are those of the service echo.
var specs = map[string]connect.Spec{
	"unary":  {Procedure: echo.Unary, StreamType: connect.StreamTypeUnary},
	"client": {Procedure: echo.Client, StreamType: connect.StreamTypeClient},
	"server": {Procedure: echo.Server, StreamType: connect.StreamTypeServer},
	"bidi":   {Procedure: echo.Bidi, StreamType: connect.StreamTypeBidi},
}

// protocols are the options of the three protocols.
var protocols = map[string][]connecthttp.Option{
	"connect":  nil,
	"grpc":     {connecthttp.WithGRPC()},
	"grpc-web": {connecthttp.WithGRPCWeb()},
}

// newServer serves echo as a server of the second version. Each handler asks fail first.
func newServer(fail func(context.Context) error, interceptors ...connect.ServerInterceptor) *connect.Server {
	server := connect.NewServer(interceptors...)
	for kind, spec := range specs {
		server.Register(connect.Method{Spec: spec, Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			if err := fail(ctx); err != nil {
				return err
			}
			return answer(kind, stream)
		}})
	}
	return server
}

func never(context.Context) error { return nil }

// answer is what echo answers.
func answer(kind string, stream connect.ServerStream) error {
	var all strings.Builder
	for {
		var msg echo.Text
		if err := stream.Receive(&msg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		all.WriteString(msg.GetValue())
		if kind == "bidi" {
			if err := stream.Send(&msg); err != nil {
				return err
			}
		}
		if kind == "unary" || kind == "server" {
			break
		}
	}
	for range map[string]int{"unary": 1, "client": 1, "server": 3}[kind] {
		if err := stream.Send(wrapperspb.String(all.String())); err != nil {
			return err
		}
	}
	return nil
}

// call calls echo with two messages, as echo.Kinds do.
func call(ctx context.Context, client *connect.Client, kind string) echo.Outcome {
	spec, out := specs[kind], echo.Outcome{}
	if kind == "unary" {
		var res echo.Text
		if out.Err = client.CallUnary(ctx, spec, wrapperspb.String("ab"), &res); out.Err == nil {
			out.Messages = []string{res.GetValue()}
		}
		return out
	}
	stream, err := open(ctx, client, kind)
	if err != nil {
		return echo.Outcome{Err: err}
	}
	defer func() { _ = stream.Close() }()
	receive := func() bool {
		var res echo.Text
		if out.Err = stream.Receive(&res); out.Err == nil {
			out.Messages = append(out.Messages, res.GetValue())
		}
		return out.Err == nil
	}
	if kind != "server" {
		for _, m := range []string{"a", "b"} {
			if stream.Send(wrapperspb.String(m)) != nil {
				break // the answer says why
			}
			if kind == "bidi" && !receive() {
				return out
			}
		}
		_ = stream.CloseSend()
	}
	for out.Err == nil {
		receive()
	}
	if errors.Is(out.Err, io.EOF) {
		out.Err = nil
	}
	return out
}

func open(ctx context.Context, client *connect.Client, kind string) (connect.ClientStream, error) {
	if kind == "server" {
		return client.CallServerStream(ctx, specs[kind], wrapperspb.String("ab"))
	}
	return client.CallClientStream(ctx, specs[kind])
}

// rig is a host with a provider of each version, and a caller.
type rig struct {
	*hosttest.Host

	caller *connectplugin.Client
}

// newRig starts a host on which "first" and "second" provide what their services say, and
// "caller" may require both.
func newRig(t *testing.T, first, second connectplugin.PluginService) *rig {
	t.Helper()
	types := []string{"first", "second"}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"first": {types, types}, "second": {types, types}, "caller": {nil, types}})
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(connectpluginv2.NewHandler(newServer(never)), "echo", "1.0.0"))
		p := c.Policy.Plugins["caller"]
		p.Capabilities = []string{"echo"}
		c.Policy.Plugins["caller"] = p
	})
	for _, s := range []connectplugin.PluginService{first, second} {
		host.StartPlugin(t, s.Type, func(c *connectplugin.PluginServerConfig) { c.Services = []connectplugin.PluginService{s} })
	}
	return &rig{host, host.Enrol(t, "caller", hosttest.Requiring(types...))}
}

func (r *rig) service(t *testing.T, serviceType string) *connectplugin.ServiceConn {
	t.Helper()
	conn, err := r.caller.Service(t.Context(), serviceType, "")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// v1Service is echo of the first version.
func v1Service(service echo.Service) connectplugin.PluginService {
	return connectplugin.PluginService{Type: "first", Version: "1.0.0", Path: echo.Base, Handler: service.Handler()}
}

// said is an error's code and text, of either version.
func said(err error) string {
	if err == nil {
		return "nothing"
	}
	return connect.CodeOf(connectpluginv2.FromV1(err)).String() + ": " + messageOf(connectpluginv2.FromV1(err))
}

func messageOf(err error) string {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded.Message()
	}
	return err.Error()
}
