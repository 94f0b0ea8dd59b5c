package recovery_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// without is the policy that does not know the provider.
func without() *connectplugin.Policy {
	p := policy()
	delete(p.Plugins, "provider")
	return p
}

// often is how long a plugin waits that reports all the time.
const often = 20 * time.Millisecond

// A provider whose identity policy ended goes on asking, says so once, and is back by itself as one plugin when a later policy
// has it again, whoever of it asks.
func TestAudit_USE22_AProviderWhoseIdentityPolicyEndedComesBack(t *testing.T) {
	t.Parallel()
	const gone = "the host does not take this plugin any more"
	for name, edit := range map[string]func(*connectplugin.PluginServerConfig){
		"that reports": func(c *connectplugin.PluginServerConfig) { c.HealthInterval = often },
		"that watches": func(c *connectplugin.PluginServerConfig) {
			c.HealthInterval = never
			c.Client.Metadata.Requires = []connectplugin.ServiceDependency{{Type: echoType, WatchForChanges: true}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			admits := providerMay(func(r *connectplugin.PluginPolicy) { r.Requires = []string{echoType} })
			host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = admits })
			plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
				c.Services, c.Client.Logger = echoServices(), log.logger()
				edit(c)
			})
			for range 5 {
				watches := func() bool {
					_, err := plugin.Client.Service(t.Context(), echoType, "")
					return err == nil
				}
				if name == "that watches" {
					hosttest.Eventually(t, "it watches", watches) // on a busy machine not at once
				} else {
					watches()
				}
			}
			s := service(t, caller(t, host))
			for life := 2; life <= 3; life++ {
				refused := count(host, connectplugin.AuditAuthFailed, "")
				hosttest.SetPolicy(t, host.Host, without())
				hosttest.Eventually(t, "it says that it is refused", func() bool { return log.warnings(gone) == life-1 })
				hosttest.Eventually(t, "it asks again", func() bool {
					return count(host, connectplugin.AuditAuthFailed, "") > refused+2
				})
				hosttest.SetPolicy(t, host.Host, admits)
				hosttest.Eventually(t, "it answers again", func() bool { return once(t.Context(), s) == nil })
				if n := count(host, connectplugin.AuditIssued, "provider"); n != life {
					t.Errorf("%d identities, want %d", n, life)
				}
			}
			if n := log.warnings(gone); n != 2 || !log.has("it may not be in the host's policy") {
				t.Errorf("it was told %d times", n)
			}
			if plugin.Client.RuntimeID() == "" {
				t.Error("it has no identity")
			}
		})
	}
}

// Nor does it end where policy takes it out in the moment in which it began to serve, before it said how it is.
func TestAudit_USE22_AProviderWhoseIdentityEndsAtOnceComesBack(t *testing.T) {
	t.Parallel()
	admits, log := policy(), new(journal)
	host := start(t, func(c *connectplugin.ServeConfig) { c.Policy = admits })
	cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "provider"), Services: echoServices(), HealthInterval: often}
	tlsConfig, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	var first sync.Once
	cfg.Client.TLS, cfg.Client.Logger = tlsConfig, log.logger()
	cfg.Client.Interceptors = []connect.Interceptor{connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if strings.HasSuffix(req.Spec().Procedure, "/ReportHealth") {
				first.Do(func() { hosttest.SetPolicy(t, host.Host, without()) })
			}
			return next(ctx, req)
		}
	})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- connectplugin.ServePlugin(ctx, cfg) }()
	hosttest.Eventually(t, "it says that it is refused", func() bool { return log.warnings("the host does not take this plugin any more") == 1 })
	hosttest.SetPolicy(t, host.Host, admits)
	s := service(t, caller(t, host))
	hosttest.Eventually(t, "it answers", func() bool { return once(t.Context(), s) == nil })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// One that may not provide its type when it comes back provides it when it may.
func TestAudit_USE22_AProviderThatMayNotProvideWhenItComesBack(t *testing.T) {
	t.Parallel()
	log := new(journal)
	host := start(t, nil)
	plugin := host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Services, c.HealthInterval, c.Client.Logger = echoServices(), often, log.logger()
	})
	s, first := service(t, caller(t, host)), plugin.Client.RuntimeID()
	hosttest.SetPolicy(t, host.Host, providerMay(func(r *connectplugin.PluginPolicy) { r.Provides = nil }))
	host.Revoke(first)
	hosttest.Eventually(t, "its registration is refused", func() bool { return log.warnings("registration refused") == 1 })
	hosttest.SetPolicy(t, host.Host, policy())
	hosttest.Eventually(t, "it answers again", func() bool { return once(t.Context(), s) == nil })
	if n := count(host, connectplugin.AuditIssued, "provider"); n != 2 {
		t.Errorf("%d identities", n)
	}
}

// Whom the operator revoked, and who is refused at its first start, ends with an error.
func TestAudit_USE22_WhoIsRefusedForGoodEnds(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	serve := func(ctx context.Context) error {
		cfg := &connectplugin.PluginServerConfig{
			Client: host.ClientConfig(t, "provider"), Services: echoServices(), HealthInterval: often,
		}
		var err error
		if cfg.Client.TLS, err = host.Authority.PluginTLS("provider"); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, hosttest.Wait)
		defer cancel()
		return connectplugin.ServePlugin(ctx, cfg)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(context.Background()) }()
	s := service(t, caller(t, host))
	hosttest.Eventually(t, "it answers", func() bool { return once(t.Context(), s) == nil })
	host.RevokeSelf("provider")
	if err := <-ended; !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("revoked: %v", err)
	}
	for name, p := range map[string]*connectplugin.Policy{
		"unknown":          without(),
		"without its type": providerMay(func(r *connectplugin.PluginPolicy) { r.Provides = nil }),
	} {
		hosttest.SetPolicy(t, host.Host, p)
		if err := serve(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
			t.Errorf("%s at its first start: %v", name, err)
		}
	}
}
