// Command simple calls every kind of method through code that was generated with the
// option simple.
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

	streamsv1 "example.com/gentest/simple/streams/v1"
	"example.com/gentest/simple/streams/v1/streamsv1delegate"
	"example.com/gentest/simple/streams/v1/streamsv1plugin"
	"example.com/gentest/simple/streams/v1/streamsv1rpc"
)

type server struct{}

func (server) Add(_ context.Context, req *streamsv1.AddRequest) (*streamsv1.AddResponse, error) {
	return &streamsv1.AddResponse{Sum: req.GetA() + req.GetB()}, nil
}

func (server) Count(_ context.Context, req *streamsv1.CountRequest, out *connect.ServerStream[streamsv1.CountResponse]) error {
	return out.Send(&streamsv1.CountResponse{Number: req.GetTo()})
}

func (server) Sum(_ context.Context, in *connect.ClientStream[streamsv1.SumRequest]) (*streamsv1.SumResponse, error) {
	var sum int64
	for in.Receive() {
		sum += in.Msg().GetNumber()
	}
	return &streamsv1.SumResponse{Sum: sum}, in.Err()
}

func (server) Drain(context.Context, *connect.ClientStream[streamsv1.SumRequest]) (*streamsv1.DrainResponse, error) {
	return nil, connect.NewError(connect.CodeAborted, errors.New("drained enough"))
}

func (server) Double(_ context.Context, stream *connect.BidiStream[streamsv1.DoubleRequest, streamsv1.DoubleResponse]) error {
	if err := stream.Send(&streamsv1.DoubleResponse{Number: -1}); err != nil { // speaks first
		return err
	}
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
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run(ctx context.Context) error {
	path, handler, err := (&streamsv1plugin.StreamsServicePlugin{}).ConnectServer(server{})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(path, handler)
	host := httptest.NewUnstartedServer(mux)
	host.EnableHTTP2 = true
	host.StartTLS()
	defer host.Close()
	d := streamsv1delegate.New(streamsv1rpc.NewStreamsServiceClient(host.Client(), host.URL))

	if res, err := d.Add(ctx, 1, 2); err != nil || res.GetSum() != 3 {
		return fmt.Errorf("Add: %v, %w", res, err)
	}
	for res, err := range d.Count(ctx, 7, false, nil, nil) {
		if err != nil || res.GetNumber() != 7 {
			return fmt.Errorf("Count: %v, %w", res, err)
		}
	}
	one := func(yield func(*streamsv1.SumRequest, error) bool) { yield(&streamsv1.SumRequest{Number: 5}, nil) }
	if res, err := d.Sum(ctx, one); err != nil || res.GetSum() != 5 {
		return fmt.Errorf("Sum: %v, %w", res, err)
	}
	if err := d.Drain(ctx, one); connect.CodeOf(err) != connect.CodeAborted {
		return fmt.Errorf("Drain: %w", err)
	}
	return double(ctx, d)
}

func double(ctx context.Context, d streamsv1delegate.StreamsService) error {
	heard := make(chan struct{})
	requests := func(ctx context.Context) iter.Seq2[*streamsv1.DoubleRequest, error] {
		return func(yield func(*streamsv1.DoubleRequest, error) bool) {
			select { // nothing is sent before the server has spoken
			case <-heard:
				yield(&streamsv1.DoubleRequest{Number: 4}, nil)
			case <-ctx.Done():
			}
		}
	}
	var got []int64
	for res, err := range d.Double(ctx, requests) {
		if err != nil {
			return fmt.Errorf("Double: %w", err)
		}
		if got = append(got, res.GetNumber()); len(got) == 1 {
			close(heard)
		}
	}
	if len(got) != 2 || got[0] != -1 || got[1] != 8 {
		return fmt.Errorf("Double: %v", got)
	}
	return nil
}
