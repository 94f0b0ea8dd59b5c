//go:build unix

package demo

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/logger/v1/loggerv1connect"
	shortenerv1 "github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/gen/shortener/v1/shortenerv1connect"
	"github.com/masegraye/connect-plugin-go/examples/urlshortener/internal/cli"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// The states that the demo waits for.
const (
	available = connectpluginv1.ServiceState_SERVICE_STATE_AVAILABLE
	degraded  = connectpluginv1.ServiceState_SERVICE_STATE_DEGRADED

	awaitTimeout = 30 * time.Second
	pollEvery    = 50 * time.Millisecond
)

// caller is the demo as a client of the host: it calls the services and watches
// how the api is doing.
type caller struct {
	// Fixed at creation.
	client    *connectplugin.Client
	shortener shortenerv1connect.ShortenerServiceClient
	logger    loggerv1connect.LoggerServiceClient
	watching  sync.WaitGroup

	mu      sync.Mutex
	state   connectpluginv1.ServiceState
	changed chan struct{} // closed and replaced at every change
}

func connectCaller(ctx context.Context, url, dir string, sayf func(format string, args ...any)) (*caller, error) {
	tls, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dir})
	if err != nil {
		return nil, err
	}

	secret, err := cli.ReadSecret(dir)
	if err != nil {
		return nil, err
	}

	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: url, SelfID: "demo", TLS: tls, Secret: secret,
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: "shortener"}, {Type: "logger"}}},
	})
	if err != nil {
		return nil, err
	}

	c := &caller{client: client, changed: make(chan struct{})}
	if err := c.connect(ctx, sayf); err != nil {
		c.close()

		return nil, fmt.Errorf("demo: %w", err)
	}

	return c, nil
}

func (c *caller) connect(ctx context.Context, sayf func(format string, args ...any)) error {
	if err := c.client.Connect(ctx); err != nil {
		return err
	}

	shortener, err := c.client.Service(ctx, "shortener", "")
	if err != nil {
		return err
	}

	logger, err := c.client.Service(ctx, "logger", "")
	if err != nil {
		return err
	}

	c.shortener = shortenerv1connect.NewShortenerServiceClient(shortener.HTTPClient(), shortener.BaseURL())
	c.logger = loggerv1connect.NewLoggerServiceClient(logger.HTTPClient(), logger.BaseURL())
	c.watching.Go(func() { c.watch(ctx, sayf) })

	return nil
}

func (c *caller) close() {
	_ = c.client.Close()

	c.watching.Wait()
}

// watch keeps the state of the api current, and tells every change.
func (c *caller) watch(ctx context.Context, sayf func(format string, args ...any)) {
	for event, err := range c.client.WatchService(ctx, "shortener") {
		if err != nil {
			return
		}

		sayf("  the host says: api is %s", strings.TrimPrefix(event.State.String(), "SERVICE_STATE_"))
		c.mu.Lock()
		c.state = event.State
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
}

// await waits until the api is in a state.
func (c *caller) await(ctx context.Context, want connectpluginv1.ServiceState) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()

	for {
		c.mu.Lock()
		state, changed := c.state, c.changed
		c.mu.Unlock()

		if state == want {
			return nil
		}

		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: api is %s, not %s: %w", ErrFailed, state, want, ctx.Err())
		}
	}
}

// dropped returns how many log entries the api has dropped.
func (c *caller) dropped(ctx context.Context) (int64, error) {
	resp, err := c.shortener.Status(ctx, &shortenerv1.StatusRequest{})
	if err != nil {
		return 0, fmt.Errorf("status: %w", err)
	}

	return resp.GetLogDropped(), nil
}

// awaitEntries waits until an entry of the api has arrived at the logger, and
// returns how many there are.
func (c *caller) awaitEntries(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, awaitTimeout)
	defer cancel()

	for {
		resp, err := c.logger.Tail(ctx, &loggerv1.TailRequest{})
		if err == nil && resp.GetTotal() > 0 {
			return resp.GetTotal(), nil
		}

		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: no log entry arrived: %w", ErrFailed, ctx.Err())
		}
	}
}
