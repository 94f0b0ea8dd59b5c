package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

const (
	serviceType   = "conformance"
	providerID    = "reference-server"
	callerID      = "reference-client"
	secret        = "a secret of conformance tests only"
	version       = "1.0.0"
	loopback      = "127.0.0.1"
	headerTimeout = 10 * time.Second
	shutdownTime  = 2 * time.Second
)

var errCertificate = errors.New("server shows no usable certificate")

// bridge is a host between a client and a server of the suite. The suite knows
// neither routes nor identities: a listener in front of the host's handler puts the
// route before the path and the caller's credentials into the header of each
// request.
type bridge struct {
	tally    *tally
	launched bool // the provider is a plugin that the host launches
	dir      string
	host     *connectplugin.Host
	served   chan struct{}         // closed when the host's end is complete
	provider string                // its runtime id
	enrolled *connectplugin.Client // the provider, unless it is launched
	caller   *connectplugin.Client
	front    *http.Server
	listener net.Listener
	ca       []byte // PEM
}

// newBridge starts a host whose router forwards to upstream.
func newBridge(ctx context.Context, upstream server, t *tally) (*bridge, error) {
	return (&bridge{tally: t, served: make(chan struct{})}).started(ctx, upstream)
}

// newLaunchedBridge starts a host that launches a plugin, which forwards to upstream.
func newLaunchedBridge(ctx context.Context, upstream server, t *tally) (*bridge, error) {
	return (&bridge{tally: t, launched: true, served: make(chan struct{})}).started(ctx, upstream)
}

func (b *bridge) started(ctx context.Context, upstream server) (*bridge, error) {
	if err := b.start(ctx, upstream); err != nil {
		b.close()
		return nil, fmt.Errorf("bridge: %w", err)
	}
	return b, nil
}

// address is where the suite's client finds the bridge.
func (b *bridge) address() server {
	addr, _ := b.listener.Addr().(*net.TCPAddr)
	return server{host: loopback, port: uint64(addr.Port), cert: b.ca} //nolint:gosec // a port
}

// close ends the bridge and everything that goes through it.
func (b *bridge) close() {
	if b.front != nil {
		_ = b.front.Close()
	}
	for _, c := range []*connectplugin.Client{b.caller, b.enrolled} {
		if c != nil {
			_ = c.Close()
		}
	}
	if b.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		_ = b.host.Shutdown(ctx)
		cancel()
		<-b.served
	}
	_ = os.RemoveAll(b.dir)
}

func (b *bridge) start(ctx context.Context, upstream server) error {
	var err error
	if b.dir, err = os.MkdirTemp("", "conformance"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: filepath.Join(b.dir, "authority")})
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if b.ca, err = os.ReadFile(filepath.Join(b.dir, "authority", "authority.crt")); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	addr, err := b.serveHost(ctx, upstream, authority)
	if err != nil {
		return err
	}
	if b.launched {
		err = b.launch(upstream)
	} else {
		err = b.enrol(ctx, "https://"+addr, authority.ClientTLS())
	}
	if err != nil {
		return err
	}
	config := clientConfig("https://"+addr, callerID, authority.ClientTLS())
	config.Metadata.Requires = []connectplugin.ServiceDependency{{Type: serviceType}}
	if b.caller, err = connected(ctx, config); err != nil {
		return err
	}
	return b.serveFront(ctx, authority)
}

// serveHost starts the host and returns its address.
func (b *bridge) serveHost(ctx context.Context, upstream server, authority *connectplugin.Authority) (string, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(upstream.cert) {
		return "", errCertificate
	}
	config := &connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			providerID: {Provides: []string{serviceType}}, callerID: {Secret: []byte(secret), Requires: []string{serviceType}},
		}},
		Logger: slog.New(b.tally), Audit: b.tally.audit,
	}
	if !b.launched {
		config.PluginTLS = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
		config.Policy.Plugins[providerID] = connectplugin.PluginPolicy{
			Secret: []byte(secret), Provides: []string{serviceType}, Endpoint: upstream.url(),
		}
	}
	host, err := connectplugin.NewHost(config)
	if err != nil {
		return "", fmt.Errorf("host: %w", err)
	}
	listener, err := listen(ctx)
	if err != nil {
		return "", errors.Join(err, host.Shutdown(ctx))
	}
	b.host = host
	go func() {
		defer close(b.served)
		_ = host.Serve(context.WithoutCancel(ctx), listener) // ends with close, which asks for no reason
	}()
	return listener.Addr().String(), nil
}

// clientConfig is that of a plugin which enrols.
func clientConfig(hostURL, selfID string, trust *tls.Config) connectplugin.ClientConfig {
	return connectplugin.ClientConfig{HostURL: hostURL, SelfID: selfID, SelfVersion: version, Secret: []byte(secret), TLS: trust}
}

// enrol registers the server of the suite as a provider.
func (b *bridge) enrol(ctx context.Context, hostURL string, trust *tls.Config) error {
	config := clientConfig(hostURL, providerID, trust)
	config.Metadata.Provides = []connectplugin.ServiceDeclaration{{Type: serviceType, Version: version}}
	var err error
	if b.enrolled, err = connected(ctx, config); err != nil {
		return err
	}
	b.provider = b.enrolled.RuntimeID()
	_, err = b.enrolled.RegistryClient().RegisterService(ctx, connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
		ServiceType: serviceType, Version: version, // no path: the suite also calls services that there are not
	}))
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

func connected(ctx context.Context, config connectplugin.ClientConfig) (*connectplugin.Client, error) {
	c, err := connectplugin.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("client %s: %w", config.SelfID, err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect %s: %w", config.SelfID, err), c.Close())
	}
	return c, nil
}

// serveFront starts the listener that the suite's client calls.
func (b *bridge) serveFront(ctx context.Context, authority *connectplugin.Authority) error {
	serverTLS, err := authority.HostTLS()
	if err != nil {
		return fmt.Errorf("front: %w", err)
	}
	if b.listener, err = listen(ctx); err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	b.front = &http.Server{
		Handler: b.rewrite(b.host.Handler()), TLSConfig: serverTLS, Protocols: &protocols, ReadHeaderTimeout: headerTimeout,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	go func() { _ = b.front.ServeTLS(b.listener, "", "") }()
	return nil
}

// rewrite addresses a request of the suite to the provider, as the caller.
func (b *bridge) rewrite(next http.Handler) http.Handler {
	prefix := "/services/" + serviceType + "/" + b.provider
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.tally.receive()
		out := *r
		target := *r.URL
		target.Path = prefix + r.URL.Path
		out.URL, out.RequestURI = &target, ""
		out.Header.Set("X-Plugin-Runtime-Id", b.caller.RuntimeID())
		out.Header.Set("Authorization", "Bearer "+b.caller.RuntimeToken())
		next.ServeHTTP(w, &out)
	})
}

func listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}
