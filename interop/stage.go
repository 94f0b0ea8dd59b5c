package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/interop/echo"
)

const (
	secret       = "a secret of the interop table only"
	callerID     = "caller"
	plentyRate   = 1_000_000
	hostStreams  = 2_000  // of one connection: the table opens 1,000 of one caller
	plentyCalls  = 20_000 // of one identity: that of all foreign programs, whose rows run side by side
	shutdownTime = 2 * time.Second
)

// stage is the host, and the credentials of all who call it. Its close ends it.
type stage struct {
	// Fixed at creation.
	dir       string
	authority *connectplugin.Authority
	host      *connectplugin.Host
	addr      string
	served    chan struct{}
	caller    *connectplugin.Client

	mu      sync.Mutex
	written map[string]bool // directories with credentials
}

// newStage starts a host with what an operator has on, and enrols the caller for whom
// the foreign programs call the types.
func newStage(ctx context.Context, logger *slog.Logger, types []string) (*stage, error) {
	s := &stage{served: make(chan struct{}), written: map[string]bool{}}
	if err := s.start(ctx, logger, types); err != nil {
		s.close()
		return nil, fmt.Errorf("stage: %w", err)
	}
	return s, nil
}

func (s *stage) start(ctx context.Context, logger *slog.Logger, types []string) error {
	var err error
	if s.dir, err = os.MkdirTemp("", "interop"); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	if s.authority, err = connectplugin.NewAuthority(connectplugin.AuthorityConfig{}); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	all := []string{"*"}
	s.host, err = connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: s.authority,
		Policy: &connectplugin.Policy{Default: &connectplugin.PluginPolicy{
			Secret: []byte(secret), Provides: all, Requires: all, AllowOwnAddress: true,
		}},
		Limits: connectplugin.Limits{
			MaxStreamsPerConnection: hostStreams, HandshakesPerSecond: plentyRate, HandshakeBurst: plentyRate,
			MaxOpenCallsPerIdentity: plentyCalls,
		},
		Logger: logger, Audit: func(connectplugin.AuditEvent) {},
	})
	if err != nil {
		return fmt.Errorf("host: %w", err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", loopback)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), s.host.Shutdown(ctx))
	}
	s.addr = listener.Addr().String()
	go func() {
		defer close(s.served)
		_ = s.host.Serve(context.WithoutCancel(ctx), listener) // ends with close
	}()
	var m connectplugin.PluginMetadata
	for _, t := range types {
		m.Requires = append(m.Requires, connectplugin.ServiceDependency{Type: t})
	}
	s.caller, err = s.enrol(ctx, callerID, m)
	return err
}

func (s *stage) close() {
	if s.caller != nil {
		_ = s.caller.Close()
	}
	if s.addr != "" {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
		_ = s.host.Shutdown(ctx)
		cancel()
		<-s.served
	}
	_ = os.RemoveAll(s.dir)
}

// enrol obtains an identity on behalf of a program that is none of this library.
func (s *stage) enrol(ctx context.Context, selfID string, m connectplugin.PluginMetadata) (*connectplugin.Client, error) {
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: "https://" + s.addr, SelfID: selfID, SelfVersion: version, Secret: []byte(secret),
		TLS: s.clientTLS(), Metadata: m,
	})
	if err != nil {
		return nil, fmt.Errorf("client %s: %w", selfID, err)
	}
	if err := c.Connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect %s: %w", selfID, err), c.Close())
	}
	return c, nil
}

func (s *stage) clientTLS() *tls.Config { return s.authority.ClientTLS() }

// credentials writes the files of a self id and returns their directory.
func (s *stage) credentials(selfID string) (string, error) {
	dir := filepath.Join(s.dir, selfID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written[selfID] {
		return dir, nil
	}
	s.written[selfID] = true
	if err := s.authority.WriteCredentials(dir, selfID); err != nil {
		return "", fmt.Errorf("credentials: %w", err)
	}
	return dir, nil
}

// job is what every process is told.
func (s *stage) job(o *options, selfID, serviceType string) (echo.Job, error) {
	dir, err := s.credentials(selfID)
	return echo.Job{
		Dir: dir, Host: "https://" + s.addr, Self: selfID, Secret: secret, Type: serviceType,
		Streams: o.streams, Large: o.large, Silence: int(o.silence.Milliseconds()),
	}, err
}
