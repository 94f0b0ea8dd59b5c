package connectpluginv2_test

import (
	"context"
	"errors"
	"testing"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/durationpb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/connectpluginv2"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// eachCall calls r as both versions do, in all protocols and kinds, and as the second does
// over the connection's own HTTP client.
func eachCall(t *testing.T, r connectpluginv2.Conn, want func(t *testing.T, what, kind string, out echo.Outcome)) {
	t.Helper()
	for protocol, opts := range protocols {
		second := connect.NewClient(connectpluginv2.NewTransport(r, opts...))
		bare := connect.NewClient(connecthttp.NewTransport(r.HTTPClient(), r.BaseURL(), opts...))
		for kind, first := range echo.Kinds {
			want(t, "v1 "+protocol+" "+kind, kind, first(t.Context(), r, hosttest.Protocols[protocol], nil))
			want(t, "v2 "+protocol+" "+kind, kind, call(t.Context(), second, kind))
			want(t, "v2 without NewTransport "+protocol+" "+kind, kind, call(t.Context(), bare, kind))
		}
	}
}

// Callers and providers of both versions of Connect mix, in all protocols, unary and streams,
// through the router and with a capability.
func TestMix_CallersAndProvidersOfBothVersions(t *testing.T) {
	t.Parallel()
	rig := newRig(t, v1Service(echo.Service{}), connectpluginv2.NewService("second", "1.0.0", newServer(func(ctx context.Context) error {
		if caller, ok := connectplugin.CallerFromContext(ctx); !ok || caller.SelfID != "caller" {
			return connect.NewError(connect.CodeInternal, "the caller is not known")
		}
		return nil
	})))
	capability, err := rig.caller.Capability(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]connectpluginv2.Conn{"v1": rig.service(t, "first"), "v2": rig.service(t, "second"), "capability": capability} {
		eachCall(t, r, func(t *testing.T, what, kind string, out echo.Outcome) {
			t.Helper()
			echo.Want(t, kind, out)
			if out.Err != nil {
				t.Errorf("%s of %s: %v", what, name, out.Err)
			}
		})
	}
}

// A provider's error has the same code, text and details for callers of both versions,
// whichever version the provider is of.
func TestMix_ErrorsOfProviders(t *testing.T) {
	t.Parallel()
	first := connectv1.NewError(connectv1.CodeNotFound, errors.New("no such thing: 5% of ü"))
	if detail, err := connectv1.NewErrorDetail(durationpb.New(5)); err == nil {
		first.AddDetail(detail)
	}
	second := connectpluginv2.FromV1(first)
	rig := newRig(t, v1Service(failing(first)), connectpluginv2.NewService("second", "1.0.0", newServer(func(context.Context) error { return second })))
	for _, name := range []string{"first", "second"} {
		eachCall(t, rig.service(t, name), func(t *testing.T, what, _ string, out echo.Outcome) {
			t.Helper()
			var coded *connect.Error
			if !errors.As(connectpluginv2.FromV1(out.Err), &coded) || said(out.Err) != "not_found: no such thing: 5% of ü" ||
				len(coded.Details()) != 1 || coded.Details()[0].Type != "google.protobuf.Duration" {
				t.Errorf("%s of %s: %v", what, name, out.Err)
			}
		})
	}
}

// failing is echo that answers everything with an error.
func failing(err error) echo.Service {
	type text = echo.Text
	return echo.Service{
		Unary: func(context.Context, *connectv1.Request[text]) (*connectv1.Response[text], error) { return nil, err },
		Client: func(context.Context, *connectv1.ClientStream[text]) (*connectv1.Response[text], error) {
			return nil, err
		},
		Server: func(context.Context, *connectv1.Request[text], *connectv1.ServerStream[text]) error { return err },
		Bidi:   func(context.Context, *connectv1.BidiStream[text, text]) error { return err },
	}
}

// What the connection refuses, and its end, are the same for both versions.
func TestMix_RefusalsAreTheSame(t *testing.T) {
	t.Parallel()
	rig := newRig(t, v1Service(echo.Service{}), connectpluginv2.NewService("second", "1.0.0", newServer(never)))
	conn, closed := rig.service(t, "second"), rig.service(t, "second")
	closed.Close()
	same(t, closed, "canceled: the connection to the service is closed")
	policy := hosttest.Rights(map[string][2][]string{"first": {{"first"}, nil}, "second": {{"second"}, nil}, "caller": {}})
	hosttest.SetPolicy(t, rig.Host, policy)
	refused := `not_found: watch: not available ("second" is declared; the host's policy may lack it, which the host's log says)`
	hosttest.Eventually(t, "the service is refused", func() bool {
		return said(echo.CallUnary(t.Context(), conn, nil, nil).Err) == refused
	})
	same(t, conn, refused)
	if err := rig.caller.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, conn, "canceled: client is closed")
	err := call(t.Context(), connect.NewClient(connectpluginv2.NewTransport(conn)), "unary").Err
	if !errors.Is(err, connectplugin.ErrClientClosed) {
		t.Errorf("%v is not ErrClientClosed", err)
	}
}

// A call that is not below the connection's base URL is refused in the same words, too, and
// goes nowhere.
func TestMix_ForeignURLsAreRefusedTheSame(t *testing.T) {
	t.Parallel()
	rig := newRig(t, v1Service(echo.Service{}), connectpluginv2.NewService("second", "1.0.0", newServer(never)))
	conn := rig.service(t, "second")
	for _, base := range []string{"https://elsewhere.invalid", rig.URL, rig.URL + "/services/first"} {
		same(t, echo.At(base, conn.HTTPClient()),
			"invalid_argument: request is not below the connection's BaseURL: make clients with BaseURL and HTTPClient of one connection")
	}
	echo.Want(t, "unary", echo.CallUnary(t.Context(), conn, nil, nil))
}

func same(t *testing.T, r connectpluginv2.Conn, want string) {
	t.Helper()
	eachCall(t, r, func(t *testing.T, what, _ string, out echo.Outcome) {
		t.Helper()
		if said(out.Err) != want {
			t.Errorf("%s: %q, want %q", what, said(out.Err), want)
		}
	})
}

// A provider that passes on what another one answered keeps code and text, whichever
// version it called with; one without Forward tells nothing.
func TestForward(t *testing.T) {
	t.Parallel()
	first := failing(connectv1.NewError(connectv1.CodeFailedPrecondition, errors.New("the other said so")))
	var rig *rig
	version := "v1"
	ask := func(ctx context.Context) error {
		conn, err := rig.caller.Service(ctx, "first", "")
		if err != nil {
			return err
		}
		defer conn.Close()
		if version == "v1" {
			return echo.CallUnary(ctx, conn, nil, nil).Err
		}
		return call(ctx, connect.NewClient(connectpluginv2.NewTransport(conn)), "unary").Err
	}
	for _, forward := range [][]connect.ServerInterceptor{nil, {connectpluginv2.Forward()}} {
		rig = newRig(t, v1Service(first), connectpluginv2.NewService("second", "1.0.0", newServer(ask, forward...)))
		conn := rig.service(t, "second")
		for _, version = range []string{"v1", "v2"} {
			got := said(echo.CallUnary(t.Context(), conn, nil, nil).Err)
			if want := "failed_precondition: the other said so"; (got == want) != (forward != nil) {
				t.Errorf("with %d interceptors, called with %s: %q", len(forward), version, got)
			}
		}
	}
}
