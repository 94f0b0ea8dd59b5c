package auth_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// What outer middleware knows does not open a chain, and RequireAuth demands
// what NoAuth does not give.
func TestRequireAuth(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name         string
		interceptors []connect.Interceptor
		header       http.Header
		outer        *connectplugin.AuthContext
		want         string
	}{
		{"alone", []connect.Interceptor{connectplugin.RequireAuth()}, nil, nil, ""},
		{"behind NoAuth", []connect.Interceptor{connectplugin.ComposeAuthServer(connectplugin.NoAuth()), connectplugin.RequireAuth()}, nil, nil, ""},
		{"empty identity", []connect.Interceptor{connectplugin.RequireAuth()}, nil, &connectplugin.AuthContext{Provider: "x"}, ""},
		{"behind token", []connect.Interceptor{connectplugin.ComposeAuthServer(connectplugin.NewTokenAuth("", authValidateGood)), connectplugin.RequireAuth()}, hosttest.BearerHeader(authGoodToken), nil, "token:alice"},
		{"behind middleware", []connect.Interceptor{connectplugin.RequireAuth()}, nil, &connectplugin.AuthContext{Identity: "m", Provider: "outer"}, "outer:m"},
		{"chain ignores middleware", []connect.Interceptor{connectplugin.ComposeAuthServer(foreignAuth{server: authLetThrough("")})}, nil, &connectplugin.AuthContext{Identity: "m", Provider: "outer"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mux := (&echo.Whoami{}).Handler(tt.interceptors...)
			srv := hosttest.StartTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mux.ServeHTTP(w, r.WithContext(connectplugin.WithAuthContext(r.Context(), tt.outer)))
			}))
			got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, tt.header)
			if tt.want == "" {
				wantAuthRefused(t, err)
				return
			}
			echo.WantAnswer(t, got, err, tt.want)
		})
	}
}

func TestComposeAuthClient(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	e := &echo.Whoami{Observe: func(_ context.Context, h http.Header) error { seen <- h.Clone(); return nil }}
	srv := hosttest.StartTLS(t, e.Handler())
	auth := connectplugin.ComposeAuthClient(
		connectplugin.NewTokenAuth("tok", nil), connectplugin.NewAPIKeyAuth("key", nil),
		&connectplugin.TokenAuth{Token: "raw", Header: "X-Raw", Prefix: "v1:"}, connectplugin.NoAuth(),
	)
	_, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader("what the caller had"), connect.WithInterceptors(auth))
	echo.WantAnswer(t, "", err, "")
	h := <-seen
	for name, want := range map[string]string{"Authorization": "Bearer tok", "X-API-Key": "key", "X-Raw": "v1:raw"} {
		if got := h.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

// A chain is made once and used by many.
func TestAuthInterceptor_Concurrent(t *testing.T) {
	t.Parallel()
	validate := func(token string) (string, map[string]string, error) {
		return token, map[string]string{"t": token}, nil
	}
	e := &echo.Whoami{Observe: func(ctx context.Context, h http.Header) error {
		auth := connectplugin.GetAuthContext(ctx)
		if want := strings.TrimPrefix(h.Get("Authorization"), "Bearer "); auth.Identity != want || auth.Claims["t"] != want {
			return connect.NewError(connect.CodeDataLoss, fmt.Errorf("got %+v, want %s", auth, want))
		}
		return nil
	}}
	srv := hosttest.StartTLS(t, e.Handler(connectplugin.AuthInterceptor(foreignAuth{server: authLetThrough("")}, connectplugin.NewTokenAuth("", validate))))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			for _, c := range echo.Calls() {
				if _, err := c.Call(t.Context(), srv.Client(), srv.URL, hosttest.BearerHeader(fmt.Sprintf("user-%d", i))); err != nil {
					t.Errorf("%s: %v", c.Name, err)
				}
			}
		})
	}
	wg.Wait()
}
