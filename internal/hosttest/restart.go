package hosttest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// Restartable is a host that can die and come back at the same address, with the same
// authority and no memory.
type Restartable struct {
	// Host is the one that runs, or ran last.
	*Host

	addr      string
	authority *connectplugin.Authority
	edit      func(*connectplugin.ServeConfig)
	line      *cutListener
}

// StartRestartable starts a host as [Start] does.
func StartRestartable(t testing.TB, edit func(*connectplugin.ServeConfig)) *Restartable {
	t.Helper()
	r := &Restartable{authority: NewAuthority(t), edit: edit}
	l := Listen(t)
	r.addr = l.Addr().String()
	r.serve(t, l)
	return r
}

// Restart starts another host where the one before was.
func (r *Restartable) Restart(t testing.TB) {
	t.Helper()
	var l net.Listener
	Eventually(t, "the address is free", func() bool {
		var err error
		l, err = net.Listen("tcp", r.addr)
		return err == nil
	})
	r.serve(t, l)
}

// Kill ends the host as SIGKILL does where something was on its way to it: nobody is told, and
// every connection is reset. It returns when nothing listens any more.
func (r *Restartable) Kill(t testing.TB) {
	t.Helper()
	r.KillBy(t, Reset)
}

// KillBy ends the host as Kill does, and its connections as how says.
func (r *Restartable) KillBy(t testing.TB, how Death) {
	t.Helper()
	r.line.cut(how)
	cancel := r.cancel
	if cancel == nil {
		return
	}
	r.cancel = nil
	cancel()
	select {
	case <-r.served: // whatever it says: its connections went without its doing
	case <-time.After(Wait):
		t.Error("host did not end")
	}
}

// Cut resets every connection; the host goes on.
func (r *Restartable) Cut() { r.line.end(Reset) }

// Death is how the connections of a process end that is killed.
type Death string

const (
	// Reset is what the system does where something was not read yet.
	Reset Death = "reset"
	// End is what it does otherwise: the end of the stream of TCP, and none of TLS.
	End Death = "end"
)

// Deaths are all.
var Deaths = []Death{Reset, End}

// Connections returns how many connections the host has, and how many it ever had.
func (r *Restartable) Connections() (open, ever int) {
	r.line.mu.Lock()
	defer r.line.mu.Unlock()
	return len(r.line.open), r.line.ever
}

// serve starts a host on a listener.
func (r *Restartable) serve(t testing.TB, l net.Listener) {
	t.Helper()
	r.line = newCutListener(l)
	h := &Host{Audit: &Audit{}, Authority: r.authority, served: make(chan error, 1), URL: "https://" + l.Addr().String()}
	cfg := &connectplugin.ServeConfig{
		Authority: r.authority, Logger: Logger(t), Audit: h.Audit.add,
		Limits:      connectplugin.Limits{HandshakesPerSecond: 1e6, HandshakeBurst: 1e6, WatchEventsPerSecond: 1e6, WatchEventBurst: 1e6},
		HealthProbe: connectplugin.HealthProbeConfig{Disabled: true},
	}
	if r.edit != nil {
		r.edit(cfg)
	}
	host, err := connectplugin.NewHost(cfg)
	if err != nil {
		t.Fatalf("NewHost: %v", err)
	}
	h.Host = host
	var ctx context.Context
	ctx, h.cancel = context.WithCancel(context.Background())
	line := r.line
	go func() { h.served <- host.Serve(ctx, line) }()
	t.Cleanup(func() { h.Stop(t) })
	Eventually(t, "host is serving", func() bool { return host.Addr() != "" })
	r.Host = h
}

// Mortal returns a listener in the place of another, and what ends its connections as the death
// of its process does.
func Mortal(l net.Listener) (net.Listener, func(Death)) {
	line := newCutListener(l)
	return line, line.end
}

// cutListener knows its connections.
type cutListener struct {
	net.Listener

	mu   sync.Mutex
	open map[net.Conn]struct{}
	ever int
	dead bool

	once  sync.Once
	ended chan struct{} // closed when the host closes the listener
}

func newCutListener(l net.Listener) *cutListener {
	return &cutListener{Listener: l, open: map[net.Conn]struct{}{}, ended: make(chan struct{})}
}

// Close implements net.Listener.
func (l *cutListener) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// Accept implements net.Listener.
func (l *cutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.ended // the host is not to notice that it is dead
		return nil, err
	}
	c := &cutConn{Conn: conn, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = struct{}{}
	l.ever++
	if l.dead {
		_ = conn.Close()
	}
	return c, nil
}

func (l *cutListener) cut(how Death) {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
	_ = l.Listener.Close()
	l.end(how)
}

func (l *cutListener) end(how Death) {
	l.mu.Lock()
	conns := make([]net.Conn, 0, len(l.open))
	for c := range l.open {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		if tcp, ok := c.(*cutConn).Conn.(*net.TCPConn); ok {
			if how == Reset {
				_ = tcp.SetLinger(0)
			}
			_ = tcp.Close()
		}
	}
}

// cutConn tells its listener when it closes.
type cutConn struct {
	net.Conn

	listener *cutListener
}

// Close implements net.Conn.
func (c *cutConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
