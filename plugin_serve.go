package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/entry"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/stack"
)

// newPlain makes the server of a plugin without TLS, where everybody is the host.
func (s *pluginServer) newPlain(ctx context.Context) *http.Server {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.drain.Count(s.handler()),
		BaseContext:       func(net.Listener) context.Context { return withStopping(ctx.Done()) },
		ConnState:         s.drain.ConnState,
		ReadHeaderTimeout: s.cfg.Limits.ReadHeaderTimeout,
		IdleTimeout:       defaultLimits.IdleTimeout,
		MaxHeaderBytes:    defaultLimits.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log, slog.LevelDebug),
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: pluginStreams,
			SendPingTimeout:      pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: writeByteTimeout,
			// Many uploads that nobody reads leave room for others on the connection.
			MaxReceiveBufferPerStream: pluginStreamBuffer, MaxReceiveBufferPerConnection: pluginConnBuffer,
		},
	}
}

// newServer makes the server of a plugin, whose one caller is its host.
func (s *pluginServer) newServer(ctx context.Context) *h2serve.Server {
	return h2serve.New(h2serve.Config{
		Handler: s.handler(), TooLarge: http.HandlerFunc(tooLarge), Context: context.Background(), Log: slog.New(s.log), State: s.note,
		ConnContext: parting(ctx), Away: part,
		HandshakeTimeout: s.cfg.Limits.ReadHeaderTimeout, IdleTimeout: defaultLimits.IdleTimeout,
		PingAfter: pingAfter, PingTimeout: pingTimeout, WriteTimeout: writeByteTimeout,
		// The host has a connection for each plugin, and no call on most of them.
		PingInUse: true, MaxStreams: pluginStreams,
		MaxHeaderBytes: uint32(defaultLimits.MaxHeaderBytes), //nolint:gosec // a constant
		StreamWindow:   pluginStreamBuffer, ConnWindow: pluginConnBuffer,
	})
}

type partKey struct{}

// parting returns what makes the context of the requests of each of the host's connections. Handlers learn there that the plugin
// is stopping, as they do everywhere, and that the host at the other end is.
func parting(plugin context.Context) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, _ net.Conn) context.Context {
		stopping, tell := context.WithCancel(plugin)
		return context.WithValue(context.WithValue(ctx, stoppingKey{}, stopping.Done()), partKey{}, tell)
	}
}

// part tells the handlers of a connection that its host is stopping.
func part(ctx context.Context) {
	if tell, ok := ctx.Value(partKey{}).(context.CancelFunc); ok {
		tell()
	}
}

// Bounds of one of the host's connections.
const (
	pluginStreams      = 1000      // concurrent calls
	pluginStreamBuffer = 256 << 10 // bytes of an upload that wait to be read
	pluginConnBuffer   = 16 << 20  // the same of all uploads together
)

// handler finds the service of a path.
func (s *pluginServer) handler() http.Handler {
	type entry struct {
		prefix  string
		handler http.Handler
	}
	control, bounds := &pluginControl{server: s}, boundedMessages(defaultLimits.MaxMessageBytes)
	controlPath, controlHandler := connectpluginv1connect.NewPluginControlHandler(control, bounds)
	identityPath, identityHandler := connectpluginv1connect.NewPluginIdentityHandler(control, bounds)
	table := make([]entry, 0, 2+len(s.cfg.Services))
	table = append(table, entry{controlPath, controlHandler}, entry{identityPath, identityHandler})
	for _, svc := range s.cfg.Services {
		table = append(table, entry{svc.Path, withStatedCaller(svc.Handler)})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stack.Grow()
		if proxy.Unescaped(r.URL) && proxy.CheckPath(r.URL.Path) == nil {
			for _, e := range table {
				if serves(e.prefix, r.URL.Path) {
					e.handler.ServeHTTP(w, r)
					return
				}
			}
		}
		http.NotFound(w, r)
	})
}

// serves reports whether a path is one of the service at another: that itself, or below it. "/a" does not serve "/ab".
func serves(at, path string) bool {
	tail, ok := strings.CutPrefix(path, at)
	return ok && (tail == "" || tail[0] == '/' || strings.HasSuffix(at, "/"))
}

// open has the plugin accept connections: those of its host, and of others who knock until it
// is known that they are not.
func (s *pluginServer) open() *entry.Entry {
	from, secured := net.Listener(s.gathered), s.tls
	if s.server != nil { // which gathers by itself
		from, secured = s.opened, s.tls.Clone()
		secured.DynamicRecordSizingDisabled = true // an answer is one record
	}
	return entry.Open(from, s.entryConfig(secured))
}

func (s *pluginServer) entryConfig(secured *tls.Config) entry.Config {
	l := s.cfg.Limits
	return entry.Config{
		TLS: secured, HandshakeTimeout: l.ReadHeaderTimeout, Overtime: l.CertificateOvertime, Turns: handshakes,
		MaxConnections: l.MaxConnections, MaxPerAddress: l.MaxConnectionsPerPeer,
		PerSecond: l.ConnectionsPerSecond, Burst: l.ConnectionBurst,
		Key:     func(a net.Addr) string { return addressKey(a.String()) },
		Refused: s.log.failed,
		Ended: func(addr net.Addr, leaf *x509.Certificate) {
			s.cfg.Client.Logger.Warn("a connection of the host ended, because its certificate did and no later one was shown",
				keyPeer, addr.String(), keyIdentity, certs.CertificateIdentity(leaf), certs.ClaimNotAfter, leaf.NotAfter)
		},
	}
}

// note has the way in know of a connection.
func (s *pluginServer) note(c net.Conn, state http.ConnState) { s.door.Load().Note(c, state) }

func (s *pluginServer) serve() error {
	door := s.open()
	defer door.End()
	var err error
	if s.server != nil {
		s.door.Store(door)
		err = s.server.Serve(door)
	} else {
		door.Attach(s.plain)
		err = s.plain.Serve(door)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	s.stop()
	return notServed("PluginServerConfig.Listener", err)
}

// shutdown drains the server and ends the identity.
func (s *pluginServer) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.grace.Load()))
	defer cancel()
	defer s.log.end()
	err := s.drainCalls(ctx)
	s.session.asker.settle(ctx)
	if s.cfg.withdrawn.Load() {
		s.cfg.released() // beside what Close waits for
		return errors.Join(err, s.client.Close())
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), max(leaveWait-s.session.parting, lastWait))
	defer cancelLast()
	if gone := s.client.Leave(last); gone != nil {
		s.cfg.Client.Logger.Debug("leave", keyError, gone) // the host is gone, or dropped the plugin already
	}
	return err
}

// drainCalls ends the server when the calls in flight are done, or ctx is.
func (s *pluginServer) drainCalls(ctx context.Context) error {
	var err error
	var cut func() error
	if s.server != nil {
		err, cut = s.server.Shutdown(ctx), s.server.Close
	} else {
		err, cut = s.drain.Shutdown(ctx, s.plain), s.plain.Close
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("shutdown: calls in flight were cut off: %w", err), cut())
	}
	return err
}

var (
	errHostUnknown = errors.New("the plugin does not know its host: set HostIdentity or PinnedKeys")
	errNotTheHost  = errors.New("caller is not the host")
)

// hostTrust says whom a plugin takes for its host: whom its operator named, or the
// SPIFFE id of the host that it enrolled with. Any other name may be somebody else's,
// too, and is never learned.
type hostTrust struct {
	// Fixed at creation.
	identity   string      // that the operator named, empty for none
	pins       []certs.Pin // that the operator named
	client     *Client     // enrols
	plaintext  bool
	byCallback bool // the server's configuration verifies certificates itself
	log        *slog.Logger
}

func newHostTrust(cfg *PluginServerConfig, client *Client) *hostTrust {
	pins, _ := certs.ParsePins(cfg.Client.PinnedKeys) // validated before
	return &hostTrust{
		identity: cmp.Or(cfg.HostIdentity, cfg.Client.HostIdentity), pins: pins, client: client,
		plaintext: cfg.Client.AllowInsecure, byCallback: verifiesItself(cfg.serverBase()), log: cfg.Client.Logger,
	}
}

// onlyHost is a check for tls.Config.VerifyConnection.
func (t *hostTrust) onlyHost(cs tls.ConnectionState) error {
	want := t.want()
	leaf, shown := verifiedPeer(&cs, t.byCallback)
	switch {
	case want == "" && len(t.pins) == 0:
		return errHostUnknown
	case leaf == nil:
		return errNotTheHost
	case want != "" && shown != want:
		source := "its host showed when it enrolled"
		if t.identity != "" {
			source = "HostIdentity says"
		}
		return fmt.Errorf("%w: it is %q instead of %q, as %s", errNotTheHost, shown, want, source)
	case len(t.pins) > 0 && !slices.Contains(t.pins, certs.PinOf(leaf)):
		return fmt.Errorf("%w: the key of %q is not among PinnedKeys", errNotTheHost, shown)
	}
	t.client.vigil.Saw("the host, when it calls this plugin", leaf)
	return nil
}

// want returns the identity of the host, empty where none is known.
func (t *hostTrust) want() string {
	if t.identity != "" || len(t.pins) > 0 {
		return t.identity
	}
	shown := certs.CertificateIdentity(t.client.hostCertificate())
	if !certs.IsSPIFFE(shown) {
		return ""
	}
	return shown
}

const warnNobody = "nobody may call this plugin, because it does not know its host: set HostIdentity to the identity of the certificate " +
	"with which the host calls plugins, or PinnedKeys to its key"

// warnUnseen is for a plugin that will never see the certificate of its host.
const warnUnseen = "nobody may call this plugin, because it cannot recognise its host: with Client.HTTPClient the host's certificate is " +
	"never seen; set PluginServerConfig.HostIdentity to the identity of the certificate with which the host calls plugins"

// warnStart says so where the plugin will serve nobody. A plugin with a SPIFFE id of
// its own may expect that its host has one, unless it never sees that.
func (t *hostTrust) warnStart(cfg *PluginServerConfig) {
	switch {
	case t.plaintext || t.identity != "" || len(t.pins) > 0:
	case cfg.Client.HTTPClient != nil:
		t.log.Warn(warnUnseen)
	case !certs.IsSPIFFE(certs.CertificateIdentity(certs.ServerLeaf(cfg.serverBase()))):
		t.log.Warn(warnNobody)
	}
}

// warnEnrolled says it again where the host turned out to have no SPIFFE id, with what
// may be written into the configuration.
func (t *hostTrust) warnEnrolled() {
	leaf := t.client.hostCertificate()
	if t.plaintext || t.want() != "" || len(t.pins) > 0 || leaf == nil {
		return
	}
	t.log.Warn(warnNobody, keyIdentity, certs.CertificateIdentity(leaf), keyKey, certs.PinOf(leaf).String())
}

// lateListener listens once it is known where: a plugin that was told nothing listens on
// the address from which it reaches its host, and learns that with the first connection.
type lateListener struct {
	once   sync.Once
	opened chan struct{} // closed when listener is set, or by Close

	mu       sync.Mutex
	listener net.Listener // nil until it is known where
	closed   bool
}

func newLateListener() *lateListener { return &lateListener{opened: make(chan struct{})} }

// Accept implements net.Listener. It waits until it is known where to listen.
func (l *lateListener) Accept() (net.Conn, error) {
	<-l.opened
	l.mu.Lock()
	listener := l.listener
	l.mu.Unlock()
	if listener == nil {
		return nil, net.ErrClosed
	}
	return listener.Accept() //nolint:wrapcheck // stands for what it wraps
}

// Close implements net.Listener.
func (l *lateListener) Close() error {
	l.mu.Lock()
	l.closed = true
	listener := l.listener
	l.mu.Unlock()
	l.once.Do(func() { close(l.opened) })
	if listener == nil {
		return nil
	}
	return listener.Close() //nolint:wrapcheck // stands for what it wraps
}

// Addr implements net.Listener.
func (l *lateListener) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listener == nil {
		return &net.TCPAddr{}
	}
	return l.listener.Addr()
}

// listen begins to listen where the plugin is told to, or says that it does later.
func (s *pluginServer) listen(ctx context.Context) error {
	switch {
	case s.cfg.Listener != nil:
		s.listener = s.cfg.Listener
	case s.cfg.Addr == "" && !s.cfg.awaitsHost():
		s.listener = newLateListener()
		return nil
	default:
		var lc net.ListenConfig
		addr := s.cfg.Addr
		if addr == "" {
			addr = defaultPluginAddr
		}
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen on %s: set PluginServerConfig.Addr, or PluginSpec.Port where a host launches it, to a free one: %w", addr, err)
		}
		s.listener = l
	}
	s.warnUnreachable()
	return nil
}

// warnUnreachable warns of a listener that the host cannot call, unless its policy names an endpoint.
func (s *pluginServer) warnUnreachable() {
	if s.cfg.BaseURL == "" && len(s.cfg.Services) > 0 && addressless(s.listener.Addr().String()) {
		s.cfg.Client.Logger.Warn("BaseURL " + unreachableListener)
	}
}

// connected begins to listen where that waited for the first connection to the host.
func (s *pluginServer) connected(ctx context.Context) error {
	s.trust.warnEnrolled()
	late, ok := s.listener.(*lateListener)
	if !ok {
		return nil
	}
	if err := late.open(ctx, listenAddr(s.client.localAddr(), s.cfg.Client.AllowInsecure)); err != nil {
		return err
	}
	s.warnUnreachable()
	s.session.baseURL = s.baseURL()
	return nil
}

// listenAddr is where a plugin listens that reaches its host from an address; what is
// plaintext does not leave loopback.
func listenAddr(local netip.Addr, plaintext bool) string {
	if !local.IsValid() || plaintext && !local.IsLoopback() {
		return defaultPluginAddr
	}
	return net.JoinHostPort(local.Unmap().String(), "0")
}

// unreachableListener says what is missing where a plugin listens at no address that the host can call.
const unreachableListener = "is empty and the plugin listens on every address or at a link-local one, so the host cannot know " +
	"where to call it unless its policy says so; write the URL at which the host reaches the plugin, " +
	"for example \"https://10.0.0.7:8443\", or listen on that address"

// addressless reports whether a listener at an address has none that another machine can call:
// "0.0.0.0:1", "[::]:1", ":1", and a link-local one, whose zone means something on this machine alone.
func addressless(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false // of a Unix socket, too
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && (ip.Zone() != "" || ip.Unmap().IsUnspecified() || ip.Unmap().IsLinkLocalUnicast())
}

// open begins to listen.
func (l *lateListener) open(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: set PluginServerConfig.Addr, or PluginSpec.Port where a host launches it, to a free one: %w", addr, err)
	}
	l.mu.Lock()
	closed := l.closed
	if !closed {
		l.listener = listener
	}
	l.mu.Unlock()
	if closed {
		return errors.Join(net.ErrClosed, listener.Close())
	}
	l.once.Do(func() { close(l.opened) })
	return nil
}
