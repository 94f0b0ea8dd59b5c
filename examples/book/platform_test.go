package book_test

import (
	"context"
	"net"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// waitForHost is what the operator's guide shows of a plugin that its host calls first.
func waitForHost(ctx context.Context, addr, dir, hostIdentity string) error {
	//docs:region sidecar
	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir}) // those of WriteCredentials
	if err != nil {
		return err
	}

	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:       connectplugin.ClientConfig{SelfID: "store", TLS: tls}, // no HostURL: the host says it
		Addr:         addr,                                                  // where the host will call, "10.0.0.7:9443"
		HostIdentity: hostIdentity,                                          // Authority.HostIdentity() in the host
		Services:     []connectplugin.PluginService{kvv1plugin.ProvideKVService(&store{})},
	})
	//docs:end
}

// adopt is what the operator's guide shows of plugins that run already.
func adopt(ctx context.Context, host *connectplugin.Host, endpoint string) error {
	//docs:region adopt
	// It waits until the host serves. Its policy has "store": {Provides: []string{"kv"}}.
	return host.Platform().AddPlugin(ctx, connectplugin.PluginConfig{
		SelfID: "store", Endpoint: endpoint, // "https://10.0.0.7:9443"
		Metadata: (&kvv1plugin.KVServicePlugin{}).Metadata(), // what it has to provide
	})
	//docs:end
}

// inMemory is what the operator's guide shows of plugins in the host's own process.
func inMemory(ctx context.Context, host *connectplugin.Host) error {
	//docs:region memory
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{
		"store": {Plugin: &kvv1plugin.KVServicePlugin{}, ImplFactory: func() any { return &store{} }},
	})

	return host.Launcher().Start(ctx)
	//docs:end
}

func TestPlatform(t *testing.T) {
	t.Parallel()

	h := newHost(t, &connectplugin.ServeConfig{Addr: "127.0.0.1:0", Policy: &connectplugin.Policy{
		Plugins: map[string]connectplugin.PluginPolicy{"store": {Provides: []string{"kv"}}, "app": {Requires: []string{"kv"}}},
	}})
	run(t, func(ctx context.Context) error { return h.ListenAndServe(ctx) })

	cfg := h.config(t, "app")
	cfg.Metadata.Requires = []connectplugin.ServiceDependency{{Type: "kv"}}

	app, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = app.Close() })

	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}

	dir, addr := t.TempDir(), hosttest.FreeAddr(t)
	if err := h.authority.WriteCredentials(dir, "store"); err != nil {
		t.Fatal(err)
	}

	run(t, func(ctx context.Context) error { return waitForHost(ctx, addr, dir, h.authority.HostIdentity()) })
	listens(t, addr)

	if err := adopt(t.Context(), h.Host, "https://"+addr); err != nil {
		t.Fatal(err)
	}

	put(t, app)

	if err := h.Platform().RemovePlugin(t.Context(), h.Platform().Instances()[0].RuntimeID); err != nil {
		t.Error(err)
	}

	if err := inMemory(t.Context(), h.Host); err != nil {
		t.Fatal(err)
	}

	put(t, app)
}

// put calls the store.
func put(t *testing.T, app *connectplugin.Client) {
	t.Helper()

	conn, err := app.Service(t.Context(), "kv", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	kv := kvv1connect.NewKVServiceClient(conn.HTTPClient(), conn.BaseURL())
	if _, err := kv.Put(t.Context(), &kvv1.PutRequest{Key: "app"}); err != nil {
		t.Error(err)
	}
}

// listens waits until somebody listens at an address.
func listens(t *testing.T, addr string) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()

	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()

	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()

			return
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("nobody listens:", err)
		}
	}
}
