package book_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

// catalogue is what the operator's guide shows of plugins that come and go while the host runs.
type catalogue struct {
	host *connectplugin.Host

	mu     sync.Mutex // one change at a time: policy and specs are replaced as a whole
	policy connectplugin.Policy
	specs  map[string]connectplugin.PluginSpec
}

//docs:region install
func (c *catalogue) install(ctx context.Context, name string, may connectplugin.PluginPolicy, spec connectplugin.PluginSpec) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	policy := c.policy
	policy.Plugins = maps.Clone(policy.Plugins)
	policy.Plugins[name] = may

	if err := c.host.SetPolicy(&policy); err != nil {
		return err
	}

	c.policy, c.specs[name] = policy, spec
	c.host.Launcher().Configure(c.specs)

	// It launches a plugin that does not run. Start would launch all that do not, those that somebody stopped among them.
	return c.host.Launcher().Replace(ctx, name)
}

func (c *catalogue) uninstall(ctx context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()

	delete(c.specs, name)
	c.host.Launcher().Configure(c.specs)

	err := c.host.Launcher().Stop(ctx, name)
	if errors.Is(err, connectplugin.ErrPluginNotRunning) {
		err = nil
	}

	c.policy.Plugins = maps.Clone(c.policy.Plugins)
	delete(c.policy.Plugins, name)

	return errors.Join(err, c.host.SetPolicy(&c.policy))
}

//docs:end

func TestInstall(t *testing.T) {
	t.Parallel()

	policy := connectplugin.Policy{
		Plugins:       map[string]connectplugin.PluginPolicy{"app": {Requires: []string{"kv"}}},
		AllowMultiple: []string{"kv"},
	}
	h := newHost(t, &connectplugin.ServeConfig{Addr: "127.0.0.1:0", Policy: &policy})
	run(t, func(ctx context.Context) error { return h.ListenAndServe(ctx) })

	c := &catalogue{host: h.Host, policy: policy, specs: map[string]connectplugin.PluginSpec{}}
	install := func(name string) {
		may := connectplugin.PluginPolicy{Provides: []string{"kv"}}
		spec := connectplugin.PluginSpec{Plugin: &kvv1plugin.KVServicePlugin{}, ImplFactory: func() any { return &store{} }}

		if err := c.install(t.Context(), name, may, spec); err != nil {
			t.Fatal(err)
		}
	}

	install("acme.store")

	cfg := h.config(t, "app")
	cfg.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "kv"}}

	app, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = app.Close() })
	put(t, app)

	if err := h.Launcher().Stop(t.Context(), "acme.store"); err != nil {
		t.Fatal(err)
	}

	install("beta.store")
	put(t, app)

	if runs(h, "acme.store") || !runs(h, "beta.store") {
		t.Error("what was stopped came back with what another one installed")
	}

	h.RevokeSelf("beta.store")
	install("acme.store")

	for _, name := range []string{"acme.store", "beta.store", "acme.store"} { // the last one is gone
		if err := c.uninstall(t.Context(), name); err != nil || runs(h, name) {
			t.Errorf("%s runs: %t, %v", name, runs(h, name), err)
		}
	}

	await(t, app, false)
}

// runs reports whether a host knows a plugin.
func runs(h *bookHost, name string) bool {
	for _, p := range h.Plugins() {
		if p.SelfID == name {
			return true
		}
	}

	return false
}
