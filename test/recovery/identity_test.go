package recovery_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
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
