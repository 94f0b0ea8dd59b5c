package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Kinds calls the service with two messages, in every kind of RPC. The request
// headers of each call are set by the last argument, which may be nil.
var Kinds = map[string]func(context.Context, Reachable, []connect.ClientOption, http.Header) Outcome{
	"unary":  CallUnary,
	"client": callClient,
	"server": CallServer,
	"bidi":   CallBidi,
}

// Reachable is a base URL with the HTTP client that reaches it.
type Reachable interface {
	BaseURL() string
	HTTPClient() connect.HTTPClient
}

// Endpoint is a base URL and an HTTP client.
type Endpoint struct {
	Base   string
	Client connect.HTTPClient
}

// At is a base URL with the client that reaches it.
func At(base string, client connect.HTTPClient) Endpoint { return Endpoint{Base: base, Client: client} }

// BaseURL is where it is.
func (a Endpoint) BaseURL() string { return a.Base }

// HTTPClient is what reaches it.
func (a Endpoint) HTTPClient() connect.HTTPClient { return a.Client }

// Outcome is what the caller of an RPC sees.
type Outcome struct {
	Messages        []string
	Header, Trailer http.Header
	Err             error
}

// NewClient makes a client of one procedure of the service.
func NewClient(r Reachable, procedure string, opts ...connect.ClientOption) *connect.Client[Text, Text] {
	return connect.NewClient[Text, Text](r.HTTPClient(), r.BaseURL()+procedure, opts...)
}

// CallUnary sends one message and gets one.
func CallUnary(ctx context.Context, r Reachable, opts []connect.ClientOption, header http.Header) Outcome {
	req := connect.NewRequest(wrapperspb.String("ab"))
	maps.Copy(req.Header(), header)
	resp, err := NewClient(r, Unary, opts...).CallUnary(ctx, req)
	if err != nil {
		return Outcome{Err: err}
	}
	return Outcome{Messages: []string{resp.Msg.GetValue()}, Header: resp.Header(), Trailer: resp.Trailer()}
}

func callClient(ctx context.Context, r Reachable, opts []connect.ClientOption, header http.Header) Outcome {
	stream := NewClient(r, Client, opts...).CallClientStream(ctx)
	maps.Copy(stream.RequestHeader(), header)
	for _, m := range []string{"a", "b"} {
		if stream.Send(wrapperspb.String(m)) != nil {
			break // the answer says why
		}
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return Outcome{Err: err}
	}
	return Outcome{Messages: []string{resp.Msg.GetValue()}, Header: resp.Header(), Trailer: resp.Trailer()}
}

// CallServer sends one message and gets a stream.
func CallServer(ctx context.Context, r Reachable, opts []connect.ClientOption, header http.Header) Outcome {
	req := connect.NewRequest(wrapperspb.String("ab"))
	maps.Copy(req.Header(), header)
	stream, err := NewClient(r, Server, opts...).CallServerStream(ctx, req)
	if err != nil {
		return Outcome{Err: err}
	}
	defer func() { _ = stream.Close() }()
	out := Outcome{}
	for stream.Receive() {
		out.Messages = append(out.Messages, stream.Msg().GetValue())
	}
	out.Header, out.Trailer, out.Err = stream.ResponseHeader(), stream.ResponseTrailer(), stream.Err()
	return out
}

// CallBidi sends two messages and gets a stream.
func CallBidi(ctx context.Context, r Reachable, opts []connect.ClientOption, header http.Header) Outcome {
	stream := NewClient(r, Bidi, opts...).CallBidiStream(ctx)
	maps.Copy(stream.RequestHeader(), header)
	defer func() { _ = stream.CloseResponse() }()
	out := Outcome{}
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
		if out.Err = err; err != nil {
			break
		}
		out.Messages = append(out.Messages, msg.GetValue())
	}
	out.Header, out.Trailer = stream.ResponseHeader(), stream.ResponseTrailer()
	return out
}

// Want fails the test unless the service answered.
func Want(t *testing.T, kind string, out Outcome) {
	t.Helper()
	want := map[string]string{"unary": "[ab]", "client": "[ab]", "server": "[ab ab ab]", "bidi": "[a b]"}[kind]
	if out.Err != nil || fmt.Sprint(out.Messages) != want {
		t.Errorf("%s: %v, %v; want %s", kind, out.Messages, out.Err, want)
	}
}

// EachCall runs a test with every kind of RPC in every protocol, one after
// another.
func EachCall(t *testing.T, f func(t *testing.T, kind string, opts []connect.ClientOption)) {
	t.Helper()
	for protocol, opts := range hosttest.Protocols {
		for kind := range Kinds {
			t.Run(protocol+"/"+kind, func(t *testing.T) { f(t, kind, opts) })
		}
	}
}

// Body is a Connect unary request's body.
func Body(t *testing.T, value string) []byte {
	t.Helper()
	raw, err := proto.Marshal(wrapperspb.String(value))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// EachOption runs a test in every protocol, one after another.
func EachOption(t *testing.T, f func(t *testing.T, opts []connect.ClientOption)) {
	t.Helper()
	for name, opts := range hosttest.Protocols {
		t.Run(name, func(t *testing.T) { f(t, opts) })
	}
}
