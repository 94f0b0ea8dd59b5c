package auth_test

import (
	"context"
	"errors"
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

// Every RPC of the host, streaming or not, in every protocol, demands the same
// proof; so do calls of every kind to host plugins, capabilities and providers.
func TestAudit_H13_HostStreamsAreAuthenticatedLikeUnary(t *testing.T) {
	t.Parallel()
	host := echo.StartKindsHost(t, nil)
	caller, places := host.Places(t)
	client := host.Stranger(t)
	bad := hosttest.BadHeaders(caller.RuntimeID(), caller.RuntimeToken())
	for _, p := range hosttest.Procedures() {
		for protocol, opts := range hosttest.Protocols {
			for name, header := range bad {
				_, presentsID := header["X-Plugin-Runtime-Id"]
				if p.IsHandshake() && !presentsID {
					continue // that is how strangers enrol
				}
				if err := p.Call(t.Context(), client, host.URL, header, nil, opts...); connect.CodeOf(err) != connect.CodeUnauthenticated {
					t.Errorf("%s over %s with %s: %v, want unauthenticated", p.Path, protocol, name, err)
				}
			}
		}
	}
	for name, place := range places {
		for _, c := range echo.Calls() {
			for what, header := range bad {
				_, err := c.Call(t.Context(), client, place.URL, header)
				if connect.CodeOf(err) != connect.CodeUnauthenticated {
					t.Errorf("%s, %s with %s: %v, want unauthenticated", name, c.Name, what, err)
				}
			}
			if n := place.Echo.Calls.Load(); n != 0 {
				t.Fatalf("%s, %s: the handler ran", name, c.Name)
			}
		}
		for i, c := range echo.Calls() {
			if _, err := c.Call(t.Context(), client, place.URL, place.Header); err != nil || place.Echo.Calls.Load() != int64(i+1) {
				t.Errorf("%s, %s with credentials: %v", name, c.Name, err)
			}
		}
	}
	host.Revoke(caller.RuntimeID())
	for name, place := range places {
		for _, c := range echo.Calls() {
			if _, err := c.Call(t.Context(), client, place.URL, place.Header); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s after revocation: %v, want unauthenticated", name, c.Name, err)
			}
		}
	}
}

// A stream spends the budget of its caller like any other call, and one without
// budget does not reach its handler.
func TestAudit_H13_HostStreamsAreRateLimitedLikeUnary(t *testing.T) {
	t.Parallel()
	const burst = 4 // enrolling and asking for the grant leave three
	next := 0
	another := func() string { // as the instances of one share the budget
		next++
		return fmt.Sprintf("caller-%d", next)
	}
	host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) {
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 0.0001, burst
		for i := range 1_000 {
			c.Policy.Plugins[fmt.Sprintf("caller-%d", i)] = c.Policy.Plugins["caller"]
		}
	})
	client := host.Stranger(t)
	for _, p := range hosttest.Procedures() {
		if p.IsHandshake() {
			continue // limited as such
		}
		for protocol, opts := range hosttest.Protocols {
			caller := host.Enrol(t, another(), nil)
			header := hosttest.IdentityHeader(caller.RuntimeID(), caller.RuntimeToken())
			for i := range burst + 2 {
				err := p.Call(t.Context(), client, host.URL, header, nil, opts...)
				if limited := connect.CodeOf(err) == connect.CodeResourceExhausted; limited != (i >= burst) {
					t.Errorf("%s over %s, call %d: %v; want limited: %t", p.Path, protocol, i+1, err, i >= burst)
				}
			}
		}
	}
	for _, c := range echo.Calls() {
		for _, name := range []string{"host plugin", "route"} {
			_, places := host.PlacesOf(t, another())
			place := places[name]
			for i := range burst + 1 {
				before := place.Echo.Calls.Load()
				_, err := c.Call(t.Context(), client, place.URL, place.Header)
				limited, ran := connect.CodeOf(err) == connect.CodeResourceExhausted, place.Echo.Calls.Load() != before
				if limited != (i >= burst-1) || ran == limited {
					t.Errorf("%s, %s, call %d: %v, handler ran: %t; want limited: %t", name, c.Name, i+1, err, ran, i >= burst-1)
				}
			}
		}
	}
}

// The calls with a grant spend the budget of its owner.
func TestAudit_H13_CapabilityStreamsAreRateLimited(t *testing.T) {
	t.Parallel()
	const burst = 40
	host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) {
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 0.0001, burst
	})
	_, places := host.Places(t)
	place, served, limited := places["capability"], 0, 0
	for range 5 {
		for _, c := range echo.Calls() {
			_, err := c.Call(t.Context(), host.Stranger(t), place.URL, place.Header)
			switch {
			case err == nil:
				served++
			case connect.CodeOf(err) == connect.CodeResourceExhausted:
				limited++
			default:
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
	if limited == 0 || served == 0 || served > burst || int64(served) != place.Echo.Calls.Load() {
		t.Errorf("%d calls served (%d ran), %d limited; the burst is %d", served, place.Echo.Calls.Load(), limited, burst)
	}
}

// Whatever a chain of providers refuses, and why, the peer gets one error; the
// reason goes to the audit, without the credential.
func TestAudit_AUTH010_H18_OneErrorWhateverFails(t *testing.T) {
	t.Parallel()
	const secretDetail = "user bob is locked: db=10.1.2.3"
	served := &echo.Whoami{}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: served.Handler()}}, map[string]any{"echo": true}
		c.AuthProviders = []connectplugin.AuthProvider{
			connectplugin.NewTokenAuth("", func(token string) (string, map[string]string, error) {
				switch token {
				case "good":
					return "operator", nil, nil
				case "panics":
					panic(secretDetail)
				case "nobody":
					return "", nil, nil
				}
				return "", nil, fmt.Errorf("%s, token %s", secretDetail, token)
			}),
			connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
				return "", nil, connect.NewError(connect.CodeNotFound, errors.New(secretDetail+key))
			}),
			connectplugin.NewMTLSAuth(nil, nil, nil),
		}
	})
	headers := map[string]http.Header{
		"no credential":  {},
		"a bad token":    hosttest.BearerHeader("bad-token-1"),
		"a panic":        hosttest.BearerHeader("panics"),
		"no identity":    hosttest.BearerHeader("nobody"),
		"no token":       hosttest.BearerHeader(""),
		"a bad key":      {"X-Api-Key": {"bad-key-1"}},
		"both bad":       {"X-Api-Key": {"bad-key-1"}, "Authorization": {"Bearer bad-token-1"}},
		"repeated":       {"Authorization": {"Bearer good", "Bearer good"}},
		"good after bad": {"X-Api-Key": {"bad-key-1"}, "Authorization": {"Bearer bad-token-1"}},
		"a bad identity": hosttest.IdentityHeader("somebody", "something"),
	}
	client := host.Stranger(t)
	for _, c := range echo.Calls() {
		for name, header := range headers {
			_, err := c.Call(t.Context(), client, host.URL, header)
			wantAuthRefused(t, err)
			var coded *connect.Error
			errors.As(err, &coded)
			if text := fmt.Sprint(err, coded.Meta()); strings.Contains(text, "bob") || strings.Contains(text, "10.1.2.3") || strings.Contains(text, "bad-") {
				t.Errorf("%s with %s: the peer learns %q", c.Name, name, text)
			}
		}
	}
	if served.Calls.Load() != 0 {
		t.Error("the handler ran")
	}
	var detail bool
	for _, e := range host.Audit.Events() {
		text := fmt.Sprintf("%+v", e)
		detail = detail || e.Kind == connectplugin.AuditAuthFailed && strings.Contains(text, "bob is locked")
		if strings.Contains(text, "bad-token-1") || strings.Contains(text, "bad-key-1") {
			t.Errorf("the audit holds the credential: %s", text)
		}
	}
	if !detail {
		t.Error("the reason did not reach the audit")
	}
	for _, c := range echo.Calls() {
		got, err := c.Call(t.Context(), client, host.URL, hosttest.BearerHeader("good"))
		echo.WantAnswer(t, got, err, "token:operator")
	}
}

// What a validator does to its map of claims after it answered changes no request.
func TestAudit_H19_ClaimsDoNotOutliveTheirRequest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var handedOut []map[string]string
	inside, proceed := make(chan struct{}), make(chan struct{})
	served := &echo.Whoami{}
	served.Observe = func(ctx context.Context, _ http.Header) error {
		inside <- struct{}{}
		<-proceed
		if claims := connectplugin.GetAuthContext(ctx).Claims; claims["role"] != "reader" || len(claims) != 1 {
			return fmt.Errorf("claims %v", claims)
		}
		return nil
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Plugins, c.Impls = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: served.Handler()}}, map[string]any{"echo": true}
		c.AuthProviders = []connectplugin.AuthProvider{
			connectplugin.NewTokenAuth("", func(string) (string, map[string]string, error) {
				mu.Lock()
				defer mu.Unlock()
				claims := map[string]string{"role": "reader"}
				handedOut = append(handedOut, claims)
				return "operator", claims, nil
			}),
		}
	})
	for _, c := range echo.Calls() {
		done := make(chan error, 1)
		go func() {
			_, err := c.Call(t.Context(), host.Stranger(t), host.URL, hosttest.BearerHeader("good"))
			done <- err
		}()
		<-inside
		mu.Lock()
		for _, claims := range handedOut {
			claims["role"], claims["extra"] = "admin", "admin"
		}
		mu.Unlock()
		proceed <- struct{}{}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
	}
}
