package platform_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// sidecar runs a plugin that waits for its host to call, and returns its URL.
func sidecar(t *testing.T, h *hosttest.Host, selfID string, edit func(*connectplugin.PluginServerConfig)) string {
	t.Helper()
	tlsConfig, err := h.Authority.PluginTLS(selfID)
	if err != nil {
		t.Fatal(err)
	}
	l := hosttest.Listen(t)
	cfg := &connectplugin.PluginServerConfig{
		Client:       connectplugin.ClientConfig{SelfID: selfID, SelfVersion: "1.0.0", TLS: tlsConfig, Logger: hosttest.Logger(t)},
		HostIdentity: h.Authority.HostIdentity(), Listener: l,
		Services: []connectplugin.PluginService{{Type: "echo", Version: "1.0.0", Path: echoPath, Handler: echoHandler()}},
	}
	if edit != nil {
		edit(cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- connectplugin.ServePlugin(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return "https://" + l.Addr().String()
}

// adoption is the configuration of the plugin at a URL.
func adoption(url string) connectplugin.PluginConfig {
	return connectplugin.PluginConfig{
		SelfID: "echo", SelfVersion: "1.0.0", Endpoint: url,
		Metadata: connectplugin.PluginMetadata{Provides: hosttest.Provides("echo")},
	}
}

func userCall(t *testing.T, h *hosttest.Host) func() error {
	t.Helper()
	user := h.Enrol(t, "user", func(c *connectplugin.ClientConfig) {
		c.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "echo", RequiredForStartup: true}}
	})
	return echoCall(t, user)
}

func echoCall(t *testing.T, user *connectplugin.Client) func() error {
	t.Helper()
	conn, err := user.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	c := connect.NewClient[text, text](conn.HTTPClient(), conn.BaseURL()+echoSay)
	return func() error {
		_, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		return err
	}
}

// A version that nobody configured is what the plugin says.
func TestAdoptedPluginHasItsVersion(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	config := adoption(sidecar(t, h, "echo", nil))
	config.SelfVersion = ""
	if err := h.Platform().AddPlugin(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if all := h.Plugins(); len(all) != 1 || all[0].SelfVersion != "1.0.0" {
		t.Errorf("plugins %+v", all)
	}
}

func startForAdoption(t *testing.T, edits ...func(*connectplugin.ServeConfig)) *hosttest.Host {
	t.Helper()
	return hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		for _, edit := range edits {
			edit(c)
		}
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"echo"} }),
		}}
	})
}

func TestAdoptReplaceRemove(t *testing.T) {
	t.Parallel()
	var running atomic.Pointer[hosttest.Host]
	h := startForAdoption(t, func(c *connectplugin.ServeConfig) {
		c.Audit = func(e connectplugin.AuditEvent) {
			ended := func(i connectplugin.PluginInstance) bool { return i.RuntimeID == e.RuntimeID }
			if h := running.Load(); h != nil && e.Kind == connectplugin.AuditEnded && slices.ContainsFunc(h.Platform().Instances(), ended) {
				t.Errorf("%s ended and is an instance", e.RuntimeID)
			}
		}
	})
	running.Store(h)
	p := h.Platform()
	if err := p.AddPlugin(t.Context(), adoption(sidecar(t, h, "echo", nil))); err != nil {
		t.Fatal(err)
	}
	call := userCall(t, h)
	if err := call(); err != nil {
		t.Fatal(err)
	}
	first := p.Instances()
	if len(first) != 1 || first[0].Token == "" || strings.Contains(first[0].String(), first[0].Token) {
		t.Fatalf("instances %v", first)
	}
	if err := p.ReplacePlugin(t.Context(), first[0].RuntimeID, adoption(sidecar(t, h, "echo", nil))); err != nil {
		t.Fatal(err)
	}
	if err := call(); err != nil {
		t.Errorf("after the replacement: %v", err)
	}
	second := p.Instances()
	if len(second) != 1 || second[0].RuntimeID == first[0].RuntimeID {
		t.Fatalf("instances %v", second)
	}
	impact := p.GetImpact(second[0].RuntimeID)
	if !slices.ContainsFunc(impact.AffectedPlugins, func(id string) bool { return strings.HasPrefix(id, "user-") }) {
		t.Errorf("impact %+v", impact)
	}
	order, err := p.GetStartupOrder()
	if err != nil || len(order) != 2 || order[0] != second[0].RuntimeID {
		t.Errorf("order %v, %v", order, err)
	}
	if err := p.RemovePlugin(t.Context(), second[0].RuntimeID); err != nil {
		t.Error(err)
	}
	if err := call(); err == nil {
		t.Error("it answers")
	}
	if got := h.Plugins(); len(got) != 1 || len(p.Instances()) != 0 {
		t.Errorf("left: %+v", got)
	}
}

func TestAudit_PROTO51_H12_AdoptedPluginIsWhatIsConfigured(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	h := startForAdoption(t, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	honest := sidecar(t, h, "echo", nil)
	silent := hosttest.Listen(t)
	t.Cleanup(func() { _ = silent.Close() })
	for name, tt := range map[string]struct {
		edit func(*connectplugin.PluginConfig)
		want string
	}{
		"another self id": {func(c *connectplugin.PluginConfig) { c.SelfID = "other" }, "policy does not know"},
		"another version": {func(c *connectplugin.PluginConfig) { c.SelfVersion = "2.0.0" }, "its version"},
		"another service": {func(c *connectplugin.PluginConfig) { c.Metadata.Provides = hosttest.Provides("other") }, "what it provides"},
		"a service more":  {func(c *connectplugin.PluginConfig) { c.Metadata.Provides = hosttest.Provides("echo", "other") }, "what it provides"},
		"a requirement":   {func(c *connectplugin.PluginConfig) { c.Metadata.Requires = hosttest.Requires("log") }, "what it requires"},
		"another path":    {func(c *connectplugin.PluginConfig) { c.Metadata.Provides[0].Path = "/other.v1.Other/" }, "what it provides"},
		"another constraint": {func(c *connectplugin.PluginConfig) {
			c.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "cache", MinVersion: "2"}}
			c.Endpoint = sidecar(t, h, "echo", func(s *connectplugin.PluginServerConfig) {
				s.Client.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "cache", MinVersion: "1"}}
			})
		}, "what it requires"},
		"plaintext":         {func(c *connectplugin.PluginConfig) { c.Endpoint = "http" + strings.TrimPrefix(honest, "https") }, "plaintext"},
		"nobody there":      {func(c *connectplugin.PluginConfig) { c.Endpoint = "https://" + hosttest.FreeAddr(t) }, "ask what it is"},
		"somebody's silent": {func(c *connectplugin.PluginConfig) { c.Endpoint = "https://" + silent.Addr().String() }, "ask what it is"},
		"another plugin":    {func(c *connectplugin.PluginConfig) { c.Endpoint = sidecar(t, h, "user", nil) }, "answers as"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := adoption(honest)
			tt.edit(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			if name == "somebody's silent" {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			if err := h.Platform().AddPlugin(ctx, cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
			if said := log.String(); name != "plaintext" && !strings.Contains(said, tt.want) { // which the caller wrote, and nobody said
				t.Errorf("the log does not say it: %s", said)
			}
			if got := h.Plugins(); len(got) != 0 {
				t.Errorf("left: %+v", got)
			}
		})
	}
	exact := adoption(honest)
	exact.Metadata.Provides[0].Path = strings.TrimSuffix(echoPath, "/")
	if err := h.Platform().AddPlugin(t.Context(), exact); err != nil {
		t.Errorf("the honest one: %v", err)
	}
}

// A process that is adopted once more is one provider, and what it was before has ended
// once it serves again, not sooner.
func TestAudit_USE26_AnAdoptedProcessIsOneProvider(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	p, url := h.Platform(), sidecar(t, h, "echo", nil)
	if err := p.AddPlugin(t.Context(), adoption(url)); err != nil {
		t.Fatal(err)
	}
	call := userCall(t, h)
	first := p.Instances()[0].RuntimeID
	wrong := adoption(url)
	wrong.SelfVersion = "2.0.0"
	if err := p.ReplacePlugin(t.Context(), first, wrong); err == nil {
		t.Error("another version was adopted")
	}
	if err := call(); err != nil {
		t.Errorf("after a replacement that failed: %v", err)
	}
	for name, again := range map[string]func() error{
		"added":    func() error { return p.AddPlugin(t.Context(), adoption(url)) },
		"replaced": func() error { return p.ReplacePlugin(t.Context(), p.Instances()[0].RuntimeID, adoption(url+"/")) },
	} {
		before := p.Instances()[0].RuntimeID
		if err := again(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		now := p.Instances()
		if len(now) != 1 || now[0].RuntimeID == before {
			t.Fatalf("%s: instances %v, one was %s", name, now, before)
		}
		if got := h.Registry().GetAllProviders("echo"); len(got) != 1 || got[0].RuntimeID != now[0].RuntimeID {
			t.Errorf("%s: provided by %+v", name, got)
		}
		hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
	}
}

// Of several who replace a plugin at the same time one does, and nothing of the others is left.
func TestAudit_H55_AnAdoptedPluginIsReplacedOnce(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	p := h.Platform()
	if err := p.AddPlugin(t.Context(), adoption(sidecar(t, h, "echo", nil))); err != nil {
		t.Fatal(err)
	}
	call, first := userCall(t, h), p.Instances()[0].RuntimeID
	var replacing sync.WaitGroup
	var replaced atomic.Int32
	for range 4 {
		url := sidecar(t, h, "echo", nil)
		replacing.Go(func() {
			if err := p.ReplacePlugin(t.Context(), first, adoption(url)); err == nil {
				replaced.Add(1)
			}
		})
	}
	replacing.Wait()
	now, providers := p.Instances(), h.Registry().GetAllProviders("echo")
	if replaced.Load() != 1 || len(now) != 1 || len(providers) != 1 || now[0].RuntimeID == first || providers[0].RuntimeID != now[0].RuntimeID {
		t.Errorf("%d replaced it: instances %v, providers %+v", replaced.Load(), now, providers)
	}
	if err := call(); err != nil {
		t.Error(err)
	}
}

// An identity is a secret: it is pushed in plaintext only where both sides allow plaintext.
func TestAdoptInPlaintext(t *testing.T) {
	t.Parallel()
	insecure := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.AllowInsecure = nil, true
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}}
	})
	plain := func(h *hosttest.Host, allowed bool) string {
		url := sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) {
			if allowed {
				c.Client.TLS, c.Client.AllowInsecure = nil, true
			}
		})
		return strings.Replace(url, "https:", "http:", 1)
	}
	if err := insecure.Platform().AddPlugin(t.Context(), adoption(plain(insecure, true))); err != nil {
		t.Errorf("allowed on both sides: %v", err)
	}
	all := insecure.Plugins()
	if len(all) != 1 || !slices.Equal(all[0].Services, []string{"echo"}) {
		t.Errorf("plugins: %+v", all)
	}
	if err := insecure.Platform().RemovePlugin(t.Context(), all[0].RuntimeID); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := insecure.Platform().AddPlugin(ctx, adoption(plain(insecure, false))); err == nil {
		t.Error("a plugin that speaks TLS alone was adopted in plaintext")
	}
	secure := startForAdoption(t)
	err := secure.Platform().AddPlugin(t.Context(), adoption(plain(secure, true)))
	if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "PluginConfig.Endpoint") {
		t.Errorf("a host that does not allow it: %v", err)
	}
	for _, h := range []*hosttest.Host{insecure, secure} {
		if left := h.Plugins(); len(left) != 0 {
			t.Errorf("left: %+v", left)
		}
	}
}

// Where an adopted plugin is, its operator said: a policy that changes while it registers
// does not send its calls elsewhere.
func TestAudit_OWN23_APolicyThatChangesMovesNoAdoptedPlugin(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	connected := make(chan *connectplugin.Client, 1)
	url := sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) {
		c.OnConnected = func(_ context.Context, c *connectplugin.Client) error { connected <- c; return nil }
	})
	if err := h.Platform().AddPlugin(t.Context(), adoption(url)); err != nil {
		t.Fatal(err)
	}
	plugin, call := hosttest.Arrival(t, connected), userCall(t, h)
	policy := func(edit func(*connectplugin.PluginPolicy)) *connectplugin.Policy {
		echo := connectplugin.PluginPolicy{Provides: []string{"echo"}}
		edit(&echo)
		user := hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"echo"} })
		return &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": echo, "user": user}}
	}
	there := policy(func(p *connectplugin.PluginPolicy) { p.Endpoint = "https://127.0.0.1:1" })
	own := policy(func(p *connectplugin.PluginPolicy) { p.AllowOwnAddress = true })
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				if err := h.SetPolicy([]*connectplugin.Policy{there, own}[i%2]); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 300 {
		err := hosttest.RegisterWith(t, plugin, &connectpluginv1.RegisterServiceRequest{ServiceType: "echo", Version: "1.0.0", EndpointPath: echoPath})
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	if err := call(); err != nil {
		t.Errorf("a call: %v", err)
	}
}

// A process that comes back at the endpoint of an adopted plugin, as after a crash, has its identity and is called again.
// One that has an identity of its own is left alone.
func TestAdoptedPluginThatWasStartedAgainIsAdopted(t *testing.T) {
	t.Parallel()
	var log hosttest.Buffer
	h := startForAdoption(t, func(c *connectplugin.ServeConfig) {
		c.HealthProbe.Interval, c.Logger = 50*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	bare := func(url string) string { return strings.TrimPrefix(url, "https://") }
	way, p := hosttest.NewProxy(t, h), h.Platform()
	lives := func(name string) func(*connectplugin.PluginServerConfig) {
		return func(c *connectplugin.PluginServerConfig) { c.Services[0].Metadata = map[string]string{"life": name} }
	}
	way.AimAt(bare(sidecar(t, h, "echo", lives("first"))))
	if err := p.AddPlugin(t.Context(), adoption(way.URL)); err != nil {
		t.Fatal(err)
	}
	call, before := userCall(t, h), p.Instances()[0].RuntimeID
	way.AimAt(bare(sidecar(t, h, "echo", lives("second"))))
	way.Cut()
	hosttest.Eventually(t, "the second life is adopted", func() bool {
		all := h.Registry().GetAllProviders("echo")
		return len(all) == 1 && all[0].Metadata["life"] == "second"
	})
	if all := p.Instances(); len(all) != 1 || all[0].RuntimeID != before {
		t.Errorf("instances %v, want %s", all, before)
	}
	hosttest.Eventually(t, "it is called", func() bool { return call() == nil })
	hosttest.Eventually(t, "it is well", func() bool {
		all := h.Plugins()
		return slices.ContainsFunc(all, func(i connectplugin.PluginStatus) bool {
			return i.SelfID == "echo" && i.Health == connectpluginv1.HealthState_HEALTH_STATE_HEALTHY
		})
	})

	third := sidecar(t, h, "echo", lives("third"))
	if err := p.AddPlugin(t.Context(), adoption(third)); err != nil {
		t.Fatal(err)
	}
	way.AimAt(bare(third))
	way.Cut()
	hosttest.Eventually(t, "the log says that it is another's", func() bool { return strings.Contains(log.String(), "it has an identity already") })
	hosttest.Eventually(t, "the third life is called", func() bool { return call() == nil })
}

// A plugin provides a type once: of two services of one type the second is named, with what to do.
func TestTwoServicesOfOneTypeAreRefused(t *testing.T) {
	t.Parallel()
	cfg := connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{HostURL: "http://127.0.0.1:1", SelfID: "echo", AllowInsecure: true},
		Services: []connectplugin.PluginService{
			{Type: "echo", Version: "1.0.0", Path: "/a.A/", Handler: echoHandler()},
			{Type: "echo", Version: "2.0.0", Path: "/b.B/", Handler: echoHandler()},
		},
	}
	for _, want := range []string{`Services[1].Type: "echo" is served twice`, "give each a type of its own", "a SelfID of its own", "Policy.AllowMultiple"} {
		if err := cfg.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	cfg.Services[1].Type = "other"
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

// A plugin that is replaced by itself, the same process at the same endpoint, loses no call: neither one that is in flight nor
// those that come meanwhile.
func TestAudit_H54_APluginReplacedByItselfLosesNoCall(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	url, begun, goes := holdingFirst(t, h)
	p := h.Platform()
	if err := p.AddPlugin(t.Context(), adoption(url)); err != nil {
		t.Fatal(err)
	}
	call, first := userCall(t, h), p.Instances()[0].RuntimeID
	inFlight, replaced := make(chan error, 1), make(chan error, 1)
	go func() { inFlight <- call() }()
	<-begun
	go func() { replaced <- p.ReplacePlugin(t.Context(), first, adoption(url)) }()
	hosttest.Eventually(t, "the endpoint is the new identity's", func() bool {
		providers := h.Registry().GetAllProviders("echo")
		return len(providers) == 1 && providers[0].RuntimeID != first && !slices.ContainsFunc(h.Plugins(), func(i connectplugin.PluginStatus) bool {
			return i.RuntimeID == first && i.Endpoint != ""
		})
	})
	for range 10 {
		if err := call(); err != nil {
			t.Errorf("while another is in flight: %v", err)
		}
	}
	close(goes)
	if err := <-inFlight; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := <-replaced; err != nil {
		t.Errorf("ReplacePlugin: %v", err)
	}
	if all := h.Plugins(); len(all) != 2 || slices.ContainsFunc(all, func(i connectplugin.PluginStatus) bool { return i.RuntimeID == first }) {
		t.Errorf("plugins %+v", all)
	}
	if err := call(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
