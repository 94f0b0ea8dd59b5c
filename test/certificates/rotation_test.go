package certificates_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	"github.com/masegraye/connect-plugin-go/gen/capability/logger/v1/loggerv1connect"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/certs"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// rotatedFiles is a directory of credentials that an operator's tools replace.
type rotatedFiles struct {
	dir, identity string
	cert          *tls.Certificate // the last one written

	mu   sync.Mutex
	seen map[string]bool // serial numbers that the other side met
}

func newRotatedFiles(t *testing.T, identity string, trusted ...*hosttest.CA) *rotatedFiles {
	t.Helper()
	f := &rotatedFiles{dir: t.TempDir(), identity: identity, seen: map[string]bool{}}
	var roots [][]byte
	for _, ca := range trusted {
		roots = append(roots, ca.Cert.Raw)
	}
	if err := certs.ReplaceFile(filepath.Join(f.dir, "ca.crt"), certs.EncodeCertificates(roots...), certs.PublicFile); err != nil {
		t.Fatal(err)
	}
	return f
}

// rotate replaces the certificate, and the key too if keepKey is false.
func (f *rotatedFiles) rotate(t *testing.T, ca *hosttest.CA, serial int64, keepKey bool) {
	t.Helper()
	next := ca.Issue(t, func(c *x509.Certificate) {
		named(f.identity)(c)
		c.SerialNumber = big.NewInt(serial)
	})
	if keepKey && f.cert != nil {
		next.PrivateKey, next.Leaf.PublicKey = f.cert.PrivateKey, f.cert.Leaf.PublicKey
		next.Leaf.SerialNumber = big.NewInt(serial - 1) // reissue counts on
		next = ca.Reissue(t, next)
	}
	key, err := certs.EncodeKey(next.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.key": key, "tls.crt": certs.EncodeCertificates(next.Certificate...)} {
		mode := certs.PublicFile
		if name == "tls.key" {
			mode = certs.PrivateFile
		}
		if err := certs.ReplaceFile(filepath.Join(f.dir, name), data, mode); err != nil {
			t.Fatal(err)
		}
	}
	f.cert = next
}

// load is what the side of f serves and dials with; it notes what certificates of
// the other side it met.
func (f *rotatedFiles) load(t *testing.T, other *rotatedFiles) *tls.Config {
	t.Helper()
	cfg, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: f.dir, CheckInterval: 1, Logger: hosttest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		other.mu.Lock()
		other.seen[state.PeerCertificates[0].SerialNumber.String()] = true
		other.mu.Unlock()
		if verify == nil {
			return nil
		}
		return verify(state)
	}
	return cfg
}

func (f *rotatedFiles) met() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[f.cert.Leaf.SerialNumber.String()]
}

// load makes calls until the context ends, and counts them; none may fail.
func load(ctx context.Context, t *testing.T, name string, calls *atomic.Int64, call func() error) {
	t.Helper()
	for ctx.Err() == nil {
		if err := call(); err != nil {
			t.Errorf("%s, call %d: %v", name, calls.Load(), err)
			return
		}
		calls.Add(1)
	}
}

// The certificates of a running host and of a running plugin are replaced in their
// files, the host's key too, and in the middle both move to another authority.
// Meanwhile calls go on: over new connections and over old ones, to the host,
// through it, and in a stream. None fails, and each certificate comes into use. It
// keeps the processor busy and does not run in parallel.
func TestCertificates_RotateUnderLoad(t *testing.T) {
	const rotations = 6
	before, after := hosttest.NewCA(t), hosttest.NewCA(t)
	hostFiles := newRotatedFiles(t, "spiffe://pki.example/the-host", before, after)
	pluginFiles := newRotatedFiles(t, "spiffe://pki.example/the-plugin", before, after)
	serial := int64(100)
	rotate := func(ca *hosttest.CA) {
		serial += 2
		hostFiles.rotate(t, ca, serial, false)
		pluginFiles.rotate(t, ca, serial+1, true) // tokens are bound to the key
	}
	rotate(before)
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.TLS, c.PluginTLS = nil, hostFiles.load(t, pluginFiles), hostFiles.load(t, pluginFiles)
		c.Policy = hosttest.PolicyOf("plugin", func(p *connectplugin.PluginPolicy) { p.Certificates = []string{pluginFiles.identity} })
		c.Limits.RequestsPerSecond, c.Limits.RequestBurst = 1e6, 1e6
	})
	plugin := host.StartPlugin(t, "plugin", func(c *connectplugin.PluginServerConfig) {
		c.Client.TLS, c.Client.Secret = pluginFiles.load(t, hostFiles), nil
		c.Client.Metadata.Requires = hosttest.Requires("logger")
		c.Services = []connectplugin.PluginService{hosttest.LoggerService(&hosttest.RecordingLogger{})}
	}).Client
	stream, err := connectpluginv1connect.NewServiceRegistryClient(plugin.HTTPClient(), host.URL).
		WatchService(t.Context(), connect.NewRequest(&connectpluginv1.WatchServiceRequest{ServiceType: "logger"}))
	if err != nil || !stream.Receive() {
		t.Fatalf("watch: %v", err)
	}
	streamEnded := make(chan error, 1)
	go func() {
		for stream.Receive() {
		}
		streamEnded <- stream.Err()
	}()

	var group sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	var counts []*atomic.Int64
	for name, call := range rotationCalls(t, host, plugin, hostFiles, pluginFiles) {
		count := new(atomic.Int64)
		counts = append(counts, count)
		group.Go(func() { load(ctx, t, name, count, call) })
	}
	for i := range rotations {
		authority := before
		if i >= rotations/2 {
			authority = after
		}
		rotate(authority)
		made := make([]int64, len(counts))
		for j, count := range counts {
			made[j] = count.Load()
		}
		hosttest.Eventually(t, "the new certificates are in use, and every kind of call goes on", func() bool {
			goesOn := hostFiles.met() && pluginFiles.met()
			for j, count := range counts {
				goesOn = goesOn && count.Load() > made[j]
			}
			return goesOn || t.Failed()
		})
	}
	stop()
	group.Wait()
	select {
	case err := <-streamEnded:
		t.Errorf("the stream ended: %v", err)
	default:
	}
	_ = stream.Close()
}

// rotationCalls are the calls that go on while certificates change.
func rotationCalls(t *testing.T, host *hosttest.Host, plugin *connectplugin.Client, hostFiles, pluginFiles *rotatedFiles) map[string]func() error {
	t.Helper()
	provider, err := host.Registry().GetProviderByRuntimeID(plugin.RuntimeID())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := plugin.Service(t.Context(), "logger", "")
	if err != nil {
		t.Fatal(err)
	}
	pluginTLS, hostTLS := pluginFiles.load(t, hostFiles), hostFiles.load(t, pluginFiles)
	return map[string]func() error{
		"to the host over new connections": func() error {
			client := hosttest.HTTPClient(t, pluginTLS)
			defer client.CloseIdleConnections()
			_, err := connectpluginv1connect.NewPluginLifecycleClient(client, host.URL).ReportHealth(t.Context(),
				hosttest.WithCredentials(&connectpluginv1.ReportHealthRequest{State: connectpluginv1.HealthState_HEALTH_STATE_HEALTHY},
					plugin.RuntimeID(), plugin.RuntimeToken()))
			return err
		},
		"to the plugin over new connections": func() error {
			client := hosttest.HTTPClient(t, hostTLS)
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, provider.Metadata["base_url"], http.NoBody)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			return err
		},
		"through the host over old connections": func() error {
			_, err := loggerv1connect.NewLoggerClient(conn.HTTPClient(), conn.BaseURL()).Log(t.Context(), connect.NewRequest(&loggerv1.LogRequest{}))
			return err
		},
	}
}
