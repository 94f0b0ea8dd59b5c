// Command streams calls every kind of method through generated code, over HTTP/2.
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
	"slices"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"

	streamsv1 "example.com/gentest/streams/v1"
	"example.com/gentest/streams/v1/streamsv1connect"
	"example.com/gentest/streams/v1/streamsv1delegate"
	"example.com/gentest/streams/v1/streamsv1plugin"
)

type server struct{ drained chan int64 }

func (server) Add(_ context.Context, req *connect.Request[streamsv1.AddRequest]) (*connect.Response[streamsv1.AddResponse], error) {
	return connect.NewResponse(&streamsv1.AddResponse{Sum: req.Msg.GetA() + req.Msg.GetB()}), nil
}

func (server) Count(_ context.Context, req *connect.Request[streamsv1.CountRequest], out *connect.ServerStream[streamsv1.CountResponse]) error {
	from := req.Msg.GetFrom()
	if after, ok := req.Msg.GetStart().(*streamsv1.CountRequest_After); ok {
		from = after.After + 1
	}
	for i := from; i <= req.Msg.GetTo(); i++ {
		if err := out.Send(&streamsv1.CountResponse{Number: i}); err != nil {
			return err
		}
	}
	if req.Msg.GetFail() {
		return connect.NewError(connect.CodeDataLoss, errors.New("asked for"))
	}
	return nil
}

func (server) Sum(_ context.Context, in *connect.ClientStream[streamsv1.SumRequest]) (*connect.Response[streamsv1.SumResponse], error) {
	var sum int64
	for in.Receive() {
		if in.Msg().GetNumber() < 0 {
			return nil, connect.NewError(connect.CodeOutOfRange, errors.New("negative"))
		}
		sum += in.Msg().GetNumber()
	}
	return connect.NewResponse(&streamsv1.SumResponse{Sum: sum}), in.Err()
}

func (s server) Drain(_ context.Context, in *connect.ClientStream[streamsv1.SumRequest]) (*connect.Response[streamsv1.DrainResponse], error) {
	var n int64
	for in.Receive() {
		n++
	}
	s.drained <- n
	return connect.NewResponse(&streamsv1.DrainResponse{}), in.Err()
}

func (server) Double(_ context.Context, stream *connect.BidiStream[streamsv1.DoubleRequest, streamsv1.DoubleResponse]) error {
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&streamsv1.DoubleResponse{Number: 2 * req.GetNumber()}); err != nil {
			return err
		}
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run() error {
	impl := server{drained: make(chan int64, 1)}
	plugin := &streamsv1plugin.StreamsServicePlugin{}
	if err := (connectplugin.PluginSet{"streams": plugin}).Validate(); err != nil {
		return err
	}
	if _, _, err := plugin.ConnectServer("no server"); !errors.Is(err, connectplugin.ErrInvalidPluginImpl) {
		return fmt.Errorf("ConnectServer of a string: %w", err)
	}
	path, handler, err := plugin.ConnectServer(impl)
	if err != nil {
		return err
	}
	if provided := streamsv1plugin.ProvideStreamsService(impl); provided.Path != path || provided.Path != plugin.Metadata().Path ||
		provided.Type != streamsv1plugin.StreamsServiceType || provided.Version != "1.0.0" || provided.Handler == nil {
		return fmt.Errorf("ProvideStreamsService gives %+v", provided)
	}
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	host := httptest.NewUnstartedServer(mux)
	host.EnableHTTP2 = true
	host.StartTLS()
	defer host.Close()
	client, err := plugin.ConnectClient(host.URL, host.Client())
	if err != nil {
		return err
	}
	d := streamsv1delegate.New(client.(streamsv1connect.StreamsServiceClient))
	for _, check := range []func(context.Context, streamsv1delegate.StreamsService) error{unary, serverStream, clientStream, bidi} {
		if err := check(context.Background(), d); err != nil {
			return err
		}
	}
	if n := <-impl.drained; n != 3 {
		return fmt.Errorf("drained %d", n)
	}
	return nil
}

func unary(ctx context.Context, d streamsv1delegate.StreamsService) error {
	if res, err := d.Add(ctx, 20, 22); err != nil || res.GetSum() != 42 {
		return fmt.Errorf("Add: %v, %w", res, err)
	}
	return nil
}

func serverStream(ctx context.Context, d streamsv1delegate.StreamsService) error {
	for range 2 { // each range is a call
		if got, err := numbers(d.Count(ctx, 5, false, new(int64(3)), nil)); err != nil || !slices.Equal(got, []int64{3, 4, 5}) {
			return fmt.Errorf("Count: %v, %w", got, err)
		}
	}
	if got, err := numbers(d.Count(ctx, 5, true, nil, new(int64(3)))); connect.CodeOf(err) != connect.CodeDataLoss || !slices.Equal(got, []int64{4, 5}) {
		return fmt.Errorf("Count that fails: %v, %w", got, err)
	}
	if got, err := numbers(d.Count(ctx, 5, false, new(int64(3)), new(int64(3)))); connect.CodeOf(err) != connect.CodeInvalidArgument || got != nil {
		return fmt.Errorf("Count with both of a oneof: %v, %w", got, err)
	}
	for res, err := range d.Count(ctx, 1<<40, false, nil, nil) { // leaving ends the call
		if err != nil {
			return err
		}
		if res.GetNumber() == 10 {
			break
		}
	}
	return nil
}

func clientStream(ctx context.Context, d streamsv1delegate.StreamsService) error {
	if res, err := d.Sum(ctx, sums(1, 2, 39)); err != nil || res.GetSum() != 42 {
		return fmt.Errorf("Sum: %v, %w", res, err)
	}
	if res, err := d.Sum(ctx, nil); err != nil || res.GetSum() != 0 {
		return fmt.Errorf("Sum of nothing: %v, %w", res, err)
	}
	if _, err := d.Sum(ctx, sums(1, -1, 2)); connect.CodeOf(err) != connect.CodeOutOfRange {
		return fmt.Errorf("Sum that the server refuses: %w", err)
	}
	mine := errors.New("mine")
	failing := func(yield func(*streamsv1.SumRequest, error) bool) {
		_ = yield(&streamsv1.SumRequest{Number: 1}, nil) && yield(nil, mine)
	}
	if res, err := d.Sum(ctx, failing); !errors.Is(err, mine) {
		return fmt.Errorf("Sum that gives up: %v, %w", res, err)
	}
	return d.Drain(ctx, sums(1, 2, 3))
}

func bidi(ctx context.Context, d streamsv1delegate.StreamsService) error {
	answers := make(chan int64, 1)
	answers <- 1
	requests := func(ctx context.Context) iter.Seq2[*streamsv1.DoubleRequest, error] {
		return func(yield func(*streamsv1.DoubleRequest, error) bool) {
			for {
				select {
				case n := <-answers:
					if n > 100 || !yield(&streamsv1.DoubleRequest{Number: n}, nil) {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}
	}
	var last int64
	for res, err := range d.Double(ctx, requests) {
		if err != nil {
			return fmt.Errorf("Double: %w", err)
		}
		last = res.GetNumber()
		answers <- last // each request is the response before it
	}
	if last != 128 {
		return fmt.Errorf("Double ended with %d", last)
	}
	return nil
}

func numbers(seq iter.Seq2[*streamsv1.CountResponse, error]) (got []int64, err error) {
	for res, err := range seq {
		if err != nil {
			return got, err
		}
		got = append(got, res.GetNumber())
	}
	return got, nil
}

func sums(numbers ...int64) iter.Seq2[*streamsv1.SumRequest, error] {
	return func(yield func(*streamsv1.SumRequest, error) bool) {
		for _, n := range numbers {
			if !yield(&streamsv1.SumRequest{Number: n}, nil) {
				return
			}
		}
	}
}
