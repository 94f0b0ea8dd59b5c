package recovery_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A plugin that is started before its credentials exist waits for them and says so.
func TestAwaitCredentials(t *testing.T) {
	t.Parallel()
	var log journal
	dir := filepath.Join(t.TempDir(), "provider")
	config := connectplugin.CredentialsConfig{Dir: dir, CheckInterval: time.Millisecond, Logger: log.logger()}
	got := make(chan error, 1)
	go func() {
		cfg, err := connectplugin.AwaitCredentials(t.Context(), config)
		if err == nil && cfg == nil {
			err = errors.New("no configuration")
		}
		got <- err
	}()
	hosttest.Eventually(t, "it says that it waits", func() bool { return log.warnings("waiting for credentials") == 1 })
	if err := hosttest.NewAuthority(t).WriteCredentials(dir, "provider"); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("%v", err)
	}
	if n := log.warnings("waiting"); n != 1 {
		t.Errorf("said %d times", n)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	config.Dir = filepath.Join(dir, "none")
	if _, err := connectplugin.AwaitCredentials(ctx, config); !errors.Is(err, context.Canceled) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("given up: %v", err)
	}
	config.Dir = dir
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connectplugin.AwaitCredentials(t.Context(), config); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is there and wrong: %v", err)
	}
	if n := log.warnings("waiting"); n != 2 {
		t.Errorf("it says %d times that somebody has to write what is there and wrong", n-2)
	}
}

// A plugin that is started while its credentials are being copied to it finds files that are not
// whole yet: it looks again, also where nothing was missing before. What stays damaged is told.
func TestAwaitCredentialsOnTheirWay(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"ca.crt", "tls.crt", "tls.key"} {
		for name, first := range map[string]bool{"after it waited": false, "at its start": true} {
			t.Run(part+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) { copyDuring(t, part, first) })
			})
		}
	}
}

// copyDuring starts a plugin before one of its files is whole; first says that all of them are
// there so far.
func copyDuring(t *testing.T, part string, first bool) {
	t.Helper()
	dir := t.TempDir()
	if err := hosttest.NewAuthority(t).WriteCredentials(dir, "provider"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, part)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole[:len(whole)/2])
	if !first {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error, 1)
	config := connectplugin.CredentialsConfig{Dir: dir, CheckInterval: time.Second}
	await := func() {
		_, err := connectplugin.AwaitCredentials(t.Context(), config)
		got <- err
	}
	go await()
	synctest.Wait()
	if !first {
		write(whole[:len(whole)/2])
		time.Sleep(time.Second) // of the bubble
		synctest.Wait()
	}
	write(whole)
	if err := <-got; err != nil {
		t.Errorf("what was on its way: %v", err)
	}
	write(whole[:len(whole)/2])
	before := time.Now()
	go await()
	if err := <-got; err == nil || errors.Is(err, fs.ErrNotExist) || time.Since(before) != time.Second {
		t.Errorf("what stays damaged: %v after %v", err, time.Since(before))
	}
}

// whims are what a source of certificates does beside giving the right one.
type whims struct {
	now   atomic.Value // of which it has one
	other map[string]func() (*tls.Certificate, error)
}

// newWhims returns those of a source whose certificates others are, that of somebody else and one that is over.
func newWhims(somebody, over *tls.Certificate) *whims {
	gives := func(c *tls.Certificate, err error) func() (*tls.Certificate, error) {
		return func() (*tls.Certificate, error) { return c, err }
	}
	w := &whims{other: map[string]func() (*tls.Certificate, error){
		"error": gives(nil, errors.New("the manager is away")), "nil": gives(nil, nil), "empty": gives(&tls.Certificate{}, nil),
		"other": gives(somebody, nil), "over": gives(over, nil), "panic": func() (*tls.Certificate, error) { panic("the manager") },
	}}
	w.be("")
	return w
}

func (w *whims) be(what string) { w.now.Store(what) }

func (w *whims) or(good func() (*tls.Certificate, error)) (*tls.Certificate, error) {
	if whim := w.other[w.now.Load().(string)]; whim != nil {
		return whim()
	}
	return good()
}

// of is the TLS of a host that has its certificates of an authority, as far as its source has no whim.
func (w *whims) of(t *testing.T, authority *connectplugin.Authority) *tls.Config {
	t.Helper()
	own, err := authority.HostTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	good := own.GetCertificate
	own.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return w.or(func() (*tls.Certificate, error) { return good(h) })
	}
	return own
}

// over returns a certificate of an authority that has ended.
func over(t *testing.T, authority *hosttest.CA, edits ...func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	return authority.Certify(t, append(edits, hosttest.Loopback, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	})...)
}

// follows counts what a watch yields, and keeps the error with which it ends.
func follows(t *testing.T, c *connectplugin.Client) (ended func() error) {
	t.Helper()
	var end atomic.Value
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, err := range c.WatchService(ctx, echoType) {
			if err != nil && ctx.Err() == nil {
				end.Store(err)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() error { err, _ := end.Load().(error); return err }
}

// A host whose source of certificates fails for a while is out of reach, and says why; nobody is told that it
// refuses them, and all is back when the source is.
func TestAudit_USE34_TheHostHasNoCertificateForAWhile(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	for whim, says := range map[string]struct{ host, client string }{
		"error": {"its TLS.GetCertificate failed", "cannot finish TLS: something failed there"},
		"nil":   {"no certificate for the name", "cannot finish TLS: it has no certificate"},
		"empty": {"no certificate for the name", "cannot finish TLS: it has no certificate"},
		"panic": {`level=ERROR msg="TLS.GetCertificate panicked" error="the manager" stack=`, "cannot finish TLS: something failed there"},
		"other": {}, "over": {},
	} {
		t.Run(whim, func(t *testing.T) {
			t.Parallel()
			var hostLog, clientLog journal
			var w *whims
			host := start(t, func(c *connectplugin.ServeConfig) {
				elsewhere, err := c.Authority.HostTLS("elsewhere.example")
				if err != nil {
					t.Fatal(err)
				}
				somebody, err := elsewhere.GetCertificate(&tls.ClientHelloInfo{})
				if err != nil {
					t.Fatal(err)
				}
				w = newWhims(somebody, over(t, ca))
				c.TLS, c.Logger = w.of(t, c.Authority), hostLog.logger()
			})
			provide(t, host)
			c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
				c.Metadata.Requires, c.Logger = hosttest.Requires(echoType), clientLog.logger()
			})
			conn, ended := service(t, c), follows(t, c)
			w.be(whim)
			host.Cut()
			hosttest.Eventually(t, "nobody is reached", func() bool {
				_ = once(t.Context(), conn)
				passing := whim == "error" || whim == "panic"
				return !passing && clientLog.has("no trust between") || passing && clientLog.has("the host cannot finish TLS for now")
			})
			for range 3 {
				hosttest.WantCode(t, whim, connect.CodeOf(once(t.Context(), conn)), connect.CodeUnavailable)
			}
			hosttest.Eventually(t, "the host says why", func() bool { return hostLog.has(says.host) && clientLog.has(says.client) })
			w.be("")
			hosttest.Eventually(t, "it is back", func() bool { return once(t.Context(), conn) == nil })
			if err := ended(); err != nil || clientLog.has("took a service away") || hostLog.has("refuses the peer's certificate") {
				t.Errorf("the watch ended: %v; the client: %s; the host: %s", err, clientLog.buf.String(), hostLog.buf.String())
			}
		})
	}
}

// What fails or panics when a host or a plugin starts ends no process, and is told of as what it is.
func TestAudit_USE34_ASourceThatFailsAtTheStart(t *testing.T) {
	t.Parallel()
	for whim, says := range map[string]string{"error": "the manager is away", "panic": "TLS.GetCertificate panicked: the manager"} {
		t.Run(whim, func(t *testing.T) {
			t.Parallel()
			w := newWhims(nil, nil)
			w.be(whim)
			own := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return w.or(nil) }}
			var log journal
			starting, err := connectplugin.NewHost(&connectplugin.ServeConfig{
				Authority: hosttest.NewAuthority(t), TLS: own, Policy: policy(), Logger: log.logger(),
			})
			if err == nil {
				err = starting.Shutdown(t.Context())
			}
			if err != nil || log.warnings("are not known: TLS.GetCertificate failed ("+says) != 1 {
				t.Errorf("the host: %v; %s", err, log.buf.String())
			}
			host := start(t, nil)
			cfg := &connectplugin.PluginServerConfig{Client: host.ClientConfig(t, "provider"), Services: echoServices(), TLS: own}
			if err := connectplugin.ServePlugin(t.Context(), cfg); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), says) {
				t.Errorf("a plugin that serves with it: %v", err)
			}
			client := host.ClientConfig(t, "provider")
			if client.TLS = host.Authority.ClientTLS(); whim == "panic" {
				client.TLS.VerifyConnection = func(tls.ConnectionState) error { panic("the manager") }
			}
			client.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return w.or(nil) }
			_, err = hosttest.EnrolOnce(t.Context(), client)
			if err == nil || whim == "error" && !strings.Contains(err.Error(), says) || whim == "panic" && !strings.Contains(err.Error(), "panicked: the manager") {
				t.Errorf("a plugin that calls with it: %v", err)
			}
		})
	}
}

// A plugin that starts in such a moment waits, and says why.
func TestAudit_USE34_APluginStartsWhileTheHostHasNoCertificate(t *testing.T) {
	t.Parallel()
	w := newWhims(nil, nil)
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.TLS = w.of(t, c.Authority)
	})
	w.be("error")
	var log journal
	connected := make(chan string, 1)
	cfg := &connectplugin.PluginServerConfig{
		Client: host.ClientConfig(t, "provider"), Services: echoServices(),
		OnConnected: func(_ context.Context, c *connectplugin.Client) error { connected <- c.RuntimeID(); return nil },
	}
	var err error
	if cfg.Client.TLS, err = host.Authority.PluginTLS("provider"); err != nil {
		t.Fatal(err)
	}
	cfg.Client.Logger = log.logger()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- connectplugin.ServePlugin(ctx, cfg) }()
	hosttest.Eventually(t, "the plugin says why it waits, or ends", func() bool {
		return log.has("cannot finish TLS") || len(ended) > 0
	})
	w.be("")
	select {
	case <-connected:
		cancel()
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	}
	if err := hosttest.Arrival(t, ended); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// Where a source of certificates for clients stands in for that of the host's calls and has none, calls of
// plugins fail, and not the host.
func TestAudit_USE34_TheHostHasNoneToCallPluginsWith(t *testing.T) {
	t.Parallel()
	w := newWhims(nil, nil)
	host := start(t, func(c *connectplugin.ServeConfig) {
		c.TLS = w.of(t, c.Authority)
		c.TLS.GetClientCertificate = nil
	})
	provide(t, host)
	conn := service(t, caller(t, host))
	w.be("nil")
	hosttest.WantCode(t, "without a certificate", connect.CodeOf(once(t.Context(), conn)), connect.CodeUnavailable)
	w.be("")
	hosttest.Eventually(t, "it is back", func() bool { return once(t.Context(), conn) == nil })
}

// A plugin that shows the wrong certificate for a while, or none, is back when it has the right one again,
// though the connection on which it was refused stands.
func TestAudit_USE34_AClientHasTheWrongCertificateForAWhile(t *testing.T) {
	t.Parallel()
	for whim, want := range map[string]connect.Code{
		"error": connect.CodeUnavailable, "nil": connect.CodeUnavailable, "over": connect.CodeUnavailable,
		"empty": connect.CodeUnauthenticated, "other": connect.CodeUnauthenticated,
	} {
		t.Run(whim, func(t *testing.T) {
			t.Parallel()
			host := start(t, func(c *connectplugin.ServeConfig) {
				c.Policy.Plugins["api"] = connectplugin.PluginPolicy{Requires: []string{echoType}}
			})
			provide(t, host)
			own, err := host.Authority.PluginTLS("api")
			somebodys, err2 := host.Authority.PluginTLS("somebody")
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			somebody, err := somebodys.GetClientCertificate(&tls.CertificateRequestInfo{})
			if err != nil {
				t.Fatal(err)
			}
			w, good := newWhims(somebody, over(t, hosttest.NewCA(t))), own.GetClientCertificate
			own.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return w.or(func() (*tls.Certificate, error) { return good(r) })
			}
			var log journal
			c := host.Enrol(t, "api", func(c *connectplugin.ClientConfig) {
				c.TLS, c.Secret, c.Metadata.Requires, c.Logger = own, nil, hosttest.Requires(echoType), log.logger()
			})
			conn := service(t, c)
			ended := follows(t, c)
			w.be(whim)
			host.Cut()
			hosttest.Eventually(t, "it is refused", func() bool { return connect.CodeOf(once(t.Context(), conn)) == want })
			for range 3 {
				hosttest.WantCode(t, whim, connect.CodeOf(once(t.Context(), conn)), want)
			}
			w.be("")
			hosttest.Eventually(t, "it is back", func() bool {
				again, err := c.Service(t.Context(), echoType, "")
				if err != nil {
					return false
				}
				defer again.Close()
				return once(t.Context(), again) == nil
			})
			if err := ended(); want == connect.CodeUnavailable && (err != nil || log.has("took a service away")) {
				t.Errorf("its watch ended: %v; it says %s", err, log.buf.String())
			}
		})
	}
}

// A host whose source of certificates needs a name calls plugins with the certificate of one of its own.
func TestAudit_USE29_ASourceThatNeedsANameHasOneForPlugins(t *testing.T) {
	t.Parallel()
	host := start(t, func(c *connectplugin.ServeConfig) {
		own, err := c.Authority.HostTLS("localhost")
		if err != nil {
			t.Fatal(err)
		}
		good := own.GetCertificate
		own.GetClientCertificate = nil
		own.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName != "localhost" {
				return nil, errors.New("missing server name")
			}
			return good(h)
		}
		c.TLS, c.Hosts = own, []string{"127.0.0.1", "elsewhere.example", "localhost"}
	})
	host.URL = strings.Replace(host.URL, "127.0.0.1", "localhost", 1)
	provide(t, host)
	if err := once(t.Context(), service(t, caller(t, host))); err != nil {
		t.Errorf("%v", err)
	}
}
