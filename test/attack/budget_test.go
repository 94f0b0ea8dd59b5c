package attack_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	texts "github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// stale is the identity of a program whose host was restarted.
func stale() http.Header {
	return hosttest.IdentityHeader("api-"+strings.Repeat("a", 26), strings.Repeat("A", 43))
}

const fewHandshakes = 5

// newShared starts a host whose plugins are all on one address, of which each budget holds
// five and regains nothing.
func newShared(t *testing.T, edit func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){
			"storage": withSecret, "api": withSecret, "certified": nil, "loose": unproven, "many": withSecret,
		})
		c.Limits = connectplugin.Limits{HandshakesPerSecond: 1e-9, HandshakeBurst: fewHandshakes}
		if edit != nil {
			edit(c)
		}
	})
}

// refusals are what a program on the address does wrong, by what it does.
func refusals(t *testing.T, host *hosttest.Host) map[string]func() (*http.Response, error) {
	t.Helper()
	client := host.Stranger(t)
	post := func(path, contentType string, header http.Header) func() (*http.Response, error) {
		return func() (*http.Response, error) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+path, strings.NewReader(""))
			if err != nil {
				return nil, err
			}
			r.Header = header.Clone()
			r.Header.Set("Content-Type", contentType)
			return client.Do(r)
		}
	}
	wrong := hosttest.IdentityHeader("nobody", "nothing")
	return map[string]func() (*http.Response, error){
		"a stale token, unary":      post(connectpluginv1connect.PluginLifecycleReportHealthProcedure, "application/proto", stale()),
		"a stale token, unary gRPC": post(connectpluginv1connect.PluginLifecycleReportHealthProcedure, "application/grpc", stale()),
		"a stale token, unary Web":  post(connectpluginv1connect.PluginLifecycleReportHealthProcedure, "application/grpc-web+proto", stale()),
		"a stale token, streaming":  post(connectpluginv1connect.ServiceRegistryWatchServiceProcedure, "application/connect+proto", stale()),
		"a stale token, gRPC":       post(connectpluginv1connect.ServiceRegistryWatchServiceProcedure, "application/grpc", stale()),
		"a stale token, gRPC-Web":   post(connectpluginv1connect.ServiceRegistryWatchServiceProcedure, "application/grpc-web+proto", stale()),
		"a stale token, routed":     post("/services/echo/x/Say", "application/proto", stale()),
		"a stale renewal":           post(hosttest.HandshakePath, "application/proto", stale()),
		"a wrong token":             post(connectpluginv1connect.PluginLifecycleReportHealthProcedure, "application/proto", wrong),
		"a wrong grant":             post("/capabilities/echo/x/Say", "application/proto", http.Header{"Authorization": {"Bearer x"}}),
		"nothing":                   post("/services/echo/x/Say", "application/proto", http.Header{}),
	}
}

// A refusal keeps its code, however often a program on the address earns it, and says that
// another credential would do.
func TestAudit_USE20_ARefusalKeepsItsCode(t *testing.T) {
	t.Parallel()
	host := newShared(t, nil)
	for name, refused := range refusals(t, host) {
		for n := range 4 * fewHandshakes {
			resp, err := refused()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_ = resp.Body.Close()
			code := resp.StatusCode
			if status := resp.Header.Get("Grpc-Status"); status != "" && status != "16" || status == "" && code != http.StatusUnauthorized && code != http.StatusOK {
				t.Fatalf("%s: request %d: status %d, grpc-status %q", name, n, code, status)
			}
			if resp.Header.Get("WWW-Authenticate") == "" {
				t.Fatalf("%s: request %d has no challenge", name, n)
			}
		}
	}
	proved := wire.Dial(t, host)
	for n := range 4 * fewHandshakes {
		if code := proved.Handshake(t, wire.Prove(t, wire.FreshRequest("storage"), make([]byte, 32), nil)); code != connect.CodeUnauthenticated {
			t.Fatalf("wrong proof %d: %v", n, code)
		}
		if code := proved.Handshake(t, hosttest.OldRequest("nobody")); code != connect.CodeUnauthenticated {
			t.Fatalf("unknown self id %d: %v", n, code)
		}
	}
	wantAllIn(t, host)
}

// wantAllIn enrols a plugin in each way to prove itself, from the address.
func wantAllIn(t *testing.T, host *hosttest.Host) {
	t.Helper()
	for selfID, cfg := range honest(t, host) {
		if _, err := hosttest.EnrolOnce(t.Context(), cfg); err != nil {
			t.Errorf("%s: %v", selfID, err)
		}
	}
}

func honest(t *testing.T, host *hosttest.Host) map[string]connectplugin.ClientConfig {
	t.Helper()
	certified := host.ClientConfig(t, "certified")
	certified.Secret = nil
	var err error
	if certified.TLS, err = host.Authority.PluginTLS("certified"); err != nil {
		t.Fatal(err)
	}
	loose := host.ClientConfig(t, "loose")
	loose.Secret = nil
	return map[string]connectplugin.ClientConfig{"storage": host.ClientConfig(t, "storage"), "certified": certified, "loose": loose}
}

// Whoever uses up what an address may do without a proof keeps out nobody who has one.
func TestAudit_ATK12_WhatIsProvenPaysForItself(t *testing.T) {
	t.Parallel()
	host := newShared(t, nil)
	storage := host.Enrol(t, "storage", nil)
	id := storage.RuntimeID()
	flood := hosttest.HandshakeClient(t, host)
	limited := 0
	for range 4 * fewHandshakes {
		_, err := flood.Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("loose")))
		if connect.CodeOf(err) == connect.CodeResourceExhausted {
			limited++
		}
	}
	if limited != 3*fewHandshakes {
		t.Errorf("%d of %d unproven handshakes were limited", limited, 4*fewHandshakes)
	}
	cfgs := honest(t, host)
	delete(cfgs, "loose")
	for selfID, cfg := range cfgs {
		if _, err := hosttest.EnrolOnce(t.Context(), cfg); err != nil {
			t.Errorf("%s: %v", selfID, err)
		}
	}
	for n := range fewHandshakes {
		if err := storage.Connect(t.Context()); err != nil {
			t.Fatalf("renewal %d: %v", n, err)
		}
	}
	// Renewals are its own, too: it spends nobody else's.
	if err := storage.Connect(t.Context()); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a renewal too many: %v", err)
	}
	if code := hosttest.ReportAs(t, host, storage.RuntimeID(), storage.RuntimeToken()); code != 0 || storage.RuntimeID() != id {
		t.Errorf("its report: %v, as %s, enrolled as %s", code, storage.RuntimeID(), id)
	}
	if err := host.Enrol(t, "api", nil).Connect(t.Context()); err != nil {
		t.Errorf("the renewal of another: %v", err)
	}
}

// Behind one address any number of plugins enrols that can prove who they are, of one self
// id as many as it may have instances, and those that cannot are bounded.
func TestAudit_USE20_ManyPluginsBehindOneAddress(t *testing.T) {
	t.Parallel()
	const many = 8 * fewHandshakes
	host := newShared(t, func(c *connectplugin.ServeConfig) {
		c.Limits.MaxIdentitiesPerPeer = fewHandshakes
		p := c.Policy.Plugins["many"]
		p.MaxInstances = many
		c.Policy.Plugins["many"] = p
		for _, name := range names(many) {
			c.Policy.Plugins[name] = c.Policy.Plugins["storage"]
		}
	})
	conn := wire.Dial(t, host)
	for n, name := range names(many) {
		if code := conn.Handshake(t, conn.Prove(t, wire.FreshRequest("many"), true)); code != 0 {
			t.Fatalf("instance %d: %v", n, code)
		}
		if code := conn.Handshake(t, conn.Prove(t, wire.FreshRequest(name), true)); code != 0 {
			t.Fatalf("%s: %v", name, code)
		}
	}
	if code := conn.Handshake(t, conn.Prove(t, wire.FreshRequest("many"), true)); code != connect.CodeResourceExhausted {
		t.Errorf("an instance too many: %v", code)
	}
	for n := range 2 * fewHandshakes {
		want := connect.Code(0)
		if n >= fewHandshakes {
			want = connect.CodeResourceExhausted
		}
		if code := conn.Handshake(t, hosttest.OldRequest("loose")); code != want {
			t.Errorf("unproven handshake %d: %v, want %v", n, code, want)
		}
	}
	if code := conn.Handshake(t, conn.Prove(t, wire.FreshRequest("storage"), true)); code != 0 {
		t.Errorf("proven, where those that are not have used their share up: %v", code)
	}
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "plugin-" + strings.Repeat("x", i+1)
	}
	return out
}

// Handshakes whose message does not come hold nobody up, however many there are.
func TestAudit_ATK12_UnfinishedHandshakesMakeRoom(t *testing.T) {
	t.Parallel()
	host := newShared(t, func(c *connectplugin.ServeConfig) { c.Limits.CallTimeout = time.Hour })
	const connections, each = 5, 220
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, connections*each)
	for range connections {
		client := host.Stranger(t)
		if resp, err := client.Get(host.URL + "/healthz"); err != nil || resp.Body.Close() != nil {
			t.Fatal(err) // the connection on which they all are
		}
		for range each {
			body, unfinished := io.Pipe()
			t.Cleanup(func() { _ = unfinished.Close() })
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, host.URL+hosttest.HandshakePath, body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/proto")
			go func() {
				resp, err := client.Do(r)
				if err == nil {
					_ = resp.Body.Close()
				}
				done <- err
			}()
		}
	}
	hosttest.Arrival(t, done) // one that was there for long had to make room
	wantAllIn(t, host)
	cancel()
	for range connections*each - 1 {
		hosttest.Arrival(t, done)
	}
}

// A plugin that enrols anew is told of no more than one that stays: one by one as often as one identity is, and then as
// a number; and so is one that proves nothing and takes another name each time.
func TestAudit_ATK14_WhoEnrolsAnewFillsNoAudit(t *testing.T) {
	t.Parallel()
	const lives, singly, refused = 6, 8, 4
	for name, selfID := range map[string]func(life int) string{
		"one that is known":     func(int) string { return "known" },
		"one of any other name": func(life int) string { return "any-" + strconv.Itoa(life) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = connectplugin.OpenPolicy()
				c.Policy.Plugins = map[string]connectplugin.PluginPolicy{"known": hosttest.Allow(nil)}
				c.Limits = connectplugin.Limits{HandshakesPerSecond: 1e-9, HandshakeBurst: singly, MaxFieldBytes: 200}
			})
			for life := range lives {
				c := host.Enrol(t, selfID(life), func(c *connectplugin.ClientConfig) {
					if selfID(life) != "known" {
						c.Secret = nil
					}
				})
				for i := range refused + 1 {
					serviceType := "undeclared"
					if i == refused {
						serviceType = strings.Repeat("x", 201)
					}
					_, err := c.RegistryClient().DiscoverService(t.Context(),
						connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: serviceType}))
					if err == nil {
						t.Fatal("it is served")
					}
				}
				_ = c.Close()
			}
			host.Stop(t) // which says what was counted
			denied, counted, bound, last := 0, 0, 0, 0
			for _, e := range host.Audit.Events() {
				switch {
				case e.Kind == connectplugin.AuditDenied:
					denied++
				case e.Kind == connectplugin.AuditLimited && strings.Contains(e.Reason, "MaxFieldBytes"):
					bound++
					last = e.Count
				case e.Kind == connectplugin.AuditLimited:
					counted += max(e.Count, 1)
					if e.SelfID == "" || e.RuntimeID == "" || e.Peer == "" {
						t.Errorf("it does not say who was the last: %v", e)
					}
				}
			}
			if denied != singly || counted != lives*refused-singly {
				t.Errorf("%d are told one by one and %d as a number, want %d and %d", denied, counted, singly, lives*refused-singly)
			}
			if bound != 2 || last != lives-1 {
				t.Errorf("the bound is told %d times, at last as %d", bound, last)
			}
		})
	}
}

// A plugin that enrols anew finds the budgets as it left them: each of its instances has its own, and so has nobody else.
func TestAudit_ATK14_WhoEnrolsAnewFillsNoBudget(t *testing.T) {
	t.Parallel()
	const lives, most = 5, 8
	never := func(l *connectplugin.Limits) { l.HandshakesPerSecond, l.HandshakeBurst = 1e-9, 1_000 }
	for name, tt := range map[string]struct {
		limits func(l *connectplugin.Limits)
		act    func(t *testing.T, c *connectplugin.Client) error
	}{
		"requests": {
			limits: func(l *connectplugin.Limits) { l.RequestsPerSecond, l.RequestBurst = 1e-9, most },
			act: func(t *testing.T, c *connectplugin.Client) error {
				_, err := c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "none"}))
				if code := connect.CodeOf(err); code == connect.CodePermissionDenied || code == connect.CodeNotFound {
					return nil
				}
				return err
			},
		},
		"changes": {
			limits: func(l *connectplugin.Limits) { l.ChangesPerSecond, l.ChangeBurst = 1e-9, most },
			act: func(t *testing.T, c *connectplugin.Client) error {
				return c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
			},
		},
		"renewals": {
			limits: func(l *connectplugin.Limits) { l.HandshakeBurst = most },
			act:    func(t *testing.T, c *connectplugin.Client) error { return c.Connect(t.Context()) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"greedy": hosttest.Allow(nil), "modest": hosttest.Allow(nil)}}
				never(&c.Limits)
				tt.limits(&c.Limits)
			})
			spend := func(c *connectplugin.Client) (served int) {
				for range most {
					switch err := tt.act(t, c); connect.CodeOf(err) {
					case connect.CodeResourceExhausted:
						return served
					default:
						if err != nil {
							t.Fatal(err)
						}
						served++
					}
				}
				return served
			}
			served := 0
			for range lives {
				c := host.Enrol(t, "greedy", nil)
				served += spend(c)
				if !host.Revoke(c.RuntimeID()) {
					t.Fatal("it had ended before")
				}
			}
			if served != most {
				t.Errorf("%d are served in %d lives, want %d", served, lives, most)
			}
			first, second := host.Enrol(t, "greedy", nil), host.Enrol(t, "greedy", nil)
			if n := spend(second); n != most {
				t.Errorf("of another instance beside it %d are served, want %d", n, most)
			}
			if n := spend(first); n != 0 {
				t.Errorf("%d more are served", n)
			}
			if n := spend(host.Enrol(t, "modest", nil)); n != most {
				t.Errorf("of another plugin %d are served, want %d", n, most)
			}
		})
	}
}

// All instances of a plugin together are served as many requests as four of them, however many they are, and another
// plugin has its own.
func TestAudit_ATK14_ManyInstancesHaveAsMuchAsFour(t *testing.T) {
	t.Parallel()
	const instances, fleet, most = 11, 4, 8
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"greedy": hosttest.Allow(nil), "modest": hosttest.Allow(nil)}}
		c.Limits = connectplugin.Limits{HandshakesPerSecond: 1_000, RequestsPerSecond: 1e-9, RequestBurst: most}
	})
	served := func(selfID string) (n int) {
		c := host.Enrol(t, selfID, nil)
		for range most {
			_, err := c.RegistryClient().DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "none"}))
			if connect.CodeOf(err) != connect.CodeResourceExhausted {
				n++
			}
		}
		return n
	}
	all := 0
	for i := range instances {
		n := served("greedy")
		if all += n; i < fleet && n != most {
			t.Errorf("of instance %d %d requests are served, want %d", i, n, most)
		}
	}
	if all != fleet*most {
		t.Errorf("of %d instances %d requests are served, want %d", instances, all, fleet*most)
	}
	if n := served("modest"); n != most {
		t.Errorf("of another plugin %d are served, want %d", n, most)
	}
}

// So it does with the bytes that its connections carry, and with what it was refused.
func TestAudit_ATK14_WhoEnrolsAnewFillsNoPurse(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, limits connectplugin.Limits) *hosttest.Host {
		return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
			c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"greedy": hosttest.Allow(nil), "modest": hosttest.Allow(nil)}}
			limits.HandshakesPerSecond, limits.HandshakeBurst = 1e-9, 1_000
			c.Limits = limits
		})
	}
	t.Run("bytes", func(t *testing.T) {
		t.Parallel()
		host := start(t, connectplugin.Limits{BytesPerSecond: 1 << 10, BytesBurst: 256 << 10})
		served := func(c *connectplugin.Client) (n int) {
			for ; ; n++ {
				r := connect.NewRequest(&connectpluginv1.HealthCheckRequest{})
				r.Header().Set("X-Large", strings.Repeat("~", 8<<10))
				_, err := connectpluginv1connect.NewHealthServiceClient(c.HTTPClient(), host.URL).Check(t.Context(), r)
				if connect.CodeOf(err) == connect.CodeResourceExhausted {
					return n
				}
				if err != nil || n > 100 {
					t.Fatalf("call %d: %v", n, err)
				}
			}
		}
		first := host.Enrol(t, "greedy", nil)
		most := served(first)
		host.Revoke(first.RuntimeID())
		second, beside := host.Enrol(t, "greedy", nil), host.Enrol(t, "greedy", nil)
		if n := served(second); most < 10 || n > most/4 {
			t.Errorf("%d calls are served, and %d in the next life", most, n)
		}
		for name, c := range map[string]*connectplugin.Client{"another instance beside it": beside, "another plugin": host.Enrol(t, "modest", nil)} {
			if n := served(c); n < most/2 {
				t.Errorf("of %s %d calls are served, and of the first %d", name, n, most)
			}
		}
		all := 2 * most
		for range 10 {
			all += served(host.Enrol(t, "greedy", nil))
		}
		if all < 3*most || all > 6*most { // of each instance some are served before it has paid
			t.Errorf("of 12 instances %d calls are served, and of one %d", all, most)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		t.Parallel()
		const lives, each, burst = 8, 4, 8
		host := start(t, connectplugin.Limits{RefusalsPerSecond: 1e-3, RefusalBurst: burst})
		waits := func() bool {
			return slices.ContainsFunc(host.Audit.Events(), func(e connectplugin.AuditEvent) bool { return strings.Contains(e.Reason, "Limits.RefusalsPerSecond") })
		}
		for life := 0; life < lives && !waits(); life++ {
			c := host.Enrol(t, "greedy", nil)
			for range each {
				to := connect.NewClient[texts.Text, texts.Text](c.HTTPClient(), host.URL+"/services/forbidden/-/a.B/C")
				if _, err := to.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); connect.CodeOf(err) != connect.CodeNotFound {
					t.Fatal(err)
				}
			}
			host.Revoke(c.RuntimeID())
		}
		if !waits() {
			t.Errorf("%d requests were refused in %d lives, and no next one waits", lives*each, lives)
		}
	})
}
