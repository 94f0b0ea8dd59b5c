package tools_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// begun counts the calls that a host began, by what they say.
type begun struct{ sync.Map }

func (b *begun) Unary(_ context.Context, req *connect.Request[echo.Text]) (*connect.Response[echo.Text], error) {
	n, _ := b.LoadOrStore(req.Msg.GetValue(), new(atomic.Int32))
	n.(*atomic.Int32).Add(1)
	return connect.NewResponse(req.Msg), nil
}

func (b *begun) times(text string) int32 {
	if n, ok := b.Load(text); ok {
		return n.(*atomic.Int32).Load()
	}
	return 0
}

// Of the calls that are under way when a host ends, whatever they do, those are repeated that it did not begin, and no other.
func TestRetryInterceptor_AtTheEndOfAHost(t *testing.T) {
	t.Parallel()
	const rounds, clients, callers, enough = 2, 8, 8, 500
	for round := range rounds {
		var calls atomic.Int32
		b := &begun{}
		host := hosttest.Start(t, func(cfg *connectplugin.ServeConfig) {
			cfg.Plugins = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: echo.Service{Unary: b.Unary}.Handler()}}
			cfg.Impls = map[string]any{"echo": true}
			cfg.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"caller": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.HostPlugins = []string{"*"} }),
			}}
		})
		var all sync.WaitGroup
		for i := range clients {
			client := host.Enrol(t, "caller", nil)
			for j := range callers {
				all.Go(func() {
					for k := 0; callOnce(t, echo.At(host.URL, client.HTTPClient()), b, fmt.Sprint(i, " ", j, " ", k)); k++ {
						calls.Add(1)
					}
				})
			}
		}
		hosttest.Eventually(t, "calls are made", func() bool { return calls.Load() >= enough*int32(round+1) })
		host.Stop(t)
		all.Wait()
	}
}

// callOnce makes a call that is repeated once where that may be, and reports whether there was an answer.
func callOnce(t *testing.T, at echo.Endpoint, b *begun, text string) bool {
	t.Helper()
	attempts := 0
	counted := connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			attempts++
			return next(ctx, req)
		}
	})
	retry := connectplugin.RetryInterceptor(connectplugin.RetryPolicy{MaxAttempts: 2, InitialBackoff: time.Millisecond})
	_, err := echo.NewClient(at, echo.Unary, connect.WithInterceptors(retry, counted)).
		CallUnary(t.Context(), connect.NewRequest(&echo.Text{Value: text}))
	n := b.times(text)
	switch {
	case err == nil:
	case n == 0 && attempts == 1:
		t.Errorf("a call that was not begun is not repeated: %v", err)
	case n > 0 && attempts > 1:
		t.Errorf("a call that was begun is repeated: %v", err)
	}
	if n > 1 {
		t.Errorf("a call is begun %d times", n)
	}
	return err == nil
}
