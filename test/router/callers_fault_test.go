package router_test

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// moody is a provider that does what its caller's message says.
func moody(arrived chan<- struct{}) http.Handler {
	return echo.Service{Unary: func(ctx context.Context, r *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
		switch r.Msg.GetValue() {
		case "hang":
			arrived <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		case "abort":
			panic(http.ErrAbortHandler)
		case "fail":
			return nil, connect.NewError(connect.CodeUnavailable, errMoody)
		}
		return connect.NewResponse(r.Msg), nil
	}}.Handler()
}

var errMoody = connect.NewError(connect.CodeUnavailable, nil)

// Whatever a caller does, often enough to set a provider aside that fails by itself, the
// provider stays the one that others get.
func TestAudit_ATK09_WhatACallerDoesSetsNoProviderAside(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 1024)
	say := func(ctx context.Context, rig *echo.Rig, message string, opts ...connect.ClientOption) error {
		_, err := echo.NewClient(rig.ToProvider(), echo.Unary, opts...).CallUnary(ctx, connect.NewRequest(wrapperspb.String(message)))
		return err
	}
	for name, harm := range map[string]func(context.Context, *testing.T, *echo.Rig, ...connect.ClientOption) error{
		"deadlines of a millisecond": func(ctx context.Context, _ *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			return say(ctx, rig, "hang", opts...)
		},
		"cancellations": func(ctx context.Context, _ *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				select {
				case <-arrived:
					cancel()
				case <-ctx.Done():
				}
			}()
			return say(ctx, rig, "hang", opts...)
		},
		"messages that break the call": func(ctx context.Context, _ *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			return say(ctx, rig, "abort", opts...)
		},
		"messages that are refused": func(ctx context.Context, _ *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			return say(ctx, rig, "fail", opts...)
		},
		"stalled uploads": func(ctx context.Context, t *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			t.Helper()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream := echo.NewClient(rig.ToProvider(), echo.Bidi, opts...).CallBidiStream(ctx)
			echo.SendWant(t, stream, "x", "x")
			cancel()
			_, err := stream.Receive()
			return err
		},
		"streams that run out of time": func(ctx context.Context, t *testing.T, rig *echo.Rig, opts ...connect.ClientOption) error {
			t.Helper()
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			stream := echo.NewClient(rig.ToProvider(), echo.Bidi, opts...).CallBidiStream(ctx)
			_ = stream.Send(wrapperspb.String("x"))
			var err error
			for err == nil { // the answer may come, the end does not
				_, err = stream.Receive()
			}
			return err
		},
		"nonsense": func(ctx context.Context, _ *testing.T, rig *echo.Rig, _ ...connect.ClientOption) error {
			to := rig.ToProvider()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.BaseURL()+echo.Unary, bytes.NewReader([]byte{0xff, 0xff}))
			if err != nil {
				return err
			}
			r.Header.Set("Content-Type", "application/grpc")
			resp, err := to.HTTPClient().Do(r)
			if err != nil {
				return err
			}
			_ = resp.Body.Close()
			return errMoody
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rig := echo.NewRig(t, moody(arrived), nil)
			rig.Provide(t, "other", echo.Service{}.Handler(), nil)
			for protocol, opts := range hosttest.Protocols {
				for range 8 {
					if err := harm(t.Context(), t, rig, opts...); err == nil {
						t.Fatalf("%s: did no harm", protocol)
					}
				}
			}
			first, err := rig.Registry().SelectProvider(echo.Type, "")
			if err != nil || first.RuntimeID != rig.Provider.Client.RuntimeID() {
				t.Errorf("others get %+v, %v", first, err)
			}
			for protocol, opts := range hosttest.Protocols {
				if err := say(t.Context(), rig, "x", opts...); err != nil {
					t.Errorf("%s: another's call: %v", protocol, err)
				}
			}
		})
	}
}
