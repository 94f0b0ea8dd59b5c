// Command inmemory is a host with a provider in its own process: the host calls it
// without a socket, and everything else is as for a plugin elsewhere.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/internal/devhost"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1delegate"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	"github.com/masegraye/connect-plugin-go/examples/kv/store"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

func main() { devhost.Main(run) }

func run(ctx context.Context) error {
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		return err
	}

	router := connectplugin.NewServiceRouter(nil, nil, nil)

	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, ServiceRouter: router,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"store": {Provides: []string{kvv1plugin.KVServiceType}},
			"app":   {Requires: []string{kvv1plugin.KVServiceType}},
		}},
	})
	if err != nil {
		return err
	}

	var lc net.ListenConfig

	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	served := make(chan error, 1)

	go func() { served <- host.Serve(ctx, listener) }()

	err = use(ctx, router, authority, "https://"+listener.Addr().String())

	stop()

	return errors.Join(err, <-served)
}

// use makes the store a provider, and calls it as another plugin would.
func use(ctx context.Context, router *connectplugin.ServiceRouter, authority *connectplugin.Authority, url string) error {
	provider, err := enrol(ctx, authority, connectplugin.ClientConfig{
		HostURL: url, SelfID: "store", Metadata: (&kvv1plugin.KVServicePlugin{}).Metadata(),
	})
	if err != nil {
		return err
	}
	defer provider.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the host ends with it

	service := kvv1plugin.ProvideKVService(store.New())
	if err := router.RegisterPluginHandler(provider.RuntimeID(), service.Handler); err != nil {
		return err
	}

	_, err = provider.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: service.Type, Version: service.Version, EndpointPath: service.Path,
	}))
	if err != nil {
		return err
	}

	caller, err := enrol(ctx, authority, connectplugin.ClientConfig{
		HostURL: url, SelfID: "app",
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: kvv1plugin.KVServiceType}}},
	})
	if err != nil {
		return err
	}
	defer caller.Leave(context.WithoutCancel(ctx)) //nolint:errcheck // the host ends with it

	return call(ctx, caller)
}

func enrol(ctx context.Context, authority *connectplugin.Authority, cfg connectplugin.ClientConfig) (*connectplugin.Client, error) {
	tls, err := authority.PluginTLS(cfg.SelfID)
	if err != nil {
		return nil, err
	}

	cfg.TLS = tls

	client, err := connectplugin.NewClient(cfg)
	if err != nil {
		return nil, err
	}

	return client, client.Connect(ctx)
}

func call(ctx context.Context, client *connectplugin.Client) error {
	conn, err := client.Service(ctx, kvv1plugin.KVServiceType, kvv1plugin.KVServiceVersion)
	if err != nil {
		return err
	}

	kv := kvv1delegate.New(kvv1connect.NewKVServiceClient(conn.HTTPClient(), conn.BaseURL()))
	if err := kv.Put(ctx, "where", []byte("in the host's own process")); err != nil {
		return err
	}

	res, err := kv.Get(ctx, "where")
	if err != nil {
		return err
	}

	fmt.Printf("the store is %s\n", res.GetValue())

	return nil
}
