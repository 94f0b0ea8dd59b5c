package connectplugin

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// driver runs a unary interceptor for its decision only: next takes note of the
// context and does nothing. It is immutable.
type driver struct {
	decide connect.UnaryFunc
}

// passage is where a driver's next notes that it was called. The driver itself
// is the key, so that chains in chains do not take each other's notes.
type passage struct {
	ctx context.Context //nolint:containedctx // the context is what the passage is about
}

// newDriver wraps once, as Connect does, so that an interceptor may keep state
// between requests.
func newDriver(interceptor connect.UnaryInterceptorFunc) (*driver, error) {
	if interceptor == nil {
		return nil, errNilProvider
	}
	d := &driver{}
	d.decide = interceptor(d.note)
	if d.decide == nil {
		return nil, errNilProvider
	}
	return d, nil
}

func (d *driver) note(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
	if p, ok := ctx.Value(d).(*passage); ok {
		p.ctx = ctx
	}
	return connect.NewResponse(&emptypb.Empty{}), nil
}

// run returns the context that the interceptor passed on.
func (d *driver) run(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
	p := &passage{}
	if _, err := d.decide(context.WithValue(ctx, d, p), req); err != nil {
		return nil, err
	}
	if p.ctx == nil {
		return nil, errNotPassed
	}
	return p.ctx, nil
}

// headerRequest is a request of which only the header, the specification and the
// peer are known. The embedded request stands in for what Connect keeps to itself.
type headerRequest struct {
	*connect.Request[emptypb.Empty]

	spec   connect.Spec
	peer   connect.Peer
	header http.Header
}

func newHeaderRequest(spec connect.Spec, peer connect.Peer, header http.Header) *headerRequest {
	return &headerRequest{
		Request: connect.NewRequest(&emptypb.Empty{}), spec: spec, peer: peer, header: header,
	}
}

func (r *headerRequest) Spec() connect.Spec  { return r.spec }
func (r *headerRequest) Peer() connect.Peer  { return r.peer }
func (r *headerRequest) Header() http.Header { return r.header }
func (r *headerRequest) HTTPMethod() string  { return http.MethodPost }

// credentialChain adds credentials to outgoing calls. It is immutable.
type credentialChain struct {
	interceptors []connect.UnaryInterceptorFunc
	broken       error // fails every call when set
}

func newCredentialChain(providers []AuthProvider) *credentialChain {
	c := &credentialChain{interceptors: make([]connect.UnaryInterceptorFunc, 0, len(providers))}
	for _, p := range providers {
		interceptor, err := clientInterceptorOf(p)
		if err != nil {
			c.broken = errorf(connect.CodeUnauthenticated, "%w: %w", ErrInvalidConfig, err)
		}
		c.interceptors = append(c.interceptors, interceptor)
	}
	return c
}

func clientInterceptorOf(p AuthProvider) (interceptor connect.UnaryInterceptorFunc, err error) {
	defer func() {
		if recover() != nil { // for example a nil pointer in the interface
			err = errNilProvider
		}
	}()
	if p == nil {
		return nil, errNilProvider
	}
	if interceptor = p.ClientInterceptor(); interceptor == nil {
		return nil, errNilProvider
	}
	return interceptor, nil
}

func (c *credentialChain) wrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	if c.broken != nil {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, c.broken }
	}
	for _, interceptor := range slices.Backward(c.interceptors) {
		next = interceptor(next)
	}
	return next
}

func (c *credentialChain) wrapStreaming(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	drive, err := newDriver(c.wrapUnary)
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if err != nil {
			return &failedStream{StreamingClientConn: conn, err: asConnectError(err)}
		}
		// The header goes out with the first message, so it is still ours to fill.
		if _, err := drive.run(ctx, newHeaderRequest(conn.Spec(), conn.Peer(), conn.RequestHeader())); err != nil {
			return &failedStream{StreamingClientConn: conn, err: asConnectError(err)}
		}
		return conn
	}
}

// failedStream is a stream that was refused before anything was sent. The inner
// one would send the request if it were closed, so it is left alone.
type failedStream struct {
	connect.StreamingClientConn

	err *connect.Error
}

func (s *failedStream) Send(any) error               { return s.err }
func (s *failedStream) Receive(any) error            { return s.err }
func (s *failedStream) CloseRequest() error          { return nil }
func (s *failedStream) CloseResponse() error         { return nil }
func (s *failedStream) ResponseHeader() http.Header  { return http.Header{} }
func (s *failedStream) ResponseTrailer() http.Header { return http.Header{} }

func asConnectError(err error) *connect.Error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded
	}
	return connect.NewError(connect.CodeUnauthenticated, err)
}
