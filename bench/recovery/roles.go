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
	tellEvery = 20 * time.Millisecond
)

type text = wrapperspb.StringValue

// site is where a process stands.
type site struct {
	dir, addr      string
	first, plugins int
}

func (s *site) authority() (*connectplugin.Authority, error) {
	a, err := connectplugin.LoadAuthority(connectplugin.AuthorityConfig{Dir: s.dir})
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return a, nil
}

// host is a host that prints how many handshakes it made, whenever that has changed.
func (s *site) host(ctx context.Context) error {
	authority, err := s.authority()
	if err != nil {
		return err
	}
	var handshakes atomic.Int64
	all := []string{"*"}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			providerName: {Provides: all, AllowOwnAddress: true, MaxInstances: unlimited}, callerName: {Requires: all, MaxInstances: unlimited},
		}},
		Limits: connectplugin.Limits{
			RequestsPerSecond: unlimited, RequestBurst: unlimited, HandshakesPerSecond: unlimited, HandshakeBurst: unlimited,
			MaxIdentitiesPerPeer: unlimited, MaxWatchesPerPlugin: unlimited, ChangesPerSecond: unlimited, ChangeBurst: unlimited,
		},
		Audit: func(e connectplugin.AuditEvent) {
			if e.Kind == connectplugin.AuditIssued || e.Kind == connectplugin.AuditRenewed {
				handshakes.Add(1)
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
	telling.Go(func() { tellCount(ctx, &handshakes) })
	err = host.Serve(ctx, l)
	end()
	telling.Wait()
	return err //nolint:wrapcheck // says what it was
}

// tellCount prints a count, now and whenever it has changed.
func tellCount(ctx context.Context, count *atomic.Int64) {
	_, _ = fmt.Fprintln(os.Stdout, 0)
	look := time.NewTicker(tellEvery)
	defer look.Stop()
	for before := int64(0); ; {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		if now := count.Load(); now != before {
			before = now
			_, _ = fmt.Fprintln(os.Stdout, now)
		}
	}
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
	_, _ = fmt.Fprintln(os.Stdout, 0)
	var serving sync.WaitGroup
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
