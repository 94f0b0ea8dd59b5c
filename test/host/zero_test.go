package host_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// sentence runs f and returns the error or the panic that it ends with; a panic of the runtime fails.
func sentence(t *testing.T, f func() error) (said string) {
	t.Helper()
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); ok {
				t.Errorf("panic: %v", err)
			}
			said = fmt.Sprint(v)
		}
	}()
	if err := f(); err != nil {
		return err.Error()
	}
	return ""
}

func TestNewHost_RefusesWhatNoConstructorMade(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.ServeConfig){
		"Authority: is a zero value; make one with NewAuthority":             func(c *connectplugin.ServeConfig) { c.Authority = &connectplugin.Authority{} },
		"ServiceRegistry: is a zero value; make one with NewServiceRegistry": func(c *connectplugin.ServeConfig) { c.ServiceRegistry = &connectplugin.ServiceRegistry{} },
		"ServiceRouter: is a zero value; make one with NewServiceRouter":     func(c *connectplugin.ServeConfig) { c.ServiceRouter = &connectplugin.ServiceRouter{} },
		"LifecycleService: is a zero value; make one with NewLifecycleServer": func(c *connectplugin.ServeConfig) {
			c.LifecycleService = &connectplugin.LifecycleServer{}
		},
		"HealthService: is a zero value; make one with NewHealthServer": func(c *connectplugin.ServeConfig) { c.HealthService = &connectplugin.HealthServer{} },
		"CapabilityBroker: is a zero value; make one with NewCapabilityBroker": func(c *connectplugin.ServeConfig) {
			c.CapabilityBroker = &connectplugin.CapabilityBroker{}
		},
		"CapabilityBroker: the base URL of NewCapabilityBroker is no URL; write for example": func(c *connectplugin.ServeConfig) {
			c.CapabilityBroker = connectplugin.NewCapabilityBroker("localhost:8443")
		},
		"Interceptors[1]: is nil; remove it": func(c *connectplugin.ServeConfig) {
			c.Interceptors = []connect.Interceptor{connectplugin.RetryInterceptor(connectplugin.RetryPolicy{}), nil}
		},
		"Interceptors[0]: is nil; remove it": func(c *connectplugin.ServeConfig) {
			c.Interceptors = []connect.Interceptor{connect.UnaryInterceptorFunc(nil)}
		},
		"AuthProviders[0]: is nil; remove it": func(c *connectplugin.ServeConfig) {
			c.AuthProviders = []connectplugin.AuthProvider{(*ownAuth)(nil)}
		},
		"Observer: holds a nil pointer; write nil itself, or make one": func(c *connectplugin.ServeConfig) {
			c.Observer = (*connectplugin.NopObserver)(nil)
		},
	} {
		cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t)}
		edit(cfg)
		said := sentence(t, func() error {
			_, err := connectplugin.NewHost(cfg)
			return err
		})
		if !strings.Contains(said, field) {
			t.Errorf("said %q, want %q", said, field)
		}
	}
}

// ownAuth is a provider of the user's own.
type ownAuth struct{ connectplugin.AuthProvider }

func TestNil_IsToldInWords(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = hosttest.EveryRight() })
	client := host.Enrol(t, "all", nil)
	ctx := context.Background()
	const request, httpRequest, authority = "the request is nil", "the HTTP request, or its URL, is nil", "make one with NewAuthority"
	zero := &connectplugin.Authority{}
	var none *connectplugin.Authority
	var listener *net.TCPListener
	for what, c := range map[string]struct {
		do   func() error
		want string
	}{
		"Serve":             {func() error { return host.Serve(ctx, nil) }, "the listener is nil"},
		"Serve, typed":      {func() error { return host.Serve(ctx, listener) }, "the listener is nil"},
		"RegisterStrategy":  {func() error { host.Launcher().RegisterStrategy(nil); return nil }, "strategy is nil"},
		"RegisterService":   {func() error { _, err := host.Registry().RegisterService(ctx, nil); return err }, request},
		"UnregisterService": {func() error { _, err := host.Registry().UnregisterService(ctx, nil); return err }, request},
		"DiscoverService":   {func() error { _, err := host.Registry().DiscoverService(ctx, nil); return err }, request},
		"WatchService":      {func() error { return host.Registry().WatchService(ctx, nil, nil) }, request},
		"ReportHealth":      {func() error { _, err := host.Lifecycle().ReportHealth(ctx, nil); return err }, request},
		"RequestCapability": {func() error { _, err := host.Broker().RequestCapability(ctx, nil); return err }, request},
		"Check":             {func() error { _, err := connectplugin.NewHealthServer().Check(ctx, nil); return err }, request},
		"Watch":             {func() error { return connectplugin.NewHealthServer().Watch(ctx, nil, nil) }, request},
		"Handshake":         {func() error { _, err := connectplugin.NewHandshakeServer(nil).Handshake(ctx, nil); return err }, request},
		"Do":                {func() error { return do(client.HTTPClient().Do(nil)) }, httpRequest},
		"Do without a URL":  {func() error { return do(client.HTTPClient().Do(&http.Request{})) }, httpRequest},
		"HandshakeServerHandler": {
			func() error { connectplugin.HandshakeServerHandler(nil); return nil }, "HandshakeServerHandler: the server is nil",
		},
		"ServiceRegistryHandler": {
			func() error { connectplugin.ServiceRegistryHandler(nil); return nil }, "ServiceRegistryHandler: the server is nil",
		},
		"LifecycleServerHandler": {
			func() error { connectplugin.LifecycleServerHandler(nil); return nil }, "LifecycleServerHandler: the server is nil",
		},
		"HealthServerHandler":  {func() error { connectplugin.HealthServerHandler(nil); return nil }, "HealthServerHandler: the server is nil"},
		"HTTPHealthHandler":    {func() error { connectplugin.HTTPHealthHandler(nil); return nil }, "HTTPHealthHandler: the server is nil"},
		"RateLimitHTTPHandler": {func() error { connectplugin.RateLimitHTTPHandler(nil, nil, nil, connectplugin.Rate{}); return nil }, "the handler is nil"},
		"NewServiceRegistry": {
			func() error { connectplugin.NewServiceRegistry(&connectplugin.LifecycleServer{}); return nil }, "make one with NewLifecycleServer",
		},
		"NewServiceRouter": {
			func() error { connectplugin.NewServiceRouter(nil, &connectplugin.ServiceRegistry{}, nil); return nil }, "make one with NewServiceRegistry",
		},
		"HostTLS":           {func() error { _, err := zero.HostTLS(); return err }, authority},
		"HostTLS, nil":      {func() error { _, err := none.HostTLS(); return err }, authority},
		"PluginTLS":         {func() error { _, err := zero.PluginTLS("a"); return err }, authority},
		"WriteCredentials":  {func() error { return zero.WriteCredentials(t.TempDir(), "a") }, authority},
		"LaunchTLS":         {func() error { _, err := zero.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "a"}); return err }, authority},
		"TrustDomain":       {func() error { _ = zero.TrustDomain(); return nil }, authority},
		"CertPool":          {func() error { _ = zero.CertPool(); return nil }, authority},
		"HostIdentity":      {func() error { _ = none.HostIdentity(); return nil }, authority},
		"PluginIdentity":    {func() error { _ = zero.PluginIdentity("a"); return nil }, authority},
		"ClientTLS":         {func() error { _ = zero.ClientTLS(); return nil }, authority},
		"a plugin's server": {func() error { return typedNilListener(t, host, listener) }, "Listener: holds a nil *net.TCPListener"},
	} {
		if said := sentence(t, c.do); !strings.Contains(said, c.want) {
			t.Errorf("%s said %q, want %q", what, said, c.want)
		}
	}
}

// What is given to others is told when it is given, and not with the first call.
func TestNil_IsToldWhenItIsGiven(t *testing.T) {
	t.Parallel()
	launcher := hosttest.Start(t, nil).Launcher()
	ctx := context.Background()
	var limiter *connectplugin.TokenBucketLimiter
	const breaker = "make one with NewCircuitBreaker"
	for what, c := range map[string]struct {
		do   func() error
		want string
	}{
		"RateLimitHTTPHandler, typed": {
			func() error {
				connectplugin.RateLimitHTTPHandler(http.HandlerFunc(nil), nil, nil, connectplugin.Rate{})
				return nil
			}, "the handler is nil",
		},
		"RateLimitHTTPHandler, limiter": {
			func() error {
				connectplugin.RateLimitHTTPHandler(http.NotFoundHandler(), limiter, nil, connectplugin.Rate{})
				return nil
			}, "make one with NewTokenBucketLimiter",
		},
		"RateLimitInterceptor": {
			func() error { connectplugin.RateLimitInterceptor(limiter, nil, connectplugin.Rate{}); return nil }, "make one with NewTokenBucketLimiter",
		},
		"CircuitBreakerInterceptor": {
			func() error { connectplugin.CircuitBreakerInterceptor(nil); return nil }, "CircuitBreakerInterceptor: the circuit breaker is nil",
		},
		"CircuitBreakerInterceptor, zero": {
			func() error { connectplugin.CircuitBreakerInterceptor(&connectplugin.CircuitBreaker{}); return nil }, breaker,
		},
		"State": {func() error { _ = (&connectplugin.CircuitBreaker{}).State(); return nil }, breaker},
		"Call":  {func() error { return (&connectplugin.CircuitBreaker{}).Call(ctx, func() error { return nil }) }, breaker},
		"NewPlatform": {
			func() error { connectplugin.NewPlatform(nil, nil, &connectplugin.ServiceRouter{}); return nil }, "make one with NewServiceRouter",
		},
		"NewPluginLauncher": {
			func() error { connectplugin.NewPluginLauncher(&connectplugin.Platform{}, nil); return nil }, "make one with NewPlatform",
		},
		"RegisterStrategy, typed": {
			func() error { launcher.RegisterStrategy((*connectplugin.ProcessStrategy)(nil)); return nil }, "strategy is nil",
		},
		"GetHealth": {
			func() error {
				_, err := connectplugin.NewPluginControlClient("https://127.0.0.1:1", (*http.Client)(nil)).GetHealth(ctx)
				return err
			}, "no HTTP client was given",
		},
		"GetHealth, zero": {
			func() error { _, err := (&connectplugin.PluginControlClient{}).GetHealth(ctx); return err }, "make one with NewPluginControlClient",
		},
		"DispenseTyped": {
			func() error { _, err := connectplugin.DispenseTyped[int](nil, "a"); return err }, "was not made with NewClient",
		},
		"JoinObservers": {
			func() error {
				if connectplugin.JoinObservers(nil, (*connectplugin.NopObserver)(nil)) == nil {
					return errors.New("nobody is told")
				}
				return nil
			}, "nobody is told",
		},
	} {
		if said := sentence(t, c.do); !strings.Contains(said, c.want) {
			t.Errorf("%s said %q, want %q", what, said, c.want)
		}
	}
}

func do(resp *http.Response, err error) error {
	if err == nil {
		_ = resp.Body.Close()
	}
	return err
}

func typedNilListener(t *testing.T, host *hosttest.Host, l net.Listener) error {
	t.Helper()
	own, err := host.Authority.PluginTLS("all")
	if err != nil {
		t.Fatal(err)
	}
	return connectplugin.ServePlugin(t.Context(), &connectplugin.PluginServerConfig{
		TLS: own, Client: host.ClientConfig(t, "all"), Listener: l,
		Services: []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: "/a/", Handler: http.NotFoundHandler()}},
	})
}

func TestAuthority_NamesTheSelfID(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	for selfID, want := range map[string]string{
		"":                           "selfID: is empty; write the plugin's name",
		"a\nb\x00":                   `selfID: self id "a\nb\x00"`,
		strings.Repeat("x", 10_000):  "selfID: self id has 10000 bytes",
		strings.Repeat("\n", 10_000): "selfID: self id",
	} {
		_, pluginErr := authority.PluginTLS(selfID)
		_, launchErr := authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: selfID})
		for _, err := range []error{pluginErr, authority.WriteCredentials(t.TempDir(), selfID)} {
			if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), want) || len(err.Error()) > 500 {
				t.Errorf("%.40q: %v, want %q", selfID, err, want)
			}
		}
		if !errors.Is(launchErr, connectplugin.ErrInvalidConfig) || strings.ContainsAny(launchErr.Error(), "\n\x00") || len(launchErr.Error()) > 1500 {
			t.Errorf("launch %.40q: %v", selfID, launchErr)
		}
	}
	const want = `dir: is empty; write the directory for the plugin's tls.crt, tls.key and ca.crt, such as "run/logger"`
	if err := authority.WriteCredentials("", "logger"); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), want) {
		t.Errorf("no directory: %v", err)
	}
}

// What an error repeats of a configuration is short and of one line.
func TestErrors_RepeatLittle(t *testing.T) {
	t.Parallel()
	for _, name := range []string{strings.Repeat("x/", 10_000), "a\nb\x00/"} {
		authority := hosttest.NewAuthority(t)
		_, hostTLS := authority.HostTLS(name)
		_, hosts := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority, Hosts: []string{name}})
		_, impls := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority, Impls: map[string]any{name: 1}})
		_, policy := connectplugin.NewHost(&connectplugin.ServeConfig{
			Authority: authority, Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"a": {Provides: []string{name}}}},
		})
		for _, err := range []error{hostTLS, hosts, impls, policy} {
			if err == nil || len(err.Error()) > 3000 || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("%.20q: an error of %d bytes: %.200q", name, len(fmt.Sprint(err)), fmt.Sprint(err))
			}
		}
	}
}

func TestVersions_TheWireHasRoomFor(t *testing.T) {
	t.Parallel()
	large := math.MaxInt32
	large++
	for _, c := range []struct {
		version, least, most int
		want                 string
	}{
		{large, 0, 0, "ProtocolVersion: is 2147483648"},
		{1 << 32, 0, 0, "ProtocolVersion: is 4294967296"},
		{1<<32 + 1, 0, 0, "ProtocolVersion: is 4294967297"},
		{-1, 0, 0, "ProtocolVersion: is negative"},
		{1, large, 0, "MinProtocolVersion: is 2147483648"},
		{1, -1, 0, "MinProtocolVersion: is negative"},
		{1, 0, math.MaxInt64, "MaxProtocolVersion: is 9223372036854775807"},
		{1, 0, -1, "MaxProtocolVersion: is negative"},
		{1, 3, 2, "MinProtocolVersion: is above MaxProtocolVersion (2)"},
		{math.MaxInt32, 1, math.MaxInt32, ""},
	} {
		client := connectplugin.ClientConfig{
			HostURL: "https://127.0.0.1:1", SelfID: "a", TLS: hosttest.NewAuthority(t).ClientTLS(),
			ProtocolVersion: c.version, MinProtocolVersion: c.least, MaxProtocolVersion: c.most,
		}
		if err := client.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), ": "+c.want) {
			t.Errorf("client %+v: %v, want %q", c, err, c.want)
		}
		if c.most != 0 && c.want != "" {
			continue
		}
		host := connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), ProtocolVersion: c.version, MinProtocolVersion: c.least}
		if err := host.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), ": "+c.want) {
			t.Errorf("host %+v: %v, want %q", c, err, c.want)
		}
	}
	host := connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), DeprecatedBelow: 1<<32 + 1}
	if err := host.Validate(); err == nil || !strings.Contains(err.Error(), "DeprecatedBelow: is 4294967297") {
		t.Errorf("DeprecatedBelow: %v", err)
	}
}

func TestNewAuditSink_NamesTheField(t *testing.T) {
	t.Parallel()
	for field, edit := range map[string]func(*connectplugin.AuditSinkConfig){
		"CheckpointInterval": func(c *connectplugin.AuditSinkConfig) { c.CheckpointInterval = -1 },
		"MaxBytes":           func(c *connectplugin.AuditSinkConfig) { c.MaxBytes = -1 },
		"Buffer":             func(c *connectplugin.AuditSinkConfig) { c.Buffer = -1 },
	} {
		cfg := connectplugin.AuditSinkConfig{Path: filepath.Join(t.TempDir(), "audit.log"), Key: make(ed25519.PrivateKey, ed25519.PrivateKeySize)}
		edit(&cfg)
		if _, err := connectplugin.NewAuditSink(cfg); err == nil || !strings.HasSuffix(err.Error(), ": "+field+": is negative; write 0 for the default, or more") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestLauncher_NamesItsStrategies(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, nil)
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{"a": {Strategy: "bogus", BinaryPath: "/bin/true"}})
	_, err := host.Launcher().GetService("a", "a")
	if err == nil || !strings.Contains(err.Error(), `"bogus" is not registered; write one of ["go-plugin" "in-memory" "process"], or add it with RegisterStrategy`) {
		t.Errorf("GetService: %v", err)
	}
}

func TestNewHost_SaysWhetherThePolicyIsEmpty(t *testing.T) {
	t.Parallel()
	for want, policy := range map[string]*connectplugin.Policy{
		"no policy: no plugin is accepted":       nil,
		"an empty policy: no plugin is accepted": {},
	} {
		log := &hosttest.Buffer{}
		host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
			Authority: hosttest.NewAuthority(t), Policy: policy, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Shutdown(t.Context()); err != nil || !strings.Contains(log.String(), want) {
			t.Errorf("%v; the log says %q, want %q", err, log.String(), want)
		}
	}
}

func TestNewHost_SaysThatAuthProvidersHaveNobodyToLetIn(t *testing.T) {
	t.Parallel()
	const want = "add services to ServeConfig.Plugins, or remove AuthProviders"
	for _, plugins := range []bool{false, true} {
		log := &hosttest.Buffer{}
		cfg := &connectplugin.ServeConfig{
			Authority: hosttest.NewAuthority(t), Logger: slog.New(slog.NewTextHandler(log, nil)),
			AuthProviders: []connectplugin.AuthProvider{connectplugin.NoAuth()},
		}
		if plugins {
			cfg.Plugins = connectplugin.PluginSet{"logger": hosttest.LoggerPlugin{}}
			cfg.Impls = map[string]any{"logger": &hosttest.RecordingLogger{}}
		}
		host, err := connectplugin.NewHost(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.Shutdown(t.Context()); err != nil || strings.Contains(log.String(), want) == plugins {
			t.Errorf("%v; with plugins (%v) the log says %q", err, plugins, log.String())
		}
	}
}
