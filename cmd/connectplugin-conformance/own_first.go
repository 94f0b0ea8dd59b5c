package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
)

const (
	firstReport = time.Second
	firstGrace  = 5 * time.Second
)

// firstPlugin is a plugin of the first version of the wire: it knows no field that came later,
// proves nothing, and believes whoever has a certificate of its authority.
type firstPlugin struct {
	connectpluginv1connect.UnimplementedPluginControlHandler

	// Fixed at creation.
	wire   wire
	header http.Header // its credentials
	stop   context.CancelFunc

	health       atomic.Pointer[string]
	registration string
}

// serveFirst is such a plugin for the kit to test.
func serveFirst(ctx context.Context) error {
	config, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: os.Getenv(envDir)})
	if err != nil {
		return fmt.Errorf("%s: %w", envDir, err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	trusting := &tls.Config{RootCAs: config.RootCAs, GetClientCertificate: config.GetClientCertificate, MinVersion: tls13}
	p := &firstPlugin{wire: wire{url: os.Getenv(envHost), client: direct(trusting)}, stop: stop}
	p.health.Store(new("healthy"))
	listener, err := listen(ctx, loopback)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: p.handler(), ReadHeaderTimeout: aPluginTime,
		TLSConfig: &tls.Config{GetCertificate: config.GetCertificate, MinVersion: tls13},
	}
	served := make(chan error, 1)
	go func() { served <- server.ServeTLS(listener, "", "") }()
	err = p.enrol(ctx, "https://"+listener.Addr().String())
	if err == nil {
		p.reports(ctx)
		p.withdraw(context.WithoutCancel(ctx))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), firstGrace)
	defer cancel()
	err = errors.Join(err, server.Shutdown(last))
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// headed sends requests with the credentials of the plugin.
type headed struct{ plugin *firstPlugin }

// Do implements connect.HTTPClient.
func (h headed) Do(r *http.Request) (*http.Response, error) {
	maps.Copy(r.Header, h.plugin.header)
	return h.plugin.wire.client.Do(r) //nolint:gosec // to the host of the environment
}

// GetHealth answers the host's question.
func (p *firstPlugin) GetHealth(context.Context, *connect.Request[connectpluginv1.GetHealthRequest]) (*connect.Response[connectpluginv1.GetHealthResponse], error) {
	state, why, _ := strings.Cut(*p.health.Load(), " ")
	return connect.NewResponse(&connectpluginv1.GetHealthResponse{State: healthNames[state], Reason: why}), nil
}

// Shutdown ends the plugin.
func (p *firstPlugin) Shutdown(context.Context, *connect.Request[connectpluginv1.ShutdownRequest]) (*connect.Response[connectpluginv1.ShutdownResponse], error) {
	p.stop()
	return connect.NewResponse(&connectpluginv1.ShutdownResponse{Acknowledged: true}), nil
}

// enrol makes a handshake of the first version and registers.
func (p *firstPlugin) enrol(ctx context.Context, baseURL string) error {
	m, err := p.wire.send(ctx, &connectpluginv1.HandshakeRequest{
		CoreProtocolVersion: 1, AppProtocolVersion: 1, SelfId: os.Getenv(envSelf), SelfVersion: version,
		MagicCookieKey: connectplugin.DefaultMagicCookieKey, MagicCookieValue: connectplugin.DefaultMagicCookieValue,
	}, nil)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	p.header = credentials(m)
	resp, err := p.wire.registry().RegisterService(ctx, withHeader(&connectpluginv1.RegisterServiceRequest{
		ServiceType: typeSubject, Version: version, EndpointPath: base, Metadata: map[string]string{"base_url": baseURL},
	}, p.header))
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	p.registration = resp.Msg.GetRegistrationId()
	return nil
}

// reports tells the host the plugin's health until ctx ends.
func (p *firstPlugin) reports(ctx context.Context) {
	ticker := time.NewTicker(firstReport)
	defer ticker.Stop()
	for {
		_ = p.report(ctx) // a host that is gone is not noticed
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *firstPlugin) report(ctx context.Context) error {
	state, why, _ := strings.Cut(*p.health.Load(), " ")
	return p.wire.report(ctx, &connectpluginv1.ReportHealthRequest{State: healthNames[state], Reason: why}, p.header)
}

func (p *firstPlugin) withdraw(ctx context.Context) {
	_, _ = p.wire.registry().UnregisterService(ctx, // a host that is gone has no registrations
		withHeader(&connectpluginv1.UnregisterServiceRequest{RegistrationId: p.registration}, p.header))
}

func (p *firstPlugin) handler() http.Handler {
	mux := handler()
	handle(mux, "Health", func(ctx context.Context, value string) (string, error) {
		p.health.Store(&value)
		return value, p.report(ctx)
	})
	handle(mux, "Call", p.call)
	mux.Handle(base+"Watch", connect.NewServerStreamHandler(base+"Watch", p.watch))
	mux.Handle(connectpluginv1connect.NewPluginControlHandler(p))
	return mux
}

func (p *firstPlugin) call(ctx context.Context, value string) (string, error) {
	var said order
	if err := json.Unmarshal([]byte(value), &said); err != nil {
		return "", connect.NewError(connect.CodeInvalidArgument, err)
	}
	endpoint, err := p.wire.discover(ctx, typeKit, p.header)
	if err != nil {
		return "", fmt.Errorf("discover: %w", err)
	}
	return carryOut(ctx, &stub{client: headed{p}, base: p.wire.url + endpoint.GetEndpointUrl()}, &said)
}

func (p *firstPlugin) watch(ctx context.Context, r *connect.Request[text], stream *connect.ServerStream[text]) error {
	t, err := p.wire.watch(ctx, &connectpluginv1.WatchServiceRequest{ServiceType: r.Msg.GetValue()}, p.header)
	for err == nil {
		var e *connectpluginv1.WatchServiceEvent
		if e, err = t.next(); err != nil {
			break
		}
		line, failed := json.Marshal(change{State: stateNames[e.GetState()], Provider: e.GetEndpoint().GetProviderId()})
		if failed != nil {
			return fmt.Errorf("change: %w", failed)
		}
		err = stream.Send(wrapperspb.String(string(line)))
	}
	return fmt.Errorf("watch: %w", err)
}
