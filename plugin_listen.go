package connectplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

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
			return fmt.Errorf("listen on %s: set PluginServerConfig.Addr to a free address: %w", addr, err)
		}
		s.listener = l
	}
	if s.cfg.BaseURL == "" && len(s.cfg.Services) > 0 && unspecified(s.listener.Addr().String()) {
		// Policy may name the endpoint of a plugin that brings its own listener.
		s.cfg.Client.Logger.Warn("BaseURL " + unreachableListener)
	}
	return nil
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

// unreachableListener says what is missing where a plugin listens on every address.
const unreachableListener = "is empty and the plugin listens on every address, so the host cannot know where to call it; " +
	"unless its policy says so; write the URL at which the host reaches the plugin, for example \"https://10.0.0.7:8443\", or listen on that address"

// unspecified reports whether a listener at an address is reached at no address of its
// own: "0.0.0.0:1", "[::]:1", ":1".
func unspecified(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.Unmap().IsUnspecified()
}

// open begins to listen.
func (l *lateListener) open(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: set PluginServerConfig.Addr to a free address: %w", addr, err)
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
