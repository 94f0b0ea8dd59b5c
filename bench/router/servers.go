package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	loopback      = "127.0.0.1:0"
	serviceType   = "bench"
	providerID    = "provider"
	callerID      = "caller"
	version       = "1.0.0"
	secret        = "a secret of benchmarks only"
	headerTimeout = 10 * time.Second
	plentyRate    = 10_000_000 // limits that are checked and never reached
)

// serveHost is the host: everything on that an operator has on.
func serveHost(ctx context.Context, dir string) error {
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	var events atomic.Int64
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			providerID: {Secret: []byte(secret), Provides: []string{serviceType}, AllowOwnAddress: true},
			callerID:   {Secret: []byte(secret), Requires: []string{serviceType}},
		}},
		Limits: connectplugin.Limits{RequestsPerSecond: plentyRate, RequestBurst: plentyRate},
		Logger: slog.New(slog.NewJSONHandler(io.Discard, nil)), //nolint:sloglint // it formats, as an operator's does
		Audit:  func(connectplugin.AuditEvent) { events.Add(1) },
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	served := make(chan struct{})
	serving, stop := context.WithCancel(ctx)
	go func() {
		defer close(served)
		_ = host.Serve(serving, listener) // calls in flight are cut off, which is no failure here
	}()
	err = obey(ctx, "https://"+listener.Addr().String(), nil)
	stop()
	<-served
	return err
}

// serveProxy is the bare reverse proxy: it forwards to the provider whatever comes.
func serveProxy(ctx context.Context, dir, providerURL string) error {
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	target, err := url.Parse(providerURL)
	if err != nil {
		return fmt.Errorf("provider: %w", err)
	}
	serverTLS, err := authority.HostTLS()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	transport, err := newTransport(authority)
	if err != nil {
		return err
	}
	return serveHTTP(ctx, serverTLS, &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, FlushInterval: -1, ErrorLog: quiet,
	})
}

// servePlain serves what the plugin does on net/http as it comes.
func servePlain(ctx context.Context, dir string) error {
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	serverTLS, err := authority.HostTLS()
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return serveHTTP(ctx, serverTLS, http.HandlerFunc(serveCall))
}

// serveHTTP serves a handler over TLS and HTTP/2 until the command ends.
func serveHTTP(ctx context.Context, serverTLS *tls.Config, handler http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler: handler, TLSConfig: serverTLS, Protocols: &protocols, ReadHeaderTimeout: headerTimeout, ErrorLog: quiet,
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	err = obey(ctx, "https://"+listener.Addr().String(), nil)
	return errors.Join(err, server.Close())
}

var quiet = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)

// newTransport dials as a host does: over TLS and HTTP/2, with the host's
// certificate.
func newTransport(authority *connectplugin.Authority) (*http.Transport, error) {
	cfg, err := authority.HostTLS()
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Transport{TLSClientConfig: cfg, Protocols: &protocols, DisableCompression: true}, nil
}

// serveProvider is the plugin that is called, on all ways alike.
func serveProvider(ctx context.Context, dir, hostURL string) error {
	authority, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	pluginTLS, err := authority.PluginTLS(providerID)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	ready, served := make(chan struct{}), make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	go func() {
		served <- connectplugin.ServePlugin(serving, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: hostURL, SelfID: providerID, SelfVersion: version, Secret: []byte(secret), TLS: pluginTLS},
			Services: []connectplugin.PluginService{{Type: serviceType, Version: version, Path: servicePath, Handler: http.HandlerFunc(serveCall)}},
			Listener: listener, GracefulShutdownTimeout: time.Second,
			OnConnected: func(context.Context, *connectplugin.Client) error { close(ready); return nil },
		})
	}()
	select {
	case <-ready:
		err = obey(ctx, "https://"+listener.Addr().String(), nil)
		stop()
		return errors.Join(err, <-served)
	case err := <-served:
		stop()
		return fmt.Errorf("provider: %w", err)
	}
}

func listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", loopback)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}
