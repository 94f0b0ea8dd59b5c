package attack_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// ofKind returns the events of a kind.
func ofKind(host *hosttest.Host, kind connectplugin.AuditKind) []connectplugin.AuditEvent {
	var found []connectplugin.AuditEvent
	for _, e := range host.Audit.Events() {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

// vague is an auth provider that does not say whether there was a credential.
type vague struct{ connectplugin.AuthProvider }

func (vague) ServerInterceptor() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			if r.Header().Get("Authorization") != "Basic Zm9vOmJhcg==" {
				return nil, errors.New("no, or wrong")
			}
			return next(connectplugin.WithAuthContext(ctx, &connectplugin.AuthContext{Identity: "foo"}), r)
		}
	}
}

// Who guesses at a credential with handshakes that ask for no identity is in the audit: once,
// and then counted. Who has none, or a good one, is not.
func TestAudit_OWN21_GuessesInAnonymousHandshakesAreAudited(t *testing.T) {
	t.Parallel()
	key := connectplugin.NewAPIKeyAuth("", func(key string) (string, map[string]string, error) {
		if key != "let-me-in" {
			return "", nil, errors.New("unknown key")
		}
		return "operator", nil, nil
	})
	for name, c := range map[string]struct {
		providers         []connectplugin.AuthProvider
		good, none, wrong http.Header
	}{
		"a provider of ours": {
			providers: []connectplugin.AuthProvider{key},
			good:      http.Header{"X-Api-Key": {"let-me-in"}}, wrong: http.Header{"X-Api-Key": {"guess"}},
		},
		"one that does not tell": {
			providers: []connectplugin.AuthProvider{vague{}},
			good:      http.Header{"Authorization": {"Basic Zm9vOmJhcg=="}}, wrong: http.Header{"Authorization": {"Basic eDp5"}},
		},
		"a cookie to one that does not tell": {
			providers: []connectplugin.AuthProvider{vague{}},
			good:      http.Header{"Authorization": {"Basic Zm9vOmJhcg=="}}, wrong: http.Header{"Cookie": {"session=guess"}},
		},
		"a token out of a log": {providers: []connectplugin.AuthProvider{key}, good: http.Header{"X-Api-Key": {"let-me-in"}}},
		"a token, no provider": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy, cfg.AuthProviders = hosttest.LoggerPolicy(), c.providers
			})
			wrong := c.wrong
			if wrong == nil {
				wrong = http.Header{"Authorization": {"Bearer " + host.Enrol(t, "logger", nil).RuntimeToken()}}
			}
			shake := func(h http.Header) {
				t.Helper()
				client := connectpluginv1connect.NewHandshakeServiceClient(withHeader{host.Stranger(t), h}, host.URL)
				if _, err := client.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest(""))); err != nil {
					t.Errorf("an anonymous handshake: %v", err)
				}
			}
			shake(c.good)
			shake(c.none)
			if events := ofKind(host, connectplugin.AuditAuthFailed); len(events) != 0 {
				t.Errorf("honest handshakes are in the audit: %+v", events)
			}
			for range 5 {
				shake(wrong)
			}
			host.Stop(t)
			events := ofKind(host, connectplugin.AuditAuthFailed)
			if len(events) != 2 || events[0].Peer == "" || !strings.Contains(events[0].Reason, "without self id") || events[1].Count != 4 {
				t.Errorf("five guesses: %+v, want one event, and one that counts four", events)
			}
		})
	}
}

// offer registers a type of a plugin that stands by.
func offer(t *testing.T, c *connectplugin.Client, serviceType string, standby bool) error {
	t.Helper()
	m := &connectpluginv1.RegisterServiceRequest{ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/" + serviceType + "/"}
	if standby {
		m.Metadata = map[string]string{"standby": "true"}
	}
	return hosttest.RegisterWith(t, c, m)
}

// Who stands by keeps nobody from providing, and others who stand by are bounded as those who
// provide are. What waits takes its place when it stops waiting, if there is one.
func TestAudit_OWN22_StandbysKeepNobodyOut(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*connectplugin.Limits){
		"of the type": func(l *connectplugin.Limits) { l.MaxRegistrationsPerType = 3 },
		"in all":      func(l *connectplugin.Limits) { l.MaxRegistrations = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = hosttest.Rights(map[string][2][]string{"hostile": {{"store"}, nil}, "honest": {{"store"}, nil}})
				c.Policy.AllowMultiple = []string{"store"}
				edit(&c.Limits)
			})
			enrol := func(selfID string) *connectplugin.Client { return host.Enrol(t, selfID, hosttest.Providing("store")) }
			if err := offer(t, enrol("honest"), "store", false); err != nil {
				t.Fatal(err)
			}
			var waiting []*connectplugin.Client
			for i := range 4 {
				c := enrol("hostile")
				waiting = append(waiting, c)
				if err := offer(t, c, "store", true); (err == nil) != (i < 3) {
					t.Errorf("standby %d: %v", i, err)
				} else if i >= 3 && connect.CodeOf(err) != connect.CodeResourceExhausted {
					t.Errorf("one too many: %v", err)
				}
			}
			if err := offer(t, waiting[0], "store", true); err != nil {
				t.Errorf("again in its own place: %v", err)
			}
			for i := range 2 {
				if err := offer(t, enrol("honest"), "store", false); err != nil {
					t.Errorf("another provider %d: %v", i, err)
				}
			}
			if err := offer(t, waiting[0], "store", false); connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Errorf("who waited provides beyond the bound: %v", err)
			}
		})
	}
}
