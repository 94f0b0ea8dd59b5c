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

// authEcho answers with the identity that it sees, in every kind of call.
type authEcho struct {
	calls atomic.Int64
	// observe, if set, is called by each handler and decides its error.
	observe func(context.Context, http.Header) error
}

func (e *authEcho) handle(ctx context.Context, header http.Header) (*echoText, error) {
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
func (e *authEcho) mux(interceptors ...connect.Interceptor) http.Handler {
	answer := func(ctx context.Context, header http.Header) (*connect.Response[echoText], error) {
		text, err := e.handle(ctx, header)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(text), nil
	}
	return echoService{
		unary: func(ctx context.Context, req *connect.Request[echoText]) (*connect.Response[echoText], error) {
			return answer(ctx, req.Header())
		},
		server: func(ctx context.Context, req *connect.Request[echoText], stream *connect.ServerStream[echoText]) error {
			text, err := e.handle(ctx, req.Header())
			if err != nil {
				return err
			}
			return stream.Send(text)
		},
		client: func(ctx context.Context, stream *connect.ClientStream[echoText]) (*connect.Response[echoText], error) {
			for stream.Receive() {
			}
			if err := stream.Err(); err != nil {
				return nil, err
			}
			return answer(ctx, stream.RequestHeader())
		},
		bidi: func(ctx context.Context, stream *connect.BidiStream[echoText, echoText]) error {
			if _, err := stream.Receive(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			text, err := e.handle(ctx, stream.RequestHeader())
			if err != nil {
				return err
			}
			return stream.Send(text)
		},
	}.handler(connect.WithInterceptors(interceptors...))
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
	var out []authCall
	for protocol, opts := range protocols {
		for kind := range echoKinds {
			out = append(out, authCall{name: protocol + "/" + kind, call: func(ctx context.Context,
				client connect.HTTPClient, url string, header http.Header, more ...connect.ClientOption,
			) (string, error) {
				return authCallKind(ctx, kind, at(url, client), header, append(more, opts...)...)
			}})
		}
	}
	return out
}

// authCallKind makes a call of a kind and returns its first answer.
func authCallKind(ctx context.Context, kind string, to reachable, header http.Header, opts ...connect.ClientOption) (string, error) {
	out := echoKinds[kind](ctx, to, opts, header)
	if out.err != nil || len(out.messages) == 0 {
		return "", out.err
	}
	return out.messages[0], nil
}

func authCallUnary(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	return authCallKind(ctx, "unary", at(url, client), header, opts...)
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
