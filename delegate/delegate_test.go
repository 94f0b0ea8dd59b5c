package delegate_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/delegate"
)

// The messages are numbers.
type number = wrapperspb.Int64Value

const (
	countProc  = "/test.v1.Numbers/Count"
	sumProc    = "/test.v1.Numbers/Sum"
	doubleProc = "/test.v1.Numbers/Double"
)

var errMine = errors.New("mine")

// numbers is a server and its clients, as protoc-gen-connect-go would make them.
type numbers struct {
	count       *connect.Client[number, number]
	sum, double *connect.Client[number, number]
	got         chan struct{} // a handler was sent patient
	ended       chan error    // how it ended
}

func start(t *testing.T) *numbers {
	t.Helper()
	n := &numbers{got: make(chan struct{}, 64), ended: make(chan error, 64)}
	mux := http.NewServeMux()
	mux.Handle(countProc, connect.NewServerStreamHandler(countProc, n.serveCount))
	mux.Handle(sumProc, connect.NewClientStreamHandler(sumProc, n.serveSum))
	mux.Handle(doubleProc, connect.NewBidiStreamHandler(doubleProc, n.serveDouble))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	n.count = connect.NewClient[number, number](s.Client(), s.URL+countProc)
	n.sum = connect.NewClient[number, number](s.Client(), s.URL+sumProc)
	n.double = connect.NewClient[number, number](s.Client(), s.URL+doubleProc)
	return n
}

const (
	// quiet is a number to which serveCount counts without an end of the stream.
	quiet = 7
	// patient is a number after which a handler ends only when its caller has given up.
	patient = 1000
)

// serveCount counts to the number; below zero it fails, and without one it goes on.
func (n *numbers) serveCount(ctx context.Context, req *connect.Request[number], out *connect.ServerStream[number]) error {
	to := req.Msg.GetValue()
	for i := int64(1); to == 0 || i <= max(to, -to); i++ {
		if err := out.Send(wrapperspb.Int64(i)); err != nil || ctx.Err() != nil {
			n.ended <- errors.Join(err, ctx.Err())
			return err
		}
	}
	switch {
	case to < 0:
		return connect.NewError(connect.CodeDataLoss, errMine)
	case to == quiet:
		<-ctx.Done()
		n.ended <- ctx.Err()
	}
	return nil
}

// serveSum adds up, and wants no more than a hundred.
func (n *numbers) serveSum(ctx context.Context, in *connect.ClientStream[number]) (*connect.Response[number], error) {
	var sum int64
	for (sum <= 100 || sum >= patient) && in.Receive() {
		if sum += in.Msg().GetValue(); sum >= patient {
			n.got <- struct{}{}
		}
	}
	if sum >= patient {
		<-ctx.Done()
		n.ended <- ctx.Err()
	}
	if sum < 0 {
		return nil, connect.NewError(connect.CodeOutOfRange, errMine)
	}
	return connect.NewResponse(wrapperspb.Int64(sum)), in.Err()
}

// serveDouble says 0 first, and then the double of each number, but for a negative one.
func (n *numbers) serveDouble(ctx context.Context, stream *connect.BidiStream[number, number]) error {
	err, waits := stream.Send(wrapperspb.Int64(0)), false
	for err == nil {
		var req *number
		if req, err = stream.Receive(); err != nil {
			break
		}
		waits = waits || req.GetValue() == patient
		if req.GetValue() < 0 {
			err = connect.NewError(connect.CodeOutOfRange, errMine)
			break
		}
		err = stream.Send(wrapperspb.Int64(2 * req.GetValue()))
	}
	if waits {
		<-ctx.Done()
		n.ended <- ctx.Err()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func yields(values ...any) iter.Seq2[*number, error] {
	return func(yield func(*number, error) bool) {
		for _, v := range values {
			ok := false
			switch v := v.(type) {
			case error:
				ok = yield(nil, v)
			case int:
				ok = yield(wrapperspb.Int64(int64(v)), nil)
			}
			if !ok {
				return
			}
		}
	}
}

func collect(seq iter.Seq2[*number, error]) (got []int64, last error) {
	for n, err := range seq {
		if last != nil {
			return got, errors.New("more follows an error")
		}
		if last = err; err == nil {
			got = append(got, n.GetValue())
		} else if n != nil {
			return got, errors.New("an error with a message")
		}
	}
	return got, last
}

func TestServerStream(t *testing.T) {
	t.Parallel()
	n := start(t)
	for name, tt := range map[string]struct {
		to   int64
		want []int64
		code connect.Code
	}{
		"to the end": {to: 3, want: []int64{1, 2, 3}},
		"fails":      {to: -2, want: []int64{1, 2}, code: connect.CodeDataLoss},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, seq := range []iter.Seq2[*number, error]{
				delegate.ServerStream(t.Context(), n.count.CallServerStream, wrapperspb.Int64(tt.to)),
				delegate.ServerStreamSimple(t.Context(), func(ctx context.Context, req *number) (*connect.ServerStreamForClient[number], error) {
					return n.count.CallServerStream(ctx, connect.NewRequest(req))
				}, wrapperspb.Int64(tt.to)),
			} {
				for range 2 { // each range is a call
					got, err := collect(seq)
					if !slices.Equal(got, tt.want) || (err == nil) != (tt.code == 0) || err != nil && connect.CodeOf(err) != tt.code {
						t.Errorf("%d: %v, %v", i, got, err)
					}
				}
			}
		})
	}
}

// A loop that is left ends the call, and so does the end of its context.
func TestServerStreamLeft(t *testing.T) {
	t.Parallel()
	n := start(t)
	for res, err := range delegate.ServerStream(t.Context(), n.count.CallServerStream, &number{}) {
		if err != nil {
			t.Fatal(err)
		}
		if res.GetValue() == 3 {
			break
		}
	}
	if err := <-n.ended; err == nil {
		t.Error("the handler ended well")
	}
	for res, err := range delegate.ServerStream(t.Context(), n.count.CallServerStream, wrapperspb.Int64(quiet)) {
		if err != nil {
			t.Fatal(err)
		}
		if res.GetValue() == quiet {
			break // nothing more comes
		}
	}
	if err := <-n.ended; err == nil {
		t.Error("the handler of a quiet stream ended well")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for res, err := range delegate.ServerStream(ctx, n.count.CallServerStream, &number{}) {
		if last = err; res.GetValue() == 3 {
			cancel()
		}
	}
	if connect.CodeOf(last) != connect.CodeCanceled {
		t.Errorf("ended with %v", last)
	}
	if _, err := collect(delegate.ServerStream(ctx, n.count.CallServerStream, &number{})); connect.CodeOf(err) != connect.CodeCanceled {
		t.Errorf("begun with an ended context: %v", err)
	}
	if got, err := collect(delegate.Fail[number](errMine)); got != nil || !errors.Is(err, errMine) {
		t.Errorf("Fail yields %v, %v", got, err)
	}
}

func TestClientStream(t *testing.T) {
	t.Parallel()
	n := start(t)
	for name, tt := range map[string]struct {
		requests iter.Seq2[*number, error]
		want     int64
		code     connect.Code
		mine     bool
	}{
		"sum":              {requests: yields(1, 2, 3), want: 6},
		"nil":              {},
		"nothing":          {requests: yields()},
		"server refuses":   {requests: yields(-1), code: connect.CodeOutOfRange},
		"gives up":         {requests: yields(1, errMine), mine: true},
		"gives up at once": {requests: yields(errMine), mine: true},
		"gives up with io.EOF, as a reader would": {requests: yields(1, io.EOF), mine: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, err := delegate.ClientStream(t.Context(), tt.requests, n.sum.CallClientStream)
			simple, err2 := delegate.ClientStreamSimple(t.Context(), tt.requests, n.sum.CallClientStreamSimple)
			for i, e := range []error{err, err2} {
				switch res := []*number{plain, simple}[i]; {
				case tt.mine:
					if res != nil || !errors.Is(e, errMine) && !errors.Is(e, io.EOF) {
						t.Errorf("%v, %v", res, e)
					}
				case tt.code != 0:
					if res != nil || connect.CodeOf(e) != tt.code {
						t.Errorf("%v, %v", res, e)
					}
				case e != nil || res.GetValue() != tt.want:
					t.Errorf("%v, %v", res, e)
				}
			}
		})
	}
}

// The server learns of an upload that gave up, and an upload of which the server has seen
// enough ends.
func TestClientStreamEnds(t *testing.T) {
	t.Parallel()
	n := start(t)
	fails := func(yield func(*number, error) bool) {
		if yield(wrapperspb.Int64(patient), nil) {
			<-n.got
			yield(nil, errMine)
		}
	}
	if _, err := delegate.ClientStream(t.Context(), fails, n.sum.CallClientStream); !errors.Is(err, errMine) {
		t.Error(err)
	}
	<-n.ended
	if _, err := delegate.ClientStreamSimple(t.Context(), fails, n.sum.CallClientStreamSimple); !errors.Is(err, errMine) {
		t.Error(err)
	}
	<-n.ended
	asked := 0
	endless := func(yield func(*number, error) bool) {
		for yield(wrapperspb.Int64(7), nil) {
			asked++
		}
	}
	res, err := delegate.ClientStream(t.Context(), endless, n.sum.CallClientStream)
	if err != nil || res.GetValue() != 105 {
		t.Errorf("after %d requests: %v, %v", asked, res, err)
	}
}

func TestBidiStream(t *testing.T) {
	t.Parallel()
	n := start(t)
	for name, tt := range map[string]struct {
		requests iter.Seq2[*number, error]
		want     []int64
		code     connect.Code
		mine     error
	}{
		"talk":                {requests: yields(1, 2), want: []int64{0, 2, 4}},
		"nothing to say":      {requests: yields(), want: []int64{0}},
		"nil":                 {want: []int64{0}},
		"the server fails":    {requests: yields(-1), want: []int64{0}, code: connect.CodeOutOfRange},
		"gives up":            {requests: yields(errMine), mine: errMine},
		"gives up with a EOF": {requests: yields(io.EOF), mine: io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := func(context.Context) iter.Seq2[*number, error] { return tt.requests }
			for i, seq := range []iter.Seq2[*number, error]{
				delegate.BidiStream(t.Context(), requests, n.double.CallBidiStream),
				delegate.BidiStreamSimple(t.Context(), requests, n.double.CallBidiStreamSimple),
			} {
				got, err := collect(seq)
				switch {
				case tt.mine != nil:
					if !errors.Is(err, tt.mine) {
						t.Errorf("%d: %v, %v", i, got, err)
					}
				case !slices.Equal(got, tt.want) || (err == nil) != (tt.code == 0) || err != nil && connect.CodeOf(err) != tt.code:
					t.Errorf("%d: %v, %v", i, got, err)
				}
			}
		})
	}
}

// A conversation that is left ends on both sides, and the requests with it: their
// context ends, and the range does not return before they have.
func TestBidiStreamLeft(t *testing.T) {
	t.Parallel()
	n := start(t)
	over := false
	requests := func(ctx context.Context) iter.Seq2[*number, error] {
		return func(yield func(*number, error) bool) {
			if yield(wrapperspb.Int64(patient), nil) {
				<-ctx.Done()
				over = true
			}
		}
	}
	for res, err := range delegate.BidiStream(t.Context(), requests, n.double.CallBidiStream) {
		if err != nil {
			t.Fatal(err)
		}
		if res.GetValue() == 2*patient {
			break
		}
	}
	if !over {
		t.Error("the requests go on")
	}
	<-n.ended
	// The server ends while the requests wait: they are told, and nothing hangs.
	over = false
	waiting := func(ctx context.Context) iter.Seq2[*number, error] {
		return func(yield func(*number, error) bool) {
			if yield(wrapperspb.Int64(-1), nil) {
				<-ctx.Done()
				over = yield(nil, ctx.Err()) || true
			}
		}
	}
	if _, err := collect(delegate.BidiStream(t.Context(), waiting, n.double.CallBidiStream)); connect.CodeOf(err) != connect.CodeOutOfRange || !over {
		t.Errorf("ended with %v, requests over: %t", err, over)
	}
}

// A conversation in which nothing is said ends when it is given up, on both sides.
func TestBidiStreamGivenUpWhileQuiet(t *testing.T) {
	t.Parallel()
	for name, simple := range map[string]bool{"plain": false, "simple": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t)
			talk := func(ctx context.Context, requests func(context.Context) iter.Seq2[*number, error]) iter.Seq2[*number, error] {
				if simple {
					return delegate.BidiStreamSimple(ctx, requests, n.double.CallBidiStreamSimple)
				}
				return delegate.BidiStream(ctx, requests, n.double.CallBidiStream)
			}
			heard := make(chan struct{})
			fails := func(context.Context) iter.Seq2[*number, error] {
				return func(yield func(*number, error) bool) {
					_ = yield(wrapperspb.Int64(patient), nil)
					<-heard // the response has begun
					yield(nil, errMine)
				}
			}
			var last error
			for res, err := range talk(t.Context(), fails) {
				if last = err; res.GetValue() == 2*patient {
					close(heard)
				}
			}
			if !errors.Is(last, errMine) {
				t.Errorf("ended with %v", last)
			}
			<-n.ended
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			waits := func(ctx context.Context) iter.Seq2[*number, error] {
				return func(yield func(*number, error) bool) {
					_ = yield(wrapperspb.Int64(patient), nil)
					<-ctx.Done()
				}
			}
			for res, err := range talk(ctx, waits) {
				if last = err; res.GetValue() == 2*patient {
					cancel()
				}
			}
			if connect.CodeOf(last) != connect.CodeCanceled {
				t.Errorf("ended with %v", last)
			}
			<-n.ended
		})
	}
}

func TestOneOf(t *testing.T) {
	t.Parallel()
	for _, set := range [][]bool{{}, {false}, {true}, {false, true, false}} {
		if err := delegate.OneOf("choice", set...); err != nil {
			t.Errorf("%v: %v", set, err)
		}
	}
	if err := delegate.OneOf("choice", true, false, true); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Error(err)
	}
}
