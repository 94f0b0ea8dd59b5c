package tools_test

import (
	"context"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// once lets each key make one call.
var once = connectplugin.Rate{Burst: 1}

// In a plugin's process every call comes from its host, so what is limited by address limits all callers together.
func TestRateLimit_InAPluginEachCallerPaysForItself(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(limiter connectplugin.RateLimiter) connectplugin.PluginService{
		"interceptor": func(limiter connectplugin.RateLimiter) connectplugin.PluginService {
			limit := connect.WithInterceptors(connectplugin.RateLimitInterceptor(limiter, nil, once))
			return connectplugin.PluginService{Handler: echo.Service{}.Handler(limit)}
		},
		"handler": func(limiter connectplugin.RateLimiter) connectplugin.PluginService {
			return connectplugin.PluginService{Handler: connectplugin.RateLimitHTTPHandler(echo.Service{}.Handler(), limiter, nil, once)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limiter := connectplugin.NewTokenBucketLimiter()
			t.Cleanup(limiter.Close)
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = echo.Policy() })
			host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
				s := serve(limiter)
				s.Type, s.Version, s.Path = echo.Type, "1.0.0", echo.Base
				c.Services = []connectplugin.PluginService{s}
			})
			first, second := host.Enrol(t, "caller", hosttest.Requiring(echo.Type)), host.Enrol(t, "both", hosttest.Requiring(echo.Type))
			again := host.Enrol(t, "caller", hosttest.Requiring(echo.Type)) // another instance
			for _, c := range []*connectplugin.Client{first, second} {
				if err := callEcho(t.Context(), c); err != nil {
					t.Errorf("the first call of a caller: %v", err)
				}
			}
			for _, c := range []*connectplugin.Client{first, second, again} {
				if err := callEcho(t.Context(), c); connect.CodeOf(err) != connect.CodeResourceExhausted {
					t.Errorf("beyond its budget: %v", err)
				}
			}
		})
	}
}

func callEcho(ctx context.Context, c *connectplugin.Client) error {
	conn, err := c.Service(ctx, echo.Type, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = echo.NewClient(conn, echo.Unary).CallUnary(ctx, connect.NewRequest(wrapperspb.String("a")))
	return err
}

// A caller that the host states counts where nobody else is known.
func TestRateLimit_KnownCallersComeFirst(t *testing.T) {
	t.Parallel()
	limiter := connectplugin.NewTokenBucketLimiter()
	defer limiter.Close()
	call := connectplugin.RateLimitInterceptor(limiter, nil, once)(func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) {
		return nil, nil //nolint:nilnil // nobody reads it
	})
	as := func(selfID, identity string) context.Context {
		ctx := connectplugin.WithCaller(t.Context(), connectplugin.Caller{RuntimeID: selfID + "-1", SelfID: selfID})
		if identity != "" {
			ctx = connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{Identity: identity, Provider: "test"})
		}
		return ctx
	}
	old := func(runtimeID string) context.Context { // as a host of the first wire version states it
		return connectplugin.WithCaller(t.Context(), connectplugin.Caller{RuntimeID: runtimeID})
	}
	for _, c := range []struct {
		ctx  context.Context
		want connect.Code
	}{
		{as("app", ""), 0},
		{as("app", ""), connect.CodeResourceExhausted},
		{as("app", "ada"), 0}, // whom an auth provider knows pays, and not the plugin that passes it on
		{as("web", "ada"), connect.CodeResourceExhausted},
		{as("app", "bob"), 0},
		{old("app"), 0},
		{old("app"), connect.CodeResourceExhausted},
		{old("web"), 0},
	} {
		_, err := call(c.ctx, connect.NewRequest(wrapperspb.String("")))
		if got := connect.CodeOf(err); err == nil && c.want != 0 || err != nil && got != c.want {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
}
