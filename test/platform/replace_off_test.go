package platform_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// gatedStrategy launches when it is let, and counts.
type gatedStrategy struct {
	begun   chan struct{} // gets one for each launch
	open    chan struct{}
	cleaned atomic.Int64
}

func (s *gatedStrategy) Name() string { return "gated" }

func (s *gatedStrategy) Launch(ctx context.Context, _ connectplugin.PluginSpec) (connectplugin.LaunchResult, error) {
	s.begun <- struct{}{}
	select {
	case <-s.open:
	case <-ctx.Done():
		return connectplugin.LaunchResult{}, ctx.Err()
	}
	return connectplugin.LaunchResult{
		Endpoint: "http://127.0.0.1:1", HTTPClient: http.DefaultClient, Cleanup: func() { s.cleaned.Add(1) },
	}, nil
}

// meddledContext has something happen the first time that anybody asks whether it has ended, and says when somebody waits for
// its end.
type meddledContext struct {
	context.Context

	once   sync.Once
	meddle func()
	waited chan struct{} // gets one
}

func (c *meddledContext) Done() <-chan struct{} {
	select {
	case c.waited <- struct{}{}:
	default:
	}
	return c.Context.Done()
}

func (c *meddledContext) Err() error {
	c.once.Do(c.meddle)
	return c.Context.Err()
}

// A Replace of a plugin that is not running launches it. One that is called off meanwhile ends what it launched, and not
// what somebody else has launched between its look and its launch: that is in service as if nobody had replaced it.
func TestReplace_CalledOffEndsWhatItLaunchedAlone(t *testing.T) {
	t.Parallel()
	for name, byAnother := range map[string]bool{"launched by itself": false, "launched by somebody else": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, "echo")
			strategy := &gatedStrategy{begun: make(chan struct{}, 2), open: make(chan struct{})}
			l := h.Launcher()
			l.RegisterStrategy(strategy)
			l.Configure(map[string]connectplugin.PluginSpec{"echo": {Strategy: "gated"}})
			launched := make(chan error, 1)
			plain, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx := &meddledContext{Context: plain, waited: make(chan struct{}, 1), meddle: func() {
				if !byAnother {
					return
				}
				go func() {
					_, err := l.GetService("echo", "")
					launched <- err
				}()
				<-strategy.begun
			}}
			replaced := make(chan error, 1)
			go func() { replaced <- l.Replace(ctx, "echo") }()
			if !byAnother {
				<-strategy.begun
			}
			<-ctx.waited
			cancel()
			if err := <-replaced; !errors.Is(err, context.Canceled) {
				t.Errorf("Replace: %v", err)
			}
			if !byAnother {
				if got := h.Plugins(); len(got) != 0 {
					t.Errorf("it is left: %+v", got)
				}
				return
			}
			close(strategy.open)
			if err := <-launched; err != nil {
				t.Errorf("who launched it: %v", err)
			}
			if got := h.Plugins(); len(got) != 1 || got[0].Launch.State != connectplugin.LaunchRunning {
				t.Errorf("plugins %+v", got)
			}
			if n := strategy.cleaned.Load(); n != 0 {
				t.Errorf("%d instances were ended", n)
			}
		})
	}
}
