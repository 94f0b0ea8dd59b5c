package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

const (
	roleHost    = "host"
	rolePlugins = "plugins"

	providerName = "provider" // the self id of all that provide
	callerName   = "caller"
	path         = "/bench.v1.Echo/"
	say          = path + "Say"

	unlimited = 1e6 // requests, handshakes and instances, more than there are

	enrolments, enrolmentBurst = 250, 1000 // of a host, as by default

	defaultWatches = 5

	tellEvery  = 50 * time.Millisecond
	tellAtLast = 500 * time.Millisecond // until what was done before has been told
)

type text = wrapperspb.StringValue

// site is where a process stands.
type site struct {
	dir, addr      string
	profiles       string    // a directory for profiles of the processor, empty for none
	perAddress     int       // connections that prove nothing
	watches        int       // of each plugin
	arrived        *arrivals // of all calls, where they are made
	only           string    // part of the names of the cases to play
	first, plugins int
}

func (s *site) authority() (*connectplugin.Authority, error) {
	a, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: s.dir})
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, nil
}

// counted is a listener that counts what it accepts.
type counted struct {
	net.Listener

	connections *atomic.Int64
}

// Accept implements net.Listener.
func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.connections.Add(1)
	}
	return c, err //nolint:wrapcheck // stands for what it wraps
}

// host is a host that tells how many identities it gave, and connections it had.
func (s *site) host(ctx context.Context) error {
	authority, err := s.authority()
	if err != nil {
		return err
	}
	var issued, renewed, connections atomic.Int64
	host, err := connectplugin.NewHost(s.hostConfig(authority, func(e connectplugin.AuditEvent) {
		switch e.Kind { //nolint:exhaustive // all else is no handshake
		case connectplugin.AuditIssued:
			issued.Add(1)
		case connectplugin.AuditRenewed:
			renewed.Add(1)
		}
	}))
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, end := context.WithCancel(ctx)
	var telling sync.WaitGroup
	telling.Go(func() {
		tell(ctx, func() tally {
			return tally{Issued: issued.Load(), Renewed: renewed.Load(), Connections: connections.Load()}
		})
	})
	err = host.Serve(ctx, counted{l, &connections})
	end()
	telling.Wait()
	return err //nolint:wrapcheck // says what it was
}

// hostConfig is that of the host. All plugins are one here, and on one address: what holds
// for an address or a self id is lifted, and what holds for the host stays as it is.
func (s *site) hostConfig(authority *connectplugin.Authority, audit func(connectplugin.AuditEvent)) *connectplugin.ServeConfig {
	all := []string{"*"}
	return &connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			providerName: {Provides: all, Requires: all, AllowOwnAddress: true, MaxInstances: unlimited},
			callerName:   {Requires: all, MaxInstances: unlimited},
		}},
		Limits: connectplugin.Limits{
			RequestsPerSecond: unlimited, RequestBurst: unlimited, HandshakesPerSecond: unlimited, HandshakeBurst: unlimited,
			MaxIdentitiesPerPeer: unlimited, MaxWatchesPerPlugin: unlimited, ChangesPerSecond: unlimited, ChangeBurst: unlimited,
			MaxConnectionsPerPeer: s.perAddress, MaxPendingHandshakesPerPeer: unlimited,
			EnrolmentsPerSecond: enrolments, EnrolmentBurst: enrolmentBurst,
		},
		PassMetadata: []string{headerCall},
		Audit:        audit,
	}
}

// provide runs plugins, each of which provides a type of its own and watches some that nobody
// provides.
func (s *site) provide(ctx context.Context) error {
	authority, err := s.authority()
	if err != nil {
		return err
	}
	var got arrivals
	mux := http.NewServeMux()
	mux.Handle(say, connect.NewUnaryHandler(say, func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		got.note(r.Header())
		return connect.NewResponse(r.Msg), nil
	}))
	certificate, err := authority.PluginTLS(providerName)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { tell(ctx, func() tally { return tally{Arrived: got.take()} }) })
	for n := s.first; n < s.first+s.plugins; n++ {
		serving.Go(func() {
			if err := connectplugin.ServePlugin(ctx, s.plugin(n, certificate.Clone(), mux)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	serving.Wait()
	return nil
}

// plugin is one plugin. Its watches end with it.
func (s *site) plugin(n int, certificate *tls.Config, handler http.Handler) *connectplugin.PluginServerConfig {
	requires := make([]connectplugin.ServiceDependency, s.watches)
	for i := range requires {
		requires[i].Type = "watched" + strconv.Itoa(i)
	}
	return &connectplugin.PluginServerConfig{
		Client: connectplugin.ClientConfig{
			HostURL: "https://" + s.addr, SelfID: providerName, TLS: certificate,
			Metadata: connectplugin.PluginMetadata{Requires: requires},
		},
		Services: []connectplugin.PluginService{{Type: typeOf(n), Version: "1.0.0", Path: path, Handler: handler}},
		OnConnected: func(_ context.Context, c *connectplugin.Client) error {
			for _, r := range requires {
				go follow(c, r.Type) //nolint:gosec // it ends with the client, and OnConnected is over before
			}
			return nil
		},
	}
}

// follow watches a type until the client closes.
func follow(c *connectplugin.Client, serviceType string) {
	for _, err := range c.WatchService(context.Background(), serviceType) {
		if err != nil && !errors.Is(err, connectplugin.ErrClientClosed) {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

func typeOf(n int) string { return "type" + strconv.Itoa(n) }
