package connectplugin

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/bootstrap"
	"github.com/masegraye/connect-plugin-go/internal/certs"
)

// Launched reports whether a host launched this process as a plugin, and gives it its
// certificate, its name and the way back: what a program loads in order to enrol by itself is
// not needed then, and [ServePlugin] ignores it.
func Launched() bool {
	launchedOnce.Do(takeDescriptor)
	return launchedPipe.Load() != nil || launchedTaken.Load()
}

var (
	launchedOnce  sync.Once
	launchedPipe  atomic.Pointer[os.File]
	launchedTaken atomic.Bool
)

// takeDescriptor takes the inherited descriptor, and keeps what this process starts from
// inheriting it in turn.
func takeDescriptor() {
	text, ok := os.LookupEnv(bootstrap.EnvDescriptor)
	_ = os.Unsetenv(bootstrap.EnvDescriptor)
	fd, err := strconv.Atoi(text)
	const first = 3
	if !ok || err != nil || fd < first {
		return
	}
	if f := bootstrap.InheritedPipe(fd); f != nil {
		launchedPipe.Store(f)
	}
}

// lifeline is the plugin's end of what connects it with the host that launched it.
type lifeline struct {
	pipe   *os.File
	first  *bootstrap.Message
	source *launchedSource
	log    *slog.Logger
	done   chan struct{}

	withdrawn atomic.Bool // the host has taken the plugin out
}

// bootstrapWait bounds the wait for the first message, which the host writes at once.
const bootstrapWait = 30 * time.Second

// takeLifeline returns the lifeline of a plugin that was launched, nil for any other. The
// first plugin of a process takes it.
func takeLifeline() (*lifeline, error) {
	launchedOnce.Do(takeDescriptor)
	pipe := launchedPipe.Swap(nil)
	if pipe == nil {
		return nil, nil //nolint:nilnil // documented
	}
	launchedTaken.Store(true)
	_ = pipe.SetReadDeadline(time.Now().Add(bootstrapWait))
	m, err := bootstrap.Read(pipe)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the host that launched this plugin says nothing: %w", err), pipe.Close())
	}
	_ = pipe.SetReadDeadline(time.Time{})
	l := &lifeline{pipe: pipe, first: m, done: make(chan struct{})}
	if l.source, err = newLaunchedSource(m); err != nil {
		return nil, errors.Join(err, pipe.Close())
	}
	return l, nil
}

// apply returns the configuration of the launched plugin: the host says who it is, where it
// listens and how it is known; the rest is the plugin's own.
func (l *lifeline) apply(ctx context.Context, cfg *PluginServerConfig) (*PluginServerConfig, error) {
	if cfg == nil {
		return nil, fieldError("PluginServerConfig", "is nil")
	}
	out, m := *cfg, l.first
	if out.Client.SelfID != "" && out.Client.SelfID != m.SelfID {
		return nil, fieldError("Client.SelfID",
			"is %q, and the host launched this plugin as %q; leave it empty, or correct the name in the host's PluginSpec",
			out.Client.SelfID, m.SelfID)
	}
	authorities, err := certs.ParseCertificates(m.CA)
	if err != nil {
		return nil, fmt.Errorf("authority of the launch: %w", err)
	}
	pool := x509.NewCertPool()
	for _, a := range authorities {
		pool.AddCert(a)
	}
	c := &out.Client
	c.SelfID, c.HostURL, c.Endpoint, c.Discovery = m.SelfID, m.HostURL, "", nil
	c.HTTPClient, c.AllowInsecure, c.PinnedKeys = nil, false, nil
	c.TLS = mutualTLS(l.source, pool, tls.RequireAndVerifyClientCert, requirePeerIdentity(m.HostIdentity))
	out.TLS, out.HostIdentity, out.BaseURL = nil, m.HostIdentity, ""
	out.withdrawn, out.released, out.launched = &l.withdrawn, l.release, true
	out.Addr = m.Listen
	if out.Listener, err = l.listen(ctx); err != nil {
		return nil, err
	}
	if grace := time.Duration(m.GraceMillis) * time.Millisecond; grace > 0 {
		out.GracefulShutdownTimeout = min(cmp.Or(out.GracefulShutdownTimeout, grace), grace)
	}
	out.Services = l.services(cfg.Services)
	l.log = c.Logger
	return &out, nil
}

// listen listens on a Unix socket where the host says so; no base URL could name it. Nil means
// that the address is one of the network.
func (l *lifeline) listen(ctx context.Context) (net.Listener, error) {
	path, ok := strings.CutPrefix(l.first.Listen, bootstrap.UnixPrefix)
	if !ok {
		return nil, nil //nolint:nilnil // documented
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen where the host says: %w", err)
	}
	if l, ok := listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // the host removes it, while this process ends
	}
	return listener, nil
}

// services returns what the plugin serves, with the operator's metadata below its own.
func (l *lifeline) services(own []PluginService) []PluginService {
	out := make([]PluginService, len(own))
	for i, s := range own {
		metadata := maps.Clone(l.first.Metadata)
		if metadata == nil {
			metadata = s.Metadata
		} else {
			maps.Copy(metadata, s.Metadata)
		}
		s.Metadata = metadata
		out[i] = s
	}
	return out
}

// serve runs the launched plugin until it ends or its host is gone.
func (l *lifeline) serve(ctx context.Context, cfg *PluginServerConfig) error {
	cfg, err := l.apply(ctx, cfg)
	if err != nil {
		return errors.Join(err, l.pipe.Close())
	}
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	go l.follow(gone)
	defer l.close()
	err = servePlugin(ctx, cfg)
	if errors.Is(context.Cause(ctx), errHostGone) {
		err = errors.Join(errHostGone, err)
	}
	return err
}

// errHostGone says that the host which launched the plugin has ended.
var errHostGone = errors.New("the host that launched this plugin is gone")

// follow takes over renewed certificates, and ends the plugin when the host is gone.
func (l *lifeline) follow(gone context.CancelCauseFunc) {
	defer close(l.done)
	for {
		m, err := bootstrap.Read(l.pipe)
		switch {
		case err == nil && m.Withdrawn:
			l.withdrawn.Store(true)
		case err == nil:
			err = l.source.renew(m)
		case errors.Is(err, os.ErrClosed):
			return
		case errors.Is(err, io.EOF):
			gone(errHostGone)
			return
		}
		if err != nil && l.log != nil {
			l.log.Warn("a message of the host that launched this plugin is ignored", keyError, err)
		}
		if err != nil {
			return
		}
	}
}

// release ends the lifeline.
func (l *lifeline) release() { _ = l.pipe.Close() } // an error says that it was before

// close ends the lifeline and waits for its goroutine.
func (l *lifeline) close() {
	l.release()
	<-l.done
}

// launchedSource presents the certificate of the launch. The key stays the same for life.
type launchedSource struct {
	key     any
	current atomic.Pointer[tls.Certificate]
}

func newLaunchedSource(m *bootstrap.Message) (*launchedSource, error) {
	key, err := certs.ParseKey(m.Key)
	if err != nil {
		return nil, fmt.Errorf("key of the launch: %w", err)
	}
	s := &launchedSource{key: key}
	if err := s.renew(m); err != nil {
		return nil, err
	}
	return s, nil
}

// GetCertificate presents the certificate as a server.
func (s *launchedSource) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

// GetClientCertificate presents the certificate as a client.
func (s *launchedSource) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return s.current.Load(), nil
}

func (s *launchedSource) renew(m *bootstrap.Message) error {
	chain, err := certs.ParseCertificates(m.Certificate)
	if err != nil {
		return fmt.Errorf("certificate of the launch: %w", err)
	}
	cert := &tls.Certificate{PrivateKey: s.key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	s.current.Store(cert)
	return nil
}
