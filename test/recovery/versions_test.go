package recovery_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that requires a version starts when somebody provides that, whoever provides others, and is degraded while nobody
// does.
func TestARequiredVersion(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = pair(echoType)
		c.Policy.AllowMultiple = []string{echoType}
		c.Policy.Plugins["web"] = hosttest.Allow(func(p *connectplugin.PluginPolicy) {
			p.Requires, p.Provides = []string{echoType}, []string{"web"}
		})
	})
	provideVersion(t, host, "blue", "1.5.0")
	log := &hosttest.Buffer{}
	runWeb(t, host, log, connectplugin.ServiceDependency{Type: echoType, MinVersion: ">=9", RequiredForStartup: true, WatchForChanges: true})
	hosttest.Eventually(t, "it says which version it waits for", func() bool {
		return strings.Contains(log.String(), `waiting for required services" service="[echo >=9]"`)
	})
	hosttest.Eventually(t, "it says who is there", func() bool {
		return strings.Contains(log.String(), "no provider satisfies the constraint") && strings.Contains(log.String(), "1.5.0")
	})
	if all := host.Registry().GetAllProviders("web"); len(all) != 0 {
		t.Fatalf("it started: %+v", all[0])
	}
	nine := provideVersion(t, host, "green", "9.1.0") // beside the other, which stays the first
	is := func(health connectpluginv1.HealthState, missing ...string) func() bool {
		return func() bool {
			return slices.ContainsFunc(host.Registry().GetAllProviders("web"), func(p *connectplugin.ServiceProvider) bool {
				state := host.Lifecycle().GetHealthState(p.RuntimeID)
				return state != nil && state.State == health && slices.Equal(state.UnavailableDependencies, missing)
			})
		}
	}
	hosttest.Eventually(t, "it runs and is healthy", is(healthy))
	nine.Stop(t)
	hosttest.Eventually(t, "it is degraded", is(connectpluginv1.HealthState_HEALTH_STATE_DEGRADED, echoType))
	provideVersion(t, host, "green", "9.2.0")
	hosttest.Eventually(t, "it is healthy again", is(healthy))
}

func provideVersion(t *testing.T, host *hosttest.Restartable, selfID, version string) *hosttest.Plugin {
	t.Helper()
	return host.StartPlugin(t, selfID, func(c *connectplugin.PluginServerConfig) {
		c.Services, c.HealthInterval = echoServices(), never
		c.Services[0].Version = version
	})
}

// runWeb runs a plugin that requires something, until the test ends.
func runWeb(t *testing.T, host *hosttest.Restartable, log *hosttest.Buffer, requires ...connectplugin.ServiceDependency) {
	t.Helper()
	tls, err := host.Authority.PluginTLS("web")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &connectplugin.PluginServerConfig{
		Client: host.ClientConfig(t, "web"), HealthInterval: never,
		Services: []connectplugin.PluginService{{Type: "web", Version: "1.0.0", Path: "/echo.v1.Echo/", Handler: echoHandler()}},
	}
	cfg.Client.TLS, cfg.Client.Metadata.Requires = tls, requires
	cfg.Client.Logger = slog.New(slog.NewTextHandler(log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- connectplugin.ServePlugin(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServePlugin: %v", err)
		}
	})
}

// What a host refuses of whoever enrols is refused before, with what to write instead.
func TestATypeThatIsDeclaredTwice(t *testing.T) {
	t.Parallel()
	host := start(t, nil)
	for field, edit := range map[string]func(*connectplugin.PluginMetadata){
		"Metadata.Requires[1].Type": func(m *connectplugin.PluginMetadata) {
			m.Requires = []connectplugin.ServiceDependency{{Type: echoType, MinVersion: "1.x"}, {Type: echoType, MinVersion: ">=9"}}
		},
		"Metadata.Provides[1].Type": func(m *connectplugin.PluginMetadata) {
			m.Provides = []connectplugin.ServiceDeclaration{{Type: echoType, Version: "1.0.0"}, {Type: echoType, Version: "2.0.0"}}
		},
	} {
		cfg := host.ClientConfig(t, "api")
		edit(&cfg.Metadata)
		if _, err := connectplugin.NewClient(cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), field+`: "echo" is there twice`) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
