package recovery_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// life is one life of a plugin: an identity, and a server where it is reached.
type life struct {
	client *connectplugin.Client
	at     string // its base URL, empty for a plugin that only calls
	crash  func() // ends both as SIGKILL does
}

// control answers the host's questions for the runtime id of the moment.
type control struct {
	connectpluginv1connect.UnimplementedPluginControlHandler

	id func() string
}

// GetHealth answers for one runtime id alone.
func (c control) GetHealth(_ context.Context, req *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	if req.Msg.GetRuntimeId() != c.id() {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%q is not here", req.Msg.GetRuntimeId()))
	}
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{State: healthy}), nil
}

// born enrols a plugin that provides the echo service, or tells why the host refuses.
func born(t *testing.T, host *hosttest.Restartable, selfID string, provides bool) (*life, error) {
	t.Helper()
	cfg := host.ClientConfig(t, selfID)
	if provides {
		cfg.Metadata.Provides = hosttest.Provides(echoType)
	}
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &life{client: c, crash: func() { _ = c.Close() }}
	t.Cleanup(func() { l.crash() })
	if err := c.Connect(t.Context()); err != nil || !provides {
		return l, err
	}
	tls, err := host.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/echo.v1.Echo/", echoHandler())
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(control{id: c.RuntimeID}))
	at, stop := hosttest.ServeTLSUntil(t, tls, mux)
	l.at, l.crash = at, func() { stop(); _ = c.Close() }
	err = hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: echoType, Version: "1.0.0", EndpointPath: "/", Metadata: map[string]string{"base_url": l.at},
	})
	return l, err
}

func instances(n int, probe connectplugin.HealthProbeConfig) func(*connectplugin.ServeConfig) {
	return func(c *connectplugin.ServeConfig) {
		hosttest.SetInstances(c.Policy, n)
		c.HealthProbe = probe
	}
}

// Starts of a program that ends without a word lock its self id out for no moment, and
// neither do those of a provider.
func TestAudit_USE25_UncleanExitsLockNobodyOut(t *testing.T) {
	t.Parallel()
	for name, provides := range map[string]bool{"caller": false, "provider": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, instances(3, connectplugin.HealthProbeConfig{Disabled: true}))
			selfID := map[bool]string{false: "api", true: "provider"}[provides]
			for n := range 12 {
				var l *life
				hosttest.Eventually(t, fmt.Sprint("start ", n), func() bool {
					var err error
					l, err = born(t, host, selfID, provides) // a moment after the crash the host may not have noticed
					return err == nil
				})
				if err := l.client.ReportHealth(t.Context(), healthy, "", nil); err != nil {
					t.Fatal(err)
				}
				l.crash()
			}
			if n := len(host.Registry().GetAllProviders(echoType)); n > 3 {
				t.Errorf("%d providers", n)
			}
		})
	}
}

// Who lives keeps its place: with a connection, or where it answers at its endpoint for its
// own runtime id, and whoever does not prove the same takes no place at all. The refusal
// says what the limit is.
func TestAudit_USE25_TheLivingKeepTheirPlace(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*testing.T, *life){
		"connected":  func(*testing.T, *life) {},
		"it answers": func(t *testing.T, l *life) { t.Helper(); _ = l.client.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, instances(1, connectplugin.HealthProbeConfig{Disabled: true}))
			first, err := born(t, host, "provider", true)
			if err != nil {
				t.Fatal(err)
			}
			if err := first.client.ReportHealth(t.Context(), healthy, "", nil); err != nil {
				t.Fatal(err)
			}
			id := first.client.RuntimeID()
			edit(t, first)
			for range 3 {
				_, err := born(t, host, "provider", true)
				if connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "this self id has as many live identities as it may;") {
					t.Errorf("a second: %v, want the limit", err)
				}
			}
			if !host.Registered(echoType, id) {
				t.Error("the first lost its place")
			}
			first.crash()
			hosttest.Eventually(t, "the next life", func() bool { _, err := born(t, host, "provider", true); return err == nil })
			if host.Registered(echoType, id) {
				t.Error("the dead one still has its place")
			}
		})
	}
}

// A connection alone keeps its place, too, where nothing is provided and nothing asked.
func TestAudit_USE25_AnOpenConnectionIsASignOfLife(t *testing.T) {
	t.Parallel()
	host := start(t, instances(1, connectplugin.HealthProbeConfig{Disabled: true}))
	first, err := born(t, host, "api", false)
	if err != nil {
		t.Fatal(err)
	}
	id := first.client.RuntimeID()
	if err := first.client.ReportHealth(t.Context(), healthy, "", nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := born(t, host, "api", false); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("a second: %v, want the limit", err)
		}
	}
	if err := first.client.ReportHealth(t.Context(), healthy, "", nil); err != nil || first.client.RuntimeID() != id {
		t.Errorf("the first lost its place: %v", err)
	}
	first.crash()
	hosttest.Eventually(t, "the next life", func() bool { _, err := born(t, host, "api", false); return err == nil })
}

// Another proof of the same self id is no other life of the plugin.
func TestAudit_USE25_OnlyTheSameProofSucceeds(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) {
		p := c.Policy.Plugins["api"]
		p.Secret, p.AllowUnproven, p.MaxInstances = nil, true, 1
		c.Policy.Plugins["api"] = p
	})
	cfg := host.ClientConfig(t, "api")
	cfg.Secret = nil
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := hosttest.EnrolOnce(t.Context(), cfg); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("who proves nothing took a place: %v", err)
		}
	}
}

// Neither is one that proves the self id by a secret the next life of one that did by its
// certificate; whoever has that certificate is.
func TestAudit_USE25_AnotherGoodProofDoesNotSucceed(t *testing.T) {
	t.Parallel()
	var demands atomic.Bool // a secret
	host := start(t, func(c *connectplugin.ServeConfig) {
		instances(1, connectplugin.HealthProbeConfig{Disabled: true})(c)
		api := c.Policy.Plugins["api"]
		api.Secret = nil
		c.Policy.Plugins["api"] = api
		c.HandshakeAuth.Secret = func(string) connectplugin.Secret {
			if demands.Load() {
				return hosttest.Secret
			}
			return nil
		}
	})
	byCertificate, bySecret := host.ClientConfig(t, "api"), host.ClientConfig(t, "api")
	var err error
	if byCertificate.TLS, err = host.Authority.PluginTLS("api"); err != nil {
		t.Fatal(err)
	}
	byCertificate.Secret = nil
	dies := func(cfg connectplugin.ClientConfig) error {
		hosttest.Eventually(t, "nobody is connected", func() bool { open, _ := host.Connections(); return open == 0 })
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := c.Connect(t.Context()); err != nil {
			return err
		}
		return c.ReportHealth(t.Context(), healthy, "", nil)
	}
	if err := dies(byCertificate); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "the same proof takes the place", func() bool { return dies(byCertificate) == nil })
	demands.Store(true)
	for range 3 {
		if err := dies(bySecret); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("another proof took the place: %v", err)
		}
	}
	demands.Store(false)
	hosttest.Eventually(t, "the place is there", func() bool { return dies(byCertificate) == nil })
}

// An identity that shows no life ends with its lease, a caller's too; a call now and then,
// or an open stream, keeps it.
func TestAudit_USE25_TheLeaseOfCallers(t *testing.T) {
	t.Parallel()
	const lease = 2 * time.Second
	host := start(t, instances(10, connectplugin.HealthProbeConfig{Interval: 100 * time.Millisecond, Lease: lease}))
	dead, err := born(t, host, "api", false)
	if err != nil {
		t.Fatal(err)
	}
	id := dead.client.RuntimeID()
	quiet, err := born(t, host, "api", false) // makes no call of its own accord
	if err != nil {
		t.Fatal(err)
	}
	raw := host.Stranger(t)
	watching := caller(t, host)
	w := hosttest.Watch(t, watching, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: echoType})
	w.Next(t)
	dead.crash()
	keeps := quiet.client.RuntimeID()
	hosttest.Eventually(t, "the dead one ends", func() bool {
		for _, e := range host.Audit.Events() {
			if e.Kind == connectplugin.AuditEnded && e.RuntimeID == id && e.Reason == "silent" {
				return true
			}
		}
		return false
	})
	if quiet.client.RuntimeID() != keeps || hosttest.ReportWith(t, raw, host.URL, keeps, quiet.client.RuntimeToken()) != 0 {
		t.Error("a client that lives and makes no calls lost its identity")
	}
	if code := w.Code(hosttest.Moment); code != 0 {
		t.Errorf("the watch ended: %v", code)
	}
}

// A plugin that is killed and started again is preferred over its ghost, whatever the host
// has noticed of that, as often as it happens; two that live keep their order.
func TestAudit_USE43_TheLivingBeforeTheDead(t *testing.T) {
	t.Parallel()
	for name, probe := range map[string]connectplugin.HealthProbeConfig{
		"asked": {Interval: time.Hour, Lease: 3 * time.Hour}, "not asked": {Disabled: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t, instances(20, probe))
			api := caller(t, host)
			conn, err := api.Service(t.Context(), echoType, "")
			if err != nil {
				t.Fatal(err)
			}
			for round := range 5 {
				l, err := born(t, host, "provider", true)
				if err != nil {
					t.Fatal(err)
				}
				hosttest.Eventually(t, fmt.Sprintf("round %d: the living is called", round), func() bool {
					found, err := hosttest.Discover(t, api, echoType, "")
					return err == nil && found.GetEndpoint().GetProviderId() == l.client.RuntimeID() && once(t.Context(), conn) == nil
				})
				l.crash()
			}
			ghost, err := born(t, host, "provider", true)
			if err != nil {
				t.Fatal(err)
			}
			next, err := born(t, host, "provider", true)
			if err != nil {
				t.Fatal(err)
			}
			ghost.crash() // which the host notices after the next life has registered
			hosttest.Eventually(t, "the next life is called", func() bool {
				found, err := hosttest.Discover(t, api, echoType, "")
				return err == nil && found.GetEndpoint().GetProviderId() == next.client.RuntimeID()
			})
			next.crash()
			first, err := born(t, host, "provider", true)
			if err != nil {
				t.Fatal(err)
			}
			hosttest.Eventually(t, "the first is called", func() bool {
				found, err := hosttest.Discover(t, api, echoType, "")
				return err == nil && found.GetEndpoint().GetProviderId() == first.client.RuntimeID()
			})
			if _, err = born(t, host, "provider", true); err != nil {
				t.Fatal(err)
			}
			time.Sleep(hosttest.Moment) // until it would have been asked
			if found, err := hosttest.Discover(t, api, echoType, ""); err != nil || found.GetEndpoint().GetProviderId() != first.client.RuntimeID() {
				t.Errorf("of two that live the second was preferred: %v, %v", found, err)
			}
		})
	}
}

// What was doubted and shows life is what it was.
func TestAudit_USE43_DoubtEndsWithASignOfLife(t *testing.T) {
	t.Parallel()
	host := start(t, instances(20, connectplugin.HealthProbeConfig{Disabled: true}))
	api := caller(t, host)
	first, err := born(t, host, "provider", true)
	if err != nil {
		t.Fatal(err)
	}
	id, token := first.client.RuntimeID(), first.client.RuntimeToken()
	_ = first.client.Close() // it lives on, and has no connection
	current := func(want string) func() bool {
		return func() bool {
			found, err := hosttest.Discover(t, api, echoType, "")
			return err == nil && found.GetEndpoint().GetProviderId() == want
		}
	}
	hosttest.Eventually(t, "the second comes first", func() bool {
		second, err := born(t, host, "provider", true)
		return err == nil && current(second.client.RuntimeID())()
	})
	if code := hosttest.ReportAs(t, host.Host, id, token); code != 0 {
		t.Fatal(code)
	}
	hosttest.Eventually(t, "the first is back", current(id))
}
