package connectplugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// The service "echo" has a procedure of every kind; Look has no side effects.
const (
	echoType   = "echo"
	echoBase   = "/test.v1.Echo/"
	echoUnary  = echoBase + "Unary"
	echoLook   = echoBase + "Look"
	echoClient = echoBase + "Client"
	echoServer = echoBase + "Server"
	echoBidi   = echoBase + "Bidi"
)

// echoText is the message of the service.
type echoText = wrapperspb.StringValue

// echoService serves the service. A nil field sends back what it got; Client
// joins what it got, Server sends what it got three times.
type echoService struct {
	unary  func(context.Context, *connect.Request[echoText]) (*connect.Response[echoText], error)
	client func(context.Context, *connect.ClientStream[echoText]) (*connect.Response[echoText], error)
	server func(context.Context, *connect.Request[echoText], *connect.ServerStream[echoText]) error
	bidi   func(context.Context, *connect.BidiStream[echoText, echoText]) error
}

func (s echoService) handler(opts ...connect.HandlerOption) http.Handler {
	if s.unary == nil {
		s.unary = func(_ context.Context, req *connect.Request[echoText]) (*connect.Response[echoText], error) {
			return connect.NewResponse(req.Msg), nil
		}
	}
	if s.client == nil {
		s.client = joinAll
	}
	if s.server == nil {
		s.server = sendThrice
	}
	if s.bidi == nil {
		s.bidi = sendBack
	}
	mux := http.NewServeMux()
	mux.Handle(echoUnary, connect.NewUnaryHandler(echoUnary, s.unary, opts...))
	mux.Handle(echoLook, connect.NewUnaryHandler(echoLook, s.unary, append(slices.Clone(opts), connect.WithIdempotency(connect.IdempotencyNoSideEffects))...))
	mux.Handle(echoClient, connect.NewClientStreamHandler(echoClient, s.client, opts...))
	mux.Handle(echoServer, connect.NewServerStreamHandler(echoServer, s.server, opts...))
	mux.Handle(echoBidi, connect.NewBidiStreamHandler(echoBidi, s.bidi, opts...))
	return mux
}

func joinAll(_ context.Context, stream *connect.ClientStream[echoText]) (*connect.Response[echoText], error) {
	all := ""
	for stream.Receive() {
		all += stream.Msg().GetValue()
	}
	return connect.NewResponse(wrapperspb.String(all)), stream.Err()
}

func sendThrice(_ context.Context, req *connect.Request[echoText], stream *connect.ServerStream[echoText]) error {
	for range 3 {
		if err := stream.Send(req.Msg); err != nil {
			return err
		}
	}
	return nil
}

func sendBack(_ context.Context, stream *connect.BidiStream[echoText, echoText]) error {
	for {
		msg, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// reachable is a base URL with the HTTP client that reaches it.
type reachable interface {
	BaseURL() string
	HTTPClient() connect.HTTPClient
}

// baseAt is a base URL and an HTTP client.
type baseAt struct {
	base   string
	client connect.HTTPClient
}

// at is a base URL with the client that reaches it.
func at(base string, client connect.HTTPClient) baseAt { return baseAt{base: base, client: client} }

func (a baseAt) BaseURL() string                { return a.base }
func (a baseAt) HTTPClient() connect.HTTPClient { return a.client }

// echo makes a client of one procedure of the service.
func echo(r reachable, procedure string, opts ...connect.ClientOption) *connect.Client[echoText, echoText] {
	return connect.NewClient[echoText, echoText](r.HTTPClient(), r.BaseURL()+procedure, opts...)
}

// protocols are the client options of the three protocols.
var protocols = map[string][]connect.ClientOption{
	"connect":  nil,
	"grpc":     {connect.WithGRPC()},
	"grpc-web": {connect.WithGRPCWeb()},
}

// echoOutcome is what the caller of an RPC sees.
type echoOutcome struct {
	messages        []string
	header, trailer http.Header
	err             error
}

// echoKinds calls the service with two messages, in every kind of RPC. The request
// headers of each call are set by the last argument, which may be nil.
var echoKinds = map[string]func(context.Context, reachable, []connect.ClientOption, http.Header) echoOutcome{
	"unary":  callUnary,
	"client": callClient,
	"server": callServer,
	"bidi":   callBidi,
}

func callUnary(ctx context.Context, r reachable, opts []connect.ClientOption, header http.Header) echoOutcome {
	req := connect.NewRequest(wrapperspb.String("ab"))
	maps.Copy(req.Header(), header)
	resp, err := echo(r, echoUnary, opts...).CallUnary(ctx, req)
	if err != nil {
		return echoOutcome{err: err}
	}
	return echoOutcome{messages: []string{resp.Msg.GetValue()}, header: resp.Header(), trailer: resp.Trailer()}
}

func callClient(ctx context.Context, r reachable, opts []connect.ClientOption, header http.Header) echoOutcome {
	stream := echo(r, echoClient, opts...).CallClientStream(ctx)
	maps.Copy(stream.RequestHeader(), header)
	for _, m := range []string{"a", "b"} {
		if stream.Send(wrapperspb.String(m)) != nil {
			break // the answer says why
		}
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return echoOutcome{err: err}
	}
	return echoOutcome{messages: []string{resp.Msg.GetValue()}, header: resp.Header(), trailer: resp.Trailer()}
}

func callServer(ctx context.Context, r reachable, opts []connect.ClientOption, header http.Header) echoOutcome {
	req := connect.NewRequest(wrapperspb.String("ab"))
	maps.Copy(req.Header(), header)
	stream, err := echo(r, echoServer, opts...).CallServerStream(ctx, req)
	if err != nil {
		return echoOutcome{err: err}
	}
	defer func() { _ = stream.Close() }()
	out := echoOutcome{}
	for stream.Receive() {
		out.messages = append(out.messages, stream.Msg().GetValue())
	}
	out.header, out.trailer, out.err = stream.ResponseHeader(), stream.ResponseTrailer(), stream.Err()
	return out
}

func callBidi(ctx context.Context, r reachable, opts []connect.ClientOption, header http.Header) echoOutcome {
	stream := echo(r, echoBidi, opts...).CallBidiStream(ctx)
	maps.Copy(stream.RequestHeader(), header)
	defer func() { _ = stream.CloseResponse() }()
	out := echoOutcome{}
	for _, m := range []string{"a", "b"} {
		if stream.Send(wrapperspb.String(m)) != nil {
			break
		}
	}
	_ = stream.CloseRequest()
	for {
		msg, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if out.err = err; err != nil {
			break
		}
		out.messages = append(out.messages, msg.GetValue())
	}
	out.header, out.trailer = stream.ResponseHeader(), stream.ResponseTrailer()
	return out
}

// wantEcho fails the test unless the service answered.
func wantEcho(t *testing.T, kind string, out echoOutcome) {
	t.Helper()
	want := map[string]string{"unary": "[ab]", "client": "[ab]", "server": "[ab ab ab]", "bidi": "[a b]"}[kind]
	if out.err != nil || fmt.Sprint(out.messages) != want {
		t.Errorf("%s: %v, %v; want %s", kind, out.messages, out.err, want)
	}
}

// echoPolicy lets "provider" provide and "caller" require the type echo; "other"
// may provide it too.
func echoPolicy() *connectplugin.Policy {
	types := []string{echoType}
	return &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{
			"provider": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = types }),
			"other":    hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Provides = []string{echoType, "different"} }),
			"caller":   hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires, p.Capabilities = types, types }),
			"both":     hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{echoType, "different"} }),
			"stranger": hosttest.Allow(nil),
		},
		AllowMultiple: types,
	}
}

// echoRig is a host, a plugin that provides echo and a client that calls it.
type echoRig struct {
	*hosttest.Host

	provider *hosttest.Plugin
	caller   *connectplugin.Client
}

// newEchoRig starts a rig over TLS. edit may be nil.
func newEchoRig(t *testing.T, service http.Handler, edit func(*connectplugin.ServeConfig)) *echoRig {
	t.Helper()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = echoPolicy()
		if edit != nil {
			edit(c)
		}
	})
	r := &echoRig{Host: host}
	r.provider = r.provide(t, "provider", service, nil)
	r.caller = host.Enrol(t, "caller", requires(echoType))
	return r
}

// provide starts another plugin that provides echo.
func (r *echoRig) provide(t *testing.T, selfID string, service http.Handler, edit func(*connectplugin.PluginServerConfig)) *hosttest.Plugin {
	t.Helper()
	return r.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
		c.Services = []connectplugin.PluginService{{Type: echoType, Version: "1.0.0", Path: echoBase, Handler: service}}
		if edit != nil {
			edit(c)
		}
	})
}

// route is the way from the caller to a provider.
func (r *echoRig) route(runtimeID string) baseAt {
	return baseAt{base: r.URL + "/services/" + echoType + "/" + runtimeID, client: r.caller.HTTPClient()}
}

// toProvider is the way from the caller to the rig's provider.
func (r *echoRig) toProvider() baseAt { return r.route(r.provider.Client.RuntimeID()) }
