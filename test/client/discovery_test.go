package client_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// shaky is a discovery that fails at one of its questions.
type shaky struct {
	connectplugin.StaticDiscovery

	failure error
	at      int64
	asked   atomic.Int64
}

// Discover implements connectplugin.DiscoveryService.
func (s *shaky) Discover(ctx context.Context, name string) ([]connectplugin.Endpoint, error) {
	if s.asked.Add(1) == s.at {
		return nil, s.failure
	}
	return s.StaticDiscovery.Discover(ctx, name)
}

// What goes wrong while a host is looked for is not what a host says: its client tries again,
// and takes nothing for a refusal.
func TestAudit_OWN25_AFailureOfDiscoveryIsNoWordOfTheHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	tls, err := host.Authority.PluginTLS("logger")
	if err != nil {
		t.Fatal(err)
	}
	for name, failure := range map[string]error{
		"its TLS is refused":      &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")},
		"its token is refused":    connect.NewError(connect.CodeUnauthenticated, errors.New("token expired")),
		"it says something of us": connectplugin.ErrHandshakeRefused,
	} {
		for _, at := range []int64{1, 2} { // before a host is known, and when it is dialled
			d := &shaky{failure: failure, at: at}
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: host.URL})
			cfg := host.ClientConfig(t, "logger")
			cfg.HostURL, cfg.Discovery = "", d
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Connect(t.Context())
			if err == nil || errors.Is(err, connectplugin.ErrHostNotTrusted) {
				t.Errorf("%s, at %d: %v", name, at, err)
			}
			_ = c.Close()

			d = &shaky{failure: failure, at: at}
			d.AddEndpoint("plugin-host", connectplugin.Endpoint{URL: host.URL})
			enrolled := make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			plugin := &connectplugin.PluginServerConfig{
				Client: host.ClientConfig(t, "logger"), HostIdentity: host.Authority.HostIdentity(),
				OnConnected: func(context.Context, *connectplugin.Client) error { close(enrolled); return nil },
			}
			plugin.Client.HostURL, plugin.Client.Discovery, plugin.Client.TLS = "", d, tls
			go func() { done <- connectplugin.ServePlugin(ctx, plugin) }()
			select {
			case <-enrolled:
			case err := <-done:
				t.Errorf("%s, at %d: the plugin ended: %v", name, at, err)
				done <- nil
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s, at %d: %v", name, at, err)
			}
		}
	}
}
