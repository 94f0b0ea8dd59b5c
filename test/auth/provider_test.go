package auth_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

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

// The audit names the provider that refused, and no stranger alters what its reason says by what he presents.
func TestAuthProviders_TheAuditNamesWhoRefused(t *testing.T) {
	t.Parallel()
	const long = "a-token-of-some-length"
	var mu sync.Mutex
	var events []connectplugin.AuditEvent
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Plugins, c.Impls = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}, map[string]any{"logger": &hosttest.RecordingLogger{}}
		c.AuthProviders = []connectplugin.AuthProvider{connectplugin.NewTokenAuth("", func(token string) (string, map[string]string, error) {
			return "", nil, fmt.Errorf("unknown token of nobody: user_%s, (%s)", token, token)
		})}
		c.Audit = func(e connectplugin.AuditEvent) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}
	})
	for token, want := range map[string]string{
		"o":      "unknown token of nobody: user_o, ([redacted])",
		"nobody": "unknown token of [redacted]: user_nobody, ([redacted])",
		"kenken": "unknown token of nobody: user_kenken, ([redacted])",
		long:     "unknown token of nobody: user_[redacted], ([redacted])",
	} {
		mu.Lock()
		events = nil
		mu.Unlock()
		req := connect.NewRequest(&loggerv1.LogRequest{})
		req.Header().Set("Authorization", "Bearer "+token)
		_, err := loggerv1connect.NewLoggerClient(host.Stranger(t), host.URL).Log(t.Context(), req)
		hosttest.WantCode(t, "a stranger", connect.CodeOf(err), connect.CodeUnauthenticated)
		mu.Lock()
		if len(events) != 1 || events[0].AuthProvider != "token" || events[0].Reason != want {
			t.Errorf("%q: the audit has %+v, want the reason %q", token, events, want)
		}
		mu.Unlock()
	}
}

// A provider that can accept nobody is refused with its field, and what to write.
func TestAuthProviders_ThatAcceptNobodyAreRefused(t *testing.T) {
	t.Parallel()
	anybody := func(string) (string, map[string]string, error) { return "alice", nil, nil }
	for name, c := range map[string]struct {
		provider connectplugin.AuthProvider
		want     string // empty: it is taken
	}{
		"a key of nothing":         {connectplugin.NewAPIKeyAuth("", nil), "NewAPIKeyAuth a function"},
		"an empty key":             {&connectplugin.APIKeyAuth{}, "NewAPIKeyAuth"},
		"a nil key":                {(*connectplugin.APIKeyAuth)(nil), "NewAPIKeyAuth"},
		"an empty token":           {&connectplugin.TokenAuth{}, "NewTokenAuth a function"},
		"a token that is none":     {connectplugin.NewTokenAuth("a b", nil), "NewTokenAuth a function"},
		"a nil token":              {(*connectplugin.TokenAuth)(nil), "is nil"},
		"certificates nobody asks": {connectplugin.NewMTLSAuth(nil, nil, nil), "TLS.ClientAuth"},
		"nil certificates":         {(*connectplugin.MTLSAuth)(nil), "is nil"},
		"nil":                      {nil, "is nil"},
		"a token":                  {connectplugin.NewTokenAuth("secret", nil), ""},
		"a function":               {connectplugin.NewAPIKeyAuth("", anybody), ""},
		"nobody's":                 {connectplugin.NoAuth(), ""},
	} {
		ca := hosttest.NewCA(t)
		cfg := ca.TLS(ca.Certify(t, hosttest.Loopback))
		cfg.ClientAuth = tls.NoClientCert
		host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
			TLS: cfg, Logger: hosttest.Logger(t), AuthProviders: []connectplugin.AuthProvider{connectplugin.NoAuth(), c.provider},
		})
		if host != nil {
			_ = host.Shutdown(context.Background())
		}
		refused := errors.Is(err, connectplugin.ErrInvalidConfig) && strings.Contains(err.Error(), "AuthProviders[1]: ") && strings.Contains(err.Error(), c.want)
		if c.want == "" && err != nil || c.want != "" && !refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}
