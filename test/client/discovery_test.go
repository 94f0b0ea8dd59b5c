package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// shaky is a discovery that fails at one of its questions.
type shaky struct {
	connectplugin.StaticDiscovery

	failure error
	at      int64
	asked   atomic.Int64
}

// Discover implements connectplugin.DiscoveryService.
func (s *shaky) Discover(ctx context.Context, name string) ([]connectplugin.Endpoint, error) {
	if s.asked.Add(1) == s.at {
		return nil, s.failure
	}
	return s.StaticDiscovery.Discover(ctx, name)
}

// Of several endpoints a client takes the first one where its host answers, also where its HTTP client is a foreign one, and
// goes to the next when that ends.
func TestDiscovery_TheNextEndpointIsTried(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	stranger := hosttest.Start(t, nil) // of another authority
	silent := hosttest.Listen(t)       // takes connections, and says nothing
	t.Cleanup(func() { _ = silent.Close() })
	endpoints := func(urls ...string) *connectplugin.StaticDiscovery {
		d := connectplugin.NewStaticDiscovery(nil)
		for _, url := range urls {
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: url})
		}
		return d
	}
	nobody := func() string { return "https://" + hosttest.FreeAddr(t) }
	for name, d := range map[string]*connectplugin.StaticDiscovery{
		"nobody is at the first":      endpoints(nobody(), host.URL),
		"nobody at two":               endpoints(nobody(), "http://plaintext", nobody(), host.URL),
		"another host at the first":   endpoints(stranger.URL, host.URL),
		"the first one says nothing":  endpoints("https://"+silent.Addr().String(), host.URL),
		"the first one is the second": endpoints(host.URL, nobody()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := host.ClientConfig(t, "logger")
			cfg.HostURL, cfg.Discovery, cfg.Timeout = "", d, hosttest.Wait/4
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			if at := c.Config().Endpoint; at != host.URL {
				t.Errorf("it says that it is at %s, and not at %s", at, host.URL)
			}
			if err := c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
				t.Errorf("a call: %v", err)
			}
		})
	}
	foreign := host.ClientConfig(t, "logger")
	foreign.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: foreign.TLS, ForceAttemptHTTP2: true}}
	foreign.HostURL, foreign.TLS, foreign.Discovery = "", nil, endpoints(nobody(), host.URL)
	c, err := connectplugin.NewClient(foreign)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	first, second := c.Connect(t.Context()), c.Connect(t.Context())
	if first == nil || second != nil {
		t.Errorf("with a foreign HTTP client: %v, then %v", first, second)
	}
}

// A wrong path in HostURL is named on both sides: in the client's error, and in the audit once for each peer.
func TestHostURL_AWrongPathIsNamed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var events []connectplugin.AuditEvent
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.LoggerPolicy()
		c.Audit = func(e connectplugin.AuditEvent) {
			mu.Lock()
			defer mu.Unlock()
			if e.Kind == connectplugin.AuditDenied {
				events = append(events, e)
			}
		}
	})
	own, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	l, served := hosttest.Listen(t), make(chan struct{})
	other := &http.Server{TLSConfig: own, Handler: http.NotFoundHandler(), ReadHeaderTimeout: hosttest.Wait} // which is no host
	go func() { _ = other.ServeTLS(l, "", ""); close(served) }()
	defer func() { _ = other.Close(); <-served }()
	for url, want := range map[string]string{
		host.URL + "/sub": `HostURL has the path "/sub"`, host.URL + "/sub/": `HostURL has the path "/sub"`, "https://" + l.Addr().String(): "HostURL has no path",
	} {
		cfg := host.ClientConfig(t, "logger")
		cfg.HostURL = url
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
		_ = c.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if len(events) != 1 || !strings.HasPrefix(events[0].Procedure, "/sub/") || !strings.Contains(events[0].Reason, "HostURL") || events[0].Peer == "" {
		t.Errorf("the audit has %+v", events)
	}
}

// A client whose host ends goes to the next endpoint that discovery has.
func TestDiscovery_TheNextHostIsFound(t *testing.T) {
	t.Parallel()
	first := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	second := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = first.Authority, hosttest.LoggerPolicy()
	})
	d := connectplugin.NewStaticDiscovery(map[string][]connectplugin.Endpoint{"plugin-host": {{URL: first.URL}, {URL: second.URL}}})
	cfg := first.ClientConfig(t, "logger")
	cfg.HostURL, cfg.Discovery = "", d
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Connect(t.Context()); err != nil || c.Config().Endpoint != first.URL {
		t.Fatalf("at %s: %v", c.Config().Endpoint, err)
	}
	if err := first.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, "it is at the second one", func() bool {
		_ = c.Connect(t.Context())
		return c.Config().Endpoint == second.URL && c.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil) == nil
	})
}

// fixed finds always the same list of endpoints.
type fixed struct {
	*connectplugin.StaticDiscovery

	all []connectplugin.Endpoint
}

func (f *fixed) Discover(context.Context, string) ([]connectplugin.Endpoint, error) {
	return f.all, nil
}

// A list that a user's discovery returns stays as it is.
func TestDiscovery_KeepsTheListOfEndpoints(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	list := []connectplugin.Endpoint{{URL: "http://127.0.0.1:1"}, {URL: host.URL}}
	cfg := host.ClientConfig(t, "logger")
	cfg.HostURL, cfg.Discovery = "", &fixed{all: slices.Clone(list)}
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	err = c.Connect(t.Context())
	if got := cfg.Discovery.(*fixed).all; err != nil || got[0].URL != list[0].URL || got[1].URL != list[1].URL {
		t.Errorf("%v, and the list is %v", err, got)
	}
}

// What goes wrong while a host is looked for is not what a host says: its client tries again,
// and takes nothing for a refusal.
func TestAudit_OWN25_AFailureOfDiscoveryIsNoWordOfTheHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	tls, err := host.Authority.PluginTLS("logger")
	if err != nil {
		t.Fatal(err)
	}
	for name, failure := range map[string]error{
		"its TLS is refused":      &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")},
		"its token is refused":    connect.NewError(connect.CodeUnauthenticated, errors.New("token expired")),
		"it says something of us": connectplugin.ErrHandshakeRefused,
	} {
		for _, at := range []int64{1, 2} { // before a host is known, and when it is dialled
			d := &shaky{failure: failure, at: at}
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: host.URL})
			cfg := host.ClientConfig(t, "logger")
			cfg.HostURL, cfg.Discovery = "", d
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Connect(t.Context())
			if err == nil || errors.Is(err, connectplugin.ErrHostNotTrusted) {
				t.Errorf("%s, at %d: %v", name, at, err)
			}
			_ = c.Close()

			d = &shaky{failure: failure, at: at}
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: host.URL})
			enrolled := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			plugin := &connectplugin.PluginServerConfig{
				Client: host.ClientConfig(t, "logger"), HostIdentity: host.Authority.HostIdentity(),
				OnConnected: func(context.Context, *connectplugin.Client) error { close(enrolled); return nil },
			}
			plugin.Client.HostURL, plugin.Client.Discovery, plugin.Client.TLS = "", d, tls
			go func() { done <- connectplugin.ServePlugin(ctx, plugin) }()
			select {
			case <-enrolled:
			case err := <-done:
				t.Errorf("%s, at %d: the plugin ended: %v", name, at, err)
				done <- nil
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s, at %d: %v", name, at, err)
			}
		}
	}
}

// turning is a discovery whose list begins with another endpoint each time, and which fails where it is told to.
type turning struct {
	connectplugin.StaticDiscovery

	fails atomic.Bool
	asked atomic.Int64
}

// Discover implements connectplugin.DiscoveryService.
func (d *turning) Discover(ctx context.Context, name string) ([]connectplugin.Endpoint, error) {
	if d.fails.Load() {
		return nil, errors.New("the resolver is away")
	}
	list, err := d.StaticDiscovery.Discover(ctx, name)
	if len(list) > 0 && d.asked.Add(1)%2 == 0 {
		slices.Reverse(list)
	}
	return list, err
}

// A client stays with a host that answers, and renews its identity there, in whatever order discovery has its endpoints, and
// while discovery itself is away.
func TestDiscovery_AClientStaysWithAHostThatAnswers(t *testing.T) {
	t.Parallel()
	for name, foreign := range map[string]bool{"its own connections": false, "a foreign HTTP client": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
			second := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
				c.Authority, c.Policy = first.Authority, hosttest.LoggerPolicy()
			})
			d := &turning{}
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: first.URL})
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: second.URL})
			cfg := first.ClientConfig(t, "logger")
			cfg.HostURL, cfg.Discovery = "", d
			if foreign {
				cfg.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: cfg.TLS, ForceAttemptHTTP2: true}}
				cfg.TLS = nil
			}
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
			at, runtimeID := c.Config().Endpoint, c.RuntimeID()
			for i := range 4 {
				d.fails.Store(i == 3)
				err := c.Connect(t.Context())
				if now := c.Config().Endpoint; err != nil || now != at || c.RuntimeID() != runtimeID {
					t.Fatalf("renewal %d: it was %s at %s, and is %s at %s: %v", i+1, runtimeID, at, c.RuntimeID(), now, err)
				}
			}
			if n := first.Usage().Identities + second.Usage().Identities; n != 1 {
				t.Errorf("it has %d identities", n)
			}
		})
	}
}
