package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Why a chain refuses. The texts are for the log, a peer gets errUnauthenticated.
var (
	// errNoCredential also tells a chain to pass over a provider.
	errNoCredential  = errors.New("no credential that a provider understands")
	errNoProviders   = errors.New("no auth providers configured")
	errNilProvider   = errors.New("an auth provider, or its interceptor, is nil")
	errNotPassed     = errors.New("the provider did not call next")
	errNoIdentity    = errors.New("the credential names no identity")
	errProviderPanic = errors.New("the provider panicked")
)

// authFailure says why a request was refused. It holds no secret that a provider
// of this package has seen.
type authFailure struct {
	Procedure string
	Peer      string
	Provider  string // empty where no provider was responsible
	Err       error
}

// isOfCredential reports whether a credential was refused, and not merely missed. A
// provider that does not tell these apart is believed where there is a field that carries
// credentials.
func (f authFailure) isOfCredential(header http.Header) bool {
	_, vague := errors.AsType[unclearError](f.Err)
	missed := errors.Is(f.Err, errNoCredential) || errors.Is(f.Err, errNoProviders)
	return !missed && (!vague || header.Get(headerAuthorization) != "" || header.Get("Cookie") != "")
}

// unclearError is the refusal of a provider that does not say whether there was a
// credential.
type unclearError struct{ error }

// Unwrap returns the provider's own error.
func (e unclearError) Unwrap() error { return e.error }

type authObserverKey struct{}

// withAuthObserver returns a context in which observe is called, synchronously
// and once, for a request that auth providers refuse.
func withAuthObserver(ctx context.Context, observe func(context.Context, authFailure)) context.Context {
	return context.WithValue(ctx, authObserverKey{}, observe)
}

// refuseAuth reports a refusal and returns the constant error for the peer. A
// reason that is such an error itself was reported by a chain further in.
func refuseAuth(ctx context.Context, req connect.AnyRequest, provider string, reason error) error {
	observe, ok := ctx.Value(authObserverKey{}).(func(context.Context, authFailure))
	if ok && !errors.Is(reason, errUnauthenticated) {
		observe(ctx, authFailure{
			Procedure: req.Spec().Procedure, Peer: req.Peer().Addr, Provider: provider, Err: reason,
		})
	}
	return connect.NewError(connect.CodeUnauthenticated, errUnauthenticated)
}

// authChain asks providers who sent a request. It is immutable.
type authChain struct {
	links  []authLink
	broken error // refuses everything when set
}

// authLink is one provider of a chain.
type authLink struct {
	name string
	// check returns the context to go on with, errNoCredential to pass over the
	// provider, or another error to refuse. It may panic.
	check func(context.Context, connect.AnyRequest) (context.Context, error)
}

func newAuthChain(providers []AuthProvider) *authChain {
	c := &authChain{links: make([]authLink, 0, len(providers))}
	if len(providers) == 0 {
		c.broken = errNoProviders
	}
	for _, p := range providers {
		link, err := newAuthLink(p)
		if err != nil {
			c.broken = err
		}
		c.links = append(c.links, link)
	}
	return c
}

// newAuthLink knows this package's own providers by their exact type, so that a
// type that embeds one of them and overrides its interceptor is obeyed.
func newAuthLink(p AuthProvider) (link authLink, err error) {
	defer func() {
		if recover() != nil { // for example a nil pointer in the interface
			err = errNilProvider
		}
	}()
	switch p := p.(type) {
	case nil:
		return authLink{}, errNilProvider
	case noAuth:
		return authLink{name: "none", check: func(ctx context.Context, _ connect.AnyRequest) (context.Context, error) {
			return ctx, nil
		}}, nil
	case *TokenAuth:
		return identityLink(tokenProvider, p.verifier()), nil
	case *MTLSAuth:
		return identityLink(mtlsProvider, p.verifier()), nil
	default:
		drive, err := newDriver(p.ServerInterceptor())
		if err != nil {
			return authLink{}, err
		}
		checker, _ := p.(CredentialChecker)
		foreign := &foreignProvider{drive: drive, checker: checker}
		return authLink{name: fmt.Sprintf("%T", p), check: foreign.check}, nil
	}
}

// useless says why one of this package's providers can accept nobody, and what to write; empty where it may.
func useless(p AuthProvider) string {
	const absent = "is nil; remove it"
	keys := "NewTokenAuth"
	if k, ok := p.(*APIKeyAuth); ok {
		if keys = "NewAPIKeyAuth"; k == nil || k.TokenAuth == nil {
			return "has no TokenAuth; make it with NewAPIKeyAuth"
		}
		p = k.TokenAuth
	}
	switch p := p.(type) {
	case nil:
		return absent
	case *MTLSAuth:
		if p == nil {
			return absent
		}
	case *TokenAuth:
		switch {
		case p == nil:
			return absent
		case p.ValidateToken == nil && !isToken(p.Token):
			return "accepts nobody: give " + keys + " a function that says whose token it is (ValidateToken), or the one token of all callers"
		case !isFieldName(p.Header):
			return fmt.Sprintf("accepts nobody: no request has a header named %q; write a name of letters, digits and '-' into its Header, "+
				"such as X-API-Key", p.Header)
		}
	default:
		if isNil(p) {
			return absent
		}
	}
	return ""
}

// isFieldName reports whether a text can be the name of a header field (RFC 9110, 5.6.2). Empty stands for the usual one.
func isFieldName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// verifier names the sender of a request by its context and header. It returns
// errNoCredential where its kind of credential is absent.
type verifier func(context.Context, http.Header) (*AuthContext, error)

func identityLink(name string, verify verifier) authLink {
	check := func(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
		auth, err := verify(ctx, req.Header())
		switch {
		case err != nil:
			return nil, err
		case auth.Identity == "":
			return nil, errNoIdentity
		default:
			return WithAuthContext(ctx, auth), nil
		}
	}
	return authLink{name: name, check: check}
}

// foreignProvider is a provider of which only interceptors are known.
type foreignProvider struct {
	drive   *driver
	checker CredentialChecker // nil: it is asked about every request
}

// check lets the interceptor decide. One that lets a request through without
// naming anybody has authenticated nobody, so the chain goes on.
func (f *foreignProvider) check(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
	if f.checker != nil && !f.checker.HasCredential(ctx, req.Header()) {
		return nil, errNoCredential
	}
	passed, err := f.drive.run(ctx, req)
	if err != nil {
		if f.checker == nil {
			err = unclearError{err}
		}
		return nil, err
	}
	auth := storedAuthContext(passed)
	switch {
	case auth != nil && auth != storedAuthContext(ctx) && auth.Identity != "":
		return passed, nil
	case f.checker == nil && auth == storedAuthContext(ctx):
		return nil, errNoCredential
	default:
		return nil, errNoIdentity
	}
}

// authenticate returns the context of the handler, or the constant error.
func (c *authChain) authenticate(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
	if c.broken != nil {
		return nil, refuseAuth(ctx, req, "", c.broken)
	}
	for _, link := range c.links {
		passed, err := link.safeCheck(ctx, req)
		switch {
		case err == nil:
			return passed, nil
		case !errors.Is(err, errNoCredential):
			return nil, refuseAuth(ctx, req, link.name, err)
		}
	}
	return nil, refuseAuth(ctx, req, "", errNoCredential)
}

// safeCheck turns a panic into a refusal. The value of the panic is not kept, it
// may hold the credential.
func (l authLink) safeCheck(ctx context.Context, req connect.AnyRequest) (passed context.Context, err error) {
	defer func() {
		if v := recover(); v != nil {
			passed, err = nil, fmt.Errorf("%w with a %T", errProviderPanic, v)
		}
	}()
	return l.check(ctx, req)
}

func (c *authChain) wrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, err := c.authenticate(ctx, req)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

// driver runs a unary interceptor for its decision only: next takes note of the
// context and does nothing. It is immutable.
type driver struct {
	decide connect.UnaryFunc
}

// passage is where a driver's next notes that it was called. The driver itself
// is the key, so that chains in chains do not take each other's notes.
type passage struct {
	ctx context.Context //nolint:containedctx // the context is what the passage is about
}

// newDriver wraps once, as Connect does, so that an interceptor may keep state
// between requests.
func newDriver(interceptor connect.UnaryInterceptorFunc) (*driver, error) {
	if interceptor == nil {
		return nil, errNilProvider
	}
	d := &driver{}
	d.decide = interceptor(d.note)
	if d.decide == nil {
		return nil, errNilProvider
	}
	return d, nil
}

func (d *driver) note(ctx context.Context, _ connect.AnyRequest) (connect.AnyResponse, error) {
	if p, ok := ctx.Value(d).(*passage); ok {
		p.ctx = ctx
	}
	return connect.NewResponse(&emptypb.Empty{}), nil
}

// run returns the context that the interceptor passed on.
func (d *driver) run(ctx context.Context, req connect.AnyRequest) (context.Context, error) {
	p := &passage{}
	if _, err := d.decide(context.WithValue(ctx, d, p), req); err != nil {
		return nil, err
	}
	if p.ctx == nil {
		return nil, errNotPassed
	}
	return p.ctx, nil
}

// headerRequest is a request of which only the header, the specification and the
// peer are known. The embedded request stands in for what Connect keeps to itself.
type headerRequest struct {
	*connect.Request[emptypb.Empty]

	spec   connect.Spec
	peer   connect.Peer
	header http.Header
}

func newHeaderRequest(spec connect.Spec, peer connect.Peer, header http.Header) *headerRequest {
	return &headerRequest{
		Request: connect.NewRequest(&emptypb.Empty{}), spec: spec, peer: peer, header: header,
	}
}

func (r *headerRequest) Spec() connect.Spec  { return r.spec }
func (r *headerRequest) Peer() connect.Peer  { return r.peer }
func (r *headerRequest) Header() http.Header { return r.header }
func (r *headerRequest) HTTPMethod() string  { return http.MethodPost }

// credentialChain adds credentials to outgoing calls. It is immutable.
type credentialChain struct {
	interceptors []connect.UnaryInterceptorFunc
	broken       error // fails every call when set
}

func newCredentialChain(providers []AuthProvider) *credentialChain {
	c := &credentialChain{interceptors: make([]connect.UnaryInterceptorFunc, 0, len(providers))}
	for _, p := range providers {
		interceptor, err := clientInterceptorOf(p)
		if err != nil {
			c.broken = errorf(connect.CodeUnauthenticated, "%w: %w", ErrInvalidConfig, err)
		}
		c.interceptors = append(c.interceptors, interceptor)
	}
	return c
}

func clientInterceptorOf(p AuthProvider) (interceptor connect.UnaryInterceptorFunc, err error) {
	defer func() {
		if recover() != nil { // for example a nil pointer in the interface
			err = errNilProvider
		}
	}()
	if p == nil {
		return nil, errNilProvider
	}
	if interceptor = p.ClientInterceptor(); interceptor == nil {
		return nil, errNilProvider
	}
	return interceptor, nil
}

func (c *credentialChain) wrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	if c.broken != nil {
		return func(context.Context, connect.AnyRequest) (connect.AnyResponse, error) { return nil, c.broken }
	}
	for _, interceptor := range slices.Backward(c.interceptors) {
		next = interceptor(next)
	}
	return next
}

func (c *credentialChain) wrapStreaming(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	drive, err := newDriver(c.wrapUnary)
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		if err != nil {
			return &failedStream{StreamingClientConn: conn, err: asConnectError(err)}
		}
		// The header goes out with the first message, so it is still ours to fill.
		if _, err := drive.run(ctx, newHeaderRequest(conn.Spec(), conn.Peer(), conn.RequestHeader())); err != nil {
			return &failedStream{StreamingClientConn: conn, err: asConnectError(err)}
		}
		return conn
	}
}

// failedStream is a stream that was refused before anything was sent. The inner
// one would send the request if it were closed, so it is left alone.
type failedStream struct {
	connect.StreamingClientConn

	err *connect.Error
}

func (s *failedStream) Send(any) error               { return s.err }
func (s *failedStream) Receive(any) error            { return s.err }
func (s *failedStream) CloseRequest() error          { return nil }
func (s *failedStream) CloseResponse() error         { return nil }
func (s *failedStream) ResponseHeader() http.Header  { return http.Header{} }
func (s *failedStream) ResponseTrailer() http.Header { return http.Header{} }

func asConnectError(err error) *connect.Error {
	if coded, ok := errors.AsType[*connect.Error](err); ok {
		return coded
	}
	return connect.NewError(connect.CodeUnauthenticated, err)
}
