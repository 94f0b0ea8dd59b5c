package tools_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// pumpResult is what a handler that pumps did.
type pumpResult struct {
	err error
}

// startPump serves a stream that pumps what produce gives it, and reports how
// PumpToStream ended.
func startPump(t *testing.T, produce func(ctx context.Context) (<-chan echo.Text, <-chan error)) (string, *http.Client, <-chan pumpResult) {
	t.Helper()
	done := make(chan pumpResult, 1)
	mux := http.NewServeMux()
	mux.Handle(echo.Server, connect.NewServerStreamHandler(echo.Server,
		func(ctx context.Context, _ *connect.Request[echo.Text], stream *connect.ServerStream[echo.Text]) error {
			ch, errs := produce(ctx)
			err := connectplugin.PumpToStream(ctx, ch, errs, stream)
			done <- pumpResult{err: err}
			return err
		}))
	srv := hosttest.StartTLS(t, mux)
	return srv.URL, srv.Client(), done
}

// buffered returns channels that hold n messages and the given errors.
func pumpChannels(n int, closeCh, closeErrs bool, failures ...error) (<-chan echo.Text, <-chan error) {
	ch, errs := make(chan echo.Text, n), make(chan error, len(failures))
	for i := range n {
		ch <- echo.Text{Value: strconv.Itoa(i)}
	}
	for _, err := range failures {
		errs <- err
	}
	if closeCh {
		close(ch)
	}
	if closeErrs {
		close(errs)
	}
	return ch, errs
}

func TestPumpToStream(t *testing.T) {
	t.Parallel()
	coded := connect.NewError(connect.CodeAborted, hosttest.ErrDown)
	tests := []struct {
		name    string
		produce func(context.Context) (<-chan echo.Text, <-chan error)
		want    int // messages
		code    connect.Code
	}{
		{"closed channel", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(3, true, false) }, 3, 0},
		{"both closed", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(3, true, true) }, 3, 0},
		{"nil errors", func(context.Context) (<-chan echo.Text, <-chan error) {
			ch, _ := pumpChannels(3, true, false)
			return ch, nil
		}, 3, 0},
		{"a nil error says nothing", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(3, true, false, nil) }, 3, 0},
		{"an error behind the messages", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(3, false, false, coded) }, 3, connect.CodeAborted},
		{"an error and a closed channel", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(3, true, true, nil, coded) }, 3, connect.CodeAborted},
		{"an error alone", func(context.Context) (<-chan echo.Text, <-chan error) { return pumpChannels(0, false, false, coded) }, 0, connect.CodeAborted},
		{"no channel at all", func(context.Context) (<-chan echo.Text, <-chan error) {
			_, errs := pumpChannels(0, false, false, coded)
			return nil, errs
		}, 0, connect.CodeAborted},
		{"errors closed early", func(ctx context.Context) (<-chan echo.Text, <-chan error) {
			ch, errs := make(chan echo.Text), make(chan error)
			close(errs)
			go func() {
				defer close(ch)
				for range 3 {
					select {
					case ch <- echo.Text{Value: "x"}:
					case <-ctx.Done():
					}
				}
			}()
			return ch, errs
		}, 3, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 20 { // select is random
				url, client, done := startPump(t, tt.produce)
				stream, err := connect.NewClient[echo.Text, echo.Text](client, url+echo.Server).
					CallServerStream(t.Context(), connect.NewRequest(wrapperspb.String("")))
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for stream.Receive() {
					n++
				}
				if p := <-done; n != tt.want || (tt.code == 0) != (p.err == nil) || (tt.code != 0 && connect.CodeOf(stream.Err()) != tt.code) {
					t.Fatalf("got %d messages, %v at the client, %v at the server", n, stream.Err(), p.err)
				}
				_ = stream.Close()
			}
		})
	}
}

// A client that goes away, or that never reads, ends the pump and its producer.
func TestPumpToStream_EndsWithTheClient(t *testing.T) {
	t.Parallel()
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads=%v", reads), func(t *testing.T) {
			t.Parallel()
			produced := make(chan struct{})
			url, client, done := startPump(t, func(ctx context.Context) (<-chan echo.Text, <-chan error) {
				ch := make(chan echo.Text)
				go func() {
					defer close(produced)
					big := string(make([]byte, 64<<10))
					for {
						select {
						case ch <- echo.Text{Value: big}:
						case <-ctx.Done():
							return
						}
					}
				}()
				return ch, nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := connect.NewClient[echo.Text, echo.Text](client, url+echo.Server).
				CallServerStream(ctx, connect.NewRequest(wrapperspb.String("")))
			if err != nil {
				t.Fatal(err)
			}
			if !stream.Receive() {
				t.Fatal(stream.Err())
			}
			for i := 0; reads && i < 100; i++ {
				stream.Receive()
			}
			cancel()
			select {
			case p := <-done:
				if p.err == nil {
					t.Error("the pump ended without an error")
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the pump goes on")
			}
			<-produced
		})
	}
}

// The end of the context comes before messages that wait.
func TestPumpToStream_EndedContext(t *testing.T) {
	t.Parallel()
	for _, want := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if errors.Is(want, context.DeadlineExceeded) {
			ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		}
		cancel()
		ch, errs := pumpChannels(5, true, false, hosttest.ErrDown)
		err := connectplugin.PumpToStream(ctx, ch, errs, nil) // would panic if it sent
		if !errors.Is(err, want) || connect.CodeOf(err) == connect.CodeUnknown {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}
