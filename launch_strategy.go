package connectplugin

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect"
)

// Names of the strategies.
const (
	strategyProcess = "process"
	strategyMemory  = "in-memory"
)

// LaunchStrategy is a way to start plugins. Implementations are safe for concurrent use.
type LaunchStrategy interface {
	// Name is what [PluginSpec.Strategy] calls it.
	Name() string
	// Launch starts one instance of a plugin and returns when it can be called. An error
	// says that nothing is left of it.
	Launch(ctx context.Context, spec PluginSpec) (LaunchResult, error)
}

// LaunchResult is a running instance.
type LaunchResult struct {
	// Endpoint is the base URL for generated clients, together with HTTPClient.
	Endpoint string
	// HTTPClient reaches the instance.
	HTTPClient connect.HTTPClient
	// Cleanup ends the instance and returns when nothing is left of it. Later calls do
	// nothing.
	Cleanup func()
}

// boundStrategy is a strategy that works with a host, and whose instances the launcher can
// watch, hold back and drain.
type boundStrategy interface {
	LaunchStrategy
	start(ctx context.Context, p *Platform, spec PluginSpec, hold bool) (*instance, error)
}

// instance is one running instance of a launched plugin.
type instance struct {
	// Fixed at creation.
	result    LaunchResult
	pid       int
	runtimeID func() string // empty before it enrolled, and for strategies of others
	exited    <-chan struct{}
	exit      func() PluginExit // once exited is closed
	// stop ends the instance gracefully and waits for its end. Later calls wait, too.
	stop func(ctx context.Context, reason string)
	// release puts the registrations that were held back into service, in the place of
	// those of another instance, empty for none.
	release func(old string) error
	begun   time.Time
}

// foreignInstance is what a strategy of somebody else started: it runs until it is cleaned
// up.
func foreignInstance(result LaunchResult) *instance {
	exited := make(chan struct{})
	end := sync.OnceFunc(func() {
		if result.Cleanup != nil {
			result.Cleanup()
		}
		close(exited)
	})
	return &instance{
		result: result, exited: exited, begun: time.Now(),
		runtimeID: func() string { return "" },
		exit:      func() PluginExit { return PluginExit{At: time.Now(), Reason: "ended", ExitCode: -1} },
		stop:      func(context.Context, string) { end() },
		release:   func(string) error { return nil },
	}
}
