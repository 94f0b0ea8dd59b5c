package connectplugin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/bom"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

const (
	headerAPIKey = "X-Api-Key" //nolint:gosec // the name of a header

	// tokenProvider is AuthContext.Provider of TokenAuth and APIKeyAuth.
	tokenProvider = "token"
	// sharedIdentity is the identity that a token gives where no ValidateToken
	// tells one holder from another.
	sharedIdentity = "shared-token"
)

var (
	errTokenRepeated  = errors.New("the credential header is repeated")
	errTokenMalformed = errors.New("the token is empty or has characters that a token cannot have")
	errTokenRefused   = errors.New("the token is wrong")
	errNoToken        = errors.New("neither Token nor ValidateToken is set")
	errTokenUnusable  = errors.New("TokenAuth.Token is empty or has characters that a token cannot have")
)

// TokenAuth is an [AuthProvider] for a secret text in a request header, such as
// a bearer token (RFC 6750). Tokens are printable ASCII without spaces and
// commas; a request that carries the header twice is refused.
//
// Interceptors take a copy of the fields when they are made. The text forms
// of a TokenAuth do not show its token.
type TokenAuth struct {
	// Token is what a client sends. A call without one fails.
	Token string
	// ValidateToken tells a server whose token it is. It is called with any
	// token that a stranger presents, concurrently; an error, an empty identity
	// or a panic refuses it, and the peer learns no more than that: the audit has the
	// error's text, in which the token, as a word of its own or where it is long, is replaced. Compare
	// secrets with [crypto/subtle.ConstantTimeCompare]. The claims are copied.
	//
	// Nil means that a server accepts exactly Token, compared in constant time,
	// for the identity "shared-token", or nothing if that is empty too.
	ValidateToken func(token string) (identity string, claims map[string]string, err error)
	// Header is the header's name. Empty means "Authorization", with the prefix
	// "Bearer " if Prefix is empty too.
	Header string
	// Prefix stands before the token. One that ends in a space is an
	// authentication scheme, which is matched in any case. A request whose header
	// has another prefix carries no credential for this provider.
	Prefix string
}

// NewTokenAuth returns a provider for "Authorization: Bearer" tokens. A client
// needs the token, a server the function; see [TokenAuth].
func NewTokenAuth(
	token string, validateToken func(string) (string, map[string]string, error),
) *TokenAuth {
	return &TokenAuth{
		Token: token, ValidateToken: validateToken, Header: headerAuthorization, Prefix: bearerPrefix,
	}
}

// APIKeyAuth is a [TokenAuth] for API keys.
type APIKeyAuth struct {
	*TokenAuth
}

// NewAPIKeyAuth returns a provider for keys in the header X-API-Key. A client
// needs the key, a server the function; see [TokenAuth].
func NewAPIKeyAuth(
	apiKey string, validateKey func(string) (string, map[string]string, error),
) *APIKeyAuth {
	return &APIKeyAuth{TokenAuth: &TokenAuth{
		Token: apiKey, ValidateToken: validateKey, Header: headerAPIKey,
	}}
}

// ClientInterceptor returns an interceptor that puts the token into the header
// of a unary call, in place of what was there.
func (t *TokenAuth) ClientInterceptor() connect.UnaryInterceptorFunc {
	c := t.withDefaults()
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if !isToken(c.Token) {
				return nil, errorf(connect.CodeUnauthenticated, "%w: %w", ErrInvalidConfig, unusableToken(c.Token))
			}
			req.Header().Set(c.Header, c.Prefix+c.Token)
			return next(ctx, req)
		}
	}
}

// ServerInterceptor returns an interceptor that lets unary requests through that
// carry a good token, with an [AuthContext]. It is a chain of this provider alone.
func (t *TokenAuth) ServerInterceptor() connect.UnaryInterceptorFunc {
	return ComposeAuthServer(t)
}

// HasCredential implements [CredentialChecker].
func (t *TokenAuth) HasCredential(_ context.Context, header http.Header) bool {
	c := t.withDefaults()
	_, err := c.credential(header)
	return !errors.Is(err, errNoCredential)
}

// String returns the fields without the token.
func (t TokenAuth) String() string {
	return fmt.Sprintf("TokenAuth{Header: %q, Prefix: %q, Token: %s}", t.Header, t.Prefix, redacted)
}

// GoString returns the fields without the token.
func (t TokenAuth) GoString() string { return t.String() }

// Format prints the fields without the token, for every verb.
func (t TokenAuth) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue returns the fields without the token.
func (t TokenAuth) LogValue() slog.Value { return slog.StringValue(t.String()) }

// withDefaults returns a copy.
func (t *TokenAuth) withDefaults() TokenAuth {
	mustBeMade("the TokenAuth", t != nil, "NewTokenAuth or NewAPIKeyAuth") // an APIKeyAuth{} has none
	c := *t
	if c.Header == "" {
		c.Header = headerAuthorization
		if c.Prefix == "" {
			c.Prefix = bearerPrefix
		}
	}
	return c
}

// verifier checks the token of a request against the fields as they are now.
func (t *TokenAuth) verifier() verifier {
	c := t.withDefaults()
	validate := c.ValidateToken
	if validate == nil {
		validate = sharedTokenValidator(c.Token)
	}
	return func(_ context.Context, header http.Header) (*AuthContext, error) {
		token, err := c.credential(header)
		if err != nil {
			return nil, err
		}
		identity, claims, err := validate(token)
		if err != nil {
			return nil, scrub(err, token)
		}
		return &AuthContext{Identity: identity, Provider: tokenProvider, Claims: claims}, nil
	}
}

// credential returns the token that header carries, errNoCredential where there
// is none for this provider, or why it is not even a token.
func (t *TokenAuth) credential(header http.Header) (string, error) {
	values := header.Values(t.Header)
	presented := false
	token := ""
	for _, value := range values {
		if rest, ok := cutPrefix(strings.Trim(value, " \t"), t.Prefix); ok {
			presented, token = true, rest
		}
	}
	switch {
	case !presented:
		return "", errNoCredential
	case len(values) > 1:
		return "", errTokenRepeated
	case !isToken(token):
		return "", errTokenMalformed
	default:
		return token, nil
	}
}

// cutPrefix takes prefix off a header's value. A prefix that ends in a space is
// an authentication scheme (RFC 9110, 11.1): its case does not matter, any
// number of blanks may follow it, and it is there even with nothing behind it.
func cutPrefix(value, prefix string) (string, bool) {
	scheme, isScheme := strings.CutSuffix(prefix, " ")
	if !isScheme {
		return strings.CutPrefix(value, prefix)
	}
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	rest := value[len(scheme):]
	if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", false
	}
	return strings.TrimLeft(rest, " \t"), true
}

// isToken reports whether s is one token and nothing else. A comma would make
// one header out of two that a proxy folded into one.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return s != ""
}

// unusableToken says why a token is none, without it.
func unusableToken(token string) error {
	if err := bom.Check([]byte(token)); err != nil {
		return fmt.Errorf("TokenAuth.Token: %w", err)
	}
	return errTokenUnusable
}

// sharedTokenValidator accepts one token. Digests are compared, so that the time
// tells nothing about content or length.
func sharedTokenValidator(want string) func(string) (string, map[string]string, error) {
	if want == "" {
		return func(string) (string, map[string]string, error) { return "", nil, errNoToken }
	}
	if !isToken(want) {
		return func(string) (string, map[string]string, error) { return "", nil, unusableToken(want) }
	}
	digest := sha256.Sum256([]byte(want))
	return func(token string) (string, map[string]string, error) {
		got := sha256.Sum256([]byte(token))
		if subtle.ConstantTimeCompare(got[:], digest[:]) != 1 {
			return "", nil, errTokenRefused
		}
		return sharedIdentity, nil, nil
	}
}

// scrub returns an error with the text of err without the token. It does not
// wrap err, which could bring the token along.
func scrub(err error, token string) error {
	return errors.New(withoutToken(err.Error(), token)) //nolint:err113 // see above
}

// longToken is as long as a token has to be that is a secret.
const longToken = 8

// withoutToken returns a text without a token that a stranger presented, who must not be able to black out what else
// it says: a short token counts only where it is a word of its own.
func withoutToken(text, token string) string {
	var out strings.Builder
	for last := byte(' '); ; {
		before, after, found := strings.Cut(text, token)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if before != "" {
			last = before[len(before)-1]
		}
		joined := isWord(last) && isWord(token[0]) || after != "" && isWord(token[len(token)-1]) && isWord(after[0])
		if joined && len(token) < longToken {
			out.WriteByte(token[0]) // it may begin again within itself
			last, text = token[0], token[1:]+after
			continue
		}
		out.WriteString(redacted)
		last, text = ' ', after
	}
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

const (
	// mtlsProvider is AuthContext.Provider of MTLSAuth.
	mtlsProvider = "mtls"

	// Bounds of the transport that ConfigureClientTLS makes.
	clientHandshakeTimeout = 10 * time.Second
	clientIdleTimeout      = 90 * time.Second
)

var (
	errCertificateUnverified = errors.New("the peer's certificate was not verified")
	errCertificateExpired    = errors.New("the peer's certificate has expired since the connection was made")
)

// MTLSAuth is an [AuthProvider] for client certificates. Connect shows an
// interceptor nothing of TLS, so a handler in front has to: a [Host] has it, a
// handler that is mounted elsewhere goes into [MTLSAuth.Middleware]. Only a
// certificate that the TLS handshake verified counts; no header is read.
//
// The fields are read when an interceptor or a configuration is made, and must
// not change while that goes on.
type MTLSAuth struct {
	// ClientCert is this side's own certificate: what a client presents, and what
	// a server serves with unless its configuration is given another.
	ClientCert *tls.Certificate
	// RootCAs are the authorities that a client trusts servers of. Nil means
	// those of the operating system.
	RootCAs *x509.CertPool
	// ClientCAs are the authorities that a server trusts clients of.
	ClientCAs *x509.CertPool
	// ExtractIdentity names the owner of a verified certificate; an empty
	// identity or a panic refuses it. It must not change the certificate. The
	// claims are copied.
	//
	// Nil means the SPIFFE id (a certificate with several, or one that the standard does
	// not allow, is refused), else the first DNS SAN, else the common name, with the
	// claims common_name, organization, organizational_unit, issuer, serial (hexadecimal)
	// and not_after (RFC 3339) as far as the certificate has them.
	ExtractIdentity func(*x509.Certificate) (identity string, claims map[string]string)
}

// NewMTLSAuth returns a provider for client certificates. A client needs the
// certificate and the authorities of its servers, a server its certificate and
// the authorities of its clients; the rest may be nil. ExtractIdentity is set to the
// default.
func NewMTLSAuth(clientCert *tls.Certificate, rootCAs, clientCAs *x509.CertPool) *MTLSAuth {
	return &MTLSAuth{ClientCert: clientCert, RootCAs: rootCAs, ClientCAs: clientCAs, ExtractIdentity: defaultIdentity}
}

// ClientInterceptor returns an interceptor that does nothing: the certificate
// goes with the connection, see [MTLSAuth.ConfigureClientTLS].
func (*MTLSAuth) ClientInterceptor() connect.UnaryInterceptorFunc { return passThrough }

// ServerInterceptor returns an interceptor that lets unary requests through whose
// connection has a verified client certificate, with an [AuthContext]. It is a
// chain of this provider alone.
func (m *MTLSAuth) ServerInterceptor() connect.UnaryInterceptorFunc {
	return ComposeAuthServer(m)
}

// HasCredential implements [CredentialChecker].
func (*MTLSAuth) HasCredential(ctx context.Context, _ http.Header) bool {
	return peerCertificates(ctx) != nil
}

// Middleware shows the interceptors of next the verified client certificate of
// each request's connection.
func (*MTLSAuth) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withPeerCertificates(r.Context(), chainsOf(r.TLS))))
	})
}

// ConfigureClientTLS makes client present the certificate, trust RootCAs only,
// and speak TLS 1.3 and HTTP/2. It replaces the transport by a changed copy, so
// a shared one, such as [http.DefaultTransport], stays as it is; where there is
// none, the new one uses no proxy. A transport that is no [*http.Transport], that
// dials TLS by itself or that does not verify servers is refused with an error
// that wraps [ErrInvalidConfig], and left alone.
func (m *MTLSAuth) ConfigureClientTLS(client *http.Client) error {
	if client == nil {
		return fmt.Errorf("%w: the HTTP client is nil", ErrInvalidConfig)
	}
	if m.ClientCert == nil {
		return fmt.Errorf("%w: MTLSAuth.ClientCert: a client needs a certificate", ErrInvalidConfig)
	}
	transport, err := ownTransport(client.Transport)
	if err != nil {
		return err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13}
	if old := transport.TLSClientConfig; old != nil {
		cfg = old.Clone()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS13, 0
		cfg.NextProtos = nil // the transport's business
	}
	cfg.RootCAs = m.RootCAs
	cfg.Certificates, cfg.GetClientCertificate = []tls.Certificate{*m.ClientCert}, nil
	transport.TLSClientConfig = cfg
	transport.ForceAttemptHTTP2 = true
	client.Transport = transport
	return nil
}

// ownTransport returns a transport that may be changed.
func ownTransport(rt http.RoundTripper) (*http.Transport, error) {
	if rt == nil {
		return &http.Transport{TLSHandshakeTimeout: clientHandshakeTimeout, IdleConnTimeout: clientIdleTimeout}, nil
	}
	transport, ok := rt.(*http.Transport)
	switch {
	case !ok || transport == nil:
		return nil, fmt.Errorf("%w: the HTTP client's transport is a %T, not an *http.Transport", ErrInvalidConfig, rt)
	case transport.DialTLSContext != nil || transport.DialTLS != nil: //nolint:staticcheck // set by old code
		return nil, fmt.Errorf("%w: the HTTP client's transport dials TLS by itself", ErrInvalidConfig)
	case transport.TLSClientConfig != nil && transport.TLSClientConfig.InsecureSkipVerify:
		return nil, fmt.Errorf("%w: the HTTP client's transport does not verify servers", ErrInvalidConfig)
	default:
		return transport.Clone(), nil
	}
}

// ConfigureServerTLS returns a configuration for a server of HTTP/2 over TLS 1.3
// that accepts only clients with a certificate of ClientCAs. It serves with
// ClientCert; where that is nil, the caller adds a certificate. It fails without
// ClientCAs, because TLS would then trust every authority of the operating system.
func (m *MTLSAuth) ConfigureServerTLS() (*tls.Config, error) {
	if m.ClientCAs == nil {
		return nil, fmt.Errorf("%w: MTLSAuth.ClientCAs: a server needs the authorities of its clients", ErrInvalidConfig)
	}
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpnHTTP2},
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  m.ClientCAs,
	}
	if m.ClientCert != nil {
		cfg.Certificates = []tls.Certificate{*m.ClientCert}
	}
	return cfg, nil
}

// verifier names the owner of the certificate that the context carries.
func (m *MTLSAuth) verifier() verifier {
	extract := m.ExtractIdentity
	if extract == nil {
		extract = defaultIdentity
	}
	return func(ctx context.Context, _ http.Header) (*AuthContext, error) {
		chains := peerCertificates(ctx)
		switch {
		case chains == nil:
			return nil, errNoCredential
		case len(chains) == 0 || len(chains[0]) == 0:
			return nil, errCertificateUnverified
		}
		leaf, ends := chains[0][0], certs.EndOf(chains[0], chains)
		if p, ok := ctx.Value(peerKey{}).(*peer); ok && p.certificate != nil {
			ends = p.certificate.ends // of those that vouch for it, too
		}
		if time.Now().After(ends) {
			return nil, errCertificateExpired
		}
		identity, claims := extract(leaf)
		return &AuthContext{Identity: identity, Provider: mtlsProvider, Claims: claims}, nil
	}
}

func defaultIdentity(cert *x509.Certificate) (string, map[string]string) {
	return certs.CertificateIdentity(cert), certs.Claims(cert)
}

type peerCertificatesKey struct{}

// withPeerCertificates returns a context that carries the verified chains of the
// connection. Nil says that the peer presented no certificate, an empty slice
// that it presented one that nobody verified.
func withPeerCertificates(ctx context.Context, chains [][]*x509.Certificate) context.Context {
	return context.WithValue(ctx, peerCertificatesKey{}, chains)
}

func peerCertificates(ctx context.Context) [][]*x509.Certificate {
	chains, _ := ctx.Value(peerCertificatesKey{}).([][]*x509.Certificate)
	return chains
}

// chainsOf returns what withPeerCertificates takes.
func chainsOf(state *tls.ConnectionState) [][]*x509.Certificate {
	switch {
	case state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0:
		return nil
	case len(state.VerifiedChains) == 0:
		return [][]*x509.Certificate{}
	default:
		return state.VerifiedChains
	}
}
