package platform_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// outlasting are places in which code of the user's returns what it made in the moment after the context ended.
func outlasting(end func(), closed chan<- string) map[string]func(*connectplugin.PluginSpec) {
	impl := func() any { return closeFunc{echoHandler(), func() error { closed <- "late"; return nil }} }
	return map[string]func(*connectplugin.PluginSpec){
		"ImplFactory": func(s *connectplugin.PluginSpec) { s.ImplFactory = func() any { end(); return impl() } },
		"ConnectServer": func(s *connectplugin.PluginSpec) {
			s.ImplFactory = impl
			s.Plugin = guestPlugin{serve: func(any) (string, http.Handler, error) { end(); return echoPath, echoHandler(), nil }}
		},
		"Metadata": func(s *connectplugin.PluginSpec) {
			closed <- "nothing was made"
			s.Plugin = guestPlugin{
				memoryPlugin: memoryPlugin{path: echoPath},
				metadata:     func() connectplugin.PluginMetadata { end(); return connectplugin.PluginMetadata{} },
			}
		},
	}
}

// calledOffHost is a host whose plugin "echo" runs in memory, if it does, and is to be replaced by one in whose code ctx ends.
func calledOffHost(t *testing.T, what string, runs bool) (h *hosttest.Host, ctx context.Context, closed <-chan string) {
	t.Helper()
	h, _ = guestHost(t, guestSpec(), nil)
	if runs {
		if err := h.Launcher().Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, end := context.WithCancel(t.Context())
	t.Cleanup(end)
	late := make(chan string, 2)
	spec := guestSpec()
	outlasting(end, late)[what](&spec)
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec})
	return h, ctx, late
}

// A replacement whose context ended replaces nothing, also where the user's code returns after that what it was to make. What that
// is ends again.
func TestReplaceThatIsCalledOffReplacesNothing(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"ImplFactory", "ConnectServer", "Metadata"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h, ctx, closed := calledOffHost(t, what, true)
			before := h.Registry().GetAllProviders("echo")
			if err := h.Launcher().Replace(ctx, "echo"); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			after := h.Registry().GetAllProviders("echo")
			if len(before) != 1 || len(after) != 1 || before[0].RuntimeID != after[0].RuntimeID {
				t.Errorf("from %+v to %+v", before, after)
			}
			_ = hosttest.Arrival(t, closed)
		})
	}
}

// A launch whose context ended launches nothing, by whichever way.
func TestLaunchThatIsCalledOffLaunchesNothing(t *testing.T) {
	t.Parallel()
	for name, launch := range map[string]func(context.Context, *hosttest.Host) error{
		"Start":   func(ctx context.Context, h *hosttest.Host) error { return h.Launcher().Start(ctx) },
		"Replace": func(ctx context.Context, h *hosttest.Host) error { return h.Launcher().Replace(ctx, "echo") },
	} {
		for _, what := range []string{"ImplFactory", "ConnectServer", "Metadata"} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				h, ctx, closed := calledOffHost(t, what, false)
				if err := launch(ctx, h); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
				if got := h.Plugins(); len(got) != 0 {
					t.Errorf("there are %+v", got)
				}
				_ = hosttest.Arrival(t, closed)
			})
		}
	}
}

// Of a strategy of somebody else, too, what comes after the end is cleaned up, and what runs is left alone.
func TestReplaceOfAStrategyThatIsCalledOff(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	spec, cleaned, launches := guestSpec(), make(chan int, 2), 0
	spec.Strategy = "guest"
	h, _ := guestHost(t, spec, func(context.Context, connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
		launches++
		which := launches
		if which > 1 {
			end()
		}
		r, err := served()
		r.Cleanup = func() { cleaned <- which }
		return r, err
	})
	if err := h.Launcher().Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Launcher().Replace(ctx, "echo"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if which := <-cleaned; which != 2 {
		t.Errorf("instance %d was cleaned up", which)
	}
}

// Once the new instance is in service, the old one has its StopGrace, whatever becomes of the context.
func TestReplacedInstanceHasItsGrace(t *testing.T) {
	t.Parallel()
	began, finish := make(chan struct{}), make(chan struct{})
	spec := guestSpec()
	spec.ImplFactory = func() any {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(began)
			select {
			case <-finish:
				_, _ = io.WriteString(w, "whole")
			case <-r.Context().Done():
			}
		})
	}
	h, _ := guestHost(t, spec, nil)
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, url+echoPath+"X", http.NoBody)
		resp, err := client.Do(r)
		if err == nil {
			var body []byte
			if body, err = io.ReadAll(resp.Body); string(body) != "whole" {
				err = errors.Join(err, errors.New(resp.Status))
			}
			_ = resp.Body.Close()
		}
		answer <- err
	}()
	<-began
	before := h.Registry().GetAllProviders("echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": guestSpec()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	replaced := make(chan error, 1)
	go func() { replaced <- h.Launcher().Replace(ctx, "echo") }()
	hosttest.Eventually(t, "the new instance is in service", func() bool {
		now := h.Registry().GetAllProviders("echo")
		return len(now) == 1 && now[0].RuntimeID != before[0].RuntimeID
	})
	cancel()
	select {
	case err := <-replaced:
		t.Errorf("it has ended with a call in flight: %v", err)
	case <-time.After(100 * time.Millisecond): // only what is broken could be quicker
	}
	close(finish)
	if err := hosttest.Arrival(t, answer); err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	if err := hosttest.Arrival(t, replaced); err != nil {
		t.Error(err)
	}
}

// A replacement needs no room for services beside the instance whose place it takes.
func TestReplaceWhereABoundIsReached(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*connectplugin.Limits){
		"of a type": func(l *connectplugin.Limits) { l.MaxRegistrationsPerType = 1 },
		"in all":    func(l *connectplugin.Limits) { l.MaxRegistrations = 1 },
		"of one":    func(l *connectplugin.Limits) { l.MaxRegistrationsPerPlugin = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := startForAdoption(t, func(c *connectplugin.ServeConfig) { limit(&c.Limits) })
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": guestSpec()})
			if err := h.Launcher().Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			before := h.Registry().GetAllProviders("echo")
			if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
				t.Error(err)
			}
			if now := h.Registry().GetAllProviders("echo"); len(now) != 1 || now[0].RuntimeID == before[0].RuntimeID {
				t.Errorf("from %+v to %+v", before, now)
			}
		})
	}
}

// onLine calls a function at each line of a log.
type onLine struct {
	slog.Handler

	call func(message string)
}

func (onLine) Enabled(context.Context, slog.Level) bool { return true }

func (o onLine) Handle(ctx context.Context, r slog.Record) error {
	o.call(r.Message)
	return o.Handler.Handle(ctx, r)
}

func (o onLine) WithAttrs(attrs []slog.Attr) slog.Handler {
	return onLine{o.Handler.WithAttrs(attrs), o.call}
}

// An adoption in the place of another that is called off in its last moment changes nothing.
func TestReplacePluginThatIsCalledOff(t *testing.T) {
	t.Parallel()
	ctx, end := context.WithCancel(t.Context())
	adopted := 0
	h := startForAdoption(t, func(c *connectplugin.ServeConfig) {
		c.Logger = slog.New(onLine{slog.DiscardHandler, func(message string) {
			if message == "plugin adopted" {
				if adopted++; adopted > 1 {
					end()
				}
			}
		}})
	})
	p := h.Platform()
	if err := p.AddPlugin(t.Context(), adoption(sidecar(t, h, "echo", nil))); err != nil {
		t.Fatal(err)
	}
	first := p.Instances()[0].RuntimeID
	if err := p.ReplacePlugin(ctx, first, adoption(sidecar(t, h, "echo", nil))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if now := p.Instances(); len(now) != 1 || now[0].RuntimeID != first {
		t.Errorf("instances %v", now)
	}
	if now := h.Registry().GetAllProviders("echo"); len(now) != 1 || now[0].RuntimeID != first {
		t.Errorf("providers %v", now)
	}
}
