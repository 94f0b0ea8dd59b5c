// Package ours is the peer on this library: a plugin of [connectplugin.ServePlugin] and a
// caller that goes through [connectplugin.Client.Service].
package ours

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/interop/echo"
	"github.com/masegraye/connect-plugin-go/interop/peers/connectgo"
)

// Version is the version of the service.
const Version = "1.0.0"

const grace = 5 * time.Second

// Serve serves until ctx ends, and then until the calls in flight have. It says where
// when the host knows the plugin.
func Serve(ctx context.Context, j echo.Job, l net.Listener, say func(runtimeID string) error) error {
	cfg, err := pluginTLS(j)
	if err != nil {
		return err
	}
	err = connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
		Client:   config(j, cfg),
		Services: []connectplugin.PluginService{{Type: j.Type, Version: Version, Path: echo.Base, Handler: connectgo.Handler()}},
		Listener: l, GracefulShutdownTimeout: grace,
		OnConnected: func(_ context.Context, c *connectplugin.Client) error { return say(c.RuntimeID()) },
	})
	if err != nil {
		return fmt.Errorf("plugin: %w", err)
	}
	return nil
}

// Dial makes a caller of the type that the job names.
func Dial(ctx context.Context, j echo.Job) (echo.Caller, error) {
	cfg, err := pluginTLS(j)
	if err != nil {
		return nil, err
	}
	c := config(j, cfg)
	c.Metadata.Requires = []connectplugin.ServiceDependency{{Type: j.Type}}
	client, err := connectplugin.NewClient(c)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	end := func() { _ = client.Close() }
	if err := client.Connect(ctx); err != nil {
		end()
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn, err := client.Service(ctx, j.Type, "")
	if err != nil {
		end()
		return nil, fmt.Errorf("service: %w", err)
	}
	return &caller{connectgo.NewCaller(conn.HTTPClient(), conn.BaseURL(), "", http.Header{}, end)}, nil
}

// caller follows the registry by itself.
type caller struct{ *connectgo.Caller }

// Move implements echo.Caller.
func (*caller) Move(string) {}

func config(j echo.Job, cfg *tls.Config) connectplugin.ClientConfig {
	return connectplugin.ClientConfig{
		HostURL: j.Host, SelfID: j.Self, SelfVersion: Version, Secret: []byte(j.Secret), TLS: cfg,
	}
}

func pluginTLS(j echo.Job) (*tls.Config, error) {
	cfg, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: j.Dir})
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return cfg, nil
}
