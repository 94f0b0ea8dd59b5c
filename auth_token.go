package connectplugin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
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
				return nil, errorf(connect.CodeUnauthenticated, "%w: %w", ErrInvalidConfig, errTokenUnusable)
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

// sharedTokenValidator accepts one token. Digests are compared, so that the time
// tells nothing about content or length.
func sharedTokenValidator(want string) func(string) (string, map[string]string, error) {
	if want == "" {
		return func(string) (string, map[string]string, error) { return "", nil, errNoToken }
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
