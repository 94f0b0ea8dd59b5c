package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"time"

	"connectrpc.com/connect"
)

// Constants of the wire and defaults of the configuration.
const (
	// DefaultMagicCookieKey and DefaultMagicCookieValue tell a plugin from a
	// program started by mistake. The cookie is no secret and proves nothing.
	DefaultMagicCookieKey = "CONNECT_PLUGIN"
	// DefaultMagicCookieValue is the value to [DefaultMagicCookieKey].
	DefaultMagicCookieValue = "d3f40b3c2e1a5f8b9c4d7e6a1b2c3d4e"
	// DefaultRuntimeTokenTTL is how long a runtime token lives without renewal.
	DefaultRuntimeTokenTTL time.Duration = 24 * time.Hour
	// DefaultCapabilityGrantTTL is how long a capability grant lives.
	DefaultCapabilityGrantTTL time.Duration = time.Hour

	defaultAddr            = "127.0.0.1:8443"
	defaultShutdownTimeout = 10 * time.Second
	defaultClientTimeout   = 10 * time.Second
	defaultMaxClockSkew    = 2 * time.Minute
	defaultReplayCacheSize = 65_536
	defaultProtocolVersion = 1
	minSecretBytes         = 16
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
	// ServerMetadata is told to every plugin in the handshake.
	ServerMetadata map[string]string
	// GracefulShutdownTimeout bounds [Host.Shutdown] and the end of [Serve].
	// Zero means 10 s.
	GracefulShutdownTimeout time.Duration
	// StopCh ends [Serve] when it is closed. Nil means that only a signal does.
	StopCh <-chan struct{}
	// Cleanup runs once after the last request, bounded by
	// GracefulShutdownTimeout. May be nil.
	Cleanup func(context.Context) error

	// HealthService answers gRPC-style health checks. Nil means the host makes one.
	HealthService *HealthServer
	// LifecycleService takes health reports. Nil means the host makes one.
	LifecycleService *LifecycleServer
	// ServiceRegistry is the registry. Nil means the host makes one.
	ServiceRegistry *ServiceRegistry
	// ServiceRouter routes calls between plugins. Nil means the host makes one.
	ServiceRouter *ServiceRouter
	// CapabilityBroker grants the host's capabilities. Nil means the host makes
	// an empty one.
	CapabilityBroker *CapabilityBroker

	// RuntimeTokenTTL is how long a runtime token lives without renewal. Zero
	// means [DefaultRuntimeTokenTTL].
	RuntimeTokenTTL time.Duration
	// CapabilityGrantTTL is how long a grant lives. Zero means
	// [DefaultCapabilityGrantTTL].
	CapabilityGrantTTL time.Duration
	// RateLimiter limits handshakes per peer and requests per identity with the
	// rates of Limits. Nil means the host makes and closes its own; one given
	// here is the caller's to close.
	RateLimiter RateLimiter

	// TLS is the server side: certificates, and ClientCAs with ClientAuth where
	// plugins bring certificates. TLS 1.3 and ALPN h2 are enforced. Nil is
	// refused unless Authority or AllowInsecure is set.
	TLS *tls.Config
	// PluginTLS is the client side towards plugins: RootCAs and the host's
	// client certificate. Nil means the certificate of TLS and trust in
	// TLS.ClientCAs.
	PluginTLS *tls.Config
	// Authority, where set, stands in for TLS and PluginTLS where they are nil,
	// and its plugin certificates prove the self id that they name.
	Authority *Authority
	// AllowInsecure serves plaintext HTTP, for development only. It is logged
	// at Warn. It cannot be combined with TLS or Authority.
	AllowInsecure bool
	// Hosts are the names and addresses under which plugins reach the host; a
	// request for another is refused. Empty means the names of the TLS
	// certificate and the address listened on.
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
	// hold no runtime token. Empty means that only plugins with a token call.
	AuthProviders []AuthProvider
	// Interceptors run around the host's RPC services, after authentication.
	Interceptors []connect.Interceptor
	// Logger receives what the operator should know. Nil means no log, but for the
	// warnings of plaintext and of an open policy, which then go to slog.Default().
	Logger *slog.Logger
	// Audit receives one event per security decision; of a peer or a caller that
	// is refused again and again, as many as Limits.HandshakesPerSecond and
	// HandshakeBurst say. It is called synchronously and must not block. Nil means
	// that Logger gets them.
	Audit func(AuditEvent)
}

// HandshakeAuth says how plugins prove themselves in the handshake beyond what
// their policy says. The zero value takes secrets from [PluginPolicy] alone.
type HandshakeAuth struct {
	// Secret returns the enrolment secret of a self id, nil where it has none.
	// It is asked before [PluginPolicy.Secret], is called concurrently and must
	// not block. May be nil.
	Secret func(selfID string) Secret
	// RequireCertificate refuses handshakes without a verified client
	// certificate.
	RequireCertificate bool
	// RequireChannelBinding refuses proofs that are not bound to the TLS
	// connection (RFC 9266), as those of a client behind a TLS-terminating proxy.
	RequireChannelBinding bool
	// MaxClockSkew is how far a client's clock may be off, and how long a nonce
	// is remembered. Zero means 2 min.
	MaxClockSkew time.Duration
	// ReplayCacheSize bounds the remembered nonces; a full cache refuses. Zero
	// means 65,536.
	ReplayCacheSize int
}

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *ServeConfig) Validate() error {
	if c == nil {
		return fieldError("ServeConfig", "is nil")
	}
	for _, check := range []func() error{
		c.validateTransport, c.validatePlugins, c.validateVersions, c.validateDurations,
		c.Limits.validate, c.HealthProbe.validate, c.HandshakeAuth.validate, c.Policy.validate, c.validateServices,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *ServeConfig) validateTransport() error {
	secure := c.TLS != nil || c.Authority != nil
	switch {
	case c.AllowInsecure && secure:
		return fieldError("AllowInsecure", "plaintext and TLS cannot both be served; remove AllowInsecure, or TLS and Authority")
	case !secure && !c.AllowInsecure:
		return fieldError("TLS", "is required; set TLS to a *tls.Config with a certificate, or Authority to one made by NewAuthority "+
			"(AllowInsecure: true serves plaintext, for development only)")
	case c.AllowInsecure && c.HandshakeAuth.RequireCertificate:
		return fieldError("HandshakeAuth.RequireCertificate", "there are no client certificates in plaintext; remove AllowInsecure")
	}
	if c.TLS != nil {
		if _, err := hardenServerTLS(c.TLS); err != nil {
			return err
		}
	}
	if c.Addr != "" {
		if _, _, err := net.SplitHostPort(c.Addr); err != nil {
			return fieldError("Addr", "%q is no host:port: %v", c.Addr, err)
		}
	}
	return nil
}

func (c *ServeConfig) validatePlugins() error {
	if len(c.Plugins) > 0 {
		if err := c.Plugins.Validate(); err != nil {
			return err
		}
	}
	for _, name := range c.Plugins.Keys() {
		if c.Impls[name] == nil {
			return fmt.Errorf("%w: %w: Impls[%q]: is missing; every entry of Plugins needs one", ErrInvalidConfig, ErrInvalidPluginImpl, name)
		}
	}
	for name := range c.Impls {
		if _, ok := c.Plugins.Get(name); !ok {
			return fieldError(fmt.Sprintf("Impls[%q]", name), "there is no entry of that name in Plugins")
		}
	}
	if err := ValidateMetadata(c.ServerMetadata); err != nil {
		return fieldError("ServerMetadata", "%v", err)
	}
	for i, p := range c.AuthProviders {
		if p == nil {
			return fieldError(fmt.Sprintf("AuthProviders[%d]", i), "is nil")
		}
	}
	return nil
}

func (c *ServeConfig) validateVersions() error {
	highest := cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	lowest := cmp.Or(c.MinProtocolVersion, highest)
	switch {
	case highest < 0:
		return fieldError("ProtocolVersion", "is negative")
	case lowest < 0 || lowest > highest:
		return fieldError("MinProtocolVersion", "must lie between 1 and ProtocolVersion (%d)", highest)
	case c.DeprecatedBelow < 0 || c.DeprecatedBelow > highest:
		return fieldError("DeprecatedBelow", "must lie between 0 and ProtocolVersion (%d)", highest)
	}
	return nil
}

func (c *ServeConfig) validateDurations() error {
	switch {
	case c.GracefulShutdownTimeout < 0:
		return fieldError("GracefulShutdownTimeout", "is negative")
	case c.RuntimeTokenTTL < 0:
		return fieldError("RuntimeTokenTTL", "is negative")
	case c.CapabilityGrantTTL < 0:
		return fieldError("CapabilityGrantTTL", "is negative")
	}
	return nil
}

// validateServices refuses services that belong to different hosts.
func (c *ServeConfig) validateServices() error {
	if c.ServiceRouter == nil {
		return nil
	}
	if c.ServiceRegistry != nil && c.ServiceRegistry != c.ServiceRouter.registry {
		return fieldError("ServiceRegistry", "is not the one that ServiceRouter was made with")
	}
	if c.LifecycleService != nil && c.LifecycleService != c.ServiceRouter.lifecycle {
		return fieldError("LifecycleService", "is not the one that ServiceRouter was made with")
	}
	return nil
}

func (a HandshakeAuth) validate() error {
	switch {
	case a.MaxClockSkew < 0:
		return fieldError("HandshakeAuth.MaxClockSkew", "is negative")
	case a.ReplayCacheSize < 0:
		return fieldError("HandshakeAuth.ReplayCacheSize", "is negative")
	}
	return nil
}

// withDefaults returns a copy that shares no mutable memory with c and holds the
// defaults.
func (c *ServeConfig) withDefaults() *ServeConfig {
	out := *c
	out.Plugins = maps.Clone(c.Plugins)
	out.Impls = maps.Clone(c.Impls)
	out.ServerMetadata = maps.Clone(c.ServerMetadata)
	out.Hosts = slices.Clone(c.Hosts)
	out.AuthProviders = slices.Clone(c.AuthProviders)
	out.Interceptors = slices.Clone(c.Interceptors)
	out.Addr = cmp.Or(c.Addr, defaultAddr)
	out.MagicCookieKey = cmp.Or(c.MagicCookieKey, DefaultMagicCookieKey)
	out.MagicCookieValue = cmp.Or(c.MagicCookieValue, DefaultMagicCookieValue)
	out.ProtocolVersion = cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	out.MinProtocolVersion = cmp.Or(c.MinProtocolVersion, out.ProtocolVersion)
	out.GracefulShutdownTimeout = cmp.Or(c.GracefulShutdownTimeout, defaultShutdownTimeout)
	out.RuntimeTokenTTL = cmp.Or(c.RuntimeTokenTTL, DefaultRuntimeTokenTTL)
	out.CapabilityGrantTTL = cmp.Or(c.CapabilityGrantTTL, DefaultCapabilityGrantTTL)
	out.HandshakeAuth.MaxClockSkew = cmp.Or(c.HandshakeAuth.MaxClockSkew, defaultMaxClockSkew)
	out.HandshakeAuth.ReplayCacheSize = cmp.Or(c.HandshakeAuth.ReplayCacheSize, defaultReplayCacheSize)
	out.Limits = c.Limits.withDefaults()
	out.HealthProbe = c.HealthProbe.withDefaults()
	if c.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return &out
}
