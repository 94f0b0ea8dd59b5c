package edge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// undatedListener is one of the user's own, as of a tunnel whose connections have no deadlines.
type undatedListener struct{ net.Listener }

func (l undatedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &undated{Conn: c}, err
}

type undated struct{ net.Conn }

var errUndated = errors.New("tunnel: deadlines are not supported")

func (*undated) SetDeadline(time.Time) error      { return errUndated }
func (*undated) SetReadDeadline(time.Time) error  { return errUndated }
func (*undated) SetWriteDeadline(time.Time) error { return errUndated }

// knock connects, and waits for the end of the connection.
func knock(t *testing.T, addr string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(hosttest.Wait))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection without deadlines is not closed: %v", err)
	}
}

// toldOfDeadlines demands one line for all of the connections.
func toldOfDeadlines(t *testing.T, log string) {
	t.Helper()
	const line = `level=ERROR msg="a connection was refused"`
	if strings.Count(log, line) != 1 || !strings.Contains(log, errUndated.Error()) || !strings.Contains(log, "SetReadDeadline") {
		t.Errorf("the log has %d lines of it:\n%s", strings.Count(log, line), log)
	}
}

// A host refuses connections that its limits of time could not end, and says why: once, and how often it was so at its end.
func TestAudit_USE47_AHostServesNoConnectionsWithoutDeadlines(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*connectplugin.ServeConfig){
		"TLS":       func(c *connectplugin.ServeConfig) { c.Authority = hosttest.NewAuthority(t) },
		"plaintext": func(c *connectplugin.ServeConfig) { c.AllowInsecure = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(hosttest.Buffer)
			cfg := &connectplugin.ServeConfig{Logger: slog.New(slog.NewTextHandler(log, nil))}
			edit(cfg)
			host, err := connectplugin.NewHost(cfg)
			if err != nil {
				t.Fatal(err)
			}
			l := hosttest.Listen(t)
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- host.Serve(ctx, undatedListener{l}) }()
			for range 3 {
				knock(t, l.Addr().String())
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
			toldOfDeadlines(t, log.String())
			if !strings.Contains(log.String(), "lines were left out of the log") || !strings.Contains(log.String(), "not_logged=2") {
				t.Errorf("the log does not say how many lines it left out:\n%s", log)
			}
		})
	}
}

// fullListener has no descriptors left until it is closed.
type fullListener struct {
	net.Listener

	shut chan struct{}
	once sync.Once
}

func (l *fullListener) Accept() (net.Conn, error) {
	select {
	case <-l.shut:
		return nil, net.ErrClosed
	default:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
}

func (l *fullListener) Close() error {
	l.once.Do(func() { close(l.shut) })
	return l.Listener.Close()
}

// A host that can accept nobody, since it has no descriptors left, says so and what to raise, once a minute; and at its start
// where it is to have more connections than descriptors.
func TestHost_SaysThatItHasNoDescriptors(t *testing.T) {
	t.Parallel()
	log, events := new(hosttest.Buffer), make(chan connectplugin.AuditEvent, 100)
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Logger: slog.New(slog.NewTextHandler(log, nil)), Authority: hosttest.NewAuthority(t),
		Limits: connectplugin.Limits{MaxConnections: math.MaxInt32},
		Audit:  func(e connectplugin.AuditEvent) { events <- e },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- host.Serve(ctx, &fullListener{Listener: hosttest.Listen(t), shut: make(chan struct{})})
	}()
	for e := range events {
		if e.Kind == connectplugin.AuditLimited {
			if !strings.Contains(e.Reason, "ulimit -n") || e.Peer != "" {
				t.Errorf("the audit says %+v", e)
			}
			break
		}
	}
	const line = `level=ERROR msg="no connection can be accepted for now"`
	hosttest.Eventually(t, "the log says it", func() bool { return strings.Contains(log.String(), line) })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), line); n != 1 || !strings.Contains(log.String(), "LimitNOFILE") {
		t.Errorf("the log has %d lines of it:\n%s", n, log)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if warned := strings.Contains(log.String(), "descriptors, fewer than Limits.MaxConnections"); warned != (limit.Cur < math.MaxInt32) {
		t.Errorf("it warned at its start: %v, of %d descriptors:\n%s", warned, limit.Cur, log)
	}
}

// So does a plugin with connections without deadlines.
func TestAudit_USE47_APluginServesNoConnectionsWithoutDeadlines(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(echo.Policy()))
	log, l := new(hosttest.Buffer), hosttest.Listen(t)
	host.StartPlugin(t, "provider", func(c *connectplugin.PluginServerConfig) {
		c.Listener, c.BaseURL = undatedListener{l}, "https://"+l.Addr().String()
		c.Client.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	knock(t, l.Addr().String())
	toldOfDeadlines(t, log.String())
}
