// Command host is a host in the manner of the library before: the services are made one by
// one and served by Serve, or mounted on a mux of its own. What is new is in fields.go.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/examples/kv/gen/kv/v1/kvv1plugin"
	"github.com/masegraye/connect-plugin-go/examples/kv/store"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "the address to listen on")
	mounted := flag.Bool("mounted", false, "mount the services on a mux instead of calling Serve")
	fields := flag.String("fields", "", "the new fields: insecure, open, secure, or nothing")
	flag.Parse()

	if err := run(*addr, *mounted, *fields); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string, mounted bool, fields string) error {
	cfg := newConfig(addr)
	if err := fill(cfg, fields); err != nil {
		return err
	}

	handshake := connectplugin.NewHandshakeServer(cfg)
	cfg.ServiceRouter = connectplugin.NewServiceRouter(handshake, cfg.ServiceRegistry, cfg.LifecycleService)

	if !mounted {
		return connectplugin.Serve(cfg)
	}

	defer cfg.ServiceRouter.Close()

	mux := http.NewServeMux()
	mux.Handle(connectplugin.HandshakeServerHandler(handshake))
	mux.Handle(connectplugin.LifecycleServerHandler(cfg.LifecycleService))
	mux.Handle(connectplugin.HealthServerHandler(cfg.HealthService))
	mux.Handle(connectplugin.ServiceRegistryHandler(cfg.ServiceRegistry))
	mux.Handle("/services/", cfg.ServiceRouter)

	return listenAndServe(cfg, mux)
}

// newConfig is the configuration as it was written before.
func newConfig(addr string) *connectplugin.ServeConfig {
	lifecycle := connectplugin.NewLifecycleServer()

	return &connectplugin.ServeConfig{
		Addr:             addr,
		Plugins:          connectplugin.PluginSet{"kv": &kvv1plugin.KVServicePlugin{}},
		Impls:            map[string]any{"kv": store.New()},
		ProtocolVersion:  1,
		HealthService:    connectplugin.NewHealthServer(),
		LifecycleService: lifecycle,
		ServiceRegistry:  connectplugin.NewServiceRegistry(lifecycle),
		Logger:           slog.Default(),
	}
}

// listenAndServe serves a mux until the process gets a signal, in plaintext where the
// configuration has no certificate.
func listenAndServe(cfg *connectplugin.ServeConfig, mux *http.ServeMux) error {
	listener, err := net.Listen("tcp", cfg.Addr) //nolint:noctx // as it was written before
	if err != nil {
		return err
	}

	slog.Info("host is serving", "addr", listener.Addr().String())

	server := &http.Server{Handler: mux, TLSConfig: cfg.TLS.Clone()} //nolint:gosec // as it was written before

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)

	go func() {
		<-signals
		server.Close() //nolint:errcheck,gosec // the process ends
	}()

	if cfg.TLS == nil {
		err = server.Serve(listener)
	} else {
		err = server.ServeTLS(listener, "", "")
	}

	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}

	return err
}
