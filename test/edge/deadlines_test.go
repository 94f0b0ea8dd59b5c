package edge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
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

// So does a plugin.
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
