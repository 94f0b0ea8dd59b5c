package book_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	kvv1 "github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1connect"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
)

// product is what the operator's guide shows of a program that calls the plugins of its own host. front is what it is for.
func product(
	ctx context.Context, listener net.Listener, authority *connectplugin.Authority, policy *connectplugin.Policy,
	front func(ctx context.Context, kv kvv1connect.KVServiceClient) error,
) error {
	//docs:region own
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{Authority: authority, Policy: policy, Logger: slog.Default()})
	if err != nil {
		return err
	}

	tls, err := authority.PluginTLS("web") // a plugin like any other: policy has "web": {Requires: []string{"kv"}}
	if err != nil {
		return err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + listener.Addr().String(), SelfID: "web", TLS: tls, Logger: slog.Default(),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "kv"}}},
	})
	if err != nil {
		return err
	}

	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // longer than ctx, see below
	served := make(chan error, 1)
	go func() { served <- host.Serve(serving, listener) }()

	conn, err := client.Service(ctx, "kv", "^1") // the listener is there; it waits for no provider
	if err == nil {
		err = front(ctx, kvv1connect.NewKVServiceClient(conn.HTTPClient(), conn.BaseURL())) // your server, until ctx ends
	}

	err = errors.Join(err, client.Leave(context.WithoutCancel(ctx))) // first what calls, then the host
	stop()

	return errors.Join(err, <-served)
	//docs:end
}

func TestProduct(t *testing.T) {
	t.Parallel()

	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{})
	if err != nil {
		t.Fatal(err)
	}

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	h := &bookHost{authority: authority, base: "https://" + listener.Addr().String()}
	policy := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
		"web": {Requires: []string{"kv"}}, "store": {Provides: []string{"kv"}, AllowOwnAddress: true},
	}}

	err = product(t.Context(), listener, authority, policy, func(ctx context.Context, kv kvv1connect.KVServiceClient) error {
		stop := run(t, func(ctx context.Context) error {
			return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
				Client: h.config(t, "store"), Services: []connectplugin.PluginService{kvv1plugin.ProvideKVService(&store{})},
			})
		})
		defer stop()

		return putWhenThere(ctx, kv)
	})
	if err != nil {
		t.Error(err)
	}
}

// putWhenThere calls the store until it is there.
func putWhenThere(ctx context.Context, kv kvv1connect.KVServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()

	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()

	for {
		_, err := kv.Put(ctx, &kvv1.PutRequest{Key: "web"}) // of no other plugin's key
		if connect.CodeOf(err) != connect.CodeUnavailable || err == nil {
			return err
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}
