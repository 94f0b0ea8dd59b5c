package auth_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

const authGoodToken = "good-token"

var errAuthTest = errors.New("refused by the test's validator: s3cret detail")

// authValidateGood accepts authGoodToken and tells a lot where it does not.
func authValidateGood(token string) (string, map[string]string, error) {
	if token != authGoodToken {
		return "", nil, fmt.Errorf("%w: token %q", errAuthTest, token)
	}
	return "alice", map[string]string{"role": "reader"}, nil
}

// foreignAuth is a provider of which only the interceptors are known.
type foreignAuth struct {
	server connect.UnaryInterceptorFunc
	client connect.UnaryInterceptorFunc
}

func (f foreignAuth) ServerInterceptor() connect.UnaryInterceptorFunc { return f.server }

func (f foreignAuth) ClientInterceptor() connect.UnaryInterceptorFunc { return f.client }

// checkingAuth is a foreign provider that tells whether its credential is there.
type checkingAuth struct {
	foreignAuth

	header string
}

func (c checkingAuth) HasCredential(_ context.Context, header http.Header) bool {
	return header.Get(c.header) != ""
}

// authLetThrough calls next with the identity that it is given, "" for none.
func authLetThrough(identity string) connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if identity != "" {
				ctx = connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{Identity: identity, Provider: "foreign"})
			}
			return next(ctx, req)
		}
	}
}

func authRefuseAll(connect.UnaryFunc) connect.UnaryFunc {
	return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return nil, connect.NewError(connect.CodePermissionDenied, errAuthTest)
	}
}

func TestAudit_H13_StreamsAreAuthenticatedLikeUnary(t *testing.T) {
	t.Parallel()
	for _, c := range echo.Calls() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			e := &echo.Whoami{}
			srv := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(connectplugin.NewTokenAuth("", authValidateGood))))
			for name, header := range map[string]http.Header{
				"none": nil, "wrong": hosttest.BearerHeader("bad"), "empty": {"Authorization": {"Bearer"}},
				"twice": {"Authorization": {"Bearer " + authGoodToken, "Bearer " + authGoodToken}},
				"other": {"Authorization": {"Basic " + authGoodToken}},
			} {
				_, err := c.Call(t.Context(), srv.Client(), srv.URL, header)
				wantAuthRefused(t, err)
				if e.Calls.Load() != 0 {
					t.Fatalf("%s: the handler ran", name)
				}
			}
			got, err := c.Call(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(authGoodToken))
			echo.WantAnswer(t, got, err, "token:alice")
		})
	}
}

// Both sides use one and the same interceptor.
func TestAuthInterceptor_AddsCredentialsToEveryKindOfCall(t *testing.T) {
	t.Parallel()
	for _, c := range echo.Calls() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			note := foreignAuth{client: func(next connect.UnaryFunc) connect.UnaryFunc {
				return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
					if req.Spec().Procedure == "" || !req.Spec().IsClient || req.Peer().Addr == "" || req.Header() == nil {
						t.Errorf("the provider sees %+v, %+v", req.Spec(), req.Peer())
					}
					return next(ctx, req)
				}
			}, server: authLetThrough("")}
			auth := connectplugin.AuthInterceptor(note, connectplugin.NewTokenAuth(authGoodToken, authValidateGood))
			srv := hosttest.StartTLS(t, (&echo.Whoami{}).Handler(auth))
			got, err := c.Call(t.Context(), srv.Client(), srv.URL, nil, connect.WithInterceptors(auth))
			echo.WantAnswer(t, got, err, "token:alice")
		})
	}
}

func TestAuthInterceptor_ClientFailureSendsNothing(t *testing.T) {
	t.Parallel()
	shortCircuit := func(connect.UnaryFunc) connect.UnaryFunc {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
			return nil, errAuthTest
		}
	}
	providers := map[string]connectplugin.AuthProvider{
		"nil":             nil,
		"nil pointer":     (*connectplugin.TokenAuth)(nil),
		"nil interceptor": foreignAuth{},
		"no token":        connectplugin.NewTokenAuth("", nil),
		"token splits":    connectplugin.NewTokenAuth("a\r\nX-Evil: 1", nil),
		"its own error":   foreignAuth{client: shortCircuit},
	}
	for name, provider := range providers {
		auth := connectplugin.AuthInterceptor(provider)
		for _, c := range echo.Calls() {
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				t.Parallel()
				e := &echo.Whoami{}
				srv := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(connectplugin.NoAuth())))
				_, err := c.Call(t.Context(), srv.Client(), srv.URL, nil, connect.WithInterceptors(auth))
				if err == nil || connect.IsWireError(err) {
					t.Fatalf("got %v, want an error of the client", err)
				}
				if name != "its own error" && !errors.Is(err, connectplugin.ErrInvalidConfig) {
					t.Errorf("got %v, want ErrInvalidConfig", err)
				}
				if strings.Contains(err.Error(), "Evil") {
					t.Errorf("the error shows the token: %v", err)
				}
				if n := e.Calls.Load(); n != 0 {
					t.Errorf("%d requests reached the handler", n)
				}
			})
		}
	}
}

// Closing a stream that was refused before anything was sent sends nothing either.
func TestAuthInterceptor_RefusedStreamStaysUnsent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &hosttest.CutClient{}
		auth := connectplugin.AuthInterceptor(connectplugin.NewTokenAuth("", nil))
		stream := connect.NewClient[echo.Text, echo.Text](client, "https://127.0.0.1:1"+echo.Bidi, connect.WithInterceptors(auth)).
			CallBidiStream(t.Context())
		if err := stream.CloseRequest(); err != nil {
			t.Error(err)
		}
		if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("got %v", err)
		}
		if n := len(stream.ResponseHeader()) + len(stream.ResponseTrailer()); n != 0 {
			t.Errorf("%d headers of no response", n)
		}
		if err := stream.CloseResponse(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := client.Sent.Load(); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

func TestAudit_AUTH010_OneConstantError(t *testing.T) {
	t.Parallel()
	panics := func(string) (string, map[string]string, error) { panic("s3cret") }
	nobody := func(string) (string, map[string]string, error) { return "", nil, nil }
	chains := map[string][]connectplugin.AuthProvider{
		"no providers":       nil,
		"nil provider":       {nil},
		"nil beside good":    {connectplugin.NewTokenAuth("", authValidateGood), nil},
		"nil pointer":        {(*connectplugin.TokenAuth)(nil)},
		"nil API key":        {&connectplugin.APIKeyAuth{}},
		"nil mTLS":           {(*connectplugin.MTLSAuth)(nil)},
		"nil interceptor":    {foreignAuth{}},
		"makes no function":  {foreignAuth{server: func(connect.UnaryFunc) connect.UnaryFunc { return nil }}},
		"validator error":    {connectplugin.NewTokenAuth("", func(string) (string, map[string]string, error) { return "x", nil, errAuthTest })},
		"validator panic":    {connectplugin.NewTokenAuth("", panics)},
		"validator nobody":   {connectplugin.NewTokenAuth("", nobody)},
		"nothing to compare": {connectplugin.NewTokenAuth("", nil)},
		"foreign refusal":    {foreignAuth{server: authRefuseAll}},
		"foreign panic": {foreignAuth{server: func(connect.UnaryFunc) connect.UnaryFunc {
			return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { panic(http.ErrAbortHandler) }
		}}},
		"foreign no next": {foreignAuth{server: func(connect.UnaryFunc) connect.UnaryFunc {
			return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
				return connect.NewResponse(&emptypb.Empty{}), nil
			}
		}}},
		"foreign no identity": {foreignAuth{server: authLetThrough("")}},
		"late error": {foreignAuth{server: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				_, _ = next(connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{Identity: "eve"}), req)
				return nil, errAuthTest
			}
		}}},
		"empty identity": {foreignAuth{server: func(next connect.UnaryFunc) connect.UnaryFunc {
			return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
				return next(connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{}), req)
			}
		}}, connectplugin.NoAuth()},
	}
	for name, providers := range chains {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &echo.Whoami{}
			streams := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(providers...)))
			unary := hosttest.StartTLS(t, e.Handler(connectplugin.ComposeAuthServer(providers...)))
			header := hosttest.BearerHeader("bad")
			if name == "nil beside good" {
				header = hosttest.BearerHeader(authGoodToken)
			}
			for _, c := range echo.Calls() {
				_, err := c.Call(t.Context(), streams.Client(), streams.URL, header)
				wantAuthRefused(t, err)
				if strings.HasSuffix(c.Name, "unary") {
					_, err = c.Call(t.Context(), unary.Client(), unary.URL, header)
					wantAuthRefused(t, err)
				}
			}
			if n := e.Calls.Load(); n != 0 {
				t.Errorf("the handler ran %d times", n)
			}
		})
	}
}

func TestAudit_AUTH009_IdentityCannotBeAltered(t *testing.T) {
	t.Parallel()
	shared := map[string]string{"role": "reader"}
	validate := func(string) (string, map[string]string, error) { return "alice", shared, nil }
	e := &echo.Whoami{Observe: func(ctx context.Context, _ http.Header) error {
		auth := connectplugin.GetAuthContext(ctx)
		if auth.Claims["role"] != "reader" || len(auth.Claims) != 1 {
			return connect.NewError(connect.CodeDataLoss, fmt.Errorf("claims %v", auth.Claims))
		}
		auth.Identity = "root"
		auth.Claims["role"] = "admin"
		auth.Claims["more"] = "yes"
		again := connectplugin.GetAuthContext(ctx)
		if again.Identity != "alice" || again.Claims["role"] != "reader" {
			return connect.NewError(connect.CodeDataLoss, fmt.Errorf("altered to %+v", again))
		}
		return nil
	}}
	srv := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(connectplugin.NewTokenAuth("", validate))))
	for _, c := range echo.Calls() {
		got, err := c.Call(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(authGoodToken))
		echo.WantAnswer(t, got, err, "token:alice")
	}
	if !maps.Equal(shared, map[string]string{"role": "reader"}) {
		t.Errorf("the validator's map became %v", shared)
	}
}

// wantAuthRefused fails unless err is the one error that a refused peer gets.
func wantAuthRefused(t *testing.T, err error) {
	t.Helper()
	var coded *connect.Error
	if !errors.As(err, &coded) {
		t.Fatalf("got %v, want a Connect error", err)
	}
	if coded.Code() != connect.CodeUnauthenticated || coded.Message() != "unauthenticated" || len(coded.Details()) != 0 {
		t.Fatalf("got %v %q with %d details, want the constant error", coded.Code(), coded.Message(), len(coded.Details()))
	}
}
