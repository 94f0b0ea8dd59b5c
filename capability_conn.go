package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/lifespan"
)

// CapabilityConn reaches a capability of the host. It renews its grant when that
// is about to expire, and when the plugin was given a new identity. Make it with
// [Client.Capability]; generated clients take its BaseURL and HTTPClient. It is
// safe for concurrent use.
type CapabilityConn struct {
	// Fixed at creation.
	client     *Client
	capType    string
	constraint string

	renewing chan struct{} // capacity one: full during a request for a grant

	mu    sync.Mutex
	grant capabilityGrant
}

// capabilityGrant is a grant as the plugin holds it.
type capabilityGrant struct {
	path    string
	token   string
	owner   string    // the runtime id that it was given to
	at      time.Time // when it was given
	life    time.Duration
	renewAt time.Time // zero: when the host refuses it
}

// Capability asks the host for a capability that satisfies constraint: a least
// version, or a constraint such as ">=1.2, <2"; empty accepts any. A capability
// that policy does not allow and one that the host does not have give the same
// NotFound. Who asks again for the same gets the same connection, with one grant, so it
// may be asked for where it is needed; the host is asked again a minute later, or when an
// eighth of the grant's life is over.
func (c *Client) Capability(ctx context.Context, capabilityType, constraint string) (*CapabilityConn, error) {
	if err := c.identifiable(); err != nil {
		return nil, fmt.Errorf("capability %q: %w", capabilityType, err)
	}
	if _, err := c.connected(ctx); err != nil {
		return nil, err
	}
	key := capabilityKey{kind: capabilityType, constraint: constraint}
	s := c.capability(key)
	if err := s.confirm(ctx); err != nil {
		c.forget(key, s)
		return nil, fmt.Errorf("capability %q: %w", capabilityType, err)
	}
	return s, nil
}

// A grant is replaced where its capability is asked for again and it is older than this, and than such a part of its life:
// the host may offer another version by then, or policy none. Those that it takes the place of live on.
const (
	confirmAfter = time.Minute
	confirmPart  = 8
)

// maxSharedCapabilities bounds what a client keeps of capabilities that it asked for. Of others each has its own.
const maxSharedCapabilities = 256

// capabilityKey is what a client asks for.
type capabilityKey struct{ kind, constraint string }

// capability returns the connection to a capability, the one that there is if there is one.
func (c *Client) capability(key capabilityKey) *CapabilityConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.granted[key]; s != nil {
		return s
	}
	s := &CapabilityConn{
		client: c, capType: key.kind, constraint: key.constraint,
		renewing: make(chan struct{}, 1),
	}
	if c.granted == nil {
		c.granted = map[capabilityKey]*CapabilityConn{}
	}
	if len(c.granted) < maxSharedCapabilities {
		c.granted[key] = s
	}
	return s
}

// forget drops a connection that has no grant.
func (c *Client) forget(key capabilityKey, s *CapabilityConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.granted[key] == s && s.load().token == "" {
		delete(c.granted, key)
	}
}

// BaseURL returns the base URL for generated clients, together with HTTPClient. It names the host
// where that is now; what was made with it goes along where the client goes to another place.
func (s *CapabilityConn) BaseURL() string {
	return s.made().client.place() + pathCapabilities + s.capType
}

// HTTPClient returns the HTTP client that sends calls below BaseURL to the
// capability, with the current grant.
func (s *CapabilityConn) HTTPClient() connect.HTTPClient { return (*capabilityTransport)(s.made()) }

// made returns a connection that Client.Capability made.
func (s *CapabilityConn) made() *CapabilityConn {
	mustBeMade("the CapabilityConn", s != nil && s.client != nil, "Client.Capability")
	return s
}

// confirm makes sure that the host grants the capability, or did a moment ago. A grant that lives is good enough where
// the plugin has as many as it may.
func (s *CapabilityConn) confirm(ctx context.Context) error {
	recent := func(g capabilityGrant) bool {
		return s.usable(g) && time.Since(g.at) < max(confirmAfter, g.life/confirmPart)
	}
	_, err := s.obtain(ctx, recent)
	if g := s.load(); err != nil && connect.CodeOf(err) == connect.CodeResourceExhausted && s.usable(g) {
		return nil
	}
	return err
}

func (s *CapabilityConn) load() capabilityGrant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grant
}

// current returns a live grant, a new one where the old is about to expire or
// belongs to another identity.
func (s *CapabilityConn) current(ctx context.Context) (capabilityGrant, error) {
	return s.obtain(ctx, s.usable)
}

// obtain returns the grant if it is good, and else a new one.
func (s *CapabilityConn) obtain(ctx context.Context, good func(capabilityGrant) bool) (capabilityGrant, error) {
	if g := s.load(); good(g) {
		return g, nil
	}
	select {
	case s.renewing <- struct{}{}:
		defer func() { <-s.renewing }()
	case <-ctx.Done():
		return capabilityGrant{}, ctx.Err()
	}
	if g := s.load(); good(g) {
		return g, nil
	}
	g, err := s.request(ctx)
	if err != nil {
		return capabilityGrant{}, err
	}
	s.mu.Lock()
	s.grant = g
	s.mu.Unlock()
	return g, nil
}

// request asks the host for a grant.
func (s *CapabilityConn) request(ctx context.Context) (capabilityGrant, error) {
	base, err := s.client.base()
	if err != nil {
		return capabilityGrant{}, err
	}
	through := &ownerTransport{hostTransport: (*hostTransport)(s.client)}
	broker := connectpluginv1connect.NewCapabilityBrokerClient(through, base, s.client.options()...)
	resp, err := broker.RequestCapability(ctx, connect.NewRequest(&connectpluginv1.RequestCapabilityRequest{
		CapabilityType: s.capType, MinVersion: s.constraint,
	}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		err = fmt.Errorf("the host has none of this name and version, or its policy (PluginPolicy.Capabilities) does not give it "+
			"to this plugin: %w", err)
	}
	if err != nil {
		return capabilityGrant{}, err
	}
	return newCapabilityGrant(resp, s.capType, through.owner)
}

// ownerTransport is hostTransport for one call. It notes the runtime id that the call was made with, for the client may
// have another by the time of the answer.
type ownerTransport struct {
	*hostTransport

	owner string
}

// Do sends the request to the host.
func (t *ownerTransport) Do(r *http.Request) (*http.Response, error) {
	return (*Client)(t.hostTransport).do(r, t)
}

func (t *ownerTransport) aim(_ context.Context, _ *http.Request, id identity) error {
	t.owner = id.runtimeID
	return nil
}

func (s *CapabilityConn) usable(g capabilityGrant) bool {
	return g.token != "" && g.owner == s.client.RuntimeID() && (g.renewAt.IsZero() || time.Now().Before(g.renewAt))
}

// drop forgets a grant that the host refused.
func (s *CapabilityConn) drop(g capabilityGrant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grant.token == g.token {
		s.grant = capabilityGrant{}
	}
}

var errBadGrant = errors.New("the host's grant is malformed")

// newCapabilityGrant takes the path of a grant's endpoint: calls go to the host
// that the client is connected to, wherever the URL says that it points.
func newCapabilityGrant(resp *connect.Response[connectpluginv1.RequestCapabilityResponse], capType, owner string) (capabilityGrant, error) {
	m := resp.Msg.GetGrant()
	u, err := url.Parse(m.GetEndpointUrl())
	if err != nil || !strings.HasPrefix(u.Path, pathCapabilities+capType+"/") || visible("bearer_token", m.GetBearerToken()) != nil {
		return capabilityGrant{}, errBadGrant
	}
	g := capabilityGrant{path: strings.TrimSuffix(u.Path, "/"), token: m.GetBearerToken(), owner: owner, at: time.Now()}
	if e := m.GetExpiresAt(); e.IsValid() {
		// A lifetime that is over already is that of a clock which differs from
		// that of a host which does not say its time: such a grant is used until the host refuses it.
		if lifetime := lifespan.Left(e.AsTime(), resp.Header(), time.Now()); lifetime > 0 {
			g.life = lifetime
			g.renewAt = time.Now().Add(time.Duration(float64(lifetime) * renewAfter))
		}
	}
	return g, nil
}

// capabilityTransport sends requests to the capability.
type capabilityTransport CapabilityConn

// Do sends a request to the capability.
func (t *capabilityTransport) Do(r *http.Request) (*http.Response, error) {
	s := (*CapabilityConn)(t)
	if err := checkRequest(r); err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(r.URL.Path, pathCapabilities+s.capType)
	if !ok {
		return notForService(r)
	}
	resp, err := s.client.do(r, &grantDestination{conn: s, rest: rest})
	if err != nil {
		return answered(r, err)
	}
	return resp, nil
}

// grantDestination is the capability, with the grant of one attempt.
type grantDestination struct {
	conn  *CapabilityConn
	rest  string
	grant capabilityGrant
}

func (d *grantDestination) aim(ctx context.Context, r *http.Request, _ identity) error {
	g, err := d.conn.current(ctx)
	if err != nil {
		return err
	}
	d.grant = g
	r.URL.Path = g.path + d.rest
	r.Header[headerAuthorization] = []string{bearerPrefix + g.token}
	if len(r.Header[headerRuntimeID]) > 0 { // of the identity before, where the client has enrolled anew for the grant
		r.Header[headerRuntimeID] = []string{g.owner}
	}
	return nil
}

// mend drops the grant that the host refused and asks for another. That tells whether the
// host lost the client, and the grant with it, or took the grant away: then the call
// stays refused, and the next one has the new grant. Where there is no other, that is the
// call's error.
func (d *grantDestination) mend(ctx context.Context, _ identity) (bool, error) {
	d.conn.drop(d.grant)
	g, err := d.conn.current(ctx)
	return err == nil && g.owner != d.grant.owner, err
}
