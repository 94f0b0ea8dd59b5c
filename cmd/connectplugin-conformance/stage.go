package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// Self ids of the stage.
const (
	selfSubject = "conformance.subject"
	selfKit     = "conformance.kit"
	selfCaller  = "conformance.caller"
)

const (
	tokenTime   = 9 * time.Second // the subject renews within a row's time
	firstTokens = 10 * time.Minute
	keptEvents  = 4 // of a watch
	shutTime    = 3 * time.Second
	secretBytes = 32
	lookAgain   = 20 * time.Millisecond
	aPluginTime = 10 * time.Second
)

// stage is a host, a plugin for the subject to call, and a caller of the subject. Its
// close ends them.
type stage struct {
	// Fixed at creation.
	options   *options
	dir       string
	secret    []byte
	authority *connectplugin.Authority
	record    *record
	addr      string
	front     *forwarder // between the subject and the host
	held      *holding   // calls of the subject

	broker  *connectplugin.CapabilityBroker
	host    *connectplugin.Host
	stop    context.CancelFunc // of the host and the plugin
	served  chan struct{}
	kit     *connectplugin.Client // of the plugin that the subject calls
	kitGone chan struct{}
	caller  *connectplugin.Client
	health  atomic.Int32 // of the plugin
}

func newStage(ctx context.Context, o *options) (*stage, error) {
	s := &stage{options: o, secret: newSecret(), record: newRecord(selfSubject), held: &holding{over: make(chan struct{})}}
	s.health.Store(int32(connectpluginv1.HealthState_HEALTH_STATE_HEALTHY))
	if err := s.prepare(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("stage: %w", err)
	}
	return s, nil
}

func (s *stage) prepare(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "conformance"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if s.authority, err = connectplugin.NewAuthority(connectplugin.AuthorityConfig{}); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if err := s.authority.WriteCredentials(s.credentials(), selfSubject); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	l, err := listen(ctx, loopback)
	if err != nil {
		return err
	}
	s.addr = l.Addr().String()
	if s.front, err = newForwarder(ctx, s.addr); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := s.serve(ctx, l); err != nil {
		return err
	}
	return s.enrol(ctx)
}

func (s *stage) credentials() string { return filepath.Join(s.dir, selfSubject) }

func (s *stage) config() *connectplugin.ServeConfig {
	ttl, secret := tokenTime, s.secret
	if s.options.unproven() {
		ttl, secret = firstTokens, nil
	}
	return &connectplugin.ServeConfig{
		Authority: s.authority, RuntimeTokenTTL: ttl,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			selfSubject: {
				Secret: secret, Provides: []string{typeSubject}, Requires: []string{typeKit}, AllowOwnAddress: true,
				AllowUnproven: s.options.unproven(), Capabilities: []string{typeCapability},
			},
			selfKit:    {Secret: s.secret, Provides: []string{typeKit}, AllowOwnAddress: true},
			selfCaller: {Secret: s.secret, Requires: []string{typeSubject, typeKit}},
		}},
		CapabilityBroker: s.broker, CapabilityGrantTTL: grantTime,
		Limits:       connectplugin.Limits{WatchBuffer: keptEvents},
		Interceptors: []connectInterceptor{s.record}, Logger: s.options.logger(), Audit: s.record.audit,
	}
}

// serve starts a host at the stage's address.
func (s *stage) serve(ctx context.Context, l net.Listener) error {
	s.broker = newBroker()
	host, err := connectplugin.NewHost(s.config())
	if err != nil {
		return errors.Join(fmt.Errorf("host: %w", err), l.Close())
	}
	s.host, s.served = host, make(chan struct{})
	go func() {
		defer close(s.served)
		_ = host.Serve(context.WithoutCancel(ctx), l) // ends with Shutdown
	}()
	return nil
}

// restart has another host, which knows nobody, in the place of this one.
func (s *stage) restart(ctx context.Context) error {
	s.shut()
	l, err := listen(ctx, s.addr)
	if err != nil {
		return err
	}
	return s.serve(ctx, l)
}

func (s *stage) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), shutTime)
	defer cancel()
	_ = s.host.Shutdown(ctx)
	<-s.served
}

// client is the configuration of one of the kit's own.
func (s *stage) client(self string) (connectplugin.ClientConfig, error) {
	tls, err := s.authority.PluginTLS(self)
	if err != nil {
		return connectplugin.ClientConfig{}, fmt.Errorf("certificate: %w", err)
	}
	return connectplugin.ClientConfig{
		HostURL: "https://" + s.addr, SelfID: self, SelfVersion: version, Secret: s.secret, TLS: tls, Logger: s.options.logger(),
	}, nil
}

// enrol starts the plugin that the subject calls, and the caller of the subject.
func (s *stage) enrol(ctx context.Context) error {
	kit, err := s.client(selfKit)
	if err != nil {
		return err
	}
	caller, err := s.client(selfCaller)
	if err != nil {
		return err
	}
	caller.Metadata.Requires = []connectplugin.ServiceDependency{{Type: typeSubject}, {Type: typeKit}}
	if s.caller, err = connectplugin.NewClient(caller); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	if err := s.caller.Connect(ctx); err != nil {
		return fmt.Errorf("caller: %w", err)
	}
	return s.servePlugin(ctx, kit)
}

func (s *stage) servePlugin(ctx context.Context, client connectplugin.ClientConfig) error {
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	connected := make(chan *connectplugin.Client, 1)
	ended := make(chan error, 1)
	s.kitGone = make(chan struct{})
	go func() {
		defer close(s.kitGone)
		ended <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   client,
			Services: []connectplugin.PluginService{{Type: typeKit, Version: version, Path: base, Handler: s.handler()}},
			Health: func() (connectpluginv1.HealthState, string) {
				return connectpluginv1.HealthState(s.health.Load()), ""
			},
			OnConnected: func(_ context.Context, c *connectplugin.Client) error {
				connected <- c
				return nil
			},
		})
	}()
	select {
	case s.kit = <-connected:
		return nil
	case err := <-ended:
		return fmt.Errorf("plugin: %w", err)
	}
}

// handler serves the subject, and holds calls that a row wants to stay open.
func (s *stage) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", handler())
	handle(mux, methods[shapeUnary], s.held.echo)
	return mux
}

// report changes the health of the plugin that the subject calls.
func (s *stage) report(ctx context.Context, state connectpluginv1.HealthState) error {
	s.health.Store(int32(state))
	if err := s.kit.ReportHealth(ctx, state, "as a row asks", nil); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// subject calls the subject through the host.
func (s *stage) subject(ctx context.Context, options ...clientOption) (*stub, func(), error) {
	conn, err := s.caller.Service(ctx, typeSubject, "")
	if err != nil {
		return nil, nil, fmt.Errorf("service: %w", err)
	}
	return &stub{client: conn.HTTPClient(), base: conn.BaseURL(), options: options}, conn.Close, nil
}

// status waits until the host's view of the subject fulfils a condition.
func (s *stage) status(ctx context.Context, holds func(*connectplugin.PluginStatus) bool) (connectplugin.PluginStatus, error) {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		for _, p := range s.host.Plugins() {
			if p.SelfID == selfSubject && holds(&p) {
				return p, nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return connectplugin.PluginStatus{}, fmt.Errorf("the host does not see it: %w", ctx.Err())
		}
	}
}

// direct is a client that calls the subject without the host between.
func direct(config *tlsConfig) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	return &http.Client{
		Transport: &http.Transport{TLSClientConfig: config, Protocols: &protocols, DisableKeepAlives: true},
		Timeout:   aPluginTime,
	}
}

func (s *stage) close() {
	if s.stop != nil {
		s.stop()
		<-s.kitGone
	}
	if s.caller != nil {
		_ = s.caller.Close()
	}
	if s.front != nil {
		s.front.close()
	}
	if s.host != nil {
		s.shut()
	}
	_ = os.RemoveAll(s.dir)
}

// logger is where hosts and plugins of the kit log to.
func (o *options) logger() *slog.Logger {
	if o.verbose == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(o.verbose, nil))
}
