package connectplugin

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/former"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/link"
	"github.com/masegraye/connect-plugin-go/internal/seldom"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

// Client is a plugin's, or any program's, side of a host. Make it with
// [NewClient], connect it with [Client.Connect], end it with [Client.Leave], or with
// [Client.Close], after which the host keeps the identity until its lease ends
// ([HealthProbeConfig]). A client that provides nothing and makes no calls shows its host
// now and then that it lives, by repeating its last health report; what a plugin provides
// shows that by itself ([ServePlugin]). It is safe for concurrent use.
type Client struct {
	// Fixed at creation.
	cfg       ClientConfig
	logger    *slog.Logger       // as configured: may be nil. That of cfg is bounded
	log       *seldom.Handler    // of the logger of cfg
	transport connect.HTTPClient // the configured one, nil where link is used
	link      *link.Pool
	life      context.Context //nolint:containedctx // ends with Close, which owns the goroutines
	end       context.CancelFunc
	tasks     sync.WaitGroup
	vigil     *certs.Vigil   // over certificates that are about to end
	own       []certs.Source // of the certificates that this side shows; set before Connect
	// connecting are the turns of all clients of the process.
	connecting *turns.Turns

	mu        sync.Mutex
	host      *url.URL      // nil before the host is known
	former    former.Places // where the host was before
	prefix    string        // the path below which a proxy serves the host
	identity  identity
	adopted   time.Time     // when the identity was obtained
	accepted  uint64        // the serial of the last one with which a call was answered
	brief     int           // identities in a row that the host forgot soon
	refused   uint64        // the serial of the identity that the host does not know any more; zero for none
	noticed   uint64        // the same, of the last that a renewal began for
	doubtful  bool          // the host was lost: it may not know the identity any more
	probing   chan struct{} // closed when the first call after that is answered; nil if none
	enrolling *enrolment    // the handshake that is on its way, nil if none
	pace      pace
	reachable chan struct{}     // closed and replaced when an interruption ends
	warned    time.Time         // when the last failure of TLS was logged
	unwarned  int               // of them, since
	noRoom    time.Time         // when it was logged last that the host refuses a watch for now
	unsaid    int               // of such refusals, since
	hostCert  *x509.Certificate // that the host showed in the handshake; nil in plaintext and with a foreign HTTP client
	local     netip.Addr        // from which the host was reached in the handshake; the zero Addr with a foreign HTTP client
	shown     certs.Shown       // to the host
	plugins   map[string]*connectpluginv1.PluginInfo
	warnings  []string
	version   int32
	passed    int  // endpoints of discovery at which no host was reached, one after the other
	choosing  bool // the host chooses among the providers of a type, call by call
	ready     bool // a handshake succeeded, or an identity was set
	leaving   bool // nothing may renew the identity any more
	closed    bool
	renewing  bool
	watching  bool // the certificates of this side
	signs     signs
	conns     map[*ServiceConn]struct{}
	granted   map[capabilityKey]*CapabilityConn // nil until one is asked for
	changed   func()                            // told that something changed at the host; set before Connect, may be nil
}

// NewClient makes a client of a configuration, which it validates and copies.
// The error wraps [ErrInvalidConfig] and names the field. Nothing is dialled.
func NewClient(cfg ClientConfig) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg.withDefaults(), logger: cfg.Logger, connecting: connecting,
		conns: map[*ServiceConn]struct{}{}, reachable: make(chan struct{}),
	}
	c.log = newClientLog(c.cfg.Logger)
	c.cfg.Logger = slog.New(c.log)
	if c.cfg.AllowInsecure {
		warnPlaintext(cfg.Logger, plaintextAllowed)
	}
	if c.cfg.HostURL != "" {
		c.host, c.prefix, _ = parseClientURL(c.cfg.HostURL, c.cfg.AllowInsecure) // validated
	}
	if err := c.setTransport(); err != nil {
		return nil, err
	}
	c.life, c.end = context.WithCancel(context.Background())
	c.vigil = certs.NewVigil(c.cfg.Logger)
	if c.cfg.TLS != nil {
		c.own = append(c.own, certs.ClientSource("this side, when it calls its host", c.cfg.TLS))
	}
	return c, nil
}

// Config returns a copy of the configuration, with the defaults filled in. Where it named
// no host, Endpoint is the one that was found.
func (c *Client) Config() ClientConfig {
	out := c.cfg.withDefaults()
	out.Endpoint, out.Logger = cmp.Or(out.Endpoint, out.HostURL), cmp.Or(c.logger, out.Logger)
	c.mu.Lock()
	defer c.mu.Unlock()
	if unknown := out.Endpoint == "" || out.Endpoint == assignedURL; unknown && c.host != nil {
		out.Endpoint = c.host.String() + c.prefix
	}
	return out
}

// Connect performs the handshake: it agrees on versions, and obtains a runtime
// identity where SelfID is set, which is renewed in the background until
// [Client.Close]. A repeat renews the identity. An error wraps
// [ErrHandshakeRefused] where the host answered and refused, [ErrHostNotTrusted]
// where its answer is not to be believed, [ErrPluginNotFound] where it does not offer
// one of ClientConfig.Plugins and the client has no SelfID for which policy might offer it
// later, [ErrClientClosed] after Close; any other means that the host could not be reached (it waits for none, as
// [ServePlugin] does), and has a code: unavailable, unless the host, or the end of ctx, gave another.
// RegistryClient, ReportHealth, Dispense, Service and Capability connect a client that
// nobody connected; all of them but Dispense need an identity, and say so of a client without
// SelfID. Calls with HTTPClient fail with [ErrClientNotConnected] until then.
func (c *Client) Connect(ctx context.Context) error {
	if err := c.connect(ctx); err != nil {
		return err
	}
	if c.cfg.SelfID != "" {
		return nil // policy may give it later what it is not offered yet
	}
	for _, name := range c.cfg.Plugins.Keys() {
		if err := c.offered(name); err != nil {
			return err
		}
	}
	return nil
}

// notConnected says that a client could not be connected when it was first used.
func notConnected(err error) error {
	if errors.Is(err, ErrClientClosed) || errors.Is(err, ErrClientNotConnected) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrClientNotConnected, unreached(err))
}

// Close ends the client: renewal, watches and service connections stop, idle
// connections close, and every later call returns [ErrClientClosed]. It waits
// for the client's own goroutines and never for a call in flight, which it
// cancels. The host is not told; see [Client.Leave]. Later calls do nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed, c.ready, c.leaving = true, false, true
	conns := c.conns
	c.conns = map[*ServiceConn]struct{}{}
	c.mu.Unlock()
	if !c.made() {
		return nil
	}
	c.end()
	for conn := range conns {
		conn.Close()
	}
	c.tasks.Wait()
	if c.link != nil {
		c.link.Close()
	}
	c.log.Close()
	return nil
}

// Leave ends the client's identity at the host, with all that it registered and was
// granted, and then the client, as [Client.Close] does. Programs that end call it:
// an identity that nobody ends lives until its lease is over, and counts towards the
// host's limits. The client is closed whatever the error; an error says that the
// host did not hear of it within [ClientConfig.Timeout] or before ctx ended.
func (c *Client) Leave(ctx context.Context) error {
	base, err := c.base()
	if errors.Is(err, ErrClientClosed) {
		return err
	}
	if !c.made() {
		return errUnmade
	}
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	c.end()
	c.tasks.Wait()
	if c.currentIdentity().token != "" && err == nil {
		client := connectpluginv1connect.NewPluginLifecycleClient((*hostTransport)(c), base, c.options()...)
		_, err = client.ReportHealth(ctx, connect.NewRequest(&connectpluginv1.ReportHealthRequest{
			State: connectpluginv1.HealthState_HEALTH_STATE_UNHEALTHY, Reason: "leaving", Leaving: true,
		}))
	}
	if errors.Is(err, ErrClientNotConnected) {
		err = nil
	}
	return errors.Join(err, c.Close())
}

// RuntimeID returns the runtime id, empty before there is one.
func (c *Client) RuntimeID() string { return c.currentIdentity().runtimeID }

// RuntimeToken returns the current runtime token, empty before there is one. It
// is a secret, and changes with every renewal.
func (c *Client) RuntimeToken() string { return c.currentIdentity().token }

// Warnings returns what the host warned of in the last handshake: a deprecated
// version, declarations that its policy cut.
func (c *Client) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.warnings)
}

// ProtocolVersion returns the application version that the last handshake agreed
// on, zero before.
func (c *Client) ProtocolVersion() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.version)
}

// SetRuntimeIdentity takes over an identity that the host assigned, and the URL
// at which the host is. An identity that is malformed, and a URL that is not
// acceptable or plaintext where that is not allowed, is logged (on slog.Default() where
// there is no Logger) and ignored. An empty URL keeps the host that is known.
func (c *Client) SetRuntimeIdentity(runtimeID string, runtimeToken string, hostURL string) {
	if err := c.assign(runtimeID, runtimeToken, hostURL, time.Time{}); err != nil {
		danger(c.logger).Warn("assigned identity ignored", keyError, err)
	}
}

// ReportHealth tells the host how the plugin is. It connects a client that nobody
// connected.
func (c *Client) ReportHealth(ctx context.Context, state connectpluginv1.HealthState, reason string, unavailableDeps []string) error {
	m := &connectpluginv1.ReportHealthRequest{State: state, Reason: reason, UnavailableDependencies: slices.Clone(unavailableDeps)}
	err := c.sendReport(ctx, m)
	if err == nil {
		c.reported(m)
	}
	return err
}

// RegistryClient returns a client of the host's registry that carries the
// plugin's identity. Its first call connects a client that nobody connected; after
// Close its calls fail with [ErrClientClosed].
func (c *Client) RegistryClient() connectpluginv1connect.ServiceRegistryClient {
	base, err := c.base()
	if err != nil {
		base = unknownHostURL
	}
	return registryClient{connectpluginv1connect.NewServiceRegistryClient((*connectingTransport)(c), base, c.options()...), c}
}

// HTTPClient returns an HTTP client that reaches the host and nobody else, with the plugin's identity on every request. A base is
// HostURL, with the path that it has or without; where that path itself begins with /services/ or /capabilities/, as /services/a
// does, it is the one without. What is meant for a place at which the client found its host before goes to where the host is now.
// Below the endpoint of a capability's grant the caller shows the grant's bearer, and nothing of the client's is sent instead.
func (c *Client) HTTPClient() connect.HTTPClient { return (*callerTransport)(c) }

// Dispense makes a client of one of the host's plugin services. It connects a client
// that nobody connected, within ClientConfig.Timeout. The error wraps
// [ErrPluginNotFound] for a name that ClientConfig.Plugins or the host does not have,
// and [ErrClientNotConnected] where the host is out of reach. A host that did not offer the
// plugin is asked again, at most once in a second: policy may offer it since.
func (c *Client) Dispense(name string) (any, error) {
	if _, err := c.base(); errors.Is(err, ErrClientClosed) || !c.made() {
		return nil, err
	}
	p, ok := c.cfg.Plugins.Get(name)
	if !ok {
		return nil, fmt.Errorf("%w: %q is not in ClientConfig.Plugins", ErrPluginNotFound, name)
	}
	base, err := c.connected(c.life)
	if err != nil {
		return nil, err
	}
	if err := c.offeredByNow(name); err != nil {
		return nil, err
	}
	client, err := p.ConnectClient(base, c.HTTPClient())
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", name, err)
	}
	return client, nil
}

// made reports whether NewClient made the client.
func (c *Client) made() bool { return c.end != nil }

func (c *Client) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	return unreached(c.enrol(ctx, true))
}

// unreached is the error of a handshake, unavailable where it has no code and nothing says that trying again is of no use.
func unreached(err error) error {
	_, coded := errors.AsType[*connect.Error](err)
	if err == nil || coded || permanentCause(err) {
		return err
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

// connected returns the host's base URL, and connects a client that nobody connected.
func (c *Client) connected(ctx context.Context) (string, error) {
	base, err := c.base()
	if !errors.Is(err, ErrClientNotConnected) {
		return base, err
	}
	if err := c.connect(ctx); err != nil {
		return "", notConnected(err)
	}
	return c.base()
}

// askAgain is how old the host's word has to be that it does not offer a plugin until it is asked again.
const askAgain = time.Second

// offeredByNow returns an error where the host does not offer a plugin to this client, and asks
// it again where it said so a while ago.
func (c *Client) offeredByNow(name string) error {
	err := c.offered(name)
	if err == nil {
		return nil
	}
	c.mu.Lock()
	final := c.identity.managed || time.Since(c.adopted) < askAgain
	c.mu.Unlock()
	if final {
		return err
	}
	ctx, cancel := context.WithTimeout(c.life, c.cfg.Timeout)
	defer cancel()
	if err := c.enrol(ctx, false); err != nil {
		return notConnected(err)
	}
	return c.offered(name)
}

// offered returns an error where the host did not offer a plugin to this client.
func (c *Client) offered(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.plugins[name]; ok {
		return nil
	}
	return fmt.Errorf("%w: the host does not offer %q to this client; look at ServeConfig.Plugins and PluginPolicy.HostPlugins",
		ErrPluginNotFound, name)
}

func (c *Client) sendReport(ctx context.Context, m *connectpluginv1.ReportHealthRequest) error {
	if err := c.identifiable(); err != nil {
		return err
	}
	base, err := c.connected(ctx)
	if err != nil {
		return err
	}
	client := connectpluginv1connect.NewPluginLifecycleClient((*hostTransport)(c), base, c.options()...)
	resp, err := client.ReportHealth(ctx, connect.NewRequest(m))
	if err == nil {
		c.wantsNoReport(resp.Header())
	}
	return err
}

// findHost asks discovery for the host where the configuration names none and the client is not settled, and returns at how
// many endpoints it may be.
func (c *Client) findHost(ctx context.Context) (among int, err error) {
	c.mu.Lock()
	closed, known := c.closed, c.host != nil
	c.mu.Unlock()
	if closed {
		return 0, ErrClientClosed
	}
	if known && (c.cfg.HostURL != "" || c.settled()) {
		return 1, nil
	}
	if c.cfg.Discovery == nil {
		return 0, fmt.Errorf("%w: HostURL is not known yet", ErrClientNotConnected)
	}
	endpoints, err := guest.Within(ctx, "ClientConfig.Discovery: Discover", func() ([]Endpoint, error) {
		return c.cfg.Discovery.Discover(ctx, c.cfg.DiscoveryServiceName)
	}, nil)
	if err != nil {
		return 0, &discoveryError{c.cfg.DiscoveryServiceName, err}
	}
	if len(endpoints) == 0 {
		return 0, fmt.Errorf("discover %q: %w", c.cfg.DiscoveryServiceName, ErrNoEndpoints)
	}
	usable := slices.DeleteFunc(slices.Clone(endpoints), func(e Endpoint) bool { // which are those of whoever found them
		_, _, err := parseClientURL(e.URL, c.cfg.AllowInsecure)
		return err != nil
	})
	if n := len(usable); n > 0 {
		c.mu.Lock()
		next := usable[c.passed%n]
		c.mu.Unlock()
		u, prefix, _ := parseClientURL(next.URL, c.cfg.AllowInsecure) // as above
		c.moveTo(u, prefix)
		return n, nil
	}
	return 0, fmt.Errorf("discover %q: %w: no endpoint is an https:// URL; http:// needs ClientConfig.AllowInsecure, for development",
		c.cfg.DiscoveryServiceName, ErrNoReadyEndpoints)
}

// passOver has the next attempt go to the next endpoint that discovery has, unless the client is connected at this one.
func (c *Client) passOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready || !c.pace.since.IsZero() {
		c.passed++
	}
}

// discoveryError is a failure to find the host, of which the host knows nothing.
type discoveryError struct {
	name string
	err  error
}

func (e *discoveryError) Error() string { return fmt.Sprintf("discover %q: %v", e.name, e.err) }
func (e *discoveryError) Unwrap() error { return e.err }

// DispenseTyped is [Client.Dispense] with the client's type. A client of another
// type is an error that names both.
func DispenseTyped[I any](c *Client, name string) (I, error) {
	var zero I
	if c == nil {
		return zero, errUnmade
	}
	got, err := c.Dispense(name)
	if err != nil {
		return zero, err
	}
	typed, ok := got.(I)
	if !ok {
		return zero, fmt.Errorf("plugin %q: client is a %T, not a %v", name, got, reflect.TypeFor[I]())
	}
	return typed, nil
}

// MustDispenseTyped is [DispenseTyped] for programs that cannot go on without
// the plugin: it panics on an error.
func MustDispenseTyped[I any](c *Client, name string) I {
	typed, err := DispenseTyped[I](c, name)
	if err != nil {
		panic("connectplugin: " + err.Error())
	}
	return typed
}

// options are those of every client of the host's services.
func (c *Client) options() []connect.ClientOption {
	deadline := deadlineInterceptor(cmp.Or(c.cfg.Timeout, defaultClientTimeout))
	interceptors := append([]connect.Interceptor{deadline}, guarded(c.cfg.Interceptors)...)
	return []connect.ClientOption{
		connect.WithInterceptors(interceptors...),
		connect.WithReadMaxBytes(maxHostMessage),
	}
}

// maxHostMessage bounds one message of the host's services to the client.
const maxHostMessage = 4 << 20

// base returns the host's base URL of a connected client.
func (c *Client) base() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return "", ErrClientClosed
	case !c.made():
		return "", errUnmade
	case !c.ready || c.host == nil:
		return "", ErrClientNotConnected
	}
	return c.host.String(), nil
}
