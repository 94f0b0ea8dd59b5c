package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// never is longer than any test.
const never = time.Hour

// A program that only calls has a new identity with its first call after the host lost
// the old one, and the call succeeds, of whatever kind it is.
func TestAudit_USE21_ACallObtainsANewIdentity(t *testing.T) {
	t.Parallel()
	lose := map[string]func(*testing.T, *hosttest.Restartable, *connectplugin.Client){
		"revoked": func(t *testing.T, host *hosttest.Restartable, c *connectplugin.Client) {
			t.Helper()
			if !host.Revoke(c.RuntimeID()) {
				t.Fatal("there was nothing to revoke")
			}
		},
		"host restarted": func(t *testing.T, host *hosttest.Restartable, _ *connectplugin.Client) {
			t.Helper()
			host.Kill(t)
			host.Restart(t)
		},
	}
	calls := map[string]func(context.Context, *connectplugin.Client) error{
		"report": func(ctx context.Context, c *connectplugin.Client) error { return c.ReportHealth(ctx, healthy, "", nil) },
		"watch": func(ctx context.Context, c *connectplugin.Client) error {
			stream, err := c.RegistryClient().WatchService(ctx,
				connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "other"}))
			if err == nil {
				stream.Receive()
				err = stream.Err()
				_ = stream.Close()
			}
			return err
		},
		"service": func(ctx context.Context, c *connectplugin.Client) error {
			conn, err := c.Service(ctx, "other", "")
			if err == nil {
				conn.Close()
			}
			return err
		},
	}
	for how, lose := range lose {
		for name, call := range calls {
			t.Run(how+"/"+name, func(t *testing.T) {
				t.Parallel()
				host := start(t, nil)
				c := caller(t, host)
				before := c.RuntimeID()
				lose(t, host, c)
				if err := call(t.Context(), c); err != nil {
					t.Errorf("%v", err)
				}
				if c.RuntimeID() == before {
					t.Error("the identity is the old one")
				}
			})
		}
	}
}

// The first call to a provider succeeds too, unary or a stream of which something was
// sent, in every protocol.
func TestAudit_USE21_ARoutedCallIsRepeated(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	provide(t, host)
	c := caller(t, host)
	conn := service(t, c)
	for protocol, opt := range protocols() {
		for kind, call := range map[string]func(context.Context, reachable, ...connect.ClientOption) error{"unary": once, "bidi": back} {
			if !host.Revoke(c.RuntimeID()) {
				t.Fatal("there was nothing to revoke")
			}
			if err := call(t.Context(), conn, opt); err != nil {
				t.Errorf("%s %s: %v", protocol, kind, err)
			}
		}
	}
}

// However many notice that the identity was lost, the client asks for one new one.
func TestAudit_USE41_OneIdentityForAllThatNotice(t *testing.T) {
	t.Parallel()
	const watches, calls = 20, 20
	host := start(t, nil)
	c := caller(t, host)
	states := make(chan connectpluginv1.ServiceState, 2*watches)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for range watches {
		watching.Go(func() {
			for e, err := range c.WatchService(ctx, echoType) {
				if err == nil {
					states <- e.State
				}
			}
		})
	}
	next := func(want connectpluginv1.ServiceState) {
		t.Helper()
		for range watches {
			if got := <-states; got != want {
				t.Errorf("a watch has %v, want %v", got, want)
			}
		}
	}
	next(unavailable)
	for round := range 3 {
		before := count(host, connectplugin.AuditIssued, "api")
		if !host.Revoke(c.RuntimeID()) {
			t.Fatal("there was nothing to revoke")
		}
		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				if err := c.ReportHealth(t.Context(), healthy, "", nil); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
		if n := count(host, connectplugin.AuditIssued, "api") - before; n != 1 {
			t.Errorf("round %d: %d identities, want 1", round, n)
		}
	}
	provider := provide(t, host)
	next(available) // every watch goes on, and is the current identity's
	if ids, again := count(host, connectplugin.AuditIssued, "api"), count(host, connectplugin.AuditRenewed, "api"); ids != 4 || again != 0 {
		t.Errorf("%d identities in all and %d renewals, want 4 and none", ids, again)
	}
	provider.Stop(t)
	next(unavailable)
}

// A call whose identity the host loses again, each time before it does anything, fails as
// unavailable: who called is not to learn of identities. The next call begins anew.
func TestAudit_USE41_WhoLosesEachIdentityHearsOfNone(t *testing.T) {
	t.Parallel()
	host := hosttest.StartHostileHost(t, nil)
	c := host.Client(t, nil)
	var handshakes, asked atomic.Int32
	host.Answer(hosttest.HandshakePath, func(w http.ResponseWriter, _ *http.Request) {
		id := fmt.Sprintf("api-0123456789abcdefghijkl%04d", handshakes.Add(1))
		body, _ := proto.Marshal(hosttest.Welcome(func(m *connectpluginv1.HandshakeResponse) { m.RuntimeId = id }))
		w.Header().Set("Content-Type", "application/proto")
		_, _ = w.Write(body)
	})
	const loses = 3 // as often as a call is made
	host.Answer(connectpluginv1connect.PluginLifecycleReportHealthProcedure, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if asked.Add(1) <= loses {
			w.Header().Set("Www-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"code":"unauthenticated"}`)
			return
		}
		w.Header().Set("Content-Type", "application/proto")
	})
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.ReportHealth(t.Context(), healthy, "", nil); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("after %d losses: %v, want unavailable", asked.Load(), err)
	}
	if err := c.ReportHealth(t.Context(), healthy, "", nil); err != nil {
		t.Errorf("the next call: %v", err)
	}
	if n, h := asked.Load(), handshakes.Load(); n != loses+1 || h != loses+1 {
		t.Errorf("%d calls and %d handshakes, want %d each", n, h, loses+1)
	}
}

// A host that comes back is asked by a client about an identity that it does not know
// once, not by each of its watches, and sees two connections of it at most.
func TestAudit_USE42_NothingIsRepeatedWithARefusedToken(t *testing.T) {
	t.Parallel()
	const watches = 20
	host := start(t, nil)
	c := caller(t, host)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	states := make(chan connectpluginv1.ServiceState, 2*watches)
	for range watches {
		watching.Go(func() {
			for e, err := range c.WatchService(ctx, echoType) {
				if err == nil {
					states <- e.State
				}
			}
		})
	}
	for range watches {
		<-states
	}
	for round := range 3 {
		host.Kill(t)
		host.Restart(t)
		for range watches {
			<-states // the new host's first state
		}
		issued, renewed := count(host, connectplugin.AuditIssued, ""), count(host, connectplugin.AuditRenewed, "")
		_, ever := host.Connections()
		if issued != 1 || renewed != 0 || ever > 2 {
			t.Errorf("round %d: %d identities, %d renewals, %d connections; want 1, none and at most 2", round, issued, renewed, ever)
		}
	}
	host.Kill(t) // and the audit has what was counted
	if n := unknown(host); n > 1 {
		t.Errorf("%d requests with a token that the host does not know, want 1 at most", n)
	}
}

// unknown returns how many requests a host had with identities that it did not know.
func unknown(host *hosttest.Restartable) (n int) {
	for _, e := range host.Audit.Events() {
		if e.Kind == connectplugin.AuditUnknownIdentity {
			n += max(e.Count, 1)
		}
	}
	return n
}

// A provider with many watches whose identity the host lost has all that it registers, at
// whatever moment, under the one identity that it has then: to revoke that, or to leave, takes
// everything out of service.
func TestAudit_USE41_AllThatAProviderHasEndsWithItsIdentity(t *testing.T) {
	t.Parallel()
	const watches = 20
	types := []string{"one", "two", "three", "four"}
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Policy.Plugins["provider"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Provides, p.Requires = types, []string{"other"}
		})
	})
	c := host.Enrol(t, "provider", hosttest.Declaring(types, []string{"other"}))
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	for range watches {
		watching.Go(func() {
			for range c.WatchService(ctx, "other") {
			}
		})
	}
	for _, lost := range []string{"not yet", "revoked", "host killed", "revoked", "host killed"} {
		switch lost {
		case "revoked":
			host.Revoke(c.RuntimeID())
		case "host killed":
			host.Kill(t)
			host.Restart(t)
		}
		registerAll(t, c, types)
		provided(t, host, types, c.RuntimeID())
		if !host.Revoke(c.RuntimeID()) {
			t.Errorf("%s: there was nothing to revoke", lost)
		}
		provided(t, host, types, "")
	}
	registerAll(t, c, types)
	if err := c.Leave(t.Context()); err != nil {
		t.Errorf("Leave: %v", err)
	}
	provided(t, host, types, "")
	if all := host.Plugins(); len(all) != 0 {
		t.Errorf("after it left: %+v", all)
	}
}

// registerAll registers all types at once, and those again that the loss of the host cut off.
func registerAll(t *testing.T, c *connectplugin.Client, types []string) {
	t.Helper()
	errs := make([]error, len(types))
	for i := range errs {
		errs[i] = connect.NewError(connect.CodeUnavailable, nil)
	}
	hosttest.Eventually(t, "all are registered", func() bool {
		var all sync.WaitGroup
		for i, serviceType := range types {
			if connect.CodeOf(errs[i]) == connect.CodeUnavailable {
				all.Go(func() { _, errs[i] = hosttest.Register(t, c, serviceType, "1.0.0") })
			}
		}
		all.Wait()
		return !slices.ContainsFunc(errs, func(err error) bool { return connect.CodeOf(err) == connect.CodeUnavailable })
	})
	if err := errors.Join(errs...); err != nil {
		t.Errorf("%v", err)
	}
}

// provided demands that one plugin provides all the types, or that nobody does.
func provided(t *testing.T, host *hosttest.Restartable, types []string, runtimeID string) {
	t.Helper()
	for _, serviceType := range types {
		all := host.Registry().GetAllProviders(serviceType)
		switch {
		case runtimeID == "" && len(all) > 0:
			t.Errorf("%q is still provided by %s", serviceType, all[0].RuntimeID)
		case runtimeID != "" && (len(all) != 1 || all[0].RuntimeID != runtimeID):
			t.Errorf("%q has %d providers, want one, %s", serviceType, len(all), runtimeID)
		}
	}
}
