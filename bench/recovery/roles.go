package main

import (
	"context"
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

	tellEvery = 50 * time.Millisecond
)

type text = wrapperspb.StringValue

// site is where a process stands.
type site struct {
	dir, addr      string
	profiles       string // a directory for profiles of the processor, empty for none
	perAddress     int    // connections that prove nothing
	only           string // part of the names of the cases to play
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
	all := []string{"*"}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			providerName: {Provides: all, AllowOwnAddress: true, MaxInstances: unlimited}, callerName: {Requires: all, MaxInstances: unlimited},
		}},
		// All plugins are one here, and on one address: what holds for an address or a self id is
		// lifted, and what holds for the host stays as it is.
		Limits: connectplugin.Limits{
			RequestsPerSecond: unlimited, RequestBurst: unlimited, HandshakesPerSecond: unlimited, HandshakeBurst: unlimited,
			MaxIdentitiesPerPeer: unlimited, MaxWatchesPerPlugin: unlimited, ChangesPerSecond: unlimited, ChangeBurst: unlimited,
			MaxConnectionsPerPeer: s.perAddress, MaxPendingHandshakesPerPeer: unlimited,
			EnrolmentsPerSecond: enrolments, EnrolmentBurst: enrolmentBurst,
		},
		Audit: func(e connectplugin.AuditEvent) {
			switch e.Kind { //nolint:exhaustive // all else is no handshake
			case connectplugin.AuditIssued:
				issued.Add(1)
			case connectplugin.AuditRenewed:
				renewed.Add(1)
			}
		},
	})
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

// provide runs plugins, each of which provides a type of its own.
func (s *site) provide(ctx context.Context) error {
	authority, err := s.authority()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle(say, connect.NewUnaryHandler(say, func(_ context.Context, r *connect.Request[text]) (*connect.Response[text], error) {
		return connect.NewResponse(r.Msg), nil
	}))
	certificate, err := authority.PluginTLS(providerName)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { tell(ctx, func() tally { return tally{} }) })
	for n := s.first; n < s.first+s.plugins; n++ {
		serving.Go(func() {
			err := connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
				Client:   connectplugin.ClientConfig{HostURL: "https://" + s.addr, SelfID: providerName, TLS: certificate.Clone()},
				Services: []connectplugin.PluginService{{Type: typeOf(n), Version: "1.0.0", Path: path, Handler: mux}},
			})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	serving.Wait()
	return nil
}

func typeOf(n int) string { return "type" + strconv.Itoa(n) }
