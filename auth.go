package connectplugin

import (
	"context"
	"maps"
	"net/http"
	"strings"

	"connectrpc.com/connect"
)

// AuthProvider adds a credential to outgoing calls and checks it on incoming
// ones. Its interceptors are made once and used concurrently.
//
// In a chain ([ComposeAuthServer], [AuthInterceptor]) the server interceptor
// decides and the chain acts: it accepts by calling next with a context that
// [WithAuthContext] made, and refuses by returning an error or by not calling
// next. Next then only takes note of the context; the handler runs later, once,
// whatever it returns. So an interceptor in a chain sees the request but never
// the response. For a streaming call it is driven with a request that carries
// the stream's header, specification and peer, and an empty message.
//
// A provider of your own should implement [CredentialChecker]; without it, it is
// asked about every request and its refusal ends the chain.
type AuthProvider interface {
	// ClientInterceptor returns the interceptor that adds the credential.
	ClientInterceptor() connect.UnaryInterceptorFunc
	// ServerInterceptor returns the interceptor that checks the credential.
	ServerInterceptor() connect.UnaryInterceptorFunc
}

// CredentialChecker is an optional part of an [AuthProvider]. HasCredential
// reports whether the request carries a credential of the provider's kind, good
// or bad. A chain passes over a provider that reports false, and lets the answer
// of one that reports true be final. It must be safe for concurrent use.
type CredentialChecker interface {
	HasCredential(ctx context.Context, header http.Header) bool
}

// AuthContext is what is known about the sender of an authenticated request.
type AuthContext struct {
	// Identity names the sender. It is never empty where a provider of this
	// package authenticated.
	Identity string
	// Provider names the kind of credential: "token" or "mtls" for those of
	// this package.
	Provider string
	// Claims are what the credential says beside the identity. Nil means none.
	Claims map[string]string
}

type authContextKey struct{}

// WithAuthContext returns a context that carries a copy of auth. A nil auth
// takes away what ctx carried. It belongs into an [AuthProvider]'s server
// interceptor.
func WithAuthContext(ctx context.Context, auth *AuthContext) context.Context {
	return context.WithValue(ctx, authContextKey{}, auth.clone())
}

// GetAuthContext returns a copy of what is known about the sender of the request
// that ctx belongs to, or nil where nobody authenticated it. Changing the copy
// has no effect on the request.
func GetAuthContext(ctx context.Context) *AuthContext {
	return storedAuthContext(ctx).clone()
}

// storedAuthContext returns the value that ctx carries. It must not be changed
// or handed out.
func storedAuthContext(ctx context.Context) *AuthContext {
	auth, _ := ctx.Value(authContextKey{}).(*AuthContext)
	return auth
}

func (a *AuthContext) clone() *AuthContext {
	if a == nil {
		return nil
	}
	return &AuthContext{Identity: a.Identity, Provider: a.Provider, Claims: maps.Clone(a.Claims)}
}

// ComposeAuthServer returns one interceptor for unary handlers out of several
// providers. It asks those whose credential the request carries, in order: the
// first that accepts decides who the sender is, the first that refuses ends the
// chain. The handler runs at most once. Whatever went wrong, the peer gets the
// one error [connect.CodeUnauthenticated] "unauthenticated".
//
// No provider at all, or a nil one, refuses every request; [NoAuth] is how to let
// requests through. Streams are not covered: [AuthInterceptor] covers both.
func ComposeAuthServer(providers ...AuthProvider) connect.UnaryInterceptorFunc {
	return newAuthChain(providers).wrapUnary
}

// ComposeAuthClient returns one interceptor for unary calls that adds the
// credentials of all providers, the first one's interceptor outermost. A nil
// provider fails every call. Streams are not covered: [AuthInterceptor] covers
// both.
func ComposeAuthClient(providers ...AuthProvider) connect.UnaryInterceptorFunc {
	return newCredentialChain(providers).wrapUnary
}

// AuthInterceptor returns an interceptor for handlers and clients, for unary
// calls and streams alike. In a handler it does what [ComposeAuthServer] says,
// before a stream's first message is read. In a client it does what
// [ComposeAuthClient] says; for a stream the providers' interceptors may read
// and set the request header, and what they do to the context is lost.
func AuthInterceptor(providers ...AuthProvider) connect.Interceptor {
	return &authInterceptor{server: newAuthChain(providers), client: newCredentialChain(providers)}
}

// authInterceptor is immutable.
type authInterceptor struct {
	server *authChain
	client *credentialChain
}

func (i *authInterceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	call, handle := i.client.wrapUnary(next), i.server.wrapUnary(next)
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Spec().IsClient {
			return call(ctx, req)
		}
		return handle(ctx, req)
	}
}

func (i *authInterceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return i.client.wrapStreaming(next)
}

func (i *authInterceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		ctx, err := i.server.authenticate(ctx, newHeaderRequest(conn.Spec(), conn.Peer(), conn.RequestHeader()))
		if err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// RequireAuth returns an interceptor that refuses unary requests without an
// authenticated identity in the context, whoever put it there. [NoAuth] puts
// none. Streams are not covered; [AuthInterceptor] lets no stream through
// without an identity by itself.
func RequireAuth() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if auth := storedAuthContext(ctx); auth == nil || auth.Identity == "" {
				return nil, refuseAuth(ctx, req, "", errNoCredential)
			}
			return next(ctx, req)
		}
	}
}

// NoAuth returns the provider that adds no credential and lets every request
// through that it is asked about, without an identity. At the end of a chain it
// makes authentication optional: a credential that is presented must be good.
func NoAuth() AuthProvider { return noAuth{} }

type noAuth struct{}

func (noAuth) ClientInterceptor() connect.UnaryInterceptorFunc { return passThrough }

func (noAuth) ServerInterceptor() connect.UnaryInterceptorFunc { return passThrough }

func passThrough(next connect.UnaryFunc) connect.UnaryFunc { return next }

// claimsIdentity reports whether a request claims a runtime identity at all.
func claimsIdentity(header http.Header) bool { return len(header[headerRuntimeID]) > 0 }

// credentials reads the runtime id and the bearer token; each must be there
// exactly once.
func credentials(header http.Header) (runtimeID, token string, ok bool) {
	ids, auth := header[headerRuntimeID], header[headerAuthorization]
	if len(ids) != 1 || len(auth) != 1 {
		return "", "", false
	}
	token, ok = bearer(auth[0])
	return ids[0], token, ok && ids[0] != ""
}

// bearer returns the token of a bearer credential (RFC 6750; the scheme is
// case-insensitive, RFC 9110).
func bearer(value string) (string, bool) {
	if len(value) <= len(bearerPrefix) || !strings.EqualFold(value[:len(bearerPrefix)], bearerPrefix) {
		return "", false
	}
	return value[len(bearerPrefix):], true
}
