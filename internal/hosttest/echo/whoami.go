package echo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Whoami answers with the identity that it sees, in every kind of call.
type Whoami struct {
	Calls atomic.Int64
	// observe, if set, is called by each handler and decides its error.
	Observe func(context.Context, http.Header) error
}

// Handler mounts the handlers behind the interceptors.
func (e *Whoami) Handler(interceptors ...connect.Interceptor) http.Handler {
	answer := func(ctx context.Context, header http.Header) (*connect.Response[Text], error) {
		text, err := e.handle(ctx, header)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(text), nil
	}
	return Service{
		Unary: func(ctx context.Context, req *connect.Request[Text]) (*connect.Response[Text], error) {
			return answer(ctx, req.Header())
		},
		Server: func(ctx context.Context, req *connect.Request[Text], stream *connect.ServerStream[Text]) error {
			text, err := e.handle(ctx, req.Header())
			if err != nil {
				return err
			}
			return stream.Send(text)
		},
		Client: func(ctx context.Context, stream *connect.ClientStream[Text]) (*connect.Response[Text], error) {
			for stream.Receive() {
			}
			if err := stream.Err(); err != nil {
				return nil, err
			}
			return answer(ctx, stream.RequestHeader())
		},
		Bidi: func(ctx context.Context, stream *connect.BidiStream[Text, Text]) error {
			if _, err := stream.Receive(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			text, err := e.handle(ctx, stream.RequestHeader())
			if err != nil {
				return err
			}
			return stream.Send(text)
		},
	}.Handler(connect.WithInterceptors(interceptors...))
}

func (e *Whoami) handle(ctx context.Context, header http.Header) (*Text, error) {
	e.Calls.Add(1)
	if e.Observe != nil {
		if err := e.Observe(ctx, header); err != nil {
			return nil, err
		}
	}
	if auth := connectplugin.GetAuthContext(ctx); auth != nil {
		return wrapperspb.String(auth.Provider + ":" + auth.Identity), nil
	}
	return wrapperspb.String("nobody"), nil
}

// Call is one kind of call in one protocol.
type Call struct {
	Name string
	Call func(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
		opts ...connect.ClientOption) (string, error)
}

// Calls returns every kind of call in every protocol.
func Calls() []Call {
	var out []Call
	for protocol, opts := range hosttest.Protocols {
		for kind := range Kinds {
			out = append(out, Call{Name: protocol + "/" + kind, Call: func(ctx context.Context,
				client connect.HTTPClient, url string, header http.Header, more ...connect.ClientOption,
			) (string, error) {
				return FirstAnswer(ctx, kind, At(url, client), header, append(more, opts...)...)
			}})
		}
	}
	return out
}

// FirstAnswer makes a call of a kind and returns its first answer.
func FirstAnswer(ctx context.Context, kind string, to Reachable, header http.Header, opts ...connect.ClientOption) (string, error) {
	out := Kinds[kind](ctx, to, opts, header)
	if out.Err != nil || len(out.Messages) == 0 {
		return "", out.Err
	}
	return out.Messages[0], nil
}

// AskUnary makes a unary call and returns its answer.
func AskUnary(ctx context.Context, client connect.HTTPClient, url string, header http.Header,
	opts ...connect.ClientOption,
) (string, error) {
	return FirstAnswer(ctx, "unary", At(url, client), header, opts...)
}

// WantAnswer fails the test unless a call was answered as wanted.
func WantAnswer(t *testing.T, got string, err error, want string) {
	t.Helper()
	if err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}
