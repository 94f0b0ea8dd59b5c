package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/held"
	"github.com/masegraye/connect-plugin-go/internal/recent"
	"github.com/masegraye/connect-plugin-go/internal/tally"
)

// ServeConfig configures a [Host]. It is copied when the host is made; later
// changes of it have no effect. TLS (or Authority) and Policy are the two fields
// that every host fills in.
type ServeConfig struct {
	// Plugins are the host's own plugin services by name; empty is fine.
	Plugins PluginSet
	// Impls holds the implementation of each entry of Plugins.
	Impls map[string]any
	// Addr is the address that [Host.ListenAndServe] listens on. Empty means
	// loopback, "127.0.0.1:8443".
	Addr string
	// HealthAddr is an address on which [Host.Serve] answers probes and nothing else, in
	// plaintext over HTTP/1.1 and HTTP/2, for those that cannot speak TLS 1.3 with h2:
	// GET /healthz (200 while the process serves), GET /readyz (503 once the host ends, or
	// HealthService says so), and grpc.health.v1.Health over gRPC. It authenticates nobody
	// and tells no more than that. Empty means nowhere; Addr answers the first two as well.
	HealthAddr string
	// MetricsAddr is an address on which [Host.Serve] answers GET /metrics with Metrics and
	// nothing else, in plaintext over HTTP/1.1 and HTTP/2. It authenticates nobody, and metrics
	// tell who calls whom: bind it to loopback, or to a network of the operator's. Over loopback
	// it answers to localhost and IP addresses alone, others get 421. Empty means nowhere.
	MetricsAddr string
	// Metrics answers scrapes on MetricsAddr, such as the Handler of connectpluginotel's
	// Prometheus. It is set where MetricsAddr is, and nowhere else.
	Metrics http.Handler
	// MagicCookieKey and MagicCookieValue must match the client's. Empty means
	// the defaults. The cookie is no secret: it only tells a plugin from a
	// program started by mistake.
	MagicCookieKey string
	// MagicCookieValue is the value to MagicCookieKey.
	MagicCookieValue string
	// ProtocolVersion is the highest application version that the host speaks.
	// Zero means 1.
	ProtocolVersion int
	// MinProtocolVersion is the lowest application version that the host
	// accepts. Zero means ProtocolVersion.
	MinProtocolVersion int
	// DeprecatedBelow warns plugins that negotiated a lower application
	// version. Zero warns nobody.
	DeprecatedBelow int
	// ServerMetadata is told in the handshake to every plugin, and to whom an auth
	// provider knows. Where it has no "server_version", that of this module in the
	// program is told. Keys that begin with "connectplugin." are the host's own.
	ServerMetadata map[string]string
	// GracefulShutdownTimeout bounds [Host.Shutdown] and the end of [Serve], but for Cleanup, which comes after: calls in flight
	// may finish until the last second of it, or the last quarter of less than 4 s, in which those that are left are told and cut
	// off, which has half a second in any case. Zero means 30 s, which is as long as Kubernetes waits before it kills; 1 ms is
	// the least.
	GracefulShutdownTimeout time.Duration
	// StopCh ends [Serve] when it is closed. Nil means that only a signal does.
	StopCh <-chan struct{}
	// Cleanup runs once after the last request. Its context ends GracefulShutdownTimeout later,
	// or where the context of [Host.Shutdown] does, but after a second at the earliest. One that
	// does not return then, within another second, is left running, and the error of Shutdown says
	// so, or that it panicked. May be nil.
	Cleanup func(context.Context) error

	// HealthService answers gRPC-style health checks. Nil means the host makes one.
	HealthService *HealthServer
	// LifecycleService takes health reports. Nil means the host makes one.
	LifecycleService *LifecycleServer
	// ServiceRegistry is the registry. Nil means the host makes one.
	ServiceRegistry *ServiceRegistry
	// ServiceRouter routes calls between plugins. Nil means the host makes one. Its
	// handshake server, with the policy and the identities, belongs to this host then.
	ServiceRouter *ServiceRouter
	// CapabilityBroker grants the host's capabilities. Nil means the host makes
	// an empty one.
	CapabilityBroker *CapabilityBroker

	// RuntimeTokenTTL is how long a runtime token lives without renewal. Zero
	// means [DefaultRuntimeTokenTTL]; 1 s is the least.
	RuntimeTokenTTL time.Duration
	// CapabilityGrantTTL is how long a grant lets calls in; one that began in time goes on.
	// Zero means [DefaultCapabilityGrantTTL]; 1 s is the least.
	CapabilityGrantTTL time.Duration
	// RateLimiter limits handshakes per peer and requests per identity with the
	// rates of Limits. Nil means the host makes and closes its own; one given
	// here is the caller's to close.
	RateLimiter RateLimiter

	// TLS is the server side: certificates, and ClientCAs with ClientAuth where
	// plugins bring certificates. TLS 1.3 and ALPN h2 are enforced. With
	// RequireAnyClientCert and VerifyPeerCertificate, as go-spiffe makes it, the
	// callback verifies: whose certificate it accepts is known by the SPIFFE id in it,
	// and by no other name. Nil is refused unless Authority or AllowInsecure is set.
	TLS *tls.Config
	// PluginTLS is the client side towards plugins: RootCAs and the host's
	// client certificate. A plugin that enrolled with a SPIFFE id is known by that, any
	// other by the host name that is dialled. Nil means the certificate of TLS and trust
	// in TLS.ClientCAs.
	PluginTLS *tls.Config
	// Authority, where set, stands in for TLS and PluginTLS where they are nil,
	// and its plugin certificates prove the self id that they name. Nobody else can
	// issue such certificates, whatever ClientCAs holds.
	Authority *Authority
	// AllowInsecure serves plaintext HTTP, for development only. It is logged
	// at Warn. It cannot be combined with TLS or Authority.
	AllowInsecure bool
	// Hosts are the names and addresses under which plugins reach the host, without ports,
	// brackets and wildcards; a request for another is refused, but for /healthz and /readyz.
	// Empty means the names in the certificate that was shown on the request's connection,
	// also where that is chosen for each client or renewed, and the address listened on; in
	// plaintext on every address, any address and any name without a dot. A host whose names
	// are not known at its start is warned of, and so is one that listens beyond its machine with
	// a certificate of Authority, which then names localhost, 127.0.0.1 and ::1 alone.
	Hosts []string
	// Policy says what each plugin may do. Nil grants nothing.
	Policy *Policy
	// Limits are the bounds of the host. Zero means the defaults.
	Limits Limits
	// HealthProbe says how the host watches over the plugins that provide
	// something. Its zero value asks each one every 10 s.
	HealthProbe HealthProbeConfig
	// HandshakeAuth says how plugins prove themselves beyond Policy.
	HandshakeAuth HandshakeAuth
	// AuthProviders authenticate callers of the host's own plugin services who
	// hold no runtime token. Empty means that only plugins with a token call. Without Plugins
	// they let nobody call anything, which the log warns of.
	AuthProviders []AuthProvider
	// PassMetadata are names of header fields that the router passes on between plugins, in
	// requests, responses and trailers, beside those that it passes of itself
	// (docs/metadata.md). Names of the protocols, of connections and of the host's own
	// credentials are refused. Credentials of your own that you name here reach every provider
	// that a caller calls. Empty adds none.
	PassMetadata []string
	// Interceptors run around the host's RPC services, after authentication. With any, each open watch
	// of a service takes a goroutine.
	Interceptors []connect.Interceptor
	// Logger receives what the operator should know. Nil means no log, but for the
	// warnings of plaintext, of an open policy and of one that accepts no plugin, which then
	// go to slog.Default(). A handler that does not return is waited for a second; what is logged until it has returned is
	// lost, and then the log says how much that was. Its Enabled, WithAttrs and WithGroup must not block.
	Logger *slog.Logger
	// Audit receives one event per security decision; of a peer or a caller that
	// is refused again and again, as many as Limits.HandshakesPerSecond and
	// HandshakeBurst say. Of all strangers together those are 200 a second, with a burst of
	// 1,000; then one event a second says in Count and Reason how many more there were, of
	// which kinds and of how many addresses. What is about somebody the host knows is none of
	// those. It is called synchronously and must not block. Nil means that Logger gets them.
	Audit func(AuditEvent)
	// Observer is told of every call, handshake, watch, launch, exit and refusal, for metrics
	// and traces; see [Observer] for when and at what cost. Module connectpluginotel has one for
	// OpenTelemetry and Prometheus. Nil tells nobody, and costs nothing.
	Observer Observer

	// Admin lets operators look at the host and change it over connectplugin.admin.v1, as
	// connectpluginctl does. Nil means that nobody can. See [AdminConfig] for who may.
	Admin *AdminConfig

	configured *slog.Logger           // Logger as it was given
	lines      *held.Queue[held.Line] // of Logger, during a change of policy
	complete   bool                   // the copy holds the defaults
}

// AdminConfig offers the admin services of a host as two of its own plugins, [AdminRead]
// and [AdminChange]. A plugin may call those that the HostPlugins of its [PluginPolicy] name: "*"
// is not enough, nor is Policy.Public or an auth provider. The zero value offers both.
type AdminConfig struct {
	// ReadOnly leaves AdminChange out.
	ReadOnly bool
	// Events is how many audit events are kept for whoever asks, in memory. Zero means
	// 1,024.
	Events int
	// Followers bounds the streams that follow the host at the same time. Zero means 16.
	Followers int
	// LoadPolicy reads the policy from where the operator keeps it, for an operator who
	// asks the host to reload it; see [Host.SetPolicy]. It may block. Nil means that nobody
	// can have it reloaded.
	LoadPolicy func(context.Context) (*Policy, error)
}

// withDefaults returns a copy; nil stays nil.
func (c *AdminConfig) withDefaults() *AdminConfig {
	if c == nil {
		return nil
	}
	out := *c
	out.Events = cmp.Or(c.Events, defaultAdminEvents)
	out.Followers = cmp.Or(c.Followers, defaultAdminFollowers)
	return &out
}

const (
	defaultAdminEvents    = 1024
	maxAdminEvents        = 1 << 20
	defaultAdminFollowers = 16
)

func (c *AdminConfig) validate() error {
	switch {
	case c == nil:
	case c.Events < 0 || c.Events > maxAdminEvents:
		return fieldError("Admin.Events", "must lie between 0, for the default, and %d", maxAdminEvents)
	case c.Followers < 0:
		return fieldError("Admin.Followers", "is negative; write 0 for the default or a positive bound")
	}
	return nil
}

// validateHosts refuses what no request can name.
func (c *ServeConfig) validateHosts() error {
	for i, host := range c.Hosts {
		_, err := netip.ParseAddr(host)
		if host == "" || err != nil && strings.ContainsAny(host, "/:[]*@% \t\r\n") {
			return fieldError(fmt.Sprintf("Hosts[%d]", i), "%q is neither an IP address nor a host name; write it without scheme, brackets, "+
				"port and path, and each name by itself, since there are no wildcards", host)
		}
		if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
			return fieldError(fmt.Sprintf("Hosts[%d]", i), "%q has other letters than those of ASCII, and clients ask for a name in them as IDNA "+
				"writes it; write that, as in xn--bcher-kva.example", host)
		}
	}
	return nil
}

// validateAddrs refuses addresses that cannot be listened on, by themselves or beside each other.
func (c *ServeConfig) validateAddrs() error {
	addrs := []struct{ field, addr string }{
		{"Addr", cmp.Or(c.Addr, defaultAddr)}, {"HealthAddr", c.HealthAddr}, {"MetricsAddr", c.MetricsAddr},
	}
	for i, a := range addrs {
		if a.addr == "" {
			continue
		}
		port, err := listenPort(a.addr)
		if err != nil {
			return fieldError(a.field, "%v", err)
		}
		for j, b := range addrs[:i] {
			switch {
			case port == "0" || port == "" || b.addr == "": // any free one, and none
			case a.addr == b.addr:
				return fieldError(a.field, "is that of %s; write another port", b.field)
			case (j > 0 || c.Addr != "") && isWithin(a.addr, b.addr): // who leaves Addr out may serve on a listener of its own
				return fieldError(a.field, "%q has the port of %s, %q, and one of them is every address; write another port", a.addr, b.field, b.addr)
			}
		}
	}
	return c.validateMetrics()
}

func (c *ServeConfig) validateMetrics() error {
	switch {
	case c.Metrics != nil && isNil(c.Metrics):
		return fieldError("Metrics", isTypedNil)
	case c.MetricsAddr != "" && c.Metrics == nil:
		return fieldError("Metrics", "is required where MetricsAddr is set: the handler that answers scrapes, such as Handler of "+
			"connectpluginotel.NewPrometheus")
	case c.Metrics != nil && c.MetricsAddr == "":
		return fieldError("MetricsAddr", `is required where Metrics is set: the address for scrapes, such as "127.0.0.1:9464"`)
	}
	return nil
}

// isWithin reports whether two addresses have one port, and one of them is every address of the machine, so that who listens
// there is in the way of who would on the other.
func isWithin(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a)
	hostB, portB, _ := net.SplitHostPort(b)
	return portA == portB && (isEverywhere(hostA) || isEverywhere(hostB))
}

// withDefaults returns a copy that shares no mutable memory with c and holds the
// defaults.
func (c *ServeConfig) withDefaults() *ServeConfig {
	out := *c
	out.Plugins = maps.Clone(c.Plugins)
	out.Impls = maps.Clone(c.Impls)
	out.ServerMetadata = withServerVersion(c.ServerMetadata)
	out.Hosts = slices.Clone(c.Hosts)
	for i, host := range out.Hosts {
		out.Hosts[i] = withoutZone(host)
	}
	out.AuthProviders = slices.Clone(c.AuthProviders)
	out.Interceptors = slices.Clone(c.Interceptors)
	out.PassMetadata = slices.Clone(c.PassMetadata)
	out.Addr = cmp.Or(c.Addr, defaultAddr)
	out.MagicCookieKey = cmp.Or(c.MagicCookieKey, DefaultMagicCookieKey)
	out.MagicCookieValue = cmp.Or(c.MagicCookieValue, DefaultMagicCookieValue)
	out.ProtocolVersion = cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	out.MinProtocolVersion = cmp.Or(c.MinProtocolVersion, out.ProtocolVersion)
	out.GracefulShutdownTimeout = cmp.Or(c.GracefulShutdownTimeout, defaultHostShutdown)
	out.RuntimeTokenTTL = cmp.Or(c.RuntimeTokenTTL, DefaultRuntimeTokenTTL)
	out.CapabilityGrantTTL = cmp.Or(c.CapabilityGrantTTL, DefaultCapabilityGrantTTL)
	out.HandshakeAuth.MaxClockSkew = cmp.Or(c.HandshakeAuth.MaxClockSkew, defaultMaxClockSkew)
	out.HandshakeAuth.ReplayCacheSize = cmp.Or(c.HandshakeAuth.ReplayCacheSize, defaultReplayCacheSize)
	out.Limits = c.Limits.withDefaults()
	out.Admin = c.Admin.withDefaults()
	if !c.complete {
		out.configured, out.complete, out.lines = c.Logger, true, new(held.Queue[held.Line])
		to := slog.DiscardHandler
		if log := guest.Log("ServeConfig.Logger", c.Logger); log != nil {
			to = held.Handler(log.Handler(), out.lines)
		}
		out.Logger = slog.New(to)
	}
	return &out
}

// announced is what a host tells plugins: what its operator does, and what it can.
func announced(metadata map[string]string) map[string]string {
	out := maps.Clone(metadata)
	if out == nil {
		out = map[string]string{}
	}
	out[metadataAnyProvider] = metadataTrue
	return out
}

// service is one that belongs to a host.
type service interface{ bind(h *hub) error }

// services are those that the configuration names.
func (c *ServeConfig) services() []service {
	var out []service
	if c.LifecycleService != nil {
		out = append(out, c.LifecycleService)
	}
	if c.ServiceRegistry != nil {
		out = append(out, c.ServiceRegistry)
	}
	if c.CapabilityBroker != nil {
		out = append(out, c.CapabilityBroker)
	}
	if c.HealthService != nil {
		out = append(out, c.HealthService)
	}
	return out
}

// serverVersionKey names the version of the host in what it tells plugins.
const serverVersionKey = "server_version"

// withServerVersion returns a copy that says the version of the host.
func withServerVersion(metadata map[string]string) map[string]string {
	out := make(map[string]string, len(metadata)+1)
	out[serverVersionKey] = moduleVersion()
	maps.Copy(out, metadata)
	return out
}

// modulePath is the path of this module, under which whoever replaces another keeps it.
const modulePath = "github.com/masegraye/connect-plugin-go"

// moduleVersion is the version of this module in the program, as the go command
// recorded it: "(devel)" where it is built from its own tree.
var moduleVersion = sync.OnceValue(func() string {
	const unknown = "(devel)"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	for _, m := range append([]*debug.Module{&info.Main}, info.Deps...) {
		if m.Path == modulePath {
			return cmp.Or(m.Version, unknown)
		}
	}
	return unknown
})

// settings is what the services are told of a configuration that holds the
// defaults.
func (c *ServeConfig) settings() *settings {
	s := &settings{
		tokenTTL: c.RuntimeTokenTTL, grantTTL: c.CapabilityGrantTTL, limits: c.Limits, rateLimiter: c.RateLimiter,
		cookieKey: c.MagicCookieKey, cookieValue: c.MagicCookieValue,
		versions:        versionsBetween(c.MinProtocolVersion, c.ProtocolVersion),
		deprecatedBelow: wireVersion(c.DeprecatedBelow),
		serverMetadata:  announced(c.ServerMetadata),
		passed:          c.PassMetadata,
		handshake:       c.HandshakeAuth, authority: c.Authority, serverTLS: c.TLS, pluginTLS: c.PluginTLS, allowInsecure: c.AllowInsecure,
		hosts: c.Hosts,
		rules: compilePolicy(c.Policy, c.Authority != nil), noPolicy: c.Policy == nil, observer: c.Observer,
		audit: &auditor{sink: c.Audit, log: c.Logger}, log: c.Logger, lines: c.lines, configured: c.configured, vigil: certs.NewVigil(c.Logger),
	}
	if c.Admin != nil {
		s.audit.recent, s.traffic, s.calls = recent.New[AuditEvent](c.Admin.Events), &tally.Table{}, &tally.Feed[RoutedCall]{}
		s.observer = &tallying{Observer: cmp.Or[Observer](c.Observer, NopObserver{}), table: s.traffic, calls: s.calls}
	}
	if len(c.AuthProviders) > 0 {
		s.chain = newAuthChain(c.AuthProviders)
	}
	return s
}

// validateProviders refuses providers that can accept nobody.
func (c *ServeConfig) validateProviders() error {
	for i, p := range c.AuthProviders {
		if why := useless(p); why != "" {
			return fieldError(fmt.Sprintf("AuthProviders[%d]", i), "%s", why)
		}
	}
	return nil
}

// validateCertificateProviders refuses those that ask for client certificates where there are none.
func (c *ServeConfig) validateCertificateProviders(none bool) error {
	for i, p := range c.AuthProviders {
		if _, ok := p.(*MTLSAuth); ok && none {
			return fieldError(fmt.Sprintf("AuthProviders[%d]", i), "MTLSAuth accepts nobody, since the host asks for no client certificates: "+
				"set TLS.ClientAuth to tls.VerifyClientCertIfGiven, and TLS.ClientCAs; in plaintext there are none")
		}
	}
	return nil
}

// listenOn listens on the address in a field of the configuration.
func listenOn(ctx context.Context, field, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen: %s is taken by another process; set ServeConfig.%s to a free address, "+
			"or to port 0 for any: %w", addr, field, err)
	case err != nil:
		return nil, fmt.Errorf("listen: %s: %w", field, err)
	}
	return l, nil
}
