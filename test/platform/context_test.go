package platform_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A context that ends at any step of what it bounds ends that, and leaves what was before or
// nothing, as the step demands.
func TestAudit_H52_TheContextEndsAtEachStep(t *testing.T) {
	t.Parallel()
	for i, m := range moments {
		if m.next == "" && m.end == nil {
			continue // takes no context
		}
		if m.next != "" && m.call {
			m.grace = time.Second // which who is replaced has however long the context lasts
		}
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			h, token, mark := start(t, "echo"), "context-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(i)+"-", filepath.Join(t.TempDir(), "mark")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			lived := make(chan error, 1)
			go func() { lived <- m.live(ctx, h.Host, token, mark) }()
			hosttest.Eventually(t, "the moment", func() bool { return exists(mark) })
			cancel()
			err := <-lived
			if early := m.next != "" && !m.call; early != errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
			want := 1
			if m.end != nil {
				want = 0
			}
			if got := h.Plugins(); len(got) != want {
				t.Errorf("plugins %+v", got)
			}
			if m.end == nil {
				if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
					t.Errorf("afterwards: %q, %v", got, err)
				}
				if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
					t.Error(err)
				}
			}
			allGone(t, token)
		})
	}
}

// Two hosts of one process, and two launchers of one host, know their own plugins alone.
func TestTwoPlatformsInOneProcess(t *testing.T) {
	t.Parallel()
	one, two := start(t, "echo", "other"), start(t, "echo")
	second := connectplugin.NewPluginLauncher(one.Platform(), nil)
	other := spec("type=other")
	other.Provides = []string{"other"}
	second.Configure(map[string]connectplugin.PluginSpec{"other": other})
	pids := map[string]bool{}
	for _, h := range []*hosttest.Host{one, two} {
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
		pid, err := caller(t, h, "echo")("pid")
		if err != nil {
			t.Fatal(err)
		}
		pids[pid] = true
	}
	if _, err := second.GetService("other", "other"); err != nil {
		t.Fatal(err)
	}
	if len(pids) != 2 || len(one.Plugins()) != 2 || len(two.Plugins()) != 1 {
		t.Errorf("processes %v, plugins %+v and %+v", pids, one.Plugins(), two.Plugins())
	}
	second.Shutdown()
	one.Stop(t)
	if got, err := caller(t, two, "echo")("x"); got != "x" || err != nil || len(one.Plugins()) != 0 {
		t.Errorf("after the end of the one, the other: %q, %v; left %+v", got, err, one.Plugins())
	}
}

// A host that ends while a plugin is adopted has none of it afterwards.
func TestShutdownDuringAddPlugin(t *testing.T) {
	t.Parallel()
	h := startForAdoption(t)
	asked := make(chan struct{})
	var once sync.Once
	url := sidecar(t, h, "echo", func(c *connectplugin.PluginServerConfig) {
		c.OnConnected = func(ctx context.Context, _ *connectplugin.Client) error {
			once.Do(func() { close(asked) })
			<-ctx.Done() // it never becomes ready
			return ctx.Err()
		}
	})
	added := make(chan error, 1)
	go func() { added <- h.Platform().AddPlugin(t.Context(), adoption(url)) }()
	<-asked
	h.Stop(t)
	if err := <-added; err == nil {
		t.Error("it was added")
	}
	if got := h.Plugins(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	if err := h.Platform().AddPlugin(t.Context(), adoption(url)); err == nil {
		t.Error("a platform that has ended takes a plugin")
	}
}
