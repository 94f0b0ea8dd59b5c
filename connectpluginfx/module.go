package connectpluginfx

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/fx"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// How long to wait between attempts to reach the host.
const (
	firstPause  = 50 * time.Millisecond
	longestWait = 2 * time.Second
)

// leaveTime is how long a client whose start failed may take to give back what it has.
const leaveTime = time.Second

// PluginModule provides a *connectplugin.Client of a configuration, which it validates
// when the application is built. The client is made whether anybody asks for it or not.
//
// It connects when the application starts, and tries again while the host is not there,
// until the start's context ends: fx.StartTimeout says how long that is. What the host
// refuses is not repeated ([connectplugin.ErrHandshakeRefused],
// [connectplugin.ErrHostNotTrusted]). Where the start fails the client is closed, too, and nothing
// of it is left at the host. When the application stops, the client gives its
// identity back and is closed, in half of what is left of the stop's time: fx calls no
// hook once that is over, so that a host that does not answer would keep what was started
// before the client from being stopped.
func PluginModule(cfg connectplugin.ClientConfig) fx.Option {
	return fx.Module("connectplugin",
		fx.Provide(func(lc fx.Lifecycle) (*connectplugin.Client, error) {
			client, err := connectplugin.NewClient(cfg)
			if err != nil {
				return nil, fmt.Errorf("connectpluginfx: %w", err)
			}
			lc.Append(fx.Hook{
				OnStart: func(ctx context.Context) error { return begin(ctx, client) },
				OnStop:  func(ctx context.Context) error { return leave(ctx, client) },
			})
			return client, nil
		}),
		fx.Invoke(func(*connectplugin.Client) {}),
	)
}

// begin connects the client, and ends it where that fails: fx does not stop what did not start, and the host could still take a
// client whose handshake is on its way.
func begin(ctx context.Context, client *connectplugin.Client) error {
	err := connectUntil(ctx, client)
	if err != nil {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
		defer cancel()
		_ = client.Leave(last) // the start has failed, whatever that says
	}
	return err
}

// leave ends the client and keeps half of the time for the hooks behind it.
func leave(ctx context.Context, client *connectplugin.Client) error {
	if end, ok := ctx.Deadline(); ok {
		half, cancel := context.WithTimeout(ctx, time.Until(end)/2)
		defer cancel()
		ctx = half
	}
	if err := client.Leave(ctx); err != nil {
		return fmt.Errorf("connectpluginfx: %w", err)
	}
	return nil
}

// connectUntil connects a client that is not connected, until ctx ends.
func connectUntil(ctx context.Context, client *connectplugin.Client) error {
	if client.ProtocolVersion() != 0 {
		return nil // A plugin that was found by discovery connected it.
	}
	for pause := firstPause; ; pause = min(2*pause, longestWait) {
		err := client.Connect(ctx)
		switch {
		case err == nil:
			return nil
		case isFinal(err):
			return fmt.Errorf("connectpluginfx: %w", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("connectpluginfx: %w: %w", ctx.Err(), err)
		}
	}
}

// isFinal tells whether another attempt would end in the same way.
func isFinal(err error) bool {
	for _, final := range []error{
		connectplugin.ErrHandshakeRefused, connectplugin.ErrHostNotTrusted, connectplugin.ErrClientClosed, connectplugin.ErrInvalidConfig,
	} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}
