package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
)

// scene is a host, a plugin behind it and a balancer in front.
type scene struct {
	// Fixed at creation.
	dir       string
	front     string // where the balancer listens
	proxied   bool
	authority *connectplugin.Authority
	host      *connectplugin.Host
	balancer  *exec.Cmd
	said      tail

	end   context.CancelFunc
	tasks sync.WaitGroup

	mu    sync.Mutex
	peers []string // addresses to which the host issued an identity, without its own plugin's
}

const (
	frontType   = "front"
	frontPath   = "/front.v1.Front/"
	frontOnce   = frontPath + "Once"
	frontThrice = frontPath + "Thrice"
	frontFail   = frontPath + "Fail"
	frontCaller = "front-caller"
	// frontFrom is the address from which the client calls the balancer.
	frontFrom = "127.0.0.2"
)

func newScene(ctx context.Context, f *front, program string, logger *slog.Logger) (*scene, error) {
	s := &scene{proxied: f.proxy}
	ctx, s.end = context.WithCancel(ctx)
	if err := s.start(ctx, f, program, logger); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *scene) start(ctx context.Context, f *front, program string, logger *slog.Logger) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "front"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if s.authority, err = connectplugin.NewAuthority(connectplugin.AuthorityConfig{}); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	to, err := s.startHost(ctx, logger)
	if err != nil {
		return err
	}
	return s.startBalancer(ctx, f, program, to)
}

// startHost starts the host and its plugin, which reaches it directly. It returns the
// address that the balancer is to pass connections on to.
func (s *scene) startHost(ctx context.Context, logger *slog.Logger) (string, error) {
	var err error
	s.host, err = connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: s.authority, Logger: logger, Audit: s.note,
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			frontType:   {Provides: []string{frontType}, AllowOwnAddress: true},
			frontCaller: {Secret: []byte(secret), Requires: []string{frontType}},
		}},
	})
	if err != nil {
		return "", fmt.Errorf("host: %w", err)
	}
	var direct, behind string
	for _, l := range []struct {
		addr *string
		wrap func(net.Listener) net.Listener
	}{
		{&behind, func(l net.Listener) net.Listener {
			if s.proxied {
				return proxyListener{l}
			}
			return l
		}},
		{&direct, func(l net.Listener) net.Listener { return l }},
	} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback)
		if err != nil {
			return "", fmt.Errorf("listen: %w", err)
		}
		*l.addr = listener.Addr().String()
		s.tasks.Go(func() { _ = s.host.Serve(ctx, l.wrap(listener)) })
	}
	own, err := s.authority.PluginTLS(frontType)
	if err != nil {
		return "", fmt.Errorf("plugin: %w", err)
	}
	s.tasks.Go(func() {
		_ = connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: "https://" + direct, SelfID: frontType, TLS: own},
			Services: []connectplugin.PluginService{{Type: frontType, Version: version, Path: frontPath, Handler: frontService()}},
		})
	})
	return behind, wait(ctx, "the plugin", func() bool { return s.host.Registry().HasService(frontType, "") })
}

// startBalancer writes what a balancer needs and starts it.
func (s *scene) startBalancer(ctx context.Context, f *front, program, to string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.front = listener.Addr().String() // a port that is free, unless somebody takes it now
	_ = listener.Close()
	if err := s.authority.WriteCredentials(s.dir, "balancer"); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	var pem []byte
	for _, name := range []string{"tls.crt", "tls.key"} {
		part, err := os.ReadFile(filepath.Join(s.dir, name))
		if err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		pem = append(pem, part...)
	}
	for name, data := range map[string][]byte{"front.pem": pem, "front.conf": []byte(f.config(s.dir, to, s))} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil { //nolint:mnd // its owner alone
			return fmt.Errorf("configuration: %w", err)
		}
	}
	s.balancer = exec.Command(program, f.args(s.dir)...) //nolint:gosec,noctx // ends with close
	s.balancer.Stdout, s.balancer.Stderr = &s.said, &s.said
	if err := s.balancer.Start(); err != nil {
		s.balancer = nil
		return fmt.Errorf("%s: %w", f.name, err)
	}
	err = wait(ctx, f.name, func() bool {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", s.front)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, s.said.String())
	}
	return nil
}

// wait polls for something that another process or goroutine does.
func wait(ctx context.Context, what string, done func() bool) error {
	ticker := time.NewTicker(registerPoll)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not there: %w", what, ctx.Err())
		}
	}
	return nil
}

func (s *scene) close() {
	if s.balancer != nil {
		_ = s.balancer.Process.Kill()
		_ = s.balancer.Wait()
	}
	s.end()
	s.tasks.Wait()
	if s.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		_ = s.host.Shutdown(ctx)
	}
	_ = os.RemoveAll(s.dir)
}

// note takes the addresses of those who got an identity through the balancer.
func (s *scene) note(e connectplugin.AuditEvent) {
	if e.Kind != connectplugin.AuditIssued || e.SelfID != frontCaller {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peers = append(s.peers, e.Peer)
}

var errAddress = errors.New("the host saw the wrong address")

// addresses reports whether the host saw the one client that calls from an address of its
// own, or the balancer in its place, as is to be expected.
func (s *scene) addresses() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) == 0 || slices.Contains(s.peers, frontFrom) != s.proxied {
		return fmt.Errorf("%w: %q, the client is %s", errAddress, s.peers, frontFrom)
	}
	return nil
}

// client makes a client that goes through the balancer, with a proof that is bound to its
// connection or one that is not. free ends its connections.
func (s *scene) client(unbound bool) (c *connectplugin.Client, free func(), err error) {
	cfg := connectplugin.ClientConfig{
		HostURL: "https://" + s.front, SelfID: frontCaller, Secret: []byte(secret), TLS: s.trust(),
		Metadata: connectplugin.PluginMetadata{Requires: []connectplugin.ServiceDependency{{Type: frontType}}},
	}
	free = func() {}
	if unbound {
		var protocols http.Protocols
		protocols.SetHTTP2(true)
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(frontFrom)}}
		transport := &http.Transport{TLSClientConfig: cfg.TLS, Protocols: &protocols, DialContext: dialer.DialContext}
		cfg.HTTPClient, cfg.TLS, free = &http.Client{Transport: transport}, nil, transport.CloseIdleConnections
	}
	c, err = connectplugin.NewClient(cfg)
	if err != nil {
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return c, free, nil
}

// trust accepts the authority's certificates: the balancer in HTTP mode has one of its own.
func (s *scene) trust() *tls.Config {
	return &tls.Config{RootCAs: s.authority.CertPool(), MinVersion: tls.VersionTLS13}
}
