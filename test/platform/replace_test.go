package platform_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A replacement under load loses no call, neither of the host itself nor of another plugin.
func TestAudit_H54_ReplacementLosesNoCall(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": hosttest.Allow(func(p *connectplugin.PluginPolicy) { p.Requires = []string{"echo"} }),
		}}
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e6, 1e6
	})
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	direct := caller(t, h, "echo")
	user := h.Enrol(t, "user", func(c *connectplugin.ClientConfig) { c.Metadata.Requires = hosttest.Requires("echo") })
	conn, err := user.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	c := connect.NewClient[text, text](conn.HTTPClient(), conn.BaseURL()+echoSay)
	routed := func(what string) (string, error) {
		resp, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String(what)))
		if err != nil {
			return "", err
		}
		return resp.Msg.GetValue(), nil
	}
	var load sync.WaitGroup
	var calls atomic.Int64
	stop := make(chan struct{})
	for name, call := range map[string]func(string) (string, error){"direct": direct, "routed": routed} {
		for range 4 {
			load.Go(func() { loadUntil(t, stop, name, call, &calls) })
		}
	}
	seen := map[int]bool{launched(t, h, "echo").Pid: true}
	for range 5 {
		before := calls.Load()
		hosttest.Eventually(t, "load", func() bool { return calls.Load() > before+50 })
		if err := h.Launcher().Replace(t.Context(), "echo"); err != nil {
			t.Error(err)
		}
		seen[launched(t, h, "echo").Pid] = true
	}
	close(stop)
	load.Wait()
	if len(seen) != 6 {
		t.Errorf("%d processes served", len(seen))
	}
	if got := h.Registry().GetAllProviders("echo"); len(got) != 1 {
		t.Errorf("%d providers in the end", len(got))
	}
	t.Logf("%d calls", calls.Load())
}

func loadUntil(t *testing.T, stop <-chan struct{}, name string, call func(string) (string, error), calls *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if got, err := call("x"); got != "x" || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
			return
		}
		calls.Add(1)
	}
}

func TestAudit_H53_FailedReplacementChangesNothing(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	before, err := call("pid")
	if err != nil {
		t.Fatal(err)
	}
	providers := h.Registry().GetAllProviders("echo")
	for name, edit := range map[string]func(*connectplugin.PluginSpec){
		"tampered": func(s *connectplugin.PluginSpec) { s.Checksum = strings.Repeat("0", 64) },
		"crashes":  func(s *connectplugin.PluginSpec) { s.Args = append(s.Args, "crash=it") },
		"hangs": func(s *connectplugin.PluginSpec) {
			s.Args, s.ReadyTimeout = append(s.Args, "hang"), 50*time.Millisecond
		},
		"other": func(s *connectplugin.PluginSpec) { s.Args = append(s.Args, "type=other") },
	} {
		sp := spec()
		edit(&sp)
		h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
		if err := h.Launcher().Replace(t.Context(), "echo"); err == nil {
			t.Errorf("%s: it took over", name)
		}
		if after, err := call("pid"); after != before || err != nil {
			t.Errorf("%s: process %s, then %s, %v", name, before, after, err)
		}
		if now := h.Registry().GetAllProviders("echo"); len(now) != 1 || now[0].RuntimeID != providers[0].RuntimeID {
			t.Errorf("%s: providers %+v", name, now)
		}
	}
	if got := h.Plugins(); len(got) != 1 {
		t.Errorf("%d plugins", len(got))
	}
}

// What is started to take over provides nothing before it is healthy.
func TestAudit_H53_AReplacementWaitsUntilItIsHealthy(t *testing.T) {
	t.Parallel()
	h, mark := start(t, "echo"), filepath.Join(t.TempDir(), "mark")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	call := caller(t, h, "echo")
	before, err := call("pid")
	if err != nil {
		t.Fatal(err)
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("sick=" + mark)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	replaced := make(chan error, 1)
	go func() { replaced <- h.Launcher().Replace(ctx, "echo") }()
	hosttest.Eventually(t, "it has registered, and says how it is", func() bool { return exists(mark) })
	if now := h.Registry().GetAllProviders("echo"); len(now) != 1 {
		t.Errorf("providers %+v", now)
	}
	cancel()
	if err := hosttest.Arrival(t, replaced); err == nil || !strings.Contains(err.Error(), "called off before it was healthy") {
		t.Errorf("a replacement that is called off: %v", err)
	}
	if after, err := call("pid"); after != before || err != nil {
		t.Errorf("process %s, then %s, %v", before, after, err)
	}
}

func TestAudit_H55_ReplaceAndStopAtTheSameTime(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec("child=race-h55")})
	var racing sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	for i := range 12 {
		racing.Go(func() {
			switch i % 3 {
			case 0:
				_, _ = h.Launcher().GetService("echo", "echo")
			case 1:
				_ = h.Launcher().Replace(ctx, "echo")
			case 2:
				_ = h.Launcher().Stop(ctx, "echo")
			}
		})
	}
	racing.Wait()
	if got := h.Registry().GetAllProviders("echo"); len(got) > 1 {
		t.Errorf("%d providers", len(got))
	}
	if got := h.Plugins(); len(got) > 1 {
		t.Errorf("plugins %+v", got)
	}
	_ = h.Launcher().Stop(ctx, "echo")
	allGone(t, "race-h55")
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}

// Stop also waits for an instance that was replaced and is ending, and its context cuts the grace of that short.
func TestAudit_H55_StopEndsWhatWasReplaced(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	exits := make(chan connectplugin.PluginExit, 2)
	sp := spec()
	sp.StopGrace, sp.OnExit = time.Hour, func(e connectplugin.PluginExit) { exits <- e }
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	caller(t, h, "echo")
	old := launched(t, h, "echo").Pid
	if err := syscall.Kill(old, syscall.SIGSTOP); err != nil { // it hears nothing, and has an hour to end
		t.Fatal(err)
	}
	replaced := make(chan error, 1)
	go func() { replaced <- h.Launcher().Replace(t.Context(), "echo") }()
	hosttest.Eventually(t, "the new instance serves", func() bool {
		return slices.ContainsFunc(h.Plugins(), func(p connectplugin.PluginStatus) bool { return p.Launch != nil && p.Launch.Pid != old })
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- h.Launcher().Stop(ctx, "echo") }()
	if err := hosttest.Arrival(t, stopped); err != nil || len(exits) != 2 {
		t.Errorf("%d instances have ended, want both: %v", len(exits), err)
	}
	if err := hosttest.Arrival(t, replaced); err != nil {
		t.Errorf("the replacement: %v", err)
	}
}

func TestAudit_H52_RemovingHonoursTheContext(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	sp := spec("deaf", "child=h52")
	sp.StopGrace = time.Hour
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	if _, err := call("x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.Platform().RemovePlugin(ctx, h.Plugins()[0].RuntimeID); err != nil {
		t.Error(err)
	}
	if got := h.Plugins(); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	allGone(t, "h52")
	if err := h.Platform().RemovePlugin(t.Context(), "echo-none"); err == nil {
		t.Error("a plugin that is not there was removed")
	}
}
