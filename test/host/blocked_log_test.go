package host_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// blocked is a handler whose lines, from some moment on, wait until the test is over, as those for a pipe do that nobody reads.
type blocked struct {
	from  atomic.Bool
	until chan struct{}
	lines atomic.Int64
}

func (b *blocked) Enabled(context.Context, slog.Level) bool { return true }
func (b *blocked) WithAttrs([]slog.Attr) slog.Handler       { return b }
func (b *blocked) WithGroup(string) slog.Handler            { return b }

func (b *blocked) Handle(context.Context, slog.Record) error {
	if b.from.Load() {
		b.lines.Add(1)
		<-b.until
	}
	return nil
}

// A log handler that never returns costs lines and nothing else: plugins enrol and are refused, call, watch and are revoked, policy
// changes, and the host ends. All of that once waited for the log, for ever.
func TestLogger_AHandlerThatNeverReturns(t *testing.T) {
	t.Parallel()
	log := &blocked{until: make(chan struct{})}
	host := echo.StartKindsHost(t, func(c *connectplugin.ServeConfig) { c.Logger = slog.New(log) })
	caller, places := host.Places(t)
	defer close(log.until) // before the host ends
	log.from.Store(true)
	within := func(what string, f func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- f() }()
		ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
		defer cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-ctx.Done():
			t.Fatalf("%s waits for the log", what)
		}
	}
	var calling sync.WaitGroup
	for range 8 {
		for name, place := range places {
			calling.Go(func() {
				out := echo.CallUnary(t.Context(), echo.At(place.URL, host.Stranger(t)), nil, place.Header)
				if out.Err != nil {
					t.Errorf("a call of the %s: %v", name, out.Err)
				}
			})
		}
	}
	within("calls", func() error { calling.Wait(); return nil })
	within("a handshake that is refused", func() error {
		cfg := host.ClientConfig(t, "nobody")
		c, err := connectplugin.NewClient(cfg)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if c.Connect(t.Context()) == nil {
			t.Error("nobody enrolled")
		}
		return nil
	})
	within("a handshake", func() error {
		c, err := connectplugin.NewClient(host.ClientConfig(t, "caller"))
		if err != nil {
			return err
		}
		return errors.Join(c.Connect(t.Context()), c.Close())
	})
	within("a watch", func() error {
		w := hosttest.Watch(t, caller, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "echo"})
		select {
		case <-w.Events:
			return nil
		case err := <-w.End:
			return err
		}
	})
	within("SetPolicy", func() error { return host.SetPolicy(hosttest.EveryRight()) })
	within("Revoke", func() error { host.Revoke(host.Provider.Client.RuntimeID()); return nil })
	within("Shutdown", func() error { return host.Shutdown(t.Context()) })
	if log.lines.Load() == 0 {
		t.Error("nothing was logged")
	}
}
