package connectplugin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"

	"github.com/masegraye/connect-plugin-go/internal/gather"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// Timeouts of HTTP/2 that protect the host and concern nobody else.
const (
	pingAfter        = 30 * time.Second
	pingTimeout      = 15 * time.Second
	writeByteTimeout = 30 * time.Second
	// abortWait is how long handlers may take to return once their requests
	// were cancelled at the end of the shutdown's grace.
	abortWait = time.Second
)

// Host serves plugins. Make it with [NewHost], end it with [Host.Shutdown], also
// when it never served. It is safe for concurrent use.
type Host struct {
	// Fixed at creation.
	cfg       *ServeConfig
	hub       *hub
	handshake *HandshakeServer
	lifecycle *LifecycleServer
	registry  *ServiceRegistry
	router    *ServiceRouter
	broker    *CapabilityBroker
	health    *HealthServer
	serverTLS *tls.Config // nil in plaintext
	server    *http.Server
	front     *front
	drain     *drain
	abort     context.CancelCauseFunc
	prober    *prober
	stopTasks context.CancelFunc
	tasks     sync.WaitGroup
	done      chan struct{} // closed when the shutdown is complete

	draining atomic.Bool
	shutdown sync.Once
	shutErr  error // written before done is closed

	policyMu sync.Mutex // held during a change of policy; guards nothing

	mu   sync.Mutex
	addr string
}

// NewHost makes a host of a configuration, which it validates and copies. The
// error wraps [ErrInvalidConfig] and names the field. The services in the
// configuration belong to this host from now on.
func NewHost(cfg *ServeConfig) (*Host, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg.withDefaults(), drain: newDrain(), done: make(chan struct{})}
	if err := h.setTLS(); err != nil {
		return nil, err
	}
	if err := h.setServices(); err != nil {
		return nil, err
	}
	table, err := h.routes()
	if err != nil {
		return nil, err
	}
	h.front = &front{hub: h.hub, table: table, draining: h.draining.Load}
	h.front.names.Store(newHostNames(h.cfg.Hosts, h.serverTLS, nil))
	h.setServer()
	h.setProber()
	ctx, stop := context.WithCancel(context.Background())
	h.stopTasks = stop
	h.tasks.Go(func() { h.hub.store.Run(ctx) })
	h.tasks.Go(func() { h.prober.run(ctx) })
	h.warn()
	return h, nil
}

// Handler returns the host's handler, for a server of your own. That server must
// serve TLS 1.3 and HTTP/2, and ask for client certificates where policy needs
// them; [Host.Serve] does all that.
func (h *Host) Handler() http.Handler { return h.front }

// Addr returns the address that the host listens on, empty before it does.
func (h *Host) Addr() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addr
}

// Registry returns the host's service registry.
func (h *Host) Registry() *ServiceRegistry { return h.registry }

// Lifecycle returns the host's lifecycle service.
func (h *Host) Lifecycle() *LifecycleServer { return h.lifecycle }

// Broker returns the host's capability broker.
func (h *Host) Broker() *CapabilityBroker { return h.broker }

// Revoke ends an identity at once: its token, grants, registrations, watches and
// streams in flight. When it returns all of them have ended. It reports whether
// the identity was alive.
func (h *Host) Revoke(runtimeID string) bool {
	return h.hub.store.Revoke(runtimeID, tokenstore.ReasonRevoked)
}

// ListenAndServe listens on [ServeConfig.Addr] and serves until ctx ends, as
// [Host.Serve] does. The error says when the address is taken.
func (h *Host) ListenAndServe(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", h.cfg.Addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen: %s is taken by another process; set ServeConfig.Addr to a free address, "+
			"or to port 0 for any: %w", h.cfg.Addr, err)
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return h.Serve(ctx, l)
}

// Serve serves on a listener, which it closes, until ctx ends or
// [Host.Shutdown] is called; then it shuts down within
// [ServeConfig.GracefulShutdownTimeout] and returns nil when nothing was cut
// off. It returns [ErrHostClosed] where the host was shut down before.
func (h *Host) Serve(ctx context.Context, l net.Listener) error {
	if h.draining.Load() {
		_ = l.Close()
		return ErrHostClosed
	}
	h.mu.Lock()
	h.addr = l.Addr().String()
	h.mu.Unlock()
	h.front.names.Store(newHostNames(h.cfg.Hosts, h.serverTLS, l.Addr()))
	gathered := gather.NewListener(netutil.LimitListener(l, h.cfg.Limits.MaxConnections), gather.Config{WriteTimeout: writeByteTimeout})
	defer gathered.Wait()
	l = gathered
	h.cfg.Logger.Info("host is serving", keyAddr, l.Addr().String())
	served := make(chan error, 1)
	go func() {
		if h.serverTLS == nil {
			served <- h.server.Serve(l)
			return
		}
		served <- h.server.ServeTLS(l, "", "")
	}()
	select {
	case <-ctx.Done():
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			return errors.Join(fmt.Errorf("serve: %w", err), h.Shutdown(context.WithoutCancel(ctx)))
		}
		<-h.done
		return h.shutErr
	}
	err := h.Shutdown(context.WithoutCancel(ctx))
	<-served //nolint:errcheck // it was shut down
	return err
}

// Shutdown ends the host: new requests are refused, watches end first, calls in
// flight may finish until ctx ends or [ServeConfig.GracefulShutdownTimeout] has
// passed, then they are cut off, which the error says. Every identity ends,
// Cleanup runs, goroutines and connections are gone when it returns. Later calls
// wait for the first and return its error.
func (h *Host) Shutdown(ctx context.Context) error {
	h.shutdown.Do(func() {
		h.shutErr = h.shut(ctx)
		close(h.done)
	})
	<-h.done
	return h.shutErr
}

// setTLS settles both TLS sides.
func (h *Host) setTLS() error {
	if h.cfg.AllowInsecure {
		return nil
	}
	if h.cfg.TLS == nil {
		cfg, err := h.cfg.Authority.HostTLS(h.cfg.Hosts...)
		if err != nil {
			return fmt.Errorf("%w: Authority: %w", ErrInvalidConfig, err)
		}
		h.cfg.TLS = cfg
	}
	hardened, err := hardenServerTLS(h.cfg.TLS)
	if err != nil {
		return err
	}
	if h.cfg.HandshakeAuth.RequireCertificate && hardened.ClientAuth < tls.VerifyClientCertIfGiven {
		return fieldError("TLS.ClientAuth", "HandshakeAuth.RequireCertificate needs tls.VerifyClientCertIfGiven or more, and ClientCAs")
	}
	h.serverTLS = hardened
	return nil
}

// setServices takes the configured services, makes the missing ones and binds
// them all to one hub.
func (h *Host) setServices() error {
	c := h.cfg
	h.setRouter()
	h.hub = h.handshake.hub
	if h.broker = c.CapabilityBroker; h.broker == nil {
		h.broker = NewCapabilityBroker("")
	}
	if h.health = c.HealthService; h.health == nil {
		h.health = NewHealthServer()
	}
	for _, s := range []struct {
		field string
		bind  func(*hub) error
	}{
		{"LifecycleService", h.lifecycle.bind},
		{"ServiceRegistry", h.registry.bind},
		{"CapabilityBroker", h.broker.bind},
		{"HealthService", h.health.bind},
	} {
		if err := s.bind(h.hub); err != nil {
			return fieldError(s.field, "%v", err)
		}
	}
	h.registry.configure(c)
	h.handshake.offer = h.offer
	dialer, err := newPluginDialer(c, h.serverTLS)
	if err != nil {
		return err
	}
	h.router.configure(dialer)
	return nil
}

// setRouter takes the configured router with what it was made of, or makes one.
func (h *Host) setRouter() {
	c := h.cfg
	if h.router = c.ServiceRouter; h.router != nil {
		h.handshake, h.registry, h.lifecycle = h.router.handshake, h.router.registry, h.router.lifecycle
		h.handshake.configure(c)
		return
	}
	h.handshake = NewHandshakeServer(c)
	if h.lifecycle = c.LifecycleService; h.lifecycle == nil && c.ServiceRegistry != nil {
		h.lifecycle = c.ServiceRegistry.lifecycle
	}
	if h.lifecycle == nil {
		h.lifecycle = NewLifecycleServer()
	}
	if h.registry = c.ServiceRegistry; h.registry == nil {
		h.registry = NewServiceRegistry(h.lifecycle)
	}
	h.router = NewServiceRouter(h.handshake, h.registry, h.lifecycle)
}

func (h *Host) setServer() {
	base, abort := context.WithCancelCause(context.Background())
	h.abort = abort
	l := h.cfg.Limits
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	if h.cfg.AllowInsecure {
		protocols.SetHTTP1(true)
		protocols.SetUnencryptedHTTP2(true)
	}
	h.server = &http.Server{
		Handler:           h.drain.count(h.front),
		TLSConfig:         h.serverTLS,
		ReadHeaderTimeout: l.ReadHeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConnection,
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.MaxStreamsPerConnection,
			SendPingTimeout:      pingAfter,
			PingTimeout:          pingTimeout,
			WriteByteTimeout:     writeByteTimeout,
		},
	}
}

// warn tells the operator what is dangerous or useless about the configuration.
func (h *Host) warn() {
	if h.cfg.AllowInsecure {
		h.cfg.Logger.Warn("serving plaintext: AllowInsecure is set; use it for development only")
	}
	if h.cfg.Policy == nil {
		h.cfg.Logger.Warn("no policy: no plugin is accepted until ServeConfig.Policy allows it; OpenPolicy() allows all, for development")
		return
	}
	if d := h.cfg.Policy.Default; d != nil && d.AllowUnproven {
		h.cfg.Logger.Warn("open policy: whoever reaches the host is accepted as any plugin that Policy.Plugins does not name")
	}
}

func (h *Host) shut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.GracefulShutdownTimeout)
	defer cancel()
	h.draining.Store(true)
	h.cfg.Logger.Info("host is shutting down", keyAddr, h.Addr())
	h.registry.catalog.CloseWatches()
	h.health.Shutdown()
	for _, stream := range h.hub.streams.list() {
		stream.hurry()
	}
	err := h.drain.shutdown(ctx, h.server)
	if err != nil {
		h.abort(errShuttingDown)
		last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), abortWait)
		if h.drain.shutdown(last, h.server) != nil {
			_ = h.server.Close()
		}
		cancelLast()
		err = fmt.Errorf("shutdown: calls in flight were cut off: %w", err)
	}
	h.abort(errShuttingDown)
	h.hub.store.RevokeAll(tokenstore.ReasonShutdown)
	h.router.close()
	h.stopTasks()
	h.tasks.Wait()
	h.hub.callers.Close()
	h.hub.strangers.Close()
	if h.cfg.Cleanup != nil {
		err = errors.Join(err, h.cfg.Cleanup(context.WithoutCancel(ctx)))
	}
	return err
}

// serveHealthz answers whether the process serves.
func (h *Host) serveHealthz(w http.ResponseWriter, r *http.Request) {
	probe(w, r, true)
}

// serveReadyz answers whether the host takes work: its overall health status.
func (h *Host) serveReadyz(w http.ResponseWriter, r *http.Request) {
	probe(w, r, h.health.ready())
}

func probe(w http.ResponseWriter, r *http.Request, ok bool) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	text := "ok\n"
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		text = "unavailable\n"
	}
	_, _ = w.Write([]byte(text))
}

// recovered turns a panic in a service into an error that tells the peer nothing.
func (h *Host) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	h.cfg.Logger.Error("panic in a service", keyProcedure, spec.Procedure, keyError, fmt.Sprint(cause))
	return connect.NewError(connect.CodeInternal, errors.New("internal error"))
}

// Serve makes a host of cfg and serves until cfg.StopCh is closed or the process
// gets SIGINT or SIGTERM, then shuts down gracefully. It is the whole main
// function of a host.
func Serve(cfg *ServeConfig) error {
	h, err := NewHost(cfg)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if h.cfg.StopCh != nil {
		go func() {
			select {
			case <-h.cfg.StopCh:
				stop()
			case <-ctx.Done():
			}
		}()
	}
	if err := h.ListenAndServe(ctx); err != nil {
		return errors.Join(err, h.Shutdown(context.Background()))
	}
	return nil
}
