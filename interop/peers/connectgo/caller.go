package connectgo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync/atomic"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/interop/echo"
)

// Caller calls with connect-go. Make one with [Dial] or [NewCaller].
type Caller struct {
	// Fixed at creation.
	client  connect.HTTPClient
	base    string
	header  http.Header
	options []connect.ClientOption
	close   func()

	prefix atomic.Pointer[string]
}

// Dial makes a caller over net/http.
func Dial(j echo.Job, options ...connect.ClientOption) (*Caller, error) {
	cfg, err := j.ClientTLS()
	if err != nil {
		return nil, fmt.Errorf("connect-go: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: cfg, Protocols: &protocols}
	header := http.Header{}
	if j.Token != "" {
		header.Set("X-Plugin-Runtime-Id", j.ID)
		header.Set("Authorization", "Bearer "+j.Token)
	}
	client := &http.Client{Transport: transport}
	return NewCaller(client, "https://"+j.Target, j.Prefix, header, transport.CloseIdleConnections, options...), nil
}

// NewCaller makes a caller of an HTTP client. Each call has the header's fields.
func NewCaller(client connect.HTTPClient, base, prefix string, header http.Header, end func(), options ...connect.ClientOption) *Caller {
	c := &Caller{client: client, base: base, header: header, options: options, close: end}
	c.prefix.Store(&prefix)
	return c
}

// Move implements echo.Caller.
func (c *Caller) Move(prefix string) { c.prefix.Store(&prefix) }

// Close implements echo.Caller.
func (c *Caller) Close() { c.close() }

// Unary implements echo.Caller.
func (c *Caller) Unary(ctx context.Context, method string, in []byte) ([]byte, error) {
	r := connect.NewRequest(wrapperspb.Bytes(in))
	c.address(r.Header())
	out, err := c.of(method).CallUnary(ctx, r)
	if err != nil {
		return nil, err //nolint:wrapcheck // its code is read
	}
	return out.Msg.GetValue(), nil
}

// Open implements echo.Caller.
func (c *Caller) Open(ctx context.Context, method string) (echo.CallerStream, error) {
	switch method {
	case echo.MethodClient:
		s := c.of(method).CallClientStream(ctx)
		c.address(s.RequestHeader())
		return &clientEnd{stream: s}, nil
	case echo.MethodServer:
		return &serverStream{open: func(m *message) (*connect.ServerStreamForClient[message], error) {
			r := connect.NewRequest(m)
			c.address(r.Header())
			return c.of(method).CallServerStream(ctx, r)
		}}, nil
	default:
		s := c.of(method).CallBidiStream(ctx)
		c.address(s.RequestHeader())
		return &bidiEnd{s}, nil
	}
}

// Failure implements echo.Caller.
func (*Caller) Failure(err error) echo.CallError {
	failed, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return echo.CallError{}
	}
	f := echo.CallError{Code: uint32(failed.Code()), Text: failed.Message()}
	for _, d := range failed.Details() {
		value, err := d.Value()
		if m, ok := value.(*message); ok && err == nil {
			f.Detail = m.GetValue()
		}
	}
	return f
}

// of makes the client of a method. Connect's clients are cheap.
func (c *Caller) of(method string) *connect.Client[message, message] {
	return connect.NewClient[message, message](c.client, c.base+*c.prefix.Load()+echo.Base+method, c.options...)
}

func (c *Caller) address(h http.Header) {
	maps.Copy(h, c.header)
}

type clientEnd struct {
	stream *connect.ClientStreamForClient[message, message]
	ended  bool
}

// Send implements echo.Stream.
func (e *clientEnd) Send(b []byte) error { return e.stream.Send(wrapperspb.Bytes(b)) }

// CloseSend implements echo.CallerStream; Receive does it.
func (*clientEnd) CloseSend() error { return nil }

// Receive implements echo.Stream.
func (e *clientEnd) Receive() ([]byte, error) {
	if e.ended {
		return nil, io.EOF
	}
	e.ended = true
	r, err := e.stream.CloseAndReceive()
	if err != nil {
		return nil, err //nolint:wrapcheck // its code is read
	}
	return r.Msg.GetValue(), nil
}

type serverStream struct {
	open   func(*message) (*connect.ServerStreamForClient[message], error)
	stream *connect.ServerStreamForClient[message]
}

// Send implements echo.Stream.
func (s *serverStream) Send(b []byte) (err error) {
	s.stream, err = s.open(wrapperspb.Bytes(b))
	return err
}

// CloseSend implements echo.CallerStream; Send did it.
func (*serverStream) CloseSend() error { return nil }

// Receive implements echo.Stream.
func (s *serverStream) Receive() ([]byte, error) {
	if s.stream.Receive() {
		return s.stream.Msg().GetValue(), nil
	}
	return nil, orEOF(s.stream.Err())
}

type bidiEnd struct {
	stream *connect.BidiStreamForClient[message, message]
}

// Send implements echo.Stream.
func (e *bidiEnd) Send(b []byte) error { return e.stream.Send(wrapperspb.Bytes(b)) }

// CloseSend implements echo.CallerStream.
func (e *bidiEnd) CloseSend() error { return e.stream.CloseRequest() } //nolint:wrapcheck // its code is read

// Receive implements echo.Stream.
func (e *bidiEnd) Receive() ([]byte, error) {
	m, err := e.stream.Receive()
	return m.GetValue(), err
}
