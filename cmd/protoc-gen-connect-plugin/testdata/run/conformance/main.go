// Command conformance calls the service of Connect's conformance suite through
// generated code.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"

	conformancev1 "example.com/gentest/conformance/v1"
	"example.com/gentest/conformance/v1/conformancev1connect"
	"example.com/gentest/conformance/v1/conformancev1delegate"
	"example.com/gentest/conformance/v1/conformancev1plugin"
)

// server answers with what it was sent.
type server struct {
	conformancev1connect.UnimplementedConformanceServiceHandler
}

func echo(data []byte) *conformancev1.ConformancePayload {
	return &conformancev1.ConformancePayload{Data: data}
}

func (server) Unary(_ context.Context, req *connect.Request[conformancev1.UnaryRequest]) (*connect.Response[conformancev1.UnaryResponse], error) {
	if e := req.Msg.GetResponseDefinition().GetError(); e != nil {
		return nil, connect.NewError(connect.Code(e.GetCode()), errors.New(e.GetMessage()))
	}
	return connect.NewResponse(&conformancev1.UnaryResponse{Payload: echo(req.Msg.GetRequestData())}), nil
}

func (server) IdempotentUnary(
	_ context.Context, req *connect.Request[conformancev1.IdempotentUnaryRequest],
) (*connect.Response[conformancev1.IdempotentUnaryResponse], error) {
	return connect.NewResponse(&conformancev1.IdempotentUnaryResponse{Payload: echo(req.Msg.GetRequestData())}), nil
}

func (server) ServerStream(
	_ context.Context, req *connect.Request[conformancev1.ServerStreamRequest], out *connect.ServerStream[conformancev1.ServerStreamResponse],
) error {
	for _, data := range req.Msg.GetResponseDefinition().GetResponseData() {
		if err := out.Send(&conformancev1.ServerStreamResponse{Payload: echo(data)}); err != nil {
			return err
		}
	}
	return nil
}

func (server) ClientStream(
	_ context.Context, in *connect.ClientStream[conformancev1.ClientStreamRequest],
) (*connect.Response[conformancev1.ClientStreamResponse], error) {
	var all []byte
	for in.Receive() {
		all = append(all, in.Msg().GetRequestData()...)
	}
	return connect.NewResponse(&conformancev1.ClientStreamResponse{Payload: echo(all)}), in.Err()
}

func (server) BidiStream(
	_ context.Context, stream *connect.BidiStream[conformancev1.BidiStreamRequest, conformancev1.BidiStreamResponse],
) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&conformancev1.BidiStreamResponse{Payload: echo(req.GetRequestData())}); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(ctx context.Context) error {
	plugin := &conformancev1plugin.ConformanceServicePlugin{}
	if err := (connectplugin.PluginSet{plugin.Metadata().Name: plugin}).Validate(); err != nil {
		return err
	}
	path, handler, err := plugin.ConnectServer(server{})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	host := httptest.NewUnstartedServer(mux)
	host.EnableHTTP2 = true
	host.StartTLS()
	defer host.Close()
	for _, options := range [][]connect.ClientOption{nil, {connect.WithGRPC()}, {connect.WithGRPCWeb()}, {connect.WithProtoJSON()}, {connect.WithHTTPGet()}} {
		d := conformancev1delegate.New(conformancev1connect.NewConformanceServiceClient(host.Client(), host.URL, options...))
		if err := errors.Join(unary(ctx, d), streams(ctx, d)); err != nil {
			return err
		}
	}
	return nil
}

func unary(ctx context.Context, d conformancev1delegate.ConformanceService) error {
	if res, err := d.Unary(ctx, nil, []byte("u")); err != nil || string(res.GetPayload().GetData()) != "u" {
		return fmt.Errorf("Unary: %v, %w", res, err)
	}
	refuse := &conformancev1.UnaryResponseDefinition{Response: &conformancev1.UnaryResponseDefinition_Error{
		Error: &conformancev1.Error{Code: conformancev1.Code_CODE_ABORTED, Message: proto.String("no")},
	}}
	if _, err := d.Unary(ctx, refuse, nil); connect.CodeOf(err) != connect.CodeAborted {
		return fmt.Errorf("Unary that is refused: %w", err)
	}
	if res, err := d.IdempotentUnary(ctx, nil, []byte("i")); err != nil || string(res.GetPayload().GetData()) != "i" {
		return fmt.Errorf("IdempotentUnary: %v, %w", res, err)
	}
	if err := d.Unimplemented(ctx); connect.CodeOf(err) != connect.CodeUnimplemented {
		return fmt.Errorf("Unimplemented: %w", err)
	}
	return nil
}

func streams(ctx context.Context, d conformancev1delegate.ConformanceService) error {
	var got string
	for res, err := range d.ServerStream(ctx, &conformancev1.StreamResponseDefinition{ResponseData: [][]byte{[]byte("a"), []byte("b")}}, nil) {
		if err != nil {
			return fmt.Errorf("ServerStream: %w", err)
		}
		got += string(res.GetPayload().GetData())
	}
	uploads := func(yield func(*conformancev1.ClientStreamRequest, error) bool) {
		_ = yield(&conformancev1.ClientStreamRequest{RequestData: []byte("c")}, nil) &&
			yield(&conformancev1.ClientStreamRequest{RequestData: []byte("d")}, nil)
	}
	res, err := d.ClientStream(ctx, uploads)
	if err != nil {
		return fmt.Errorf("ClientStream: %w", err)
	}
	got += string(res.GetPayload().GetData())
	talk := func(context.Context) iter.Seq2[*conformancev1.BidiStreamRequest, error] {
		return func(yield func(*conformancev1.BidiStreamRequest, error) bool) {
			_ = yield(&conformancev1.BidiStreamRequest{RequestData: []byte("e")}, nil) &&
				yield(&conformancev1.BidiStreamRequest{RequestData: []byte("f")}, nil)
		}
	}
	for res, err := range d.BidiStream(ctx, talk) {
		if err != nil {
			return fmt.Errorf("BidiStream: %w", err)
		}
		got += string(res.GetPayload().GetData())
	}
	if got != "abcdef" {
		return fmt.Errorf("streams gave %q", got)
	}
	return nil
}
