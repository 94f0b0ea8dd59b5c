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
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/drain"
	"github.com/masegraye/connect-plugin-go/internal/entry"
	"github.com/masegraye/connect-plugin-go/internal/gather"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/opening"
	"github.com/masegraye/connect-plugin-go/internal/taken"
)

const (
	defaultPluginAddr     = "127.0.0.1:0"
	defaultHealthInterval = 10 * time.Second
)

// PluginService is one service that a plugin serves to others through the host.
type PluginService struct {
	// Type names the service, for example "logger". A plugin provides a type once: two of one type are two
	// plugins, each with a ServePlugin of its own, which may be in one process.
	Type string
	// Version is its semantic version.
	Version string
	// Path and Handler are what a generated New…Handler function returns. They
	// receive calls that the host has authorised; CallerFromContext and the headers
	// X-Plugin-Caller-Id, -Self-Id and -Self-Version name the calling plugin. A Path without any slash
	// is the name of a service: "echo.v1.Echo" is "/echo.v1.Echo/".
	Path string
	// Handler serves the calls below Path. A generated New…Handler function takes
	// connect.WithCompressMinBytes: give it CompressMinBytes.
	Handler http.Handler
	// Metadata is told to plugins that discover the service. May be nil.
	Metadata map[string]string
}

// PluginLimits holds the bounds of a plugin's listener, on which the host alone is let in and
// anybody may knock. The zero value of each field is what its comment says; a
// negative value is refused.
type PluginLimits struct {
	// MaxConnections bounds the open connections; more wait in the listener's queue.
	// Default 10,000.
	MaxConnections int
	// MaxConnectionsPerPeer bounds those of one peer address (a /64 for IPv6) on which TLS is
	// not agreed on yet, and in plaintext all of them. A newcomer takes the place of the one
	// that is there for longest, if that is half a second (in plaintext the one that was
	// silent for longest, if that was for 5 s), and is refused otherwise: before TLS also one of
	// the host, where others at its address come that fast. Calls to the plugin are unavailable
	// then until the host has a connection, which it keeps. Connections of the host, which TLS
	// tells, do not count. Default 1,000.
	MaxConnectionsPerPeer int
	// ConnectionsPerSecond and ConnectionBurst limit the new connections of one peer
	// address. One that comes faster is closed before TLS, also one of the host where others
	// share its address. Zero sets no limit.
	ConnectionsPerSecond float64
	// ConnectionBurst is the burst to ConnectionsPerSecond. Default 2,000.
	ConnectionBurst int
	// ReadHeaderTimeout bounds the TLS handshake and, in plaintext, each request header: over TLS
	// nobody calls but the host. Default 10 s.
	ReadHeaderTimeout time.Duration
	// CertificateOvertime is how long a connection may outlive the certificate that the host
	// showed on it, unless the host shows a later one of the same identity on another
	// connection; a host of this library whose certificates renew does. Default 1 min.
	CertificateOvertime time.Duration
}

// common are the bounds as those of a host with the same names.
func (l PluginLimits) common() Limits {
	return Limits{
		MaxConnections: l.MaxConnections, MaxConnectionsPerPeer: l.MaxConnectionsPerPeer,
		ConnectionsPerSecond: l.ConnectionsPerSecond, ConnectionBurst: l.ConnectionBurst,
		ReadHeaderTimeout: l.ReadHeaderTimeout, CertificateOvertime: l.CertificateOvertime,
	}
}

func (l PluginLimits) validate() error { return l.common().validate() }

// withDefaults returns a copy in which zero fields hold their defaults.
func (l PluginLimits) withDefaults() PluginLimits {
	all := l.common().withDefaults()
	return PluginLimits{
		MaxConnections: all.MaxConnections, MaxConnectionsPerPeer: all.MaxConnectionsPerPeer,
		ConnectionsPerSecond: l.ConnectionsPerSecond, ConnectionBurst: all.ConnectionBurst,
		ReadHeaderTimeout: all.ReadHeaderTimeout, CertificateOvertime: all.CertificateOvertime,
	}
}

// PluginServerConfig configures [ServePlugin].
type PluginServerConfig struct {
	// Client says how the host is reached and who the plugin is. An empty
	// HostURL means that the host calls first and assigns the identity; then
	// HostIdentity or Client.PinnedKeys is required. Metadata.Provides may stay
	// empty: Services says it.
	Client ClientConfig
	// Services are what the plugin serves. Empty is a plugin that only calls.
	Services []PluginService
	// Addr is the address to listen on. Empty means any free port, on the address from
	// which the plugin reaches its host; on loopback in plaintext, and where the host
	// calls first or Client.HTTPClient hides that address.
	Addr string
	// Listener is listened on in place of Addr, by one plugin or host, and of those in one process by
	// no other: that is refused, where each has not wrapped it. It is closed in the end. Its connections
	// must keep deadlines, as those of [Host.Serve] must. May be nil.
	Listener net.Listener
	// BaseURL is where the host reaches the plugin, if policy leaves that to
	// the plugin. Empty means the address listened on; a plugin whose Addr is
	// every address ("0.0.0.0:8443") needs one, and one with such a Listener is
	// warned where it has none: then policy has to name the endpoint.
	BaseURL string
	// TLS is the server side: a certificate, and the ClientCAs of the host. Nil
	// means the certificate of Client.TLS, and its RootCAs for the host.
	TLS *tls.Config
	// HostIdentity is the identity of the certificate with which the host calls the
	// plugin, which nobody else may: that of ServeConfig.TLS, or of PluginTLS where the
	// host has one. Where Client.PinnedKeys are set, its key must be among them. Empty
	// means Client.HostIdentity, and where that is empty and no key is pinned, the
	// SPIFFE id that the host showed in the handshake. A host that is not known in any
	// of these ways cannot call the plugin, and nor can anybody else.
	HostIdentity string
	// Standby says that the plugin waits where another one provides a type of its Services,
	// or another instance of this one does: it is enrolled, registered and healthy, and
	// neither discovered nor called until the last provider of the type has left, or is dead:
	// it has no connection to the host and does not answer it. Then it takes over. After a
	// restart of the host whoever registers first provides, so set it in both plugins of a
	// pair. Without it ServePlugin returns an error that wraps
	// [ErrServiceTaken] where a type belongs to another plugin.
	Standby bool
	// Health is asked for the plugin's health once in a HealthInterval, and when the
	// host asks; never twice at once. It must not block: where it takes more than 5 s
	// the plugin is unhealthy until an answer comes in time, and where it panics as long as it does. The host gets of the reason
	// one line of 1,024 bytes at most. Nil means healthy. A service type in
	// Client.Metadata.Requires that is watched and unavailable makes a healthy plugin degraded.
	Health func() (state connectpluginv1.HealthState, reason string)
	// HealthInterval is the time between reports. Zero means 10 s; 10 ms is the least. A host with very many
	// plugins may want to hear less often what has not changed (HealthProbeConfig.ReportsPerSecond).
	HealthInterval time.Duration
	// GracefulShutdownTimeout bounds the end: calls in flight may finish for
	// that long; those that do not are cut off, and ServePlugin returns an error. Zero means 10 s; 1 ms is the least.
	GracefulShutdownTimeout time.Duration
	// Limits bounds what strangers can take of the plugin's listener, and how long a
	// connection of the host stands. The zero value is the defaults.
	Limits PluginLimits
	// OnConnected runs once, after the first handshake and before the services
	// are registered; an error ends the plugin, and a panic is one. Nothing is registered until it
	// returns, which the log says after 10 s; one that does not return is given up a moment after
	// ctx has ended. May be nil.
	OnConnected func(ctx context.Context, client *Client) error

	// withdrawn says that the host which launched the plugin has taken it out itself, so that
	// only the end of the process is missing.
	withdrawn *atomic.Bool
	// released says that a plugin which was taken out needs no more of that host. It returns
	// at once; nil where no host launched it.
	released func()
	// launched says that a host launched the plugin, and so is the only one that calls it.
	launched bool
}

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *PluginServerConfig) Validate() error { return c.validate(context.Background()) }

// validate is Validate that waits for a source of certificates no longer than ctx lasts.
func (c *PluginServerConfig) validate(ctx context.Context) error {
	if c == nil {
		return fieldError("PluginServerConfig", "is nil")
	}
	client := c.Client
	if client.HostURL == "" && client.Endpoint == "" && client.Discovery == nil {
		if c.HostIdentity == "" && client.HostIdentity == "" && len(client.PinnedKeys) == 0 {
			return fieldError("Client.HostURL", "is empty; write the host's base URL, or set HostIdentity and wait for the host to call")
		}
		client.Endpoint = assignedURL // validates the rest
	}
	if client.SelfID == "" {
		return fieldError("Client.SelfID", "is empty; write the name that the host's policy knows")
	}
	if err := client.Validate(); err != nil {
		return fmt.Errorf("Client: %w", err)
	}
	if err := c.validateServing(ctx); err != nil {
		return err
	}
	return c.validateServices()
}

func (c *PluginServerConfig) validateServing(ctx context.Context) error {
	if err := validateIdentityName("HostIdentity", c.HostIdentity); err != nil {
		return err
	}
	if err := checkDuration("HealthInterval", c.HealthInterval, leastInterval); err != nil {
		return err
	}
	if err := checkDuration("GracefulShutdownTimeout", c.GracefulShutdownTimeout, leastDuration); err != nil {
		return err
	}
	switch {
	case c.Client.AllowInsecure && c.TLS != nil:
		return fieldError("TLS", "cannot be combined with Client.AllowInsecure; remove one of them")
	case c.Client.AllowInsecure || len(c.Services) == 0:
	default:
		if err := c.validateCertificate(ctx); err != nil {
			return err
		}
	}
	if err := c.Limits.validate(); err != nil {
		return err
	}
	return c.validateBaseURL()
}

func (c *PluginServerConfig) validateCertificate(ctx context.Context) error {
	log := cmp.Or(guest.Log("ClientConfig.Logger", c.Client.Logger), slog.New(slog.DiscardHandler))
	var failed error
	has, err := askInTime(ctx, log, func() bool {
		leaf, err := certs.AskServer(c.serverBase(), "")
		failed = err
		return leaf != nil
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return fieldError("TLS", "GetCertificate, here or in Client.TLS, failed: %v", failed)
	case !has:
		return fieldError("TLS", "has no certificate, nor has Client.TLS; the plugin serves over TLS and needs one "+
			"(with go-spiffe write tlsconfig.MTLSServerConfig(...))")
	}
	return nil
}

func (c *PluginServerConfig) validateBaseURL() error {
	if c.Listener != nil && isNil(c.Listener) {
		return fieldError("Listener", "holds a nil %T; write nil itself, or make one with net.Listen", c.Listener)
	}
	if c.Addr != "" && c.Listener == nil {
		if _, err := listenPort(c.Addr); err != nil {
			return fieldError("Addr", "%v", err)
		}
	}
	if c.BaseURL == "" && c.Listener == nil && len(c.Services) > 0 && addressless(c.Addr) {
		return fieldError("BaseURL", "%s", unreachableListener)
	}
	if c.BaseURL != "" {
		if _, err := parseHostURL(c.BaseURL, c.Client.AllowInsecure); err != nil {
			return fieldError("BaseURL", "%v", err)
		}
		if u, err := url.Parse(c.BaseURL); err == nil && addressless(net.JoinHostPort(u.Hostname(), "0")) {
			return fieldError("BaseURL", "names no address, or a link-local one, to which hosts do not go and whose zone only this machine knows; "+
				"write the one at which the host reaches the plugin")
		}
	}
	return nil
}

// ownMetadata is how many entries pluginSession.metadata adds at most to those of a service.
const ownMetadata = 2

func (c *PluginServerConfig) validateServices() error {
	seen := map[string]bool{}
	served := make([]ServiceDeclaration, 0, len(c.Services))
	for i, s := range c.Services {
		field := fmt.Sprintf("Services[%d]", i)
		path := servicePath(s.Path)
		d := ServiceDeclaration{Type: s.Type, Version: s.Version, Path: path}
		switch err := d.validate(); {
		case err != nil:
			return fieldError(field, "%v", err)
		case isOwnPath(path):
			return fieldError(field+".Path", "%q is one of this library's own services, which the host keeps to itself; serve another", s.Path)
		case s.Path == "" || isNil(s.Handler):
			return fieldError(field, "needs Path and Handler, as a generated New…Handler function returns them")
		case seen[s.Type]:
			return fieldError(field+".Type", "%q is served twice, and a plugin provides a type once: give each a type of its own, or serve "+
				"each with a ServePlugin and a SelfID of its own (Policy.AllowMultiple lets several plugins provide one type)", s.Type)
		}
		seen[s.Type] = true
		for j, other := range c.Services[:i] {
			if catalog.PathsOverlap(path, servicePath(other.Path)) {
				return fieldError(field+".Path", "%q overlaps %q of Services[%d]; give each service paths of its own", s.Path, other.Path, j)
			}
		}
		if err := ValidateMetadata(s.Metadata); err != nil {
			return fieldError(field+".Metadata", "%v", err)
		}
		if n := len(s.Metadata); n > MaxMetadataEntries-ownMetadata {
			return fieldError(field+".Metadata", "has %d entries, and ServePlugin adds %d; write %d at most", n, ownMetadata,
				MaxMetadataEntries-ownMetadata)
		}
		served = append(served, d)
	}
	return c.Client.Metadata.validateStart("Client.Metadata", served)
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
	if base.ClientAuth == tls.NoClientCert {
		base.VerifyConnection = nil // that of the client side
	}
	return base
}

// withDefaults returns a copy with the defaults, in which the declarations of the
// client say what is served.
func (c *PluginServerConfig) withDefaults() *PluginServerConfig {
	out := *c
	out.Services = slices.Clone(c.Services)
	for i := range out.Services {
		out.Services[i].Path = servicePath(out.Services[i].Path)
	}
	out.Client = c.Client.withDefaults()
	if len(out.Client.Metadata.Provides) == 0 {
		for _, s := range out.Services {
			out.Client.Metadata.Provides = append(out.Client.Metadata.Provides,
				ServiceDeclaration{Type: s.Type, Version: s.Version, Path: s.Path})
		}
	}
	if out.withdrawn == nil {
		out.withdrawn = new(atomic.Bool)
	}
	out.Limits = c.Limits.withDefaults()
	out.HealthInterval = cmp.Or(c.HealthInterval, defaultHealthInterval)
	out.GracefulShutdownTimeout = cmp.Or(c.GracefulShutdownTimeout, defaultShutdownTimeout)
	return &out
}

// ServePlugin is everything that a plugin process does, in one call: it serves
// the plugin's services over TLS to the host alone, waits for the host and
// enrols (or waits until the host assigns an identity), registers the services,
// reports health, renews its token, enrols and registers again when the host
// lost it, answers the host's control calls, and at the end unregisters, drains
// and leaves. When ctx ended or the host asked the plugin to stop it returns nil, or an error
// where calls in flight did not end within GracefulShutdownTimeout and were cut off. It returns
// an error, too, where the configuration is wrong ([ErrInvalidConfig]) or the host
// refuses the plugin ([ErrHandshakeRefused], [ErrHostNotTrusted]). A host that refuses a plugin
// which it took before, as a new policy does, is asked again, once a minute at last, unless an
// operator revoked the plugin.
//
// Where a host launched the process (see [Launched]), ServePlugin takes its name, its
// certificate, the host's URL and the address to listen on from the host, and ignores what
// the configuration says of them, except that another SelfID is refused. It ends when that
// host is gone.
func ServePlugin(ctx context.Context, cfg *PluginServerConfig) error {
	line, err := takeLifeline()
	if err != nil {
		return err
	}
	if line == nil {
		return servePlugin(ctx, cfg)
	}
	return line.serve(ctx, cfg)
}

func servePlugin(ctx context.Context, cfg *PluginServerConfig) error {
	switch err := cfg.validate(ctx); {
	case errors.Is(err, errStartEnded):
		return nil
	case err != nil:
		return err
	}
	give, ok := taken.Take(cfg.Listener)
	if !ok {
		return fieldError("Listener", isServedOn)
	}
	defer give()
	if cfg.Client.AllowInsecure && cfg.Client.Logger == nil { // where there is one, the client warns
		warnPlaintext(nil, plaintextAllowed)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newPluginServer(ctx, cfg.withDefaults())
	if err != nil {
		return err
	}
	s.trust.warnStart(cfg)
	s.stop = cancel
	served := make(chan error, 1)
	go func() { served <- s.serve() }()
	err = s.session.run(ctx)
	err = errors.Join(err, s.shutdown(context.WithoutCancel(ctx)), <-served)
	s.gathered.Wait()
	return err
}

// pluginServer is the server side of a plugin.
type pluginServer struct {
	cfg      *PluginServerConfig
	client   *Client
	trust    *hostTrust
	tls      *tls.Config // nil in plaintext
	listener net.Listener
	opened   net.Listener     // of the listener
	gathered *gather.Listener // of opened
	server   *h2serve.Server  // nil in plaintext
	plain    *http.Server     // nil but in plaintext
	door     atomic.Pointer[entry.Entry]
	log      *serverLog
	drain    *drain.Drain
	session  *pluginSession
	stop     context.CancelFunc // set before serving
	grace    atomic.Int64       // what is left to calls in flight at the end, in nanoseconds
}

func newPluginServer(ctx context.Context, cfg *PluginServerConfig) (*pluginServer, error) {
	s := &pluginServer{cfg: cfg, drain: drain.New()}
	s.grace.Store(int64(cfg.GracefulShutdownTimeout))
	clientCfg := cfg.Client
	if clientCfg.HostURL == "" && clientCfg.Discovery == nil {
		clientCfg.Endpoint = assignedURL
	}
	client, err := NewClient(clientCfg)
	if err != nil {
		return nil, err
	}
	s.log = newServerLog(cfg.Client.Logger)
	cfg.Client.Logger = client.cfg.Logger
	s.client, s.trust = client, newHostTrust(cfg, client)
	if !cfg.Client.AllowInsecure {
		if s.tls, err = s.serverTLS(); err != nil {
			return nil, errors.Join(err, client.Close())
		}
		client.own = append(client.own, certs.ServerSource("this plugin, where its host calls it", s.tls))
	}
	if err := s.listen(ctx); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	s.opened = opening.NewListener(s.listener, s.log.opened(s.tls != nil))
	s.gathered = gather.NewListener(s.opened, gather.Config{WriteTimeout: writeByteTimeout})
	s.session = newPluginSession(cfg, client, s.baseURL())
	s.session.enrolled = s.connected
	if s.tls != nil {
		s.server = s.newServer(ctx)
	} else {
		s.plain = s.newPlain(ctx)
	}
	return s, nil
}

// serverTLS demands of every caller the host's certificate.
func (s *pluginServer) serverTLS() (*tls.Config, error) {
	hardened, err := hardenServerTLS(demandOfClients(s.cfg.serverBase(), tls.RequireAndVerifyClientCert, s.trust.onlyHost))
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return hardened, nil
}

// baseURL is where the host reaches the plugin, empty where that is not known.
func (s *pluginServer) baseURL() string {
	if s.cfg.BaseURL != "" {
		return s.cfg.BaseURL
	}
	addr, err := netip.ParseAddrPort(s.listener.Addr().String())
	if err != nil || addressless(addr.String()) {
		return ""
	}
	if s.cfg.Client.AllowInsecure {
		return "http://" + addr.String()
	}
	return "https://" + addr.String()
}
