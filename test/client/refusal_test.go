package client_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// watchedClient notes errors that only one version of Connect understands.
type watchedClient struct {
	connect.HTTPClient

	versioned atomic.Bool
}

func (w *watchedClient) Do(r *http.Request) (*http.Response, error) {
	resp, err := w.HTTPClient.Do(r)
	if _, ok := errors.AsType[*connect.Error](err); ok {
		w.versioned.Store(true)
	}
	return resp, err
}

// wantEachRefused calls in every kind and protocol, and wants the code, the text and an
// error that belongs to no version of Connect.
func wantEachRefused(t *testing.T, what string, r echo.Reachable, code connect.Code, text string, is error) {
	t.Helper()
	client := &watchedClient{HTTPClient: r.HTTPClient()}
	for protocol, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			out := call(t.Context(), echo.At(r.BaseURL(), client), opts, nil)
			coded, ok := errors.AsType[*connect.Error](out.Err)
			if !ok || coded.Code() != code || !strings.Contains(coded.Message(), text) || is != nil && !errors.Is(out.Err, is) {
				t.Errorf("%s, %s %s: %v; want %v with %q, and %v", what, protocol, kind, out.Err, code, text, is)
			}
			if ok && strings.Contains(coded.Message(), code.String()) {
				t.Errorf("%s, %s %s: %q says its code twice", what, protocol, kind, out.Err)
			}
		}
	}
	if client.versioned.Load() {
		t.Errorf("%s: the transport's error is one of Connect's first version", what)
	}
}

// What the transports of a client refuse says the same to callers of every version of
// Connect: an answer with its code and text, or an error of which all make the same.
func TestClient_RefusalsBelongToNoVersionOfConnect(t *testing.T) {
	t.Parallel()
	rig := echo.NewRig(t, echo.Service{}.Handler(), func(c *connectplugin.ServeConfig) {
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(echo.Service{}.Handler(), echo.Type, "1.0.0"))
	})
	service, err := rig.Caller.Service(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	unmet := must(t)(rig.Caller.Service(t.Context(), echo.Type, ">=9"))
	closed := must(t)(rig.Caller.Service(t.Context(), echo.Type, ""))
	named := must(t)(rig.Caller.Provider(t.Context(), echo.Type, rig.Provider.Client.RuntimeID()))
	capability, err := rig.Caller.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	for kind, call := range echo.Kinds {
		echo.Want(t, kind, call(t.Context(), service, nil, nil))
		echo.Want(t, kind, call(t.Context(), capability, nil, nil))
	}
	wantEachRefused(t, "constraint", unmet, connect.CodeUnavailable, "none of \"echo\" satisfies", nil)
	for what, r := range map[string]echo.Reachable{
		"service": echo.At(rig.URL, service.HTTPClient()), "capability": echo.At(service.BaseURL(), capability.HTTPClient()),
	} {
		wantEachRefused(t, what+" with another base URL", r, connect.CodeInvalidArgument, "BaseURL and HTTPClient of one connection", nil)
	}
	closed.Close()
	named.Close()
	wantEachRefused(t, "connection closed", closed, connect.CodeCanceled, "connection to the service is closed", nil)
	wantEachRefused(t, "connection to one closed", named, connect.CodeCanceled, "connection to the service is closed", nil)
	none := echo.Policy()
	none.Plugins["caller"] = hosttest.Allow(nil)
	hosttest.SetPolicy(t, rig.Host, none)
	hosttest.Eventually(t, "the service is refused", func() bool {
		return connect.CodeOf(echo.CallUnary(t.Context(), service, nil, nil).Err) == connect.CodeNotFound
	})
	hosttest.Eventually(t, "the capability is refused", func() bool {
		return connect.CodeOf(echo.CallUnary(t.Context(), capability, nil, nil).Err) == connect.CodeNotFound
	})
	wantEachRefused(t, "service", service, connect.CodeNotFound, "not available", nil)
	wantEachRefused(t, "capability", capability, connect.CodeNotFound, "not available", nil)
	if err := rig.Caller.Close(); err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]echo.Reachable{"service": service, "capability": capability, "host": echo.At(rig.URL, rig.Caller.HTTPClient())} {
		wantEachRefused(t, what+" of a closed client", r, connect.CodeCanceled, "client is closed", connectplugin.ErrClientClosed)
	}
}

// A request that is no call gets an error, as from any HTTP client.
func TestClient_RefusesWhatIsNoCallWithAnError(t *testing.T) {
	t.Parallel()
	rig := echo.NewRig(t, echo.Service{}.Handler(), nil)
	service := must(t)(rig.Caller.Service(t.Context(), echo.Type, ""))
	service.Close()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, service.BaseURL()+"/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := service.HTTPClient().Do(r)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("answered with %s", resp.Status)
	}
	if !strings.Contains(err.Error(), "connection to the service is closed") {
		t.Error(err)
	}
}

// must ends the test where there is no connection.
func must(t *testing.T) func(*connectplugin.ServiceConn, error) *connectplugin.ServiceConn {
	t.Helper()
	return func(conn *connectplugin.ServiceConn, err error) *connectplugin.ServiceConn {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
}

// askAll does everything that takes an identity.
func askAll(ctx context.Context, c *connectplugin.Client) map[string]error {
	watched := error(nil)
	for _, watched = range c.WatchService(ctx, "logger") {
		break
	}
	registry := c.RegistryClient()
	_, discovered := registry.DiscoverService(ctx, connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "logger"}))
	_, registered := registry.RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0"}))
	return map[string]error{
		"Service":      hosttest.ErrorOf(c.Service(ctx, "logger", "")),
		"Provider":     hosttest.ErrorOf(c.Provider(ctx, "logger", "logger-aaaaaaaaaaaaaaaaaaaaaaaaaa")),
		"Capability":   hosttest.ErrorOf(c.Capability(ctx, "logger", "")),
		"WatchService": watched, "discovery": discovered, "registration": registered,
		"ReportHealth": c.ReportHealth(ctx, connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil),
	}
}

// A client without a self id has no identity: what takes one says what to set, and asks nobody. One that was assigned an
// identity is not told that.
func TestClient_WithoutASelfIDSaysSo(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	with := func(edit func(*connectplugin.ClientConfig)) *connectplugin.Client {
		cfg := connectplugin.ClientConfig{HostURL: host.URL, TLS: host.StrangerTLS(), Timeout: hosttest.Wait}
		edit(&cfg)
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	connected := with(func(*connectplugin.ClientConfig) {})
	if err := connected.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := len(host.Audit.Events())
	for name, c := range map[string]*connectplugin.Client{
		"connected": connected, "nobody is there": with(func(c *connectplugin.ClientConfig) { c.HostURL = "https://" + hosttest.FreeAddr(t) }),
	} {
		for what, err := range askAll(t.Context(), c) {
			if err == nil || !strings.Contains(err.Error(), "set ClientConfig.SelfID") || connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
	if after := len(host.Audit.Events()); after != before {
		t.Errorf("the host was asked: %+v", host.Audit.Events()[before:])
	}
	owner := host.Enrol(t, "logger", hosttest.Requiring("logger"))
	assigned := with(func(*connectplugin.ClientConfig) {})
	assigned.SetRuntimeIdentity(owner.RuntimeID(), owner.RuntimeToken(), "")
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Moment)
	defer cancel()
	for what, err := range askAll(ctx, assigned) {
		if err != nil && strings.Contains(err.Error(), "SelfID") {
			t.Errorf("assigned, %s: %v", what, err)
		}
	}
}

// The host refuses without a reason whom its operator revoked, and who calls it by a name that it does not have. Its client says
// which of both it may be.
func TestClient_RefusedWithoutAReasonSaysWhatItMayBe(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Hosts = hosttest.LoggerPolicy(), []string{"127.0.0.1"}
	})
	want := "which its operator may have revoked, or by the name in HostURL, which may be none of its Hosts; the host's log says which: permission_denied"
	refused := func(what string, edit func(*connectplugin.ClientConfig)) {
		cfg := host.ClientConfig(t, "api")
		edit(&cfg)
		client, err := connectplugin.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		err = client.Connect(t.Context())
		if !errors.Is(err, connectplugin.ErrHandshakeRefused) || connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("another name", func(c *connectplugin.ClientConfig) {
		c.HostURL, c.HostIdentity = strings.Replace(c.HostURL, "127.0.0.1", "localhost", 1), host.Authority.HostIdentity()
	})
	host.RevokeSelf("api")
	refused("revoked", func(*connectplugin.ClientConfig) {})
}
