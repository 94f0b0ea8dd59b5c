package connectplugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Each message of a stream arrives before the next one is sent, in both
// directions, and an end in either direction arrives while the other goes on.
func TestAudit_H34_EachMessageArrivesBeforeTheNext(t *testing.T) {
	t.Parallel()
	const rounds = 20
	received := make(chan string)
	release := make(chan string)
	rig := newEchoRig(t, echoService{
		server: func(ctx context.Context, _ *connect.Request[echoText], stream *connect.ServerStream[echoText]) error {
			for {
				select {
				case m := <-release:
					if m == "end" {
						return nil
					}
					if err := stream.Send(wrapperspb.String(m)); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
		client: func(ctx context.Context, stream *connect.ClientStream[echoText]) (*connect.Response[echoText], error) {
			for stream.Receive() {
				select {
				case received <- stream.Msg().GetValue():
				case <-ctx.Done():
				}
			}
			return connect.NewResponse(wrapperspb.String("all")), stream.Err()
		},
		bidi: halfClosing,
	}.handler(), nil)
	eachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		bidi := echo(rig.toProvider(), echoBidi, opts...).CallBidiStream(t.Context())
		for i := range rounds {
			sendWant(t, bidi, fmt.Sprint(i), fmt.Sprint(i))
		}
		// The caller ends first; the provider goes on.
		if err := bidi.CloseRequest(); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"after the end", "and more"} {
			if msg, err := bidi.Receive(); err != nil || msg.GetValue() != want {
				t.Errorf("after CloseRequest: %v, %v", msg, err)
			}
		}
		if _, err := bidi.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("end: %v", err)
		}
		down, err := callServerEarly(t, echo(rig.toProvider(), echoServer, opts...), release)
		if err != nil {
			t.Fatal(err)
		}
		for i := range rounds {
			release <- fmt.Sprint(i)
			if !down.Receive() || down.Msg().GetValue() != fmt.Sprint(i) {
				t.Fatalf("message %d: %v, %v", i, down.Msg(), down.Err())
			}
		}
		release <- "end"
		if down.Receive() || down.Err() != nil {
			t.Errorf("end: %v", down.Err())
		}
		up := echo(rig.toProvider(), echoClient, opts...).CallClientStream(t.Context())
		for i := range rounds {
			if err := up.Send(wrapperspb.String(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			if got := arrival(t, received); got != fmt.Sprint(i) {
				t.Fatalf("message %d arrived as %q", i, got)
			}
		}
		if resp, err := up.CloseAndReceive(); err != nil || resp.Msg.GetValue() != "all" {
			t.Errorf("response: %v, %v", resp, err)
		}
	})
}

// callServerEarly begins a server stream whose provider sends only when told to.
// In Connect and gRPC a client waits for the response's head.
func callServerEarly(t *testing.T, c *connect.Client[echoText, echoText], release chan<- string) (*connect.ServerStreamForClient[echoText], error) {
	t.Helper()
	go func() {
		select {
		case release <- "head":
		case <-t.Context().Done():
		}
	}()
	stream, err := c.CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("go")))
	if err == nil && !stream.Receive() {
		err = stream.Err()
	}
	return stream, err
}

// halfClosing echoes until the caller ends, and says more then.
func halfClosing(ctx context.Context, stream *connect.BidiStream[echoText, echoText]) error {
	if err := sendBack(ctx, stream); err != nil {
		return err
	}
	for _, m := range []string{"after the end", "and more"} {
		if err := stream.Send(wrapperspb.String(m)); err != nil {
			return err
		}
	}
	return nil
}

// eachOption runs a test in every protocol, one after another.
func eachOption(t *testing.T, f func(t *testing.T, opts []connect.ClientOption)) {
	t.Helper()
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) { f(t, opts) })
	}
}

func sendWant(t *testing.T, stream *connect.BidiStreamForClient[echoText, echoText], send, want string) {
	t.Helper()
	if err := stream.Send(wrapperspb.String(send)); err != nil {
		_, err = stream.Receive()
		t.Fatalf("send: %v", err)
	}
	if msg, err := stream.Receive(); err != nil || msg.GetValue() != want {
		t.Fatalf("got %v, %v; want %s", msg, err, want)
	}
}

// longWait is how long a test waits at most for what has to happen. It is far beyond
// what a machine needs that is busy with other work.
const longWait = time.Minute

// arrival receives from a channel, in bounded time.
func arrival[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(longWait):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// A stream lives as long as its peers, beyond every timeout of unary calls; one
// on which nothing moves ends.
func TestAudit_H35_StreamsLiveAsLongAsTheirPeers(t *testing.T) {
	t.Parallel()
	const short = time.Second
	rig := newEchoRig(t, echoService{}.handler(), func(c *connectplugin.ServeConfig) {
		c.Limits.CallTimeout, c.Limits.IdleTimeout = short, short
		c.Limits.DialTimeout, c.Limits.StreamIdleTimeout = longWait, 5*time.Second
	})
	for name, opts := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := echo(rig.toProvider(), echoBidi, opts...).CallBidiStream(t.Context())
			defer func() { _ = stream.CloseResponse() }()
			for begun := time.Now(); time.Since(begun) < 2*short; {
				sendWant(t, stream, "still", "still")
				letPass(t, short/4)
			}
			_, err := stream.Receive() // nothing moves any more
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Errorf("an idle stream: %v, want deadline_exceeded", err)
			}
		})
	}
}

// letPass lets time pass on a real host.
func letPass(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// failing fails with everything that an error can carry, after n messages.
func failing(n int) echoService {
	failure := func() error {
		err := connect.NewError(connect.CodeResourceExhausted, errors.New("héllo, wörld: 100%\nno more"))
		for _, d := range []time.Duration{time.Second, time.Minute} {
			detail, _ := connect.NewErrorDetail(durationpb.New(d))
			err.AddDetail(detail)
		}
		err.Meta().Set("X-Error-Meta", "meta")
		err.Meta().Set("Error-Bin", connect.EncodeBinaryHeader([]byte{0, 1, 0xff}))
		return err
	}
	return echoService{
		unary: func(context.Context, *connect.Request[echoText]) (*connect.Response[echoText], error) {
			return nil, failure()
		},
		client: func(_ context.Context, stream *connect.ClientStream[echoText]) (*connect.Response[echoText], error) {
			for range n {
				stream.Receive()
			}
			return nil, failure()
		},
		server: func(_ context.Context, _ *connect.Request[echoText], stream *connect.ServerStream[echoText]) error {
			stream.ResponseHeader().Set("X-Head", "head")
			stream.ResponseTrailer().Set("X-Tail", "tail")
			for range n {
				if err := stream.Send(wrapperspb.String("m")); err != nil {
					return err
				}
			}
			return failure()
		},
		bidi: func(_ context.Context, stream *connect.BidiStream[echoText, echoText]) error {
			stream.ResponseHeader().Set("X-Head", "head")
			stream.ResponseTrailer().Set("X-Tail", "tail")
			for range n {
				msg, err := stream.Receive()
				if err == nil {
					err = stream.Send(msg)
				}
				if err != nil {
					return err
				}
			}
			return failure()
		},
	}
}

// An error passes as the provider gave it: code, message, details, metadata; in
// every protocol, before the first message and after some.
func TestAudit_H36_ErrorsOfTheProviderPassUnchanged(t *testing.T) {
	t.Parallel()
	for _, after := range []int{0, 1, 2} {
		handler := failing(after).handler()
		rig := newEchoRig(t, handler, nil)
		direct := newTrap(t, "127.0.0.1", nil)
		direct.next = handler
		toDirect := at("http://"+direct.addr, hosttest.HTTPClient(t, nil))
		eachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
			want := echoKinds[kind](t.Context(), toDirect, opts, nil)
			got := echoKinds[kind](t.Context(), rig.toProvider(), opts, nil)
			if connect.CodeOf(want.err) != connect.CodeResourceExhausted {
				t.Fatalf("without a host: %v", want.err)
			}
			sameRPCError(t, got.err, want.err)
			if !slices.Equal(got.messages, want.messages) {
				t.Errorf("messages %q, want %q", got.messages, want.messages)
			}
			for _, name := range []string{"X-Head", "X-Tail"} {
				if got.header.Get(name) != want.header.Get(name) || got.trailer.Get(name) != want.trailer.Get(name) {
					t.Errorf("%s: %q and %q, want %q and %q", name, got.header.Get(name), got.trailer.Get(name), want.header.Get(name), want.trailer.Get(name))
				}
			}
		})
	}
}

func sameRPCError(t *testing.T, got, want error) {
	t.Helper()
	var g, w *connect.Error
	if !errors.As(got, &g) || !errors.As(want, &w) {
		t.Fatalf("got %v, want %v", got, want)
	}
	if g.Code() != w.Code() || g.Message() != w.Message() || len(g.Details()) != len(w.Details()) {
		t.Errorf("got %v with %d details, want %v with %d", g, len(g.Details()), w, len(w.Details()))
	}
	for i, d := range w.Details() {
		if i >= len(g.Details()) || g.Details()[i].Type() != d.Type() || !slices.Equal(g.Details()[i].Bytes(), d.Bytes()) {
			t.Errorf("detail %d differs", i)
		}
	}
	for _, name := range []string{"X-Error-Meta", "Error-Bin"} {
		if !slices.Equal(g.Meta()[name], w.Meta()[name]) || len(w.Meta()[name]) != 1 {
			t.Errorf("metadata %s: %q, want %q", name, g.Meta()[name], w.Meta()[name])
		}
	}
}

// Headers and trailers of an RPC that succeeds pass, empty responses included.
func TestAudit_H37_TrailersPassInEveryProtocol(t *testing.T) {
	t.Parallel()
	rig := newEchoRig(t, echoService{}.handler(connect.WithInterceptors(withTrailer{})), nil)
	eachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		out := echoKinds[kind](t.Context(), rig.toProvider(), opts, nil)
		wantEcho(t, kind, out)
		if got := out.trailer["X-App-Trailer"]; !slices.Equal(got, []string{"last"}) {
			t.Errorf("trailer %q", got)
		}
		gzip := append(slices.Clone(opts), connect.WithSendGzip())
		wantEcho(t, kind, echoKinds[kind](t.Context(), rig.toProvider(), gzip, nil))
	})
}

// streamEnd returns why a stream ends, in bounded time.
func streamEnd(t *testing.T, stream *connect.BidiStreamForClient[echoText, echoText]) error {
	t.Helper()
	end := make(chan error, 1)
	go func() {
		_, err := stream.Receive()
		end <- err
	}()
	return arrival(t, end)
}
