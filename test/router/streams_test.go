package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// Each message of a stream arrives before the next one is sent, in both
// directions, and an end in either direction arrives while the other goes on.
func TestAudit_H34_EachMessageArrivesBeforeTheNext(t *testing.T) {
	t.Parallel()
	const rounds = 20
	received := make(chan string)
	release := make(chan string)
	rig := echo.NewRig(t, echo.Service{
		Server: func(ctx context.Context, _ *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
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
		Client: func(ctx context.Context, stream *connect.ClientStream[echo.Text]) (*connect.Response[echo.Text], error) {
			for stream.Receive() {
				select {
				case received <- stream.Msg().GetValue():
				case <-ctx.Done():
				}
			}
			return connect.NewResponse(wrapperspb.String("all")), stream.Err()
		},
		Bidi: halfClosing,
	}.Handler(), nil)
	echo.EachOption(t, func(t *testing.T, opts []connect.ClientOption) {
		bidi := echo.NewClient(rig.ToProvider(), echo.Bidi, opts...).CallBidiStream(t.Context())
		for i := range rounds {
			echo.SendWant(t, bidi, fmt.Sprint(i), fmt.Sprint(i))
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
		down, err := callServerEarly(t, echo.NewClient(rig.ToProvider(), echo.Server, opts...), release)
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
		up := echo.NewClient(rig.ToProvider(), echo.Client, opts...).CallClientStream(t.Context())
		for i := range rounds {
			if err := up.Send(wrapperspb.String(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			if got := hosttest.Arrival(t, received); got != fmt.Sprint(i) {
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
func callServerEarly(t *testing.T, c *connect.Client[echo.Text, echo.Text], release chan<- string) (*connect.ServerStreamForClient[echo.Text], error) {
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
func halfClosing(ctx context.Context, stream *connect.BidiStream[echo.Text, echo.Text]) error {
	if err := echo.SendBack(ctx, stream); err != nil {
		return err
	}
	for _, m := range []string{"after the end", "and more"} {
		if err := stream.Send(wrapperspb.String(m)); err != nil {
			return err
		}
	}
	return nil
}

// A stream lives as long as its peers, beyond every timeout of unary calls; one
// on which nothing moves ends.
func TestAudit_H35_StreamsLiveAsLongAsTheirPeers(t *testing.T) {
	t.Parallel()
	const short = time.Second
	var log hosttest.Buffer
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Limits.CallTimeout, c.Limits.IdleTimeout = short, short
		c.Limits.DialTimeout, c.Limits.StreamIdleTimeout = hosttest.Wait, 5*time.Second
	})
	for name, opts := range hosttest.Protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := echo.NewClient(rig.ToProvider(), echo.Bidi, opts...).CallBidiStream(t.Context())
			defer func() { _ = stream.CloseResponse() }()
			for begun := time.Now(); time.Since(begun) < 2*short; {
				echo.SendWant(t, stream, "still", "still")
				letPass(t, short/4)
			}
			_, err := stream.Receive() // nothing moves any more
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Errorf("an idle stream: %v, want deadline_exceeded", err)
			}
			if strings.Contains(err.Error(), "Limits") {
				t.Errorf("the caller learns how the host is configured: %v", err)
			}
			hosttest.Eventually(t, "the log names the field", func() bool { return strings.Contains(log.String(), "(Limits.StreamIdleTimeout)") })
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
func failing(n int) echo.Service {
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
	return echo.Service{
		Unary: func(context.Context, *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
			return nil, failure()
		},
		Client: func(_ context.Context, stream *connect.ClientStream[echo.Text]) (*connect.Response[echo.Text], error) {
			for range n {
				stream.Receive()
			}
			return nil, failure()
		},
		Server: func(_ context.Context, _ *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
			stream.ResponseHeader().Set("X-Head", "head")
			stream.ResponseTrailer().Set("X-Tail", "tail")
			for range n {
				if err := stream.Send(wrapperspb.String("m")); err != nil {
					return err
				}
			}
			return failure()
		},
		Bidi: func(_ context.Context, stream *connect.BidiStream[echo.Text, echo.Text]) error {
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
		handler := failing(after).Handler()
		rig := echo.NewRig(t, handler, nil)
		direct := echo.NewTrap(t, "127.0.0.1", nil)
		direct.Next = handler
		toDirect := echo.At("http://"+direct.Addr, hosttest.HTTPClient(t, nil))
		echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
			want := echo.Kinds[kind](t.Context(), toDirect, opts, nil)
			got := echo.Kinds[kind](t.Context(), rig.ToProvider(), opts, nil)
			if connect.CodeOf(want.Err) != connect.CodeResourceExhausted {
				t.Fatalf("without a host: %v", want.Err)
			}
			sameRPCError(t, got.Err, want.Err)
			if !slices.Equal(got.Messages, want.Messages) {
				t.Errorf("messages %q, want %q", got.Messages, want.Messages)
			}
			for _, name := range []string{"X-Head", "X-Tail"} {
				if got.Header.Get(name) != want.Header.Get(name) || got.Trailer.Get(name) != want.Trailer.Get(name) {
					t.Errorf("%s: %q and %q, want %q and %q", name, got.Header.Get(name), got.Trailer.Get(name), want.Header.Get(name), want.Trailer.Get(name))
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
	rig := echo.NewRig(t, echo.Service{}.Handler(connect.WithInterceptors(withTrailer{})), nil)
	echo.EachCall(t, func(t *testing.T, kind string, opts []connect.ClientOption) {
		out := echo.Kinds[kind](t.Context(), rig.ToProvider(), opts, nil)
		echo.Want(t, kind, out)
		if got := out.Trailer["X-App-Trailer"]; !slices.Equal(got, []string{"last"}) {
			t.Errorf("trailer %q", got)
		}
		gzip := append(slices.Clone(opts), connect.WithSendGzip())
		echo.Want(t, kind, echo.Kinds[kind](t.Context(), rig.ToProvider(), gzip, nil))
	})
}
