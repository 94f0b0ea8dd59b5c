package connectplugin

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/link"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// exchange performs one handshake: a renewal where current holds a token, and a new
// enrolment otherwise. The first one, and each that [Client.Connect] asks for, verifies
// the host on a connection of its own; that of the first goes on to carry the calls. A client
// that lost its identity asks for another over the connection on which it learnt that: it
// costs its host one TLS handshake.
func (c *Client) exchange(ctx context.Context, current identity, apart bool) (outcome error) {
	c.mu.Lock()
	host, prefix := c.host, c.prefix
	c.mu.Unlock()
	x := &exchange{cfg: &c.cfg, client: c.transport, shows: c.ownCertificate, current: current}
	if c.link != nil {
		conn, err := c.reach(ctx, host, apart)
		if err != nil {
			return err
		}
		if apart {
			defer func() { c.part(conn, outcome) }()
		}
		x.client, x.state, x.local = oneConn{c, conn}, conn.TLS(), conn.LocalAddr()
		c.mu.Lock()
		host, prefix = c.host, c.prefix // another one, where discovery has several
		c.mu.Unlock()
	}
	x.prefix, x.home = prefix, originOf(host, prefix)
	if current.home != x.home {
		x.current = identity{} // which another host gave, and this one is not to learn
	}
	if err := x.run(ctx, host.String()+prefix); err != nil {
		err = c.explainLink(err)
		c.trustFailed(err)
		if c.link == nil && !connect.IsWireError(err) {
			c.passOver()
		}
		if connect.CodeOf(err) == connect.CodeUnauthenticated {
			c.showAnother()
		}
		return err
	}
	return c.adopt(x)
}

// part has calls go over the connection of a handshake where there is no other, and the next
// attempt where the host has no room for this client yet: another one would cost both sides
// more than all that is done there. Otherwise the connection ends.
func (c *Client) part(conn *link.Conn, outcome error) {
	wanted := outcome == nil || connect.CodeOf(outcome) == connect.CodeResourceExhausted
	if !wanted || !c.link.Keep(conn) {
		conn.Close()
	}
}

// moveTo has later calls go to another place.
func (c *Client) moveTo(host *url.URL, prefix string) {
	c.mu.Lock()
	moved := c.moveLocked(host, prefix)
	c.mu.Unlock()
	if moved && c.link != nil {
		c.link.Retire()
	}
}

// moveLocked has later calls go to another place, those too that were meant for this one, and reports whether it is
// another.
func (c *Client) moveLocked(host *url.URL, prefix string) bool {
	moved := c.host != nil && *c.host != *host
	if moved {
		c.former.Left(placeOf(c.host), c.prefix)
	}
	c.host, c.prefix = host, prefix
	return moved
}

// origin is where a host is: the place, and the path below which it is there.
type origin struct{ scheme, host, prefix string }

func originOf(u *url.URL, prefix string) origin { return origin{u.Scheme, u.Host, prefix} }

// isOfHostLocked reports whether an identity is one that the host gave at which the client is now, or none. No other host is shown it.
func (c *Client) isOfHostLocked(id identity) bool {
	return id.token == "" || c.host != nil && id.home == originOf(c.host, c.prefix)
}

// direct sends a request to where the host is now, whatever the base that it was made with; not with an identity that another host
// gave, where the client has moved since.
func (c *Client) direct(r *http.Request, id identity) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isOfHostLocked(id) {
		return errMoved
	}
	if !same(r.URL, c.host) {
		r.URL.Scheme, r.URL.Host, r.Host = c.host.Scheme, c.host.Host, ""
	}
	r.URL.Path = c.prefix + r.URL.Path
	return nil
}

// below returns a request whose path is the one at the host: what was made with HostURL as its base has the path of that, too,
// below which a proxy serves the host, and what was made with a base of the client's own has not.
func (c *Client) below(r *http.Request) *http.Request {
	c.mu.Lock()
	prefix, _ := c.former.Known(placeOf(r.URL))
	if c.host != nil && same(r.URL, c.host) {
		prefix = c.prefix
	}
	c.mu.Unlock()
	rest, ok := strings.CutPrefix(r.URL.Path, prefix)
	if prefix == "" || !ok || !strings.HasPrefix(rest, "/") || servedByHost(r.URL.Path) && !servedByHost(rest) {
		return r
	}
	out, u := r.WithContext(r.Context()), *r.URL
	u.Path, u.RawPath = rest, strings.TrimPrefix(u.RawPath, prefix)
	out.URL = &u
	return out
}

// servedByHost reports whether a path is one of a host's own: of its services, or of a type at a provider or with a grant, below both of
// which there is more. A host plugin that is called below a path of the same name is none.
func servedByHost(path string) bool {
	for _, prefix := range []string{pathServices, pathCapabilities} {
		if tail, ok := strings.CutPrefix(path, prefix); ok {
			kind, tail, _ := strings.Cut(tail, "/")
			at, rest, _ := strings.Cut(tail, "/")
			return kind != "" && at != "" && rest != ""
		}
	}
	_, method, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return isOwnPath(path) && !strings.Contains(method, "/")
}

// identifiable returns an error where the client has no identity and will obtain none, of which the host need not be
// asked. One whose host has yet to come, and to assign it one, may still have it.
func (c *Client) identifiable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.made() || c.closed || c.cfg.SelfID != "" || c.identity.token != "" || c.cfg.HostURL == assignedURL {
		return nil
	}
	return errorf(connect.CodeUnauthenticated, "%w", errNoSelfID)
}

var errNoSelfID = errors.New("ClientConfig.SelfID is empty, so the client has no identity at the host, which this takes: " +
	"set ClientConfig.SelfID, and TLS with its certificate or Secret")

// place is where the host is now, of a client that was connected once.
func (c *Client) place() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.host.String()
}

// reach returns a connection for a handshake, of its own or one of those for calls. A client
// that was never let in has one at most, that of its last attempt.
func (c *Client) reach(ctx context.Context, host *url.URL, apart bool) (*link.Conn, error) {
	get := c.link.Get
	if apart {
		get = c.link.Open
		c.mu.Lock()
		known := c.ready
		c.mu.Unlock()
		if conn := c.link.Spare(); conn != nil && !known {
			return conn, nil
		}
	}
	conn, err := get(ctx)
	if err == nil {
		return conn, nil
	}
	err = fmt.Errorf("connect to %s: %w", host, c.explainLink(err))
	if !apart {
		err = &lostError{err: err} // the host was trusted before: it may be again
	}
	c.trustFailed(err)
	return nil, err
}

// oneConn sends requests over one connection.
type oneConn struct {
	client *Client
	conn   *link.Conn
}

// Do sends a request.
func (o oneConn) Do(r *http.Request) (*http.Response, error) {
	resp, err := o.conn.RoundTrip(r)
	if resp, err = o.client.heard(r.Context(), resp, err); err != nil {
		return nil, o.client.failure(r.Context(), err)
	}
	return resp, nil
}

// maxWarnings is more than a host has to say about one handshake.
const maxWarnings = 1024

// boundedWarnings returns what the client's operator gets to see of a host's
// warnings: so many, so long, and nothing that could forge a log line.
func boundedWarnings(from []string) []string {
	out := make([]string, min(len(from), maxWarnings))
	for i := range out {
		out[i] = printable(from[i])
	}
	return out
}

// exchange is one handshake as the client sees it.
type exchange struct {
	cfg     *ClientConfig
	client  connect.HTTPClient
	shows   func() string        // what is known of the certificate of our side
	state   *tls.ConnectionState // nil in plaintext and with a foreign HTTP client
	local   netip.Addr           // of our side of the connection
	prefix  string               // the path of the host
	home    origin               // of the host
	current identity

	req      *connectpluginv1.HandshakeRequest
	resp     *connectpluginv1.HandshakeResponse
	binding  []byte
	lease    time.Duration // that the host states; zero for none
	identity identity
}

func (x *exchange) run(ctx context.Context, base string) error {
	if err := x.prepare(); err != nil {
		return err
	}
	req := connect.NewRequest(x.req)
	if x.current.token != "" {
		req.Header().Set(headerRuntimeID, x.current.runtimeID)
		req.Header().Set(headerAuthorization, bearerPrefix+x.current.token)
	}
	// A stranger's answer could swell to far more than is read of it, so it is not
	// to be compressed.
	client := connectpluginv1connect.NewHandshakeServiceClient(x.client, base,
		connect.WithInterceptors(guarded(x.cfg.Interceptors)...), connect.WithReadMaxBytes(maxHostMessage),
		connect.WithAcceptCompression(compressionGzip, nil, nil))
	resp, err := client.Handshake(ctx, req)
	if err != nil {
		return x.explain(err)
	}
	x.resp = resp.Msg
	if lease, err := time.ParseDuration(resp.Header().Get(headerLease)); err == nil {
		x.lease = max(lease, 0)
	}
	return x.check()
}

// prepare builds the request and proves it.
func (x *exchange) prepare() error {
	r, c := x.cfg.versions(), x.cfg
	x.req = &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: coreProtocolVersion,
		AppProtocolVersion:  int32(c.ProtocolVersion), //nolint:gosec // validated to be small
		MinProtocolVersion:  r.min,
		MaxProtocolVersion:  r.max,
		MagicCookieKey:      c.MagicCookieKey,
		MagicCookieValue:    c.MagicCookieValue,
		RequestedPlugins:    c.Plugins.Keys(),
		SelfId:              c.SelfID,
		SelfVersion:         c.SelfVersion,
		ClientNonce:         make([]byte, nonceBytes),
		IssuedAt:            timestamppb.Now(),
		Provides:            wireDeclarations(c.Metadata.Provides),
		Requires:            wireDependencies(c.Metadata.Requires),
	}
	_, _ = rand.Read(x.req.GetClientNonce())
	if len(c.Secret) == 0 {
		return nil
	}
	if x.state != nil {
		binding, err := transcript.ChannelBinding(x.state)
		if err != nil {
			return fmt.Errorf("channel binding: %w", err)
		}
		x.binding = binding
	}
	return signHandshakeRequest(x.req, c.Secret, x.binding)
}

// legible returns an error of a stranger's with what fits a log line of its words, and when to
// come again where it says so.
func legible(coded *connect.Error) error {
	out := connect.NewError(coded.Code(), errors.New(printable(coded.Message())))
	for _, d := range coded.Details() {
		if d.Type() == retryInfo {
			out.AddDetail(d)
			break
		}
	}
	if after := coded.Meta().Get(headerRetryAfter); after != "" {
		out.Meta().Set(headerRetryAfter, after)
	}
	return out
}

// ownCertificate says which certificate this side shows, as the credentials of another plugin are a common mistake; nothing
// where that is not known.
func (c *Client) ownCertificate() string {
	if c.link == nil {
		return ""
	}
	c.mu.Lock()
	leaf := c.shown.Leaf()
	c.mu.Unlock()
	if cfg := c.cfg.TLS; leaf == nil && cfg != nil && len(cfg.Certificates) > 0 {
		if cfg.GetClientCertificate != nil || len(cfg.Certificates) > 1 {
			return ""
		}
		leaf = certs.LeafOf(&cfg.Certificates[0])
	}
	if leaf == nil {
		return " (this side shows no certificate)"
	}
	return fmt.Sprintf(" (this side shows the certificate of %q)", printable(certs.CertificateIdentity(leaf)))
}

// explain says in words what a refusal means. Of the host's own words it keeps
// what fits a log line.
func (x *exchange) explain(err error) error {
	var coded *connect.Error
	switch said := connect.IsWireError(err); {
	case errors.As(err, &coded) && said:
		err = legible(coded)
	case !said && isTooLarge(err):
		return fmt.Errorf("%w: its answer is larger than a client takes: %w", ErrHostNotTrusted, err)
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated:
		bound := ""
		if x.binding != nil {
			bound = "; the proof of its secret is bound to this TLS connection, so whoever ends TLS in between (a balancer in HTTP mode) " +
				"breaks it: let that pass TCP on, or bring an HTTPClient, with which proofs are not bound"
		}
		return fmt.Errorf("%w: the host does not accept self id %q: it may not be in the host's policy, or its secret or "+
			"certificate is wrong%s; the host's log says which%s: %w", ErrHandshakeRefused, x.cfg.SelfID, x.shows(), bound, err)
	case connect.CodeUnimplemented, connect.CodeNotFound:
		below := "HostURL has no path, and a proxy may have the host below one"
		if x.prefix != "" {
			below = fmt.Sprintf("HostURL has the path %q, which is right only where a proxy has the host below it", x.prefix)
		}
		return fmt.Errorf("%w: no host answers at this URL: %s: %w", ErrHandshakeRefused, below, err)
	case connect.CodePermissionDenied:
		return fmt.Errorf("%w: the host lets nobody in as self id %q, which its operator may have revoked, or by the name in HostURL, "+
			"which may be none of its Hosts; the host's log says which: %w", ErrHandshakeRefused, x.cfg.SelfID, err)
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition:
		return fmt.Errorf("%w: %w", ErrHandshakeRefused, err)
	case connect.CodeResourceExhausted:
		if isTooLarge(err) {
			return fmt.Errorf("%w: it has %d bytes, more than the host takes: raise Limits.MaxHandshakeBytes at the host, "+
				"or write less into Metadata: %w", ErrHandshakeRefused, proto.Size(x.req), err)
		}
		return fmt.Errorf("the host takes no more handshakes from here for now: %w", err)
	case connect.CodeCanceled, connect.CodeUnknown, connect.CodeDeadlineExceeded, connect.CodeAlreadyExists, connect.CodeAborted,
		connect.CodeOutOfRange, connect.CodeInternal, connect.CodeUnavailable, connect.CodeDataLoss:
	}
	return fmt.Errorf("handshake: %w", err)
}

// isTooLarge reports whether the host refuses a message for its size, as Connect or the host itself says it.
func isTooLarge(err error) bool {
	return strings.Contains(err.Error(), "larger than configured max") || strings.Contains(err.Error(), "a handshake may have")
}

// check believes the answer only where it is proven, complete and within what
// the client demands.
func (x *exchange) check() error {
	m, r := x.resp, x.cfg.versions()
	if len(x.cfg.Secret) > 0 && !verifyHandshakeResponse(x.req, m, x.cfg.Secret, x.binding) {
		return fmt.Errorf("%w: its answer does not prove that it holds the secret of %q, or was altered on the way",
			ErrHostNotTrusted, x.cfg.SelfID)
	}
	switch v := m.GetAppProtocolVersion(); {
	case m.GetCoreProtocolVersion() != coreProtocolVersion:
		return fmt.Errorf("%w: it answers with core protocol version %d", ErrHostNotTrusted, m.GetCoreProtocolVersion())
	case v < r.min || v > r.max:
		return fmt.Errorf("%w: it answers with application version %d, outside %d to %d", ErrHostNotTrusted, v, r.min, r.max)
	}
	if x.cfg.SelfID == "" {
		return nil
	}
	if err := validateIdentity(m.GetRuntimeId(), m.GetRuntimeToken()); err != nil {
		return fmt.Errorf("%w: %w", ErrHostNotTrusted, err)
	}
	if x.current.token != "" && m.GetRuntimeId() != x.current.runtimeID {
		return fmt.Errorf("%w: a renewal changed the runtime id", ErrHostNotTrusted)
	}
	x.identity = identity{runtimeID: m.GetRuntimeId(), token: m.GetRuntimeToken(), home: x.home}
	if e := m.GetTokenExpiresAt(); e != nil {
		if err := e.CheckValid(); err != nil {
			return fmt.Errorf("%w: token_expires_at: %w", ErrHostNotTrusted, err)
		}
		if e.AsTime().Before(x.req.GetIssuedAt().AsTime()) {
			return fmt.Errorf("%w: its token ended before it was asked for, at %s; compare the clocks",
				ErrHostNotTrusted, e.AsTime().Format(time.RFC3339))
		}
		x.identity.expires = e.AsTime()
	}
	return nil
}

// validateIdentity refuses what no host of this library issues and what could
// not stand in a header.
func validateIdentity(runtimeID, token string) error {
	if err := visible("runtime_id", runtimeID); err != nil {
		return err
	}
	return visible("runtime_token", token)
}

const maxIdentityLen = 512

func visible(field, s string) error {
	if s == "" || len(s) > maxIdentityLen {
		return fmt.Errorf("%s: is empty or has more than %d bytes", field, maxIdentityLen)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return fmt.Errorf("%s: has characters that no identity has", field)
		}
	}
	return nil
}

// leaveOthers has later requests go over new connections, where the client is at a place and had one that leads to another.
func (c *Client) leaveOthers(at *url.URL) {
	c.mu.Lock()
	here := same(at, c.host)
	c.mu.Unlock()
	if here {
		c.link.Retire()
	}
}
