package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

var errNotLaunched = errors.New("the host does not know the plugin that it launched")

// launch has the host launch this program as a plugin that forwards to upstream.
func (b *bridge) launch(upstream server) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("executable: %w", err)
	}
	const mode = 0o600
	trusted := filepath.Join(b.dir, "upstream.crt")
	if err := os.WriteFile(trusted, upstream.cert, mode); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	l := b.host.Launcher()
	l.Configure(map[string]connectplugin.PluginSpec{
		providerID: {BinaryPath: self, Provides: []string{serviceType}, Args: []string{upstream.url(), trusted}},
	})
	if _, err := l.GetService(providerID, serviceType); err != nil {
		return fmt.Errorf("launch: %w", err)
	}
	for _, p := range b.host.Plugins() {
		if p.SelfID == providerID {
			b.provider = p.RuntimeID
			return nil
		}
	}
	return errNotLaunched
}

// servePlugin is the plugin that is launched. Its arguments are the URL of the suite's server and
// a file with that server's certificate.
func servePlugin(ctx context.Context, args []string) error {
	const wanted = 2
	if len(args) != wanted {
		return errUsage
	}
	upstream, err := url.Parse(args[0])
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	trusted, err := os.ReadFile(args[1])
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(trusted) {
		return errCertificate
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.RawQuery = upstream.Scheme, upstream.Host, r.In.URL.RawQuery
		},
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, Protocols: &protocols, DisableCompression: true},
		FlushInterval: -1, // at once
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{ //nolint:wrapcheck // of this program's own library
		Services: []connectplugin.PluginService{{Type: serviceType, Version: version, Path: "/", Handler: forward}},
	})
}
