package registry_test

import (
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

func TestAudit_PROTO23_EndpointPathsOverTheWire(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "logger", hosttest.Providing("logger"))
	with := func(path string) error {
		return hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", EndpointPath: path})
	}
	for _, path := range []string{
		"relative/", "//host/x", "/a//b", "/a/../b", "/..", "/./a", "/a/.", "/a%2fb", "/a%2e%2e/b", "/a?b=c", "/a#b",
		"/a\\b", "/a b", "/a\tb", "/a\nb", "/a\x00b", "/a\x7fb", "/ä/", "/a;b", "https://elsewhere/x", "/" + strings.Repeat("a", 1024),
	} {
		if err := with(path); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("path %q: %v, want invalid_argument", path, err)
		}
	}
	if host.Registered("logger", c.RuntimeID()) {
		t.Error("a refused registration was made")
	}
	for _, path := range []string{"/", "/x.v1.X/", "/deep/er/x.v1.X", ""} {
		if err := with(path); err != nil {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestAudit_PROTO71_MetadataIsBoundedAndSteersNothing(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	c := host.Enrol(t, "logger", hosttest.Providing("logger"))
	with := func(metadata map[string]string) error {
		return hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{ServiceType: "logger", Version: "1.0.0", Metadata: metadata})
	}
	many, much := map[string]string{}, map[string]string{}
	for i := range 101 {
		many[fmt.Sprintf("k%d", i)] = "v"
	}
	for i := range 20 {
		much[fmt.Sprintf("k%d", i)] = strings.Repeat("v", 4000)
	}
	for name, metadata := range map[string]map[string]string{
		"too many entries":  many,
		"too much in total": much,
		"long key":          {strings.Repeat("k", 257): "v"},
		"long value":        {"k": strings.Repeat("v", 4097)},
		"empty key":         {"": "v"},
		"key with newline":  {"a\nb": "v"},
		"key not ASCII":     {"ä": "v"},
		"value with newline": {
			"k": "v\nlevel=ERROR msg=forged",
		},
		"value with NUL":        {"k": "\x00"},
		"value with escape":     {"k": "\x1b[2J"},
		"value that turns text": {"k": "\u202egnp.exe"},
		"reserved":              {"runtime_id": "victim"},
		"reserved in capitals":  {"Runtime_Token": "x"},
		"reserved prefix":       {"X-Plugin-Caller-Id": "victim"},
		"reserved namespace":    {"connectplugin.anything": "x"},
		"credential":            {"authorization": "Bearer x"},
	} {
		if err := with(metadata); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v, want invalid_argument", name, err)
		}
	}
	// What is accepted is passed on and decides nothing.
	metadata := map[string]string{"provider_id": "victim", "self_id": "api", "endpoint_url": "https://evil.example/", "region": "eu"}
	if err := with(metadata); err != nil {
		t.Fatal(err)
	}
	got, err := hosttest.Discover(t, host.Enrol(t, "api", hosttest.Requiring("logger")), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	e := got.GetEndpoint()
	if e.GetProviderId() != c.RuntimeID() || e.GetEndpointUrl() != "/services/logger/"+c.RuntimeID() || e.GetMetadata()["region"] != "eu" {
		t.Errorf("discovered %v", e)
	}
}

func TestAudit_PROTO61_RegistryIsAuthenticated(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(connectplugin.OpenPolicy()))
	for dialect, opts := range hosttest.Protocols {
		stranger := connectpluginv1connect.NewServiceRegistryClient(host.Stranger(t), host.URL, opts...)
		calls := map[string]func() error{
			"register": func() error {
				_, err := stranger.RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{ServiceType: "a", Version: "1.0.0"}))
				return err
			},
			"unregister": func() error {
				_, err := stranger.UnregisterService(t.Context(), connect.NewRequest(&connectpluginv1.UnregisterServiceRequest{RegistrationId: "x"}))
				return err
			},
			"discover": func() error {
				_, err := stranger.DiscoverService(t.Context(), connect.NewRequest(&connectpluginv1.DiscoverServiceRequest{ServiceType: "a"}))
				return err
			},
			"watch": func() error {
				stream, err := stranger.WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "a"}))
				if err != nil {
					return err
				}
				stream.Receive()
				return stream.Err()
			},
			"health": func() error {
				_, err := connectpluginv1connect.NewPluginLifecycleClient(host.Stranger(t), host.URL, opts...).ReportHealth(t.Context(),
					connect.NewRequest(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY}))
				return err
			},
		}
		for name, call := range calls {
			if err := call(); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("%s over %s: %v, want unauthenticated", name, dialect, err)
			}
		}
	}
	if !host.Audit.Has(connectplugin.AuditAuthFailed) {
		t.Error("failed authentication was not audited")
	}
}

// Registrations are limited per plugin, per type and in total. Who is refused
// takes nothing from others, and what is withdrawn makes room.
func TestAudit_PROTO61_REG4_RegistrationsAreLimited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit func(*connectplugin.Limits)
		types [4]string // that p registers
	}{
		"per plugin": {func(l *connectplugin.Limits) { l.MaxRegistrationsPerPlugin = 3 }, [4]string{"a", "b", "c", "d"}},
		"in total":   {func(l *connectplugin.Limits) { l.MaxRegistrations = 3 }, [4]string{"a", "b", "c", "d"}},
		"per type":   {func(l *connectplugin.Limits) { l.MaxRegistrationsPerType = 3 }, [4]string{"a", "a", "a", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			types := []string{"a", "b", "c", "d"}
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy = hosttest.Rights(map[string][2][]string{"p": {types, nil}})
				c.limit(&cfg.Limits)
			})
			clients := [4]*connectplugin.Client{}
			for i := range clients {
				if clients[i] = clients[0]; i == 0 || c.types[0] == c.types[1] {
					clients[i] = host.Enrol(t, "p", hosttest.Providing(types...))
				}
			}
			var first string
			for i := range 3 {
				id, err := hosttest.Register(t, clients[i], c.types[i], "1.0.0")
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					first = id
				}
			}
			if _, err := hosttest.Register(t, clients[3], c.types[3], "1.0.0"); connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Errorf("one too many: %v, want resource_exhausted", err)
			}
			if !host.Audit.Has(connectplugin.AuditLimited) {
				t.Error("the limit was not audited")
			}
			if _, err := hosttest.Register(t, clients[2], c.types[2], "2.0.0"); err != nil {
				t.Errorf("replacing what is there: %v", err)
			}
			if err := hosttest.Unregister(t, clients[0], first); err != nil {
				t.Fatal(err)
			}
			if _, err := hosttest.Register(t, clients[3], c.types[3], "1.0.0"); err != nil {
				t.Errorf("after one was withdrawn: %v", err)
			}
		})
	}
}

func TestAudit_PROTO61_WatchesAreLimited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit  func(*connectplugin.Limits)
		shared bool // by every plugin
	}{
		"per plugin": {func(l *connectplugin.Limits) { l.MaxWatchesPerPlugin = 3 }, false},
		"in total":   {func(l *connectplugin.Limits) { l.MaxWatches = 3 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
				cfg.Policy = hosttest.LoggerPolicy()
				c.limit(&cfg.Limits)
			})
			client, another := host.Enrol(t, "api", hosttest.Requiring("logger")), host.Enrol(t, "api", hosttest.Requiring("logger"))
			open := func(c *connectplugin.Client) *hosttest.Watching {
				return hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
			}
			var watches []*hosttest.Watching
			for range 3 {
				w := open(client)
				w.Next(t)
				watches = append(watches, w)
			}
			if code := open(client).Code(hosttest.Wait); code != connect.CodeResourceExhausted {
				t.Errorf("one too many: %v, want resource_exhausted", code)
			}
			if w := open(another); c.shared {
				if code := w.Code(hosttest.Wait); code != connect.CodeResourceExhausted {
					t.Errorf("another plugin: %v, want resource_exhausted", code)
				}
			} else {
				w.Next(t)
			}
			for _, w := range watches {
				if code := w.Code(0); code != 0 {
					t.Errorf("an honest watch ended: %v", code)
				}
			}
			watches[0].Cancel()
			hosttest.Eventually(t, "a closed watch makes room", func() bool {
				w := open(client)
				select {
				case <-w.Events:
					return true
				case <-w.End:
					return false
				}
			})
		})
	}
}

// What one plugin changes has a rate of its own: no plugin can keep the host and
// all who watch busy, and none takes from another's budget.
func TestAudit_PROTO61_ChangesAreRateLimited(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Limits.ChangesPerSecond, c.Limits.ChangeBurst = 0.001, 4
	})
	acts := map[string]func(c *connectplugin.Client) error{
		"register": func(c *connectplugin.Client) error { _, err := hosttest.Register(t, c, "logger", "1.0.0"); return err },
		"unregister": func(c *connectplugin.Client) error {
			if err := hosttest.Unregister(t, c, "none"); connect.CodeOf(err) != connect.CodeNotFound {
				return err
			}
			return nil
		},
		"health": func(c *connectplugin.Client) error {
			return c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil)
		},
		"watch": func(c *connectplugin.Client) error {
			w := hosttest.Watch(t, c, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "logger"})
			select {
			case <-w.Events:
				return nil
			case err := <-w.End:
				return err
			}
		},
	}
	for name, act := range acts {
		selfID := "logger"
		if name == "watch" {
			selfID = "api"
		}
		greedy := host.Enrol(t, selfID, hosttest.Declaring([]string{"logger"}, []string{"logger"}))
		modest := host.Enrol(t, selfID, hosttest.Declaring([]string{"logger"}, []string{"logger"}))
		for i := range 6 {
			err := act(greedy)
			if i < 4 && err != nil || i >= 4 && connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Errorf("%s, time %d: %v", name, i+1, err)
			}
		}
		if err := act(modest); err != nil {
			t.Errorf("%s by another instance: %v", name, err)
		}
	}
}

// Effective is what was declared and what policy allows, and nothing else.
func TestAudit_REG1_RegistersOnlyWhatIsDeclaredAndAllowed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		declared, allowed []string
		ok                bool
	}{
		"declared and allowed": {[]string{"a"}, []string{"a"}, true},
		"everything allowed":   {[]string{"a"}, []string{"*"}, true},
		"not declared":         {[]string{"b"}, []string{"a"}, false},
		"not allowed":          {[]string{"a"}, []string{"b"}, false},
		"nothing declared":     {nil, []string{"*"}, false},
		"nothing allowed":      {[]string{"a"}, nil, false},
		"a star declared":      {nil, []string{"a"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Start(t, hosttest.WithPolicy(hosttest.Rights(map[string][2][]string{"p": {c.allowed, nil}})))
			p := host.Enrol(t, "p", hosttest.Declaring(c.declared, nil))
			_, err := hosttest.Register(t, p, "a", "1.0.0")
			if c.ok && err != nil || !c.ok && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("register: %v, want ok: %t", err, c.ok)
			}
			if host.Registered("a", p.RuntimeID()) != c.ok || host.Audit.Has(connectplugin.AuditDenied) == c.ok {
				t.Error("registered or audited wrongly")
			}
		})
	}
}

func TestAudit_REG2_ATypeBelongsToItsFirstProvider(t *testing.T) {
	t.Parallel()
	policy := hosttest.Rights(map[string][2][]string{"owner": {{"a", "open"}, nil}, "rival": {{"a", "open"}, nil}, "c": {nil, {"a"}}})
	policy.AllowMultiple = []string{"open"}
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	owner, second, rival := host.Enrol(t, "owner", hosttest.Providing("a", "open")), host.Enrol(t, "owner", hosttest.Providing("a")), host.Enrol(t, "rival", hosttest.Providing("a", "open"))
	w := hosttest.Watch(t, host.Enrol(t, "c", hosttest.Requiring("a")), host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "a"})
	w.Next(t)
	ids := map[*connectplugin.Client]string{}
	for _, c := range []*connectplugin.Client{owner, second} {
		id, err := hosttest.Register(t, c, "a", "1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		ids[c] = id
		w.Next(t)
	}
	_, err := hosttest.Register(t, rival, "a", "99.0.0")
	if connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("the rival: %v, want permission_denied", err)
	}
	if !host.Audit.Has(connectplugin.AuditConflict) {
		t.Error("the conflict was not audited")
	}
	if got, err := hosttest.Discover(t, host.Enrol(t, "c", hosttest.Requiring("a")), "a", ""); err != nil || got.GetEndpoint().GetProviderId() != owner.RuntimeID() {
		t.Errorf("discovered %v, %v", got, err)
	}
	if code := w.Code(hosttest.Moment); code != 0 || len(w.Events) > 0 {
		t.Errorf("watchers noticed the attempt: %v, %d events", code, len(w.Events))
	}
	for _, c := range []*connectplugin.Client{owner, rival} {
		if _, err := hosttest.Register(t, c, "open", "1.0.0"); err != nil {
			t.Errorf("a type that is open to several: %v", err)
		}
	}
	for _, c := range []*connectplugin.Client{owner, second} {
		if _, err := hosttest.Register(t, rival, "a", "1.0.0"); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("the rival while an instance of the owner is there: %v", err)
		}
		if err := hosttest.Unregister(t, c, ids[c]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hosttest.Register(t, rival, "a", "1.0.0"); err != nil {
		t.Errorf("the rival once the type is free: %v", err)
	}
}

// Only the owner unregisters. The registration id is no authority, and whether it
// exists cannot be told.
func TestAudit_REG8_REGTOKEN4_ForeignUnregister(t *testing.T) {
	t.Parallel()
	policy := hosttest.LoggerPolicy()
	policy.Plugins["admin"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
		p.Provides, p.Requires, p.Capabilities, p.HostPlugins = []string{"*"}, []string{"*"}, []string{"*"}, []string{"*"}
	})
	host := hosttest.Start(t, hosttest.WithPolicy(policy))
	owner := host.Enrol(t, "logger", hosttest.Providing("logger"))
	id, err := hosttest.Register(t, owner, "logger", "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	for name, attacker := range map[string]*connectplugin.Client{
		"another plugin":               host.Enrol(t, "api", hosttest.Requiring("logger")),
		"another instance of its kind": host.Enrol(t, "logger", hosttest.Providing("logger")),
		"one that may do everything":   host.Enrol(t, "admin", hosttest.Declaring([]string{"logger"}, []string{"logger"})),
	} {
		foreign, unknown := hosttest.Unregister(t, attacker, id), hosttest.Unregister(t, attacker, "reg-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
		if connect.CodeOf(foreign) != connect.CodeNotFound || foreign.Error() != unknown.Error() {
			t.Errorf("%s: foreign id: %v, unknown id: %v", name, foreign, unknown)
		}
	}
	if !host.Registered("logger", owner.RuntimeID()) {
		t.Fatal("the registration is gone")
	}
	if !host.Audit.Has(connectplugin.AuditDenied) {
		t.Error("the attempts were not audited")
	}
	if err := hosttest.Unregister(t, owner, id); err != nil || host.Registered("logger", owner.RuntimeID()) {
		t.Errorf("the owner: %v", err)
	}
	if err := hosttest.Unregister(t, owner, id); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("the owner once more: %v", err)
	}
}
