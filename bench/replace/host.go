package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	userName  = "user" // of the plugin that calls through the router
	grace     = 5 * time.Second
	unlimited = 1e6 // requests per second, more than are made
)

var errNotServing = errors.New("the host does not serve")

// startHost starts a host that launches this program as its plugin.
func startHost(ctx context.Context, authority *connectplugin.Authority) (host *connectplugin.Host, stop func(), err error) {
	spec, err := ownSpec()
	if err != nil {
		return nil, nil, err
	}
	host, err = connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			echoName: {Provides: []string{echoName}}, userName: {Requires: []string{echoName}},
		}},
		Limits: connectplugin.Limits{RequestsPerSecond: unlimited, RequestBurst: unlimited},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("host: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = host.Serve(life, l)
	}()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for host.Addr() == "" {
		select {
		case <-look.C:
		case <-served:
			end()
			return nil, nil, errNotServing
		}
	}
	host.Launcher().Configure(map[string]connectplugin.PluginSpec{echoName: spec})
	return host, func() {
		end()
		<-served
	}, nil
}

// ownSpec is this program as a plugin.
func ownSpec() (connectplugin.PluginSpec, error) {
	path, err := os.Executable()
	if err != nil {
		return connectplugin.PluginSpec{}, fmt.Errorf("own path: %w", err)
	}
	program, err := os.ReadFile(path) //nolint:gosec // It is this program.
	if err != nil {
		return connectplugin.PluginSpec{}, fmt.Errorf("own program: %w", err)
	}
	sum := sha256.Sum256(program)
	return connectplugin.PluginSpec{
		BinaryPath: path, Checksum: hex.EncodeToString(sum[:]), Provides: []string{echoName}, StopGrace: grace,
	}, nil
}

// enrol connects a plugin that calls the other through the router.
func enrol(ctx context.Context, host *connectplugin.Host, authority *connectplugin.Authority) (*connectplugin.Client, error) {
	tls, err := authority.PluginTLS(userName)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", userName, err)
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + host.Addr(), SelfID: userName, TLS: tls,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: echoName}}},
	})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}
