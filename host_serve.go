package connectplugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/catalog"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/drain"
	"github.com/masegraye/connect-plugin-go/internal/edge"
	"github.com/masegraye/connect-plugin-go/internal/gather"
	"github.com/masegraye/connect-plugin-go/internal/guest"
	"github.com/masegraye/connect-plugin-go/internal/h2serve"
	"github.com/masegraye/connect-plugin-go/internal/opening"
	"github.com/masegraye/connect-plugin-go/internal/probes"
	"github.com/masegraye/connect-plugin-go/internal/taken"
	"github.com/masegraye/connect-plugin-go/internal/target"
	"github.com/masegraye/connect-plugin-go/internal/tokenstore"
)

// abortWait is how long handlers may take to return once their requests were
// cancelled at the end of the shutdown's grace: the last part of its time, or a quarter of a short one.
const abortWait = time.Second

// ListenAndServe listens on [ServeConfig.Addr] and serves until ctx ends, as
// [Host.Serve] does. The error says when the address is taken.
func (h *Host) ListenAndServe(ctx context.Context) error {
	l, err := listenOn(ctx, "Addr", h.mustBeMade().cfg.Addr)
	if err != nil {
		return err
	}
	return h.Serve(ctx, l)
}

// serveAside begins to answer probes on HealthAddr and scrapes on MetricsAddr, if nobody does yet.
func (h *Host) serveAside(ctx context.Context) error {
	for _, aside := range []struct {
		field, addr, what string
		at                *string
		server            *probes.Server
	}{
		{"HealthAddr", h.cfg.HealthAddr, "probes", &h.healthAddr, h.probes},
		{"MetricsAddr", h.cfg.MetricsAddr, "scrapes", &h.metricsAddr, h.metrics},
	} {
		h.mu.Lock()
		served := *aside.at != ""
		h.mu.Unlock()
		if aside.addr == "" || served {
			continue
		}
		l, err := listenOn(ctx, aside.field, aside.addr)
		if err != nil {
			return err
		}
		h.mu.Lock()
		*aside.at = l.Addr().String()
		h.mu.Unlock()
		h.cfg.Logger.Info(aside.what+" are answered in plaintext", keyAddr, l.Addr().String())
		h.tasks.Go(func() {
			if err := aside.server.Serve(l); err != nil {
				h.cfg.Logger.Error(aside.what+" are not answered any more", keyError, err)
			}
		})
	}
	return nil
}

// Serve serves on a listener, which it closes, until ctx ends or
// [Host.Shutdown] is called; then it shuts down within
// [ServeConfig.GracefulShutdownTimeout] and returns nil when nothing was cut
// off. It returns [ErrHostClosed] where the host was shut down before, and an error where [ServeConfig.HealthAddr]
// or [ServeConfig.MetricsAddr] cannot be listened on.
//
// It may be called again meanwhile, with another listener. [Host.Addr], and the address that plugins may name without
// [ServeConfig.Hosts], are then those of the last call. The end of any of the contexts, or of a listener,
// ends the host, and so all of the calls.
//
// The listener may be one of the user's own, such as one that reads a balancer's PROXY
// header: what its connections say of their RemoteAddr is the address of the peer, in
// policy, limits and audit alike. So nobody but the balancer may reach such a listener.
// Its connections must keep deadlines as TCP's do, by which limits of time end them: those of an
// SSH client's listener (golang.org/x/crypto/ssh) have none, and those of some multiplexers half. One
// whose SetDeadline, SetReadDeadline or SetWriteDeadline returns an error is refused, and logged at Error.
func (h *Host) Serve(ctx context.Context, l net.Listener) error {
	give, err := h.mustBeMade().beginOn(ctx, l)
	if err != nil {
		return err
	}
	defer give()
	h.hub.servesAt(localURL(h.cfg, l.Addr()), l.Addr().String())
	h.mu.Lock()
	h.addr = l.Addr().String()
	h.mu.Unlock()
	h.nameFor(l.Addr())
	if h.certified && len(h.cfg.Hosts) == 0 {
		warnNameless(h.cfg.Logger, l.Addr())
	}
	warnDescriptors(h.cfg.Logger, h.cfg.Limits.MaxConnections)
	var looked net.Listener = opening.NewListener(l, h.serverLog.opened(h.serverTLS != nil))
	if h.server == nil { // which gathers by itself
		gathered := gather.NewListener(looked, gather.Config{WriteTimeout: h.cfg.Limits.WriteTimeout})
		defer gathered.Wait()
		looked = gathered
	}
	outer := h.edge(looked)
	defer outer.End()
	defer h.listens(outer)()
	l = outer
	h.cfg.Logger.Info("host is serving", keyAddr, l.Addr().String())
	served := make(chan error, 1)
	go func() { served <- h.serveOn(l) }()
	select {
	case <-ctx.Done():
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			return errors.Join(notServed("the listener", err), h.Shutdown(context.WithoutCancel(ctx)))
		}
		<-h.done
		return h.shutErr
	}
	err = h.Shutdown(context.WithoutCancel(ctx))
	<-served //nolint:errcheck // it was shut down
	return err
}

// beginOn begins what is served beside a listener, which it closes where it cannot be served on, and takes until it is given
// back. One that serves somebody else stays as it is.
func (h *Host) beginOn(ctx context.Context, l net.Listener) (give func(), err error) {
	if isNil(l) {
		return nil, errors.New("serve: the listener is nil; make one with net.Listen, or call ListenAndServe")
	}
	give, ok := taken.Take(l)
	if !ok {
		return nil, errors.New("serve: the listener " + isServedOn)
	}
	err = ErrHostClosed
	if !h.draining.Load() {
		err = h.serveAside(ctx)
	}
	if err != nil {
		_ = l.Close()
		give()
	}
	return give, err
}

// Shutdown ends the host: new requests are refused, watches end first, calls in
// flight may finish until shortly before ctx ends or [ServeConfig.GracefulShutdownTimeout] has
// passed, then they are cut off, which the error says. Every identity ends, Cleanup runs, goroutines and connections are gone
// when it returns. Later calls wait for the first and return its error, which also says that Cleanup panicked or does not
// return. A callback of the host's that the first one waits for may call it; it gets an error when the first one is long over time.
func (h *Host) Shutdown(ctx context.Context) error {
	if ctx.Value(cleaningKey{}) == h.mustBeMade() {
		return errCleanupShutsDown
	}
	h.shutdown.Do(func() {
		go func() {
			defer close(h.done)
			h.shutErr = guest.Contain("shutdown", func() error { return h.shut(ctx) })
		}()
	})
	patience := time.NewTimer(2*min(h.cfg.GracefulShutdownTimeout, longestShutdown) + shutdownSlack)
	defer patience.Stop()
	select {
	case <-h.done:
		return h.shutErr
	case <-patience.C:
		return errShutdownHangs
	}
}

// shutdownSlack is what a shutdown may take beyond the calls in flight and Cleanup.
const shutdownSlack = 10 * abortWait

// longestShutdown is more than anybody waits, and can be doubled.
const longestShutdown = 100 * 365 * 24 * time.Hour

var (
	errCleanupShutsDown = errors.New("shutdown: ServeConfig.Cleanup calls Host.Shutdown, of which it is a part")
	errShutdownHangs    = errors.New("shutdown: it is over time; a callback of the host's, such as ServeConfig.Audit, does not return, " +
		"or waits for Shutdown itself")
)

type cleaningKey struct{}

// cleanUp runs the user's Cleanup, which has as long as calls in flight had, but no longer than
// ctx lasts, and a second in any case.
func (h *Host) cleanUp(ctx context.Context) error {
	if h.cfg.Cleanup == nil {
		return nil
	}
	begun := time.Now()
	bounded, cancel := context.WithTimeout(context.WithValue(context.WithoutCancel(ctx), cleaningKey{}, h), h.cfg.GracefulShutdownTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(abortWait-time.Since(begun), cancel) })()
	last, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	defer context.AfterFunc(bounded, func() { time.AfterFunc(abortWait, func() { giveUp(context.Cause(bounded)) }) })()
	_, err := guest.Within(last, "ServeConfig.Cleanup", func() (struct{}, error) { return struct{}{}, h.cfg.Cleanup(bounded) }, nil)
	if err != nil {
		h.cfg.Logger.Error("Cleanup failed", keyError, err)
	}
	return err
}

// nameFor settles under which names the host is reached, once it listens.
func (h *Host) nameFor(listener net.Addr) {
	names := target.NewNames(h.cfg.Hosts, listener)
	if h.cfg.AllowInsecure {
		names = names.Open(listener)
	}
	h.ingress.names.Store(names)
}

func (h *Host) setServer() {
	base, abort := context.WithCancelCause(context.Background())
	h.abort, h.serverLog = abort, newServerLog(h.cfg.Logger)
	h.serverLog.left, h.serverLog.own = &h.hub.leftOut, false
	l := h.cfg.Limits
	if h.serverTLS == nil {
		h.plain = h.newPlain(base)
		return
	}
	h.server = h2serve.New(h2serve.Config{
		Handler: h.ingress, TooLarge: http.HandlerFunc(h.ingress.tooLarge),
		Context: base, ConnContext: withConnection, State: h.noteConnection, Met: h.hub.recordMet,
		Linger: h.hub.linger, Log: slog.New(h.serverLog),
		HandshakeTimeout: l.ReadHeaderTimeout, IdleTimeout: l.IdleTimeout,
		PingAfter: l.KeepAliveInterval, PingTimeout: l.KeepAliveTimeout, WriteTimeout: l.WriteTimeout,
		MaxStreams:     uint32(min(l.MaxStreamsPerConnection, math.MaxInt32)), //nolint:gosec // validated, and bounded here
		MaxHeaderBytes: uint32(min(l.MaxHeaderBytes, math.MaxInt32)),          //nolint:gosec // as above
		StreamWindow:   hostStreamBuffer, ConnWindow: hostConnBuffer,
	})
}

// Bounds of one connection to the host, in bytes of uploads that wait to be read: of each, and of all.
const (
	hostStreamBuffer = 256 << 10
	hostConnBuffer   = 1 << 20
)

// newPlain makes the server of a host without TLS.
func (h *Host) newPlain(base context.Context) *http.Server {
	l := h.cfg.Limits
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h.drain.Count(h.ingress),
		ReadHeaderTimeout: l.ReadHeaderTimeout,
		IdleTimeout:       l.IdleTimeout,
		MaxHeaderBytes:    l.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(h.serverLog, slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConnection,
		ConnState:         h.noteConnection,
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.MaxStreamsPerConnection,
			SendPingTimeout:      l.KeepAliveInterval,
			PingTimeout:          l.KeepAliveTimeout,
			WriteByteTimeout:     l.WriteTimeout,
			// Uploads that nobody reads leave room for others on their connection.
			MaxReceiveBufferPerStream: hostStreamBuffer, MaxReceiveBufferPerConnection: hostConnBuffer,
		},
	}
}

// serveOn serves until the host shuts down.
func (h *Host) serveOn(l net.Listener) error {
	if h.server != nil {
		return h.server.Serve(l)
	}
	return h.plain.Serve(l) //nolint:wrapcheck // looked at by its identity
}

// drainCalls ends the server when the calls in flight are done, or ctx is.
func (h *Host) drainCalls(ctx context.Context) error {
	if h.server != nil {
		return h.server.Shutdown(ctx)
	}
	return h.drain.Shutdown(ctx, h.plain)
}

// silenceAtTheEdge is how long a connection that proved nothing has to be silent before a
// newcomer takes its place, where there is none left.
const silenceAtTheEdge = 5 * time.Second

// edge takes connections from a listener and ends TLS on them.
func (h *Host) edge(l net.Listener) *edge.Listener { return edge.Listen(l, h.edgeConfig()) }

func (h *Host) edgeConfig() edge.Config {
	limits := &h.cfg.Limits
	return edge.Config{
		TLS: h.witnessed(), HandshakeTimeout: limits.ReadHeaderTimeout, Turns: handshakes,
		MaxConnections: limits.MaxConnections, MaxPerAddress: limits.MaxConnectionsPerPeer, Silence: silenceAtTheEdge,
		PerSecond: limits.ConnectionsPerSecond, Burst: limits.ConnectionBurst,
		HeaderBytes: limits.MaxHeaderBytes,
		Pings:       edge.Rate{PerSecond: limits.PingsPerSecond, Burst: limits.PingBurst},
		Refusals:    edge.Rate{PerSecond: limits.RefusalsPerSecond, Burst: limits.RefusalBurst},
		Key:         func(a net.Addr) string { return addressKey(a.String()) },
		Context:     newConnection(h.standing, verifiesItself(h.serverTLS)),
		CutOff:      h.hub.recordCutOff,
		Refused:     h.refused,
	}
}

// refused hears of a connection that was not let in.
func (h *Host) refused(addr net.Addr, err error) {
	if bound := boundsOfNewcomers[err]; bound != "" {
		h.hub.recordNewcomer(addr, bound)
		return
	}
	if edge.NoDescriptors(err) {
		h.hub.recordNewcomer(nil, tooFewDescriptors)
	}
	h.serverLog.failed(addr, outOfTime(err, h.serverTLS))
	if !errors.Is(err, edge.ErrNoDeadlines) && !errors.Is(err, edge.ErrNotAccepted) { // which are no doing of the peer's
		h.hub.tellUntrusted(err)
	}
}

// noteConnection is the server's ConnState.
func (h *Host) noteConnection(c net.Conn, state http.ConnState) {
	ended, ok := c.(*edge.Conn)
	if !ok || state != http.StateClosed && state != http.StateHijacked {
		return
	}
	h.standing.Leave(c)
	if conn, ok := connectionOf(ended.Context()); ok {
		for _, id := range conn.close() {
			h.registry.pressDead(h.hub, id)
			h.registry.doubtLost(h.hub, id)
		}
	}
}

// witnessed is what the host's own server serves with: it notes on each connection which
// certificate is shown there, and tells whoever speaks no HTTP/2 so.
func (h *Host) witnessed() *tls.Config {
	if h.serverTLS == nil {
		return nil
	}
	witnessed := certs.Witness(h.serverTLS, func(ctx context.Context, leaf *x509.Certificate) {
		noteServed(ctx, leaf)
		h.hub.settings().vigil.Saw("this host, where plugins call it", leaf)
	})
	witnessed.DynamicRecordSizingDisabled = true // an answer is one record
	return alertNoHTTP2(witnessed)
}

func (h *Host) shut(given context.Context) error {
	ctx, cancel := context.WithTimeout(given, h.cfg.GracefulShutdownTimeout)
	defer cancel()
	h.draining.Store(true)
	if addr := h.Addr(); addr != "" { // else it never served
		h.cfg.Logger.Info("host is shutting down", keyAddr, addr)
	}
	h.endStreams()
	over := h.farewell()
	calls, cancelCalls := drain.Grace(ctx, abortWait)
	defer cancelCalls()
	err := h.drainCalls(calls)
	over()
	if err != nil {
		h.abort(errShuttingDown)
		last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), drain.Parting(ctx, abortWait))
		defer cancelLast()
		if h.drainCalls(last) != nil {
			h.cutCalls()
		}
		err = fmt.Errorf("shutdown: calls in flight were cut off: %w", err)
	}
	quiet, cancelQuiet := context.WithTimeout(context.WithoutCancel(ctx), drain.Parting(ctx, abortWait))
	defer cancelQuiet()
	h.registry.herald.Wait(quiet)
	err = errors.Join(err, h.closeUpper(ctx))
	h.abort(errShuttingDown)
	h.hub.store.RevokeAll(tokenstore.ReasonShutdown)
	h.router.Close()
	h.probes.Shutdown(ctx)
	h.metrics.Shutdown(ctx)
	h.stopTasks()
	h.tasks.Wait()
	h.hub.callers.Close()
	h.hub.strangers.Close()
	return errors.Join(err, h.cleanUp(given))
}

// closeUpper ends what stands on top of the host: after the last call, before the
// identities end.
func (h *Host) closeUpper(ctx context.Context) error {
	h.upperMu.Lock()
	upper := h.upper
	h.upperMu.Unlock()
	if upper == nil {
		return nil
	}
	return upper.close(ctx)
}

// Serve makes a host of cfg and serves until cfg.StopCh is closed or the process
// gets SIGINT or SIGTERM, then shuts down gracefully. It is the whole main
// function of a host.
func Serve(cfg *ServeConfig) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if cfg != nil && cfg.StopCh != nil {
		stopped := cfg.StopCh
		go func() {
			select {
			case <-stopped:
				stop()
			case <-ctx.Done():
			}
		}()
	}
	h, err := newHost(ctx, cfg)
	if errors.Is(err, errStartEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.ListenAndServe(ctx); err != nil {
		return errors.Join(err, h.Shutdown(context.Background()))
	}
	return nil
}

// setProber makes the host's prober.
func (h *Host) setProber() {
	h.prober = newProber(h.cfg.HealthProbe.withDefaults())
	h.hub.lease.Store(int64(h.prober.cfg.Lease))
	h.prober.list = h.probeTargets
	h.prober.ask = func(ctx context.Context, id *tokenstore.Identity) (catalog.HealthReport, error) {
		p, err := h.router.providerAt(h.hub, id.RuntimeID())
		if err != nil {
			return catalog.HealthReport{}, err
		}
		report, err := p.ask(ctx, answering(id))
		return report, noticed(id, err)
	}
	h.prober.sign, h.prober.doubt = h.hub.sign, h.registry.doubt
	h.prober.awaited, h.prober.gone = h.registry.blocks, h.registry.giveWay
	h.prober.reached, h.prober.spared = h.reached, h.router.letGo
	if hurry := h.prober.urge; !h.cfg.HealthProbe.Disabled {
		h.registry.hurry.Store(&hurry)
	}
	answers := h.answers
	h.hub.answers.Store(&answers)
	h.prober.tell, h.prober.slow = h.reportHealth, func(pace time.Duration) { h.lifecycle.pace.Store(int64(pace)) }
	h.prober.withdraw = func(id *tokenstore.Identity) { h.hub.store.Revoke(id.RuntimeID(), reasonSilent) }
}

// reportHealth passes on what asking a plugin showed, if it is still there.
func (h *Host) reportHealth(id *tokenstore.Identity, endpoint string, report catalog.HealthReport, err error) {
	if now, _ := h.registry.catalog.Endpoint(id.RuntimeID()); now != endpoint {
		return
	}
	log := h.cfg.Logger.Info
	if report.Health == catalog.HealthUnhealthy {
		log = h.cfg.Logger.Warn
	} else if report.Health == catalog.HealthUnknown && err == nil { // it answers, and does not know the question
		log = h.cfg.Logger.Debug
	}
	reason := report.Reason
	if reason == "" && report.Health > catalog.HealthHealthy {
		reason = "reported by the plugin, without a reason"
	}
	says := []any{
		keySelfID, id.SelfID(), keyRuntimeID, id.RuntimeID(), keyEndpoint, endpoint,
		keyStatus, report.Health.String(), keyReason, printable(reason),
	}
	if err != nil {
		says = append(says, keyError, printable(err.Error()))
	}
	log("a plugin's health, as the host sees it", says...)
	if errors.Is(err, errNotTheOne) {
		h.hub.audit(AuditEvent{Kind: AuditConflict, RuntimeID: id.RuntimeID(), SelfID: id.SelfID(), Target: endpoint, Reason: strangerReason})
	}
	was := false
	// An error says that the identity ended, which says it all.
	_ = h.lifecycle.take(id.RuntimeID(), id, func(v *healthView) { was, v.silent, v.probed = v.silent, err != nil, report })
	if was && err == nil {
		h.registry.giveBack(ofRuntime(id.RuntimeID()))
	}
}
