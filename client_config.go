package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// ClientConfig configures a [Client]. It is copied by [NewClient]. A client
// fills in HostURL (or Endpoint), TLS, and SelfID where it is a plugin.
type ClientConfig struct {
	// HostURL is the host's base URL, for example "https://127.0.0.1:8443". It may have a
	// path, where a proxy serves the host below that.
	HostURL string
	// Endpoint is the same as HostURL, under the name that clients which are no
	// plugins use. HostURL wins.
	Endpoint string
	// Discovery finds the host where neither HostURL nor Endpoint is set, under
	// DiscoveryServiceName. May be nil.
	Discovery DiscoveryService
	// DiscoveryServiceName is the name that Discovery is asked for. Empty means
	// "plugin-host".
	DiscoveryServiceName string
	// Plugins are the host's plugin services that the client dispenses.
	Plugins PluginSet
	// MagicCookieKey and MagicCookieValue must match the host's. Empty means
	// the defaults.
	MagicCookieKey string
	// MagicCookieValue is the value to MagicCookieKey.
	MagicCookieValue string
	// ProtocolVersion is the application version. Zero means 1.
	ProtocolVersion int
	// MinProtocolVersion and MaxProtocolVersion are the range of application
	// versions that the client speaks. Zero means ProtocolVersion.
	MinProtocolVersion int
	// MaxProtocolVersion is the upper end of the range.
	MaxProtocolVersion int
	// SelfID names the plugin; policy is written for it. Empty means a client
	// that asks for no identity.
	SelfID string
	// SelfVersion is the plugin's semantic version.
	SelfVersion string
	// Metadata says what the plugin provides and requires.
	Metadata PluginMetadata
	// TLS is the client side: RootCAs and, for mutual TLS, Certificates. Nil
	// means the system's roots and no certificate.
	TLS *tls.Config
	// HTTPClient replaces the client's own transport. TLS and PinnedKeys cannot
	// be combined with it. A panic of it is the error of the call, which ends with its context whatever the
	// client does. Nil means HTTP/2 over TLS 1.3.
	HTTPClient connect.HTTPClient
	// AllowInsecure accepts a plaintext host URL, for development only. It is
	// logged at Warn.
	AllowInsecure bool
	// Secret is the enrolment secret of SelfID. A client that has one accepts
	// only a host that proves to have it too. Nil means none; at least 16 bytes.
	Secret Secret
	// PinnedKeys are SHA-256 digests of public keys (SPKI, RFC 7469), base64 or
	// hex; the host's key must be one of them, and of two where it calls plugins with
	// another (ServeConfig.PluginTLS). Empty pins nothing.
	PinnedKeys []string
	// HostIdentity is the identity of the host's certificate: its SPIFFE id, else its
	// first DNS name, else its common name. The client accepts no other host, and
	// ServePlugin no other caller. A SPIFFE id stands in for host names, which the
	// certificate need not have; any other identity is demanded besides the name that is
	// dialled. Empty means any host that TLS accepts. It cannot be combined with
	// HTTPClient.
	HostIdentity string
	// Timeout bounds each unary call to the host. Zero means 10 s; 1 ms is the least.
	Timeout time.Duration
	// Interceptors run around the client's own calls of the host's services, the handshake among
	// them, and not around those of a client that Dispense makes. One that is to add an API key or
	// a token to calls of the host's plugins belongs to a generated client. A panic of one is the error
	// of the call; a unary one ends with its context whatever they do.
	Interceptors []connect.Interceptor
	// Logger receives what the operator should know: of what goes on 16 lines at once and then the latest every ten
	// seconds, with how many there were since. Nil means no log, but for the
	// warning of plaintext, which then goes to slog.Default(). A handler that does not return holds nobody up, see
	// [ServeConfig].Logger.
	Logger *slog.Logger
}

// Validate returns an error that wraps [ErrInvalidConfig] and names the first
// field that is wrong and what to write instead. It changes nothing.
func (c *ClientConfig) Validate() error {
	if c == nil {
		return fieldError("ClientConfig", "is nil")
	}
	for _, check := range []func() error{c.validateHost, c.validateSelf, c.validateTrust, c.validateVersions} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *ClientConfig) validateHost() error {
	field, raw := "HostURL", c.HostURL
	if raw == "" {
		field, raw = "Endpoint", c.Endpoint
	}
	if isNil(c.Discovery) && c.Discovery != nil {
		return fieldError("Discovery", isTypedNil)
	}
	if raw == "" {
		if c.Discovery == nil {
			return fieldError("HostURL", "is empty; write the host's base URL, for example \"https://127.0.0.1:8443\", or set Discovery")
		}
		return nil
	}
	if _, _, err := parseClientURL(raw, c.AllowInsecure); err != nil {
		return fieldError(field, "%v", err)
	}
	return nil
}

func (c *ClientConfig) validateSelf() error {
	if c.SelfID == "" {
		if len(c.Secret) > 0 {
			return fieldError("SelfID", "is empty; Secret proves a self id, so name it")
		}
	} else if err := ValidateSelfID(c.SelfID); err != nil {
		return fieldError("SelfID", "%v", err)
	}
	if c.SelfVersion != "" {
		if err := ValidateVersion(c.SelfVersion); err != nil {
			return fieldError("SelfVersion", "%v", err)
		}
	}
	if err := checkCookie(c.MagicCookieKey, c.MagicCookieValue); err != nil {
		return err
	}
	if err := c.Plugins.validateEntries(); err != nil {
		return err
	}
	if err := c.Metadata.validate("Metadata"); err != nil {
		return err
	}
	return c.Metadata.validateOnce("Metadata")
}

func (c *ClientConfig) validateTrust() error {
	if err := c.Secret.validate("Secret"); err != nil {
		return err
	}
	if err := checkDuration("Timeout", c.Timeout, leastDuration); err != nil {
		return err
	}
	if isNil(c.HTTPClient) && c.HTTPClient != nil {
		return fieldError("HTTPClient", isTypedNil)
	}
	if err := checkInterceptors(c.Interceptors); err != nil {
		return err
	}
	if c.HTTPClient != nil && (c.TLS != nil || len(c.PinnedKeys) > 0 || c.HostIdentity != "") {
		return fieldError("HTTPClient", "brings its own TLS; remove TLS, PinnedKeys and HostIdentity, or HTTPClient")
	}
	if err := validateIdentityName("HostIdentity", c.HostIdentity); err != nil {
		return err
	}
	if c.HostIdentity != "" && strings.HasPrefix(cmp.Or(c.HostURL, c.Endpoint), "http:") {
		return fieldError("HostIdentity", "a host shows no certificate in plaintext; write an https:// URL, or remove it")
	}
	_, err := c.clientTLS()
	return err
}

// clientTLS returns the client side of the configuration.
func (c *ClientConfig) clientTLS() (*tls.Config, error) {
	cfg, err := hardenClientTLS(c.TLS, c.PinnedKeys)
	if err != nil || c.HostIdentity == "" {
		return cfg, err
	}
	return requireServerIdentity(cfg, c.HostIdentity), nil
}

func (c *ClientConfig) validateVersions() error {
	err := checkVersions(
		appVersion{"ProtocolVersion", c.ProtocolVersion}, appVersion{"MinProtocolVersion", c.MinProtocolVersion},
		appVersion{"MaxProtocolVersion", c.MaxProtocolVersion},
	)
	if err == nil && c.MaxProtocolVersion > 0 && c.MinProtocolVersion > c.MaxProtocolVersion {
		return fieldError("MinProtocolVersion", "is above MaxProtocolVersion (%d); write that or less", c.MaxProtocolVersion)
	}
	return err
}

// versions returns the application versions that the client speaks.
func (c *ClientConfig) versions() versionRange {
	exact := cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	return versionRange{
		min: int32(cmp.Or(c.MinProtocolVersion, min(exact, cmp.Or(c.MaxProtocolVersion, exact)))), //nolint:gosec // validated to be small
		max: int32(cmp.Or(c.MaxProtocolVersion, max(exact, c.MinProtocolVersion))),                //nolint:gosec // as above
	}
}

// withDefaults returns a copy that shares no mutable memory with c and holds the
// defaults.
func (c *ClientConfig) withDefaults() ClientConfig {
	out := *c
	out.Plugins = maps.Clone(c.Plugins)
	out.Metadata = c.Metadata.clone()
	out.Secret = slices.Clone(c.Secret)
	out.PinnedKeys = slices.Clone(c.PinnedKeys)
	out.Interceptors = slices.Clone(c.Interceptors)
	out.HostURL = cmp.Or(c.HostURL, c.Endpoint)
	out.DiscoveryServiceName = cmp.Or(c.DiscoveryServiceName, "plugin-host")
	out.MagicCookieKey = cmp.Or(c.MagicCookieKey, DefaultMagicCookieKey)
	out.MagicCookieValue = cmp.Or(c.MagicCookieValue, DefaultMagicCookieValue)
	out.ProtocolVersion = cmp.Or(c.ProtocolVersion, defaultProtocolVersion)
	out.Timeout = cmp.Or(c.Timeout, defaultClientTimeout)
	if out.Logger = guest.Log("ClientConfig.Logger", c.Logger); out.Logger == nil {
		out.Logger = slog.New(slog.DiscardHandler)
	}
	return out
}

// guestClient is an HTTP client of the user's.
type guestClient struct{ of connect.HTTPClient }

var errNoAnswer = errors.New("ClientConfig.HTTPClient returned neither a response nor an error")

// Do has the user's client make the request. It ends with the request's context.
func (g guestClient) Do(r *http.Request) (*http.Response, error) {
	return guest.Within(r.Context(), "ClientConfig.HTTPClient", func() (*http.Response, error) {
		resp, err := g.of.Do(r)
		if err == nil && (resp == nil || resp.Body == nil) {
			err = errNoAnswer
		}
		return resp, err
	}, func(resp *http.Response) { _ = resp.Body.Close() })
}

// guarded are interceptors of the user's, of which a panic is the error of a call.
func guarded(interceptors []connect.Interceptor) []connect.Interceptor {
	out := make([]connect.Interceptor, len(interceptors))
	for i, of := range interceptors {
		out[i] = &guestInterceptor{of: of, what: fmt.Sprintf("ClientConfig.Interceptors[%d]", i)}
	}
	return out
}

// guestInterceptor is an interceptor of the user's.
type guestInterceptor struct {
	of   connect.Interceptor
	what string
}

// WrapUnary implements connect.Interceptor. A call ends with its context.
func (g *guestInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	var inner connect.UnaryFunc
	failed := guest.Contain(g.what, func() error {
		inner = g.of.WrapUnary(next)
		return nil
	})
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if failed != nil {
			return nil, failed
		}
		resp, err := guest.Within(ctx, g.what, func() (connect.AnyResponse, error) { return inner(ctx, req) }, nil)
		if errors.Is(err, guest.ErrRuns) {
			err = connect.NewError(endCode(ctx), err)
		}
		return resp, err
	}
}

// WrapStreamingClient implements connect.Interceptor.
func (g *guestInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		s := &guestStream{what: g.what}
		s.failed = guest.Contain(g.what, func() error {
			if s.StreamingClientConn = g.of.WrapStreamingClient(next)(ctx, spec); s.StreamingClientConn == nil {
				return fmt.Errorf("%s returned no stream", g.what)
			}
			return nil
		})
		if s.failed != nil {
			s.StreamingClientConn = next(ctx, spec) // for what it says of itself
		}
		return s
	}
}

// WrapStreamingHandler implements connect.Interceptor. A client serves nothing.
func (g *guestInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// guestStream is a stream that an interceptor of the user's made.
type guestStream struct {
	connect.StreamingClientConn

	what   string
	failed error // it was not made
}

// Send implements connect.StreamingClientConn.
func (s *guestStream) Send(m any) error {
	return s.do(func() error { return s.StreamingClientConn.Send(m) })
}

// Receive implements connect.StreamingClientConn.
func (s *guestStream) Receive(m any) error {
	return s.do(func() error { return s.StreamingClientConn.Receive(m) })
}

// CloseRequest implements connect.StreamingClientConn.
func (s *guestStream) CloseRequest() error { return s.do(s.StreamingClientConn.CloseRequest) }

// CloseResponse implements connect.StreamingClientConn.
func (s *guestStream) CloseResponse() error { return s.do(s.StreamingClientConn.CloseResponse) }

func (s *guestStream) do(f func() error) error {
	if s.failed != nil {
		return s.failed
	}
	return guest.Contain(s.what, f)
}
