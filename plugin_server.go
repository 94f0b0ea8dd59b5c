package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/gather"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
)

const (
	defaultPluginAddr     = "127.0.0.1:0"
	defaultHealthInterval = 10 * time.Second
)

// PluginService is one service that a plugin serves to others through the host.
type PluginService struct {
	// Type names the service, for example "logger".
	Type string
	// Version is its semantic version.
	Version string
	// Path and Handler are what a generated New…Handler function returns. They
	// receive calls that the host has authorised; header X-Plugin-Caller-Id
	// names the calling plugin's runtime id.
	Path string
	// Handler serves the calls below Path.
	Handler http.Handler
	// Metadata is told to plugins that discover the service. May be nil.
	Metadata map[string]string
}

// PluginServerConfig configures [ServePlugin].
type PluginServerConfig struct {
	// Client says how the host is reached and who the plugin is. An empty
	// HostURL means that the host calls first and assigns the identity; then
	// HostIdentity is required. Metadata.Provides may stay empty: Services says
	// it.
	Client ClientConfig
	// Services are what the plugin serves. Empty is a plugin that only calls.
	Services []PluginService
	// Addr is the address to listen on. Empty means any free port on loopback.
	Addr string
	// Listener is listened on in place of Addr. It is closed in the end. May be
	// nil.
	Listener net.Listener
	// BaseURL is where the host reaches the plugin, if policy leaves that to
	// the plugin. Empty means the address listened on.
	BaseURL string
	// TLS is the server side: a certificate, and the ClientCAs of the host. Nil
	// means the certificate of Client.TLS, and its RootCAs for the host.
	TLS *tls.Config
	// HostIdentity is the certificate identity of the host, which alone may
	// call the plugin. Empty means the identity of the certificate that the
	// host showed in the handshake.
	HostIdentity string
	// Health is asked for the plugin's health before each report; it must not
	// block. Nil means healthy. A service type in Client.Metadata.Requires that
	// is watched and unavailable makes a healthy plugin degraded.
	Health func() (state connectpluginv1.HealthState, reason string)
	// HealthInterval is the time between reports. Zero means 10 s.
	HealthInterval time.Duration
	// GracefulShutdownTimeout bounds the end: calls in flight may finish for
	// that long. Zero means 10 s.
	GracefulShutdownTimeout time.Duration
	// OnConnected runs once, after the first handshake and before the services
	// are registered; an error ends the plugin. May be nil.
	OnConnected func(ctx context.Context, client *Client) error
}

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *PluginServerConfig) Validate() error {
	if c == nil {
		return fieldError("PluginServerConfig", "is nil")
	}
	client := c.Client
	if client.HostURL == "" && client.Endpoint == "" && client.Discovery == nil {
		if c.HostIdentity == "" {
			return fieldError("Client.HostURL", "is empty; write the host's base URL, or set HostIdentity and wait for the host to call")
		}
		client.Endpoint = "https://assigned.invalid" // validates the rest
	}
	if client.SelfID == "" {
		return fieldError("Client.SelfID", "is empty; write the name that the host's policy knows")
	}
	if err := client.Validate(); err != nil {
		return fmt.Errorf("Client: %w", err)
	}
	if err := c.validateServing(); err != nil {
		return err
	}
	return c.validateServices()
}

func (c *PluginServerConfig) validateServing() error {
	switch {
	case c.HealthInterval < 0:
		return fieldError("HealthInterval", "is negative")
	case c.GracefulShutdownTimeout < 0:
		return fieldError("GracefulShutdownTimeout", "is negative")
	case c.Client.AllowInsecure && c.TLS != nil:
		return fieldError("TLS", "cannot be combined with Client.AllowInsecure; remove one of them")
	case !c.Client.AllowInsecure && len(c.Services) > 0 && serverLeaf(c.serverBase()) == nil:
		return fieldError("TLS", "has no certificate, nor has Client.TLS; the plugin serves over TLS and needs one")
	}
	if c.BaseURL != "" {
		if _, err := parseHostURL(c.BaseURL, c.Client.AllowInsecure); err != nil {
			return fieldError("BaseURL", "%v", err)
		}
	}
	return nil
}

func (c *PluginServerConfig) validateServices() error {
	seen := map[string]bool{}
	for i, s := range c.Services {
		field := fmt.Sprintf("Services[%d]", i)
		d := ServiceDeclaration{Type: s.Type, Version: s.Version, Path: s.Path}
		switch err := d.validate(); {
		case err != nil:
			return fieldError(field, "%v", err)
		case s.Path == "" || s.Handler == nil:
			return fieldError(field, "needs Path and Handler, as a generated New…Handler function returns them")
		case seen[s.Type]:
			return fieldError(field+".Type", "%q is served twice", s.Type)
		}
		seen[s.Type] = true
		if err := ValidateMetadata(s.Metadata); err != nil {
			return fieldError(field+".Metadata", "%v", err)
		}
	}
	return nil
}

// serverBase is the TLS configuration that the server side starts from.
func (c *PluginServerConfig) serverBase() *tls.Config {
	if c.TLS != nil {
		return c.TLS
	}
	if c.Client.TLS == nil {
		return &tls.Config{MinVersion: tls.VersionTLS13}
	}
	base := c.Client.TLS.Clone()
	if base.ClientCAs == nil {
		base.ClientCAs = base.RootCAs
	}
	base.VerifyConnection = nil // that of the client side
	return base
}

// withDefaults returns a copy with the defaults, in which the declarations of the
// client say what is served.
func (c *PluginServerConfig) withDefaults() *PluginServerConfig {
	out := *c
	out.Services = slices.Clone(c.Services)
	out.Client = c.Client.withDefaults()
	if len(out.Client.Metadata.Provides) == 0 {
		for _, s := range out.Services {
			out.Client.Metadata.Provides = append(out.Client.Metadata.Provides,
				ServiceDeclaration{Type: s.Type, Version: s.Version, Path: s.Path})
		}
	}
	out.Addr = cmp.Or(c.Addr, defaultPluginAddr)
	out.HealthInterval = cmp.Or(c.HealthInterval, defaultHealthInterval)
	out.GracefulShutdownTimeout = cmp.Or(c.GracefulShutdownTimeout, defaultShutdownTimeout)
	return &out
}

// ServePlugin is everything that a plugin process does, in one call: it serves
// the plugin's services over TLS to the host alone, waits for the host and
// enrols (or waits until the host assigns an identity), registers the services,
// reports health, renews its token, enrols and registers again when the host
// lost it, answers the host's control calls, and at the end unregisters, drains
// and leaves. It returns nil when ctx ended or the host asked the plugin to stop, and
// an error where the configuration is wrong ([ErrInvalidConfig]) or the host
// refuses the plugin ([ErrHandshakeRefused], [ErrHostNotTrusted]).
func ServePlugin(ctx context.Context, cfg *PluginServerConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s, err := newPluginServer(ctx, cfg.withDefaults())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.stop = cancel
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	err = s.session.run(ctx)
	err = errors.Join(err, s.shutdown(context.WithoutCancel(ctx)), <-served)
	s.listener.Wait()
	return err
}

// pluginServer is the server side of a plugin.
type pluginServer struct {
	cfg      *PluginServerConfig
	client   *Client
	listener *gather.Listener
	server   *http.Server
	drain    *drain
	session  *pluginSession
	stop     context.CancelFunc // set before serving
	grace    atomic.Int64       // what is left to calls in flight at the end, in nanoseconds
}

func newPluginServer(ctx context.Context, cfg *PluginServerConfig) (*pluginServer, error) {
	s := &pluginServer{cfg: cfg, drain: newDrain()}
	s.grace.Store(int64(cfg.GracefulShutdownTimeout))
	clientCfg := cfg.Client
	if clientCfg.HostURL == "" && clientCfg.Discovery == nil {
		clientCfg.Endpoint = "https://assigned.invalid"
	}
	client, err := NewClient(clientCfg)
	if err != nil {
		return nil, err
	}
	s.client = client
	var serverTLS *tls.Config
	if !cfg.Client.AllowInsecure {
		if serverTLS, err = s.serverTLS(); err != nil {
			return nil, errors.Join(err, client.Close())
		}
	}
	listener := cfg.Listener
	if listener == nil {
		var lc net.ListenConfig
		if listener, err = lc.Listen(ctx, "tcp", cfg.Addr); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %s: set PluginServerConfig.Addr to a free address: %w", cfg.Addr, err), client.Close())
		}
	}
	s.listener = gather.NewListener(listener, gather.Config{WriteTimeout: writeByteTimeout})
	s.session = newPluginSession(cfg, client, s.baseURL())
	s.server = s.newServer(serverTLS)
	return s, nil
}

// serverTLS demands of every caller the host's certificate.
func (s *pluginServer) serverTLS() (*tls.Config, error) {
	cfg := s.cfg.serverBase().Clone()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	next := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if next != nil {
			if err := next(cs); err != nil {
				return err
			}
		}
		return s.onlyHost(cs)
	}
	hardened, err := hardenServerTLS(cfg)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return hardened, nil
}

var (
	errHostUnknown = errors.New("the host's certificate identity is not known: set PluginServerConfig.HostIdentity")
	errNotTheHost  = errors.New("caller is not the host")
)

func (s *pluginServer) onlyHost(cs tls.ConnectionState) error {
	want := s.cfg.HostIdentity
	if want == "" {
		want = s.client.hostIdentity()
	}
	cert := newCertificate(&cs)
	switch {
	case want == "":
		return errHostUnknown
	case cert == nil || cert.identity != want:
		return errNotTheHost
	}
	return nil
}

// hostIdentity returns the certificate identity that the host showed in the
// handshake, empty where it is not known.
func (c *Client) hostIdentity() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hostCert
}

// baseURL is where the host reaches the plugin, empty where that is not known.
func (s *pluginServer) baseURL() string {
	if s.cfg.BaseURL != "" {
		return s.cfg.BaseURL
	}
	addr, err := netip.ParseAddrPort(s.listener.Addr().String())
	if err != nil || addr.Addr().IsUnspecified() {
		return ""
	}
	if s.cfg.Client.AllowInsecure {
		return "http://" + addr.String()
	}
	return "https://" + addr.String()
}

func (s *pluginServer) newServer(serverTLS *tls.Config) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.cfg.Client.AllowInsecure)
	return &http.Server{
		Handler:           s.drain.count(s.handler()),
		TLSConfig:         serverTLS,
		ReadHeaderTimeout: defaultLimits.ReadHeaderTimeout,
		IdleTimeout:       defaultLimits.IdleTimeout,
		MaxHeaderBytes:    defaultLimits.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Client.Logger.Handler(), slog.LevelDebug),
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: pluginStreams,
			SendPingTimeout:      pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeByteTimeout,
		},
	}
}

// pluginStreams bounds the concurrent calls on one of the host's connections.
const pluginStreams = 1000

// handler finds the service of a path.
func (s *pluginServer) handler() http.Handler {
	type entry struct {
		prefix  string
		handler http.Handler
	}
	control, bounds := &pluginControl{server: s}, boundedMessages(defaultLimits.MaxMessageBytes)
	controlPath, controlHandler := connectpluginv1connect.NewPluginControlHandler(control, bounds)
	identityPath, identityHandler := connectpluginv1connect.NewPluginIdentityHandler(control, bounds)
	table := make([]entry, 0, 2+len(s.cfg.Services))
	table = append(table, entry{controlPath, controlHandler}, entry{identityPath, identityHandler})
	for _, svc := range s.cfg.Services {
		table = append(table, entry{svc.Path, svc.Handler})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawPath == "" && proxy.CheckPath(r.URL.Path) == nil {
			for _, e := range table {
				if strings.HasPrefix(r.URL.Path, e.prefix) {
					e.handler.ServeHTTP(w, r)
					return
				}
			}
		}
		http.NotFound(w, r)
	})
}

func (s *pluginServer) serve() error {
	var err error
	if s.server.TLSConfig == nil {
		err = s.server.Serve(s.listener)
	} else {
		err = s.server.ServeTLS(s.listener, "", "")
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	s.stop()
	return fmt.Errorf("serve: %w", err)
}

// leaveWait bounds how long a plugin that ends tries to tell its host so.
const leaveWait = 2 * time.Second

// shutdown drains the server and ends the identity.
func (s *pluginServer) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.grace.Load()))
	defer cancel()
	err := s.drain.shutdown(ctx, s.server)
	if err != nil {
		err = errors.Join(fmt.Errorf("shutdown: calls in flight were cut off: %w", err), s.server.Close())
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), leaveWait)
	defer cancelLast()
	if gone := s.client.Leave(last); gone != nil {
		s.cfg.Client.Logger.Debug("leave", keyError, gone) // the host is gone, or dropped the plugin already
	}
	return err
}
