package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/policy"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/target"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

// peer is the other end of a request's connection.
type peer struct {
	context.Context //nolint:containedctx // of the request, where the peer is the context in which it is known

	addr, path  string // IP address without port; of the request, whatever its handler sees of it
	authority   string // the host name that the request was for
	secure      bool
	proven      bool                 // by its handshake, which was refused nevertheless
	state       *tls.ConnectionState // nil in plaintext
	certificate *certificate         // nil where none was verified
	conn        *connection
	refusals    *hub // that is told of what auth providers refuse; nil tells nobody
	home        *hub
	caller      caller // the place of who calls

	refused, arrived atomic.Bool // it was recorded that the request is refused; its message came to the handler
}

// certificate is what the host knows of a verified client certificate. It is a
// copy of its own, or of those who show the same: handlers see that of the connection, and may
// alter it.
type certificate struct {
	leaf        *x509.Certificate
	chains      [][]*x509.Certificate // the leaf alone, as auth providers want it
	identity    string
	fingerprint tokenstore.Fingerprint // of its public key: it outlives the renewal of the certificate
	ends        time.Time              // with the first of those that vouch for it, if not before
}

// newCertificate returns the verified certificate of a connection, nil for none.
func newCertificate(state *tls.ConnectionState, byCallback bool, parsed *certs.Shared) *certificate {
	shown, identity := verifiedPeer(state, byCallback)
	if shown == nil {
		return nil
	}
	leaf, err := parsed.Parse(shown.Raw)
	if err != nil {
		return nil
	}
	return &certificate{
		leaf:        leaf,
		chains:      [][]*x509.Certificate{{leaf}},
		identity:    identity,
		fingerprint: tokenstore.Fingerprint(certs.PinOf(leaf)),
		ends:        certs.EndOf(state.PeerCertificates, state.VerifiedChains),
	}
}

// Value implements context.Context.
func (p *peer) Value(key any) any {
	switch key.(type) {
	case peerKey:
		return p
	case peerCertificatesKey:
		if p.certificate != nil {
			return p.certificate.chains
		}
	case authObserverKey:
		if p.refusals != nil {
			return p.refusals.observeAuth
		}
	}
	return p.Context.Value(key)
}

// fingerprint returns the digest of the public key in the peer's certificate,
// zero for none.
func (p *peer) fingerprint() tokenstore.Fingerprint {
	if p.certificate == nil {
		return tokenstore.Fingerprint{}
	}
	return p.certificate.fingerprint
}

// binding returns the TLS channel binding of the connection, nil for none.
func (p *peer) binding() []byte {
	if p.state == nil {
		return nil
	}
	b, err := transcript.ChannelBinding(p.state)
	if err != nil {
		return nil
	}
	return b
}

// connection caches what is the same for every request of a connection.
type connection struct {
	// Fixed before the first request; all are zero on a server of the user's own.
	conn     *edge.Conn
	standing *certs.Standing[net.Conn]

	byCallback bool // the server's configuration verifies client certificates itself
	foreign    bool // of a server of the user's own; nobody says when it closes

	served *x509.Certificate // that the host shows; set during the TLS handshake, before the first request

	once     sync.Once
	addr     string
	cert     *certificate
	disowned error // cert is nil: it says to be of the host's Authority, and is not

	last atomic.Pointer[tokenstore.Identity] // who called last
	held atomic.Pointer[tokenstore.Identity] // who called when the connection was found to be held

	mu     sync.Mutex
	closed bool
	who    []*tokenstore.Identity // who called over it
}

// maxCarried bounds how many identities are remembered of a connection. A client has one
// at a time.
const maxCarried = 1024

// carry notes that an identity has the connection, until it closes. Where nobody says when
// that is, the identity is taken to be connected.
func (c *connection) carry(id *tokenstore.Identity) {
	switch {
	case c == nil: // no middleware saw it
		return
	case c.foreign && !id.Attached():
		id.Attach()
		return
	case c.foreign, c.last.Load() == id:
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last.Store(id)
	if c.closed || slices.Contains(c.who, id) {
		return
	}
	if len(c.who) == maxCarried {
		c.who = slices.DeleteFunc(c.who, (*tokenstore.Identity).Ended)
	}
	if len(c.who) == maxCarried {
		return
	}
	c.who = append(c.who, id)
	id.Attach()
}

// close notes that the connection closed, and returns who has none any more.
func (c *connection) close() (lost []*tokenstore.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, id := range c.who {
		if id.Detach(); !id.Attached() {
			lost = append(lost, id)
		}
	}
	c.who = nil
	return lost
}

// read reads what is the same for every request.
func (c *connection) read(r *http.Request, h *hub) {
	a := h.settings().authority
	c.addr = addrOnly(r.RemoteAddr)
	c.cert = newCertificate(r.TLS, c.byCallback, &h.clients)
	if c.cert != nil && a != nil {
		c.disowned = a.vouchFor(c.cert.leaf)
	}
	switch {
	case c.disowned != nil:
		c.cert = nil
	case c.cert != nil && c.standing != nil:
		c.standing.Show(c.conn, c.cert.leaf, c.cert.ends)
	}
}

type (
	connectionKey struct{}
	peerKey       struct{}
)

// newConnection begins what is known of a connection, before its TLS handshake;
// byCallback is as in verifiedPeer.
func newConnection(standing *certs.Standing[net.Conn], byCallback bool) func(context.Context) context.Context {
	return func(ctx context.Context) context.Context {
		return context.WithValue(ctx, connectionKey{}, &connection{standing: standing, byCallback: byCallback})
	}
}

// withConnection is the server's ConnContext.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	ready, ok := c.(*edge.Conn)
	if !ok {
		return ctx
	}
	conn, ok := connectionOf(ready.Context())
	if !ok {
		return ctx
	}
	conn.conn = ready
	conn.standing.Enter(ready)
	return context.WithValue(ctx, connectionKey{}, conn)
}

// edgeOf returns the connection of a request, nil on a server of the user's own.
func edgeOf(ctx context.Context) *edge.Conn {
	if conn, ok := connectionOf(ctx); ok {
		return conn.conn
	}
	return nil
}

// maxHeld bounds the connections of one identity that do not count against their addresses: a
// client has one, and another for each so many streams.
const maxHeld = 64

// proveHolder says who has the connection of a request: its caller, or else the certificate's
// holder. Neither can take all that the host has.
func proveHolder(ctx context.Context, h *hub, p *peer, by *caller) {
	c := edgeOf(ctx)
	if c == nil {
		return
	}
	l := &h.settings().limits
	switch cert := p.certificate; {
	case by != nil:
		heldBy(ctx, h, p, by.id)
	case cert == nil || c.Proven():
	case cert.identity != "":
		_ = c.Prove(edge.Holder{Name: "certificate " + cert.identity, Most: l.MaxConnectionsPerPeer})
	default:
		_ = c.Prove(edge.Holder{Name: "key " + string(cert.fingerprint[:]), Most: l.MaxConnectionsPerPeer})
	}
}

// heldBy says that an identity has the connection of a request: its caller, or who has just enrolled.
func heldBy(ctx context.Context, h *hub, p *peer, id *tokenstore.Identity) {
	c := edgeOf(ctx)
	if c == nil || p.conn.held.Load() == id {
		return
	}
	c.Bill(h.shareOf(id).carried)
	switch err := c.Prove(h.holder(id)); {
	case err == nil:
		p.conn.held.Store(id)
	case errors.Is(err, edge.ErrKinFull):
		h.auditOnce(p, &caller{id: id}, AuditEvent{Kind: AuditLimited, Peer: p.addr, Reason: tooManyHeldOfFleet})
	}
}

// newStanding returns the connections of a host, which end soon after the certificates of their peers: by their time, or with their launch.
func newStanding(h *hub, l Limits, a *Authority) *certs.Standing[net.Conn] {
	var ended func(string, *x509.Certificate) bool
	if a != nil {
		ended = a.launchHasEnded
	}
	return certs.NewStanding(certs.Tenure{Overtime: l.CertificateOvertime}, h.cutOff, ended)
}

// cutOff ends a connection whose certificate is over, without a word: to a peer that does not read it would take time.
func (h *hub) cutOff(c net.Conn) {
	if conn, ok := c.(*edge.Conn); ok {
		h.recordPeer(conn, tooOld, RefusedConnection)
		conn.Abort()
	}
}

// connectionOf returns what is known of a connection that the host itself accepted.
func connectionOf(ctx context.Context) (*connection, bool) {
	conn, ok := ctx.Value(connectionKey{}).(*connection)
	return conn, ok
}

// noteServed keeps which certificate the host shows on a connection.
func noteServed(ctx context.Context, leaf *x509.Certificate) {
	if conn, ok := connectionOf(ctx); ok {
		conn.served = leaf
	}
}

// newPeer returns who makes a request. A server of the user's own need not have checked
// whose certificates are believed, so it is done here.
func (h *hub) newPeer(r *http.Request) *peer {
	p := new(peer)
	conn, ok := connectionOf(r.Context())
	if !ok {
		conn = &connection{foreign: true}
	}
	h.meet(p, conn, r)
	return p
}

// meet does what newPeer does, in a place, with what is known of the connection.
func (h *hub) meet(p *peer, conn *connection, r *http.Request) {
	conn.once.Do(func() { conn.read(r, h) })
	p.Context, p.addr, p.authority, p.secure, p.state = r.Context(), conn.addr, r.Host, r.TLS != nil, r.TLS
	p.path, p.certificate, p.conn, p.home = r.URL.Path, conn.cert, conn, h
}

// notAsked says why a peer may have shown no certificate where the server is the user's own: the host does not know
// whether that asks for one.
func (p *peer) notAsked() string {
	if p == nil || p.conn == nil || !p.conn.foreign || p.state == nil || len(p.state.PeerCertificates) > 0 {
		return ""
	}
	return "; the server that serves Host.Handler has to ask for certificates: set ClientAuth of its tls.Config to " +
		"tls.VerifyClientCertIfGiven, and ClientCAs, or take that of Authority.HostTLS"
}

func withPeer(ctx context.Context, p *peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// peerFrom returns the peer of a request. Where no middleware saw it, its address is all
// that is known.
func peerFrom(ctx context.Context) (*peer, bool) {
	if p, ok := ctx.Value(peerKey{}).(*peer); ok {
		return p, true
	}
	info, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return nil, false
	}
	return &peer{addr: addrOnly(info.Peer().Addr)}, true
}

// isGuarded reports whether the middleware has seen a request.
func isGuarded(ctx context.Context) bool {
	_, ok := ctx.Value(peerKey{}).(*peer)
	return ok
}

// pinToCaller pins a base URL to the address that the caller calls from.
func (h *hub) pinToCaller(ctx context.Context, id *tokenstore.Identity, baseURL string) (string, error) {
	p, ok := peerFrom(ctx)
	if !ok {
		return "", errors.New("the plugin's address is not known")
	}
	resolve := func(host string) ([]netip.Addr, error) { return h.lookups.Addresses(ctx, id.SelfID(), host) }
	at, err := pinToPeer(resolve, baseURL, p.addr, h.settings().allowInsecure)
	if errors.Is(err, errOtherAddress) {
		return "", fmt.Errorf("%w: set BaseURL of the plugin to that address, or Policy.Plugins[%q].Endpoint, "+
			"in the place of AllowOwnAddress, to where it is dialled", err, clipped(id.SelfID()))
	}
	if err == nil && h.isItself(at) {
		return "", fmt.Errorf("base_url: %w: set BaseURL of the plugin to where the plugin listens, or leave it out", errHostsOwnAddress)
	}
	return at, err
}

// isItself reports whether the host would dial itself at an endpoint.
func (h *hub) isItself(endpoint string) bool {
	at := h.listens.Load()
	site, err := catalog.ParseSite(endpoint)
	return at != nil && err == nil && target.LeadsTo(*at, site.Host(), site.Port())
}

// otherThanItself refuses an endpoint of policy at which the host would dial itself.
func (h *hub) otherThanItself(id *tokenstore.Identity, endpoint string) error {
	if h.isItself(endpoint) {
		return fmt.Errorf("Policy.Plugins[%q].Endpoint: %w: write where the plugin listens", clipped(id.SelfID()), errHostsOwnAddress)
	}
	return nil
}

// mightName returns where its caller would be dialled by a base URL if policy let it say that,
// empty where that is not known. Policy does not yet, so nobody is asked about names.
func (h *hub) mightName(ctx context.Context, baseURL string) string {
	p, ok := peerFrom(ctx)
	if !ok || baseURL == "" {
		return ""
	}
	literal := func(host string) ([]netip.Addr, error) {
		addr, err := netip.ParseAddr(host)
		return []netip.Addr{addr}, err //nolint:wrapcheck // nobody reads it
	}
	own, err := pinToPeer(literal, baseURL, p.addr, h.settings().allowInsecure)
	if err != nil {
		return ""
	}
	return own
}

// pinToPeer pins a plugin's base URL to the address that the plugin registers
// from: that is what is dialled, whatever the name means later. A name stays behind it, as
// the fragment, for the certificate with which the plugin answers there.
func pinToPeer(resolve func(host string) ([]netip.Addr, error), baseURL, from string, allowInsecure bool) (string, error) {
	u, err := parseHostURL(baseURL, allowInsecure)
	if err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return "", fmt.Errorf("peer address %q: %w", from, err)
	}
	if err := proxy.CheckAddress(addr); err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	addrs, err := resolve(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("base_url: %w", err)
	}
	for _, a := range addrs {
		if a.Unmap() == addr {
			if _, err := netip.ParseAddr(u.Hostname()); err != nil {
				u.Fragment = strings.TrimSuffix(u.Hostname(), ".")
			}
			u.Host = net.JoinHostPort(addr.String(), cmp.Or(u.Port(), defaultPorts[u.Scheme]))
			return u.String(), nil
		}
	}
	return "", fmt.Errorf("%w than %s, from which the plugin registers", errOtherAddress, from)
}

// reserveEndpoints keeps the endpoints that policy names for those whom it names.
func reserveEndpoints(b *policy.Book) {
	reserve := func(name string, r *policy.Rules) {
		if site, err := catalog.ParseSite(r.Endpoint); err == nil { // else none is named
			b.Reserve(policy.Named{Plugin: name, Rules: r, Host: site.Host(), Port: site.Port()})
		}
	}
	for name, r := range b.Plugins {
		reserve(name, r)
	}
	for name, r := range b.Holders {
		if b.Plugins[name] == nil {
			reserve(name, r)
		}
	}
	if b.Default != nil {
		reserve("Default", b.Default)
	}
}

// reserved returns whom policy names for an endpoint, other than the plugin itself.
func reserved(book *policy.Book, id *tokenstore.Identity, endpoint string, names func(named, host string) bool) (owner string, ok bool) {
	site, err := catalog.ParseSite(endpoint)
	if err != nil {
		return "", false
	}
	return book.Reserved(subjectOf(id), site.Port(), func(named string) bool { return names(named, site.Host()) })
}

// outbid reports whether a policy names the endpoint that a plugin named for another.
func outbid(book *policy.Book, id *tokenstore.Identity) bool {
	own := declared(id).endpoint.text()
	_, ok := reserved(book, id, own, sameHost)
	return own != "" && ok
}

// sameHost compares hosts without asking anybody.
func sameHost(named, host string) bool {
	addr, err := netip.ParseAddr(host)
	return named == host || named == "localhost" && err == nil && addr.IsLoopback()
}

// operatorAsks is for whom names of the operator's are looked up. No self id is like it.
const operatorAsks = "the operator"

// namesAddress compares hosts, of which the operator's may be a name.
func (h *hub) namesAddress(ctx context.Context) func(named, host string) bool {
	return func(named, host string) bool {
		if sameHost(named, host) {
			return true
		}
		addrs, err := h.lookups.Addresses(ctx, operatorAsks, named)
		return err == nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().String() == host })
	}
}
