package connectpluginv2

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/emptypb"
)

var (
	errSentTwice = errors.New("a unary call has one message")
	errUnsent    = errors.New("a unary call needs a message")
)

// unaryCall is a unary call with interceptors of the first version around it. It is made
// when its answer is asked for: its message is known by then, so it can be made again.
type unaryCall struct {
	// Fixed at creation.
	ctx          context.Context //nolint:containedctx // that of the call, as in every stream
	end          context.CancelFunc
	spec         connect.Spec
	next         connect.ClientFunc
	interceptors []connectv1.UnaryInterceptorFunc

	message any
	done    bool
}

func newUnaryCall(ctx context.Context, spec connect.Spec, next connect.ClientFunc, around []connectv1.UnaryInterceptorFunc) *unaryCall {
	ctx, end := context.WithCancel(ctx)
	return &unaryCall{ctx: ctx, end: end, spec: spec, next: next, interceptors: around}
}

// SendHeaders implements connect.ClientStream. Nothing is sent before the message.
func (c *unaryCall) SendHeaders() error { return nil }

// Send implements connect.ClientStream.
func (c *unaryCall) Send(message any) error {
	if c.message != nil {
		return errSentTwice
	}
	c.message = message
	return nil
}

// CloseSend implements connect.ClientStream.
func (c *unaryCall) CloseSend() error { return nil }

// Receive implements connect.ClientStream. It makes the call.
func (c *unaryCall) Receive(into any) error {
	switch {
	case c.done:
		return io.EOF
	case c.message == nil:
		return errUnsent
	}
	c.done = true
	info, _ := connect.CallInfoForClientContext(c.ctx)
	req := newRequest(c.spec, info, true)
	req.message = c.message
	call := chain(c.interceptors, func(ctx context.Context, r connectv1.AnyRequest) (connectv1.AnyResponse, error) {
		req.method = http.MethodPost
		setHeader(info, r.Header())
		if err := c.attempt(ctx, into); err != nil {
			return nil, ToV1(err)
		}
		return &response{Response: emptyResponse(), message: into, info: info}, nil
	})
	_, err := call(c.ctx, req)
	return FromV1(err)
}

// Close implements connect.ClientStream.
func (c *unaryCall) Close() error {
	c.end()
	return nil
}

// attempt makes the call once.
func (c *unaryCall) attempt(ctx context.Context, into any) error {
	stream, err := c.next(ctx, c.spec)
	if err != nil {
		return err
	}
	if err = stream.Send(c.message); err == nil {
		err = stream.CloseSend()
	}
	if err == nil || errors.Is(err, io.EOF) { // the answer says why
		err = stream.Receive(into)
	}
	if closed := stream.Close(); err == nil {
		err = closed
	}
	return err
}

// chain puts interceptors around a call, the first outermost.
func chain(interceptors []connectv1.UnaryInterceptorFunc, call connectv1.UnaryFunc) connectv1.UnaryFunc {
	for _, around := range slices.Backward(interceptors) {
		call = around(call)
	}
	return call
}

// request is what an interceptor of the first version sees of a call of the second. The
// embedded request stands in for what Connect keeps to itself.
type request struct {
	*connectv1.Request[emptypb.Empty]

	spec    connectv1.Spec
	peer    connectv1.Peer
	header  http.Header
	message any    // nil on a server
	method  string // empty on a client until the request is on its way
}

func newRequest(spec connect.Spec, info *connect.CallInfo, client bool) *request {
	r := &request{Request: connectv1.NewRequest(&emptypb.Empty{}), header: http.Header{}, spec: connectv1.Spec{
		StreamType: connectv1.StreamType(spec.StreamType), Schema: spec.Schema, Procedure: spec.Procedure, IsClient: client,
		IdempotencyLevel: connectv1.IdempotencyLevel(spec.IdempotencyLevel),
	}}
	if !client {
		r.method = http.MethodPost
	}
	if info != nil {
		r.peer = connectv1.Peer{Addr: info.PeerAddr, Protocol: info.Protocol}
		for key, values := range info.RequestHeader().All() {
			r.header[key] = slices.Clone(values)
		}
	}
	return r
}

func (r *request) Any() any             { return r.message }
func (r *request) Spec() connectv1.Spec { return r.spec }
func (r *request) Peer() connectv1.Peer { return r.peer }
func (r *request) Header() http.Header  { return r.header }
func (r *request) HTTPMethod() string   { return r.method }

// setHeader makes the headers of a call those that the interceptors want, and no others:
// another attempt has not those that were added to the one before.
func setHeader(info *connect.CallInfo, header http.Header) {
	if info == nil {
		return
	}
	for key := range info.RequestHeader().All() {
		info.RequestHeader().Delete(key)
	}
	for key, values := range header {
		info.RequestHeader().SetValues(key, slices.Clone(values))
	}
}

// response is what an interceptor of the first version sees of an answer of the second.
type response struct {
	*connectv1.Response[emptypb.Empty]

	message any
	info    *connect.CallInfo
}

func emptyResponse() *connectv1.Response[emptypb.Empty] {
	return connectv1.NewResponse(&emptypb.Empty{})
}

func (r *response) Any() any             { return r.message }
func (r *response) Header() http.Header  { return httpHeader(r.info.ResponseHeader()) }
func (r *response) Trailer() http.Header { return httpHeader(r.info.ResponseTrailer()) }

// httpHeader is a copy of a header.
func httpHeader(from *connect.Header) http.Header {
	out := http.Header{}
	for key, values := range from.All() {
		out[key] = slices.Clone(values)
	}
	return out
}
