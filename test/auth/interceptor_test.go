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

func TestAudit_H18_H19_ValidatorKeepsToItself(t *testing.T) {
	t.Parallel()
	claims := map[string]string{"role": "reader"}
	var stored *connectplugin.AuthContext
	ctx := connectplugin.WithAuthContext(t.Context(), &connectplugin.AuthContext{Identity: "alice", Claims: claims})
	claims["role"] = "admin" // the validator reuses its map
	stored = connectplugin.GetAuthContext(ctx)
	if stored.Claims["role"] != "reader" {
		t.Errorf("claims follow the validator's map: %v", stored.Claims)
	}
	if got := connectplugin.GetAuthContext(connectplugin.WithAuthContext(ctx, nil)); got != nil {
		t.Errorf("got %+v after it was taken away", got)
	}
	if got := connectplugin.GetAuthContext(t.Context()); got != nil {
		t.Errorf("got %+v from nowhere", got)
	}
	// H-18: TestAudit_AUTH010_OneConstantError has the wire; here a provider alone.
	alone := connectplugin.NewTokenAuth("", authValidateGood).ServerInterceptor()
	srv := hosttest.StartTLS(t, (&echo.Whoami{}).Handler(alone))
	_, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader("bad"))
	wantAuthRefused(t, err)
	got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(authGoodToken))
	echo.WantAnswer(t, got, err, "token:alice")
}

func TestAudit_H15_HandlerRunsOnce(t *testing.T) {
	t.Parallel()
	twice := foreignAuth{server: func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			ctx = connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{Identity: "bob", Provider: "foreign"})
			if _, err := next(ctx, req); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}
	}}
	chains := map[string][]connectplugin.AuthProvider{
		"own":     {connectplugin.NewTokenAuth("", authValidateGood), connectplugin.NewAPIKeyAuth("", authValidateGood), connectplugin.NoAuth()},
		"foreign": {twice, connectplugin.NoAuth()},
	}
	for name, providers := range chains {
		for _, code := range []connect.Code{connect.CodeUnauthenticated, connect.CodePermissionDenied, connect.CodeUnavailable} {
			t.Run(name+"/"+code.String(), func(t *testing.T) {
				t.Parallel()
				e := &echo.Whoami{Observe: func(context.Context, http.Header) error {
					return connect.NewError(code, errors.New("the handler's own"))
				}}
				srv := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(providers...)))
				for i, c := range echo.Calls() {
					_, err := c.Call(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(authGoodToken))
					if connect.CodeOf(err) != code || !strings.Contains(err.Error(), "the handler's own") {
						t.Errorf("%s: got %v", c.Name, err)
					}
					if n := e.Calls.Load(); n != int64(i+1) {
						t.Fatalf("%s: the handler ran %d times in %d calls", c.Name, n, i+1)
					}
				}
			})
		}
	}
}

func TestAudit_H16_ARefusalIsFinal(t *testing.T) {
	t.Parallel()
	token := connectplugin.NewTokenAuth("", authValidateGood)
	key := connectplugin.NewAPIKeyAuth("", authValidateGood)
	foreignKey := checkingAuth{header: "X-Foreign", foreignAuth: foreignAuth{server: authRefuseAll}}
	both := func(tok, apiKey string) http.Header {
		h := hosttest.BearerHeader(tok)
		h.Set("X-Api-Key", apiKey)
		return h
	}
	tests := []struct {
		name   string
		chain  []connectplugin.AuthProvider
		header http.Header
		want   string // "" = refused
	}{
		{"bad token, good key", []connectplugin.AuthProvider{token, key}, both("bad", authGoodToken), ""},
		{"bad key, good token", []connectplugin.AuthProvider{key, token}, both(authGoodToken, "bad"), ""},
		{"bad token, open end", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, hosttest.BearerHeader("bad"), ""},
		{"odd scheme case", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, http.Header{"Authorization": {"bEARER bad"}}, ""},
		{"tab behind scheme", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, http.Header{"Authorization": {"Bearer\tbad"}}, ""},
		{"bare scheme", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, http.Header{"Authorization": {"Bearer"}}, ""},
		{"folded", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, http.Header{"Authorization": {"Bearer " + authGoodToken + ", Bearer " + authGoodToken}}, ""},
		{"empty key", []connectplugin.AuthProvider{key, connectplugin.NoAuth()}, http.Header{"X-Api-Key": {""}}, ""},
		{"repeated key", []connectplugin.AuthProvider{key, connectplugin.NoAuth()}, http.Header{"X-Api-Key": {authGoodToken, authGoodToken}}, ""},
		{"repeated with another scheme", []connectplugin.AuthProvider{token, connectplugin.NoAuth()}, http.Header{"Authorization": {"Basic x", "Bearer " + authGoodToken}}, ""},
		{"foreign refuses its own", []connectplugin.AuthProvider{foreignKey, token}, http.Header{"X-Foreign": {"x"}, "Authorization": {"Bearer " + authGoodToken}}, ""},
		{"unknown foreign refuses", []connectplugin.AuthProvider{foreignAuth{server: authRefuseAll}, token}, hosttest.BearerHeader(authGoodToken), ""},
		{"checked foreign names nobody", []connectplugin.AuthProvider{checkingAuth{header: "X-Foreign", foreignAuth: foreignAuth{server: authLetThrough("")}}, connectplugin.NoAuth()}, http.Header{"X-Foreign": {"x"}}, ""},

		{"token alone", []connectplugin.AuthProvider{token, key}, hosttest.BearerHeader(authGoodToken), "token:alice"},
		{"token in any case", []connectplugin.AuthProvider{token}, http.Header{"Authorization": {"BEARER   " + authGoodToken}}, "token:alice"},
		{"key alone", []connectplugin.AuthProvider{token, key}, http.Header{"X-Api-Key": {authGoodToken}}, "token:alice"},
		{"foreign passed over", []connectplugin.AuthProvider{foreignKey, token}, hosttest.BearerHeader(authGoodToken), "token:alice"},
		{"foreign names nobody", []connectplugin.AuthProvider{foreignAuth{server: authLetThrough("")}, token}, hosttest.BearerHeader(authGoodToken), "token:alice"},
		{"foreign accepts", []connectplugin.AuthProvider{token, foreignAuth{server: authLetThrough("bob")}}, nil, "foreign:bob"},
		{"open end", []connectplugin.AuthProvider{token, key, connectplugin.NoAuth()}, nil, "nobody"},
		{"nested chain", []connectplugin.AuthProvider{foreignAuth{server: connectplugin.ComposeAuthServer(foreignAuth{server: authLetThrough("bob")})}}, nil, "foreign:bob"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := hosttest.StartTLS(t, (&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(tt.chain...)))
			for _, c := range echo.Calls() {
				got, err := c.Call(t.Context(), srv.Client(), srv.URL, tt.header)
				if tt.want == "" {
					wantAuthRefused(t, err)
					continue
				}
				echo.WantAnswer(t, got, err, tt.want)
			}
		})
	}
}

// A type that embeds a provider and overrides it must not be mistaken for it.
type overridingAuth struct{ *connectplugin.TokenAuth }

func (overridingAuth) ServerInterceptor() connect.UnaryInterceptorFunc { return authRefuseAll }

func TestAuthInterceptor_ObeysOverridingTypes(t *testing.T) {
	t.Parallel()
	embedded := struct{ *connectplugin.TokenAuth }{connectplugin.NewTokenAuth("", authValidateGood)}
	tests := []struct {
		name     string
		provider connectplugin.AuthProvider
		want     string
	}{
		{"overriding", overridingAuth{connectplugin.NewTokenAuth("", authValidateGood)}, ""},
		{"embedding", embedded, "token:alice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := hosttest.StartTLS(t, (&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(tt.provider)))
			got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(authGoodToken))
			if tt.want == "" {
				wantAuthRefused(t, err)
				return
			}
			echo.WantAnswer(t, got, err, tt.want)
		})
	}
}
