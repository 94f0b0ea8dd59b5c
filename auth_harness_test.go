package connectplugin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Procedures of the test server: one of each kind.
const (
	authProcUnary  = "/auth.test.v1.Echo/Unary"
	authProcServer = "/auth.test.v1.Echo/Server"
	authProcClient = "/auth.test.v1.Echo/Client"
	authProcBidi   = "/auth.test.v1.Echo/Bidi"
)

// authText is the message of the test procedures.
type authText = wrapperspb.StringValue

// authEcho answers with the identity that it sees, in every kind of call.
type authEcho struct {
	calls atomic.Int64
	// observe, if set, is called by each handler and decides its error.
	observe func(context.Context, http.Header) error
}

func (e *authEcho) handle(ctx context.Context, header http.Header) (*authText, error) {
	e.calls.Add(1)
	if e.observe != nil {
		if err := e.observe(ctx, header); err != nil {
			return nil, err
		}
	}
	if auth := connectplugin.GetAuthContext(ctx); auth != nil {
		return wrapperspb.String(auth.Provider + ":" + auth.Identity), nil
	}
	return wrapperspb.String("nobody"), nil
}

// mux mounts the handlers behind the interceptors.
func (e *authEcho) mux(interceptors ...connect.Interceptor) *http.ServeMux {
	opt := connect.WithInterceptors(interceptors...)
	mux := http.NewServeMux()
	mux.Handle(authProcUnary, connect.NewUnaryHandler(authProcUnary,
		func(ctx context.Context, req *connect.Request[authText]) (*connect.Response[authText], error) {
			res, err := e.handle(ctx, req.Header())
			if err != nil {
				return nil, err
			}
			return connect.NewResponse(res), nil
		}, opt))
	mux.Handle(authProcServer, connect.NewServerStreamHandler(authProcServer,
		func(ctx context.Context, req *connect.Request[authText], stream *connect.ServerStream[authText]) error {
			res, err := e.handle(ctx, req.Header())
			if err != nil {
				return err
			}
			return stream.Send(res)
		}, opt))
	mux.Handle(authProcClient, connect.NewClientStreamHandler(authProcClient,
		func(ctx context.Context, stream *connect.ClientStream[authText]) (*connect.Response[authText], error) {
			for stream.Receive() {
			}
			if err := stream.Err(); err != nil {
				return nil, err
			}
			res, err := e.handle(ctx, stream.RequestHeader())
			if err != nil {
				return nil, err
			}
			return connect.NewResponse(res), nil
		}, opt))
	mux.Handle(authProcBidi, connect.NewBidiStreamHandler(authProcBidi,
		func(ctx context.Context, stream *connect.BidiStream[authText, authText]) error {
			if _, err := stream.Receive(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			res, err := e.handle(ctx, stream.RequestHeader())
			if err != nil {
				return err
			}
			return stream.Send(res)
		}, opt))
	return mux
}

// startAuthTLS serves handler over TLS and HTTP/2 until the test ends.
func startAuthTLS(t *testing.T, handler http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// authCall is one kind of call in one protocol.
type authCall struct {
	name string
	call func(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
		opts ...connect.ClientOption) (string, error)
}

// authCalls returns every kind of call in every protocol.
func authCalls() []authCall {
	protocols := []struct {
		name string
		opts []connect.ClientOption
	}{
		{name: "connect"},
		{name: "grpc", opts: []connect.ClientOption{connect.WithGRPC()}},
		{name: "grpcweb", opts: []connect.ClientOption{connect.WithGRPCWeb()}},
	}
	kinds := []authCall{
		{name: "unary", call: authCallUnary},
		{name: "server", call: authCallServer},
		{name: "client", call: authCallClient},
		{name: "bidi", call: authCallBidi},
	}
	var out []authCall
	for _, p := range protocols {
		for _, k := range kinds {
			out = append(out, authCall{name: p.name + "/" + k.name, call: func(ctx context.Context,
				client connect.HTTPClient, url string, header http.Header, opts ...connect.ClientOption,
			) (string, error) {
				return k.call(ctx, client, url, header, append(opts, p.opts...)...)
			}})
		}
	}
	return out
}

func authAddHeader(to, from http.Header) {
	for name, values := range from {
		to[name] = append(to[name], values...)
	}
}

func authCallUnary(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	req := connect.NewRequest(wrapperspb.String("hello"))
	authAddHeader(req.Header(), header)
	res, err := connect.NewClient[authText, authText](client, url+authProcUnary, opts...).CallUnary(ctx, req)
	if err != nil {
		return "", err
	}
	return res.Msg.GetValue(), nil
}

func authCallServer(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	req := connect.NewRequest(wrapperspb.String("hello"))
	authAddHeader(req.Header(), header)
	stream, err := connect.NewClient[authText, authText](client, url+authProcServer, opts...).CallServerStream(ctx, req)
	if err != nil {
		return "", err
	}
	defer func() { _ = stream.Close() }()
	if !stream.Receive() {
		return "", stream.Err()
	}
	return stream.Msg().GetValue(), nil
}

func authCallClient(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	stream := connect.NewClient[authText, authText](client, url+authProcClient, opts...).CallClientStream(ctx)
	authAddHeader(stream.RequestHeader(), header)
	if err := stream.Send(wrapperspb.String("hello")); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	res, err := stream.CloseAndReceive()
	if err != nil {
		return "", err
	}
	return res.Msg.GetValue(), nil
}

func authCallBidi(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	stream := connect.NewClient[authText, authText](client, url+authProcBidi, opts...).CallBidiStream(ctx)
	defer func() { _ = stream.CloseResponse() }()
	authAddHeader(stream.RequestHeader(), header)
	if err := stream.Send(wrapperspb.String("hello")); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if err := stream.CloseRequest(); err != nil {
		return "", err
	}
	msg, err := stream.Receive()
	if err != nil {
		return "", err
	}
	return msg.GetValue(), nil
}

// wantAuthRefused fails unless err is the one error that a refused peer gets.
func wantAuthRefused(t *testing.T, err error) {
	t.Helper()
	var coded *connect.Error
	if !errors.As(err, &coded) {
		t.Fatalf("got %v, want a Connect error", err)
	}
	if coded.Code() != connect.CodeUnauthenticated || coded.Message() != "unauthenticated" || len(coded.Details()) != 0 {
		t.Fatalf("got %v %q with %d details, want the constant error", coded.Code(), coded.Message(), len(coded.Details()))
	}
}

func wantAuthAnswer(t *testing.T, got string, err error, want string) {
	t.Helper()
	if err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// bearerHeader returns a header with the given credential.
func bearerHeader(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}
