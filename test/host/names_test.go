package host_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// ask asks a host, dialled at addr, for something under a name with which the client also
// begins TLS. It returns the status, or the error of the connection.
func ask(t *testing.T, ca *hosttest.CA, addr, sni, host string) (int, error) {
	t.Helper()
	cfg := ca.TLS(nil)
	cfg.ServerName = sni
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/nowhere", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := hosttest.HTTPClient(t, cfg).Do(req)
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	return resp.StatusCode, nil
}

// served is the status of what is for the host and does not exist, refused that of what is
// for another host.
const served, refused = http.StatusNotFound, http.StatusForbidden

// The names of a host are those in the certificate that it shows on the very connection,
// however that is chosen.
func TestAudit_USE29_NamesAreThoseOfTheCertificateShown(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	one, two := ca.Certify(t, hosttest.DNS("one.example", "*.wild.example")), ca.Certify(t, hosttest.DNS("two.example"))
	byName := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		switch hello.ServerName {
		case "one.example", "a.wild.example":
			return one, nil
		case "two.example":
			return two, nil
		}
		return nil, errors.New("no certificate for that name")
	}
	for name, edit := range map[string]func(*tls.Config){
		"Certificates":   func(c *tls.Config) { c.Certificates = []tls.Certificate{*one, *two} },
		"GetCertificate": func(c *tls.Config) { c.GetCertificate = byName },
		"GetCertificate beside Certificates": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{*one}
			c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if hello.ServerName == "two.example" {
					return two, nil
				}
				return nil, nil //nolint:nilnil // as crypto/tls has it
			}
		},
		"GetConfigForClient": func(c *tls.Config) {
			c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				cert, err := byName(hello)
				return ca.TLS(cert), err
			}
		},
		"GetConfigForClient that leaves it": func(c *tls.Config) {
			c.GetCertificate = byName
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, nil } //nolint:nilnil // as crypto/tls has it
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := ca.Start(t, nil, func(c *connectplugin.ServeConfig) { edit(c.TLS) })
			for _, c := range []struct {
				sni, host string
				want      int
			}{
				{"one.example", "one.example", served},
				{"one.example", "ONE.example:443", served},
				{"two.example", "two.example", served},
				{"a.wild.example", "a.wild.example", served},
				{"a.wild.example", "b.wild.example", served},
				{"one.example", "two.example", refused},
				{"two.example", "one.example", refused},
				{"two.example", "evil.example", refused},
				{"one.example", "wild.example", refused},
			} {
				if got, err := ask(t, ca, host.Addr(), c.sni, c.host); err != nil || got != c.want {
					t.Errorf("TLS for %s, request for %s: %d, %v; want %d", c.sni, c.host, got, err, c.want)
				}
			}
		})
	}
}

// A certificate that is replaced while the host runs brings its names along, and takes the
// old ones with it.
func TestAudit_USE29_RotationBringsItsNames(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	var current atomic.Pointer[tls.Certificate]
	current.Store(ca.Certify(t, hosttest.DNS("old.example", "both.example")))
	host := ca.Start(t, nil, func(c *connectplugin.ServeConfig) {
		c.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }
	})
	if got, err := ask(t, ca, host.Addr(), "old.example", "old.example"); err != nil || got != served {
		t.Fatalf("before: %d, %v", got, err)
	}
	current.Store(ca.Certify(t, hosttest.DNS("new.example", "both.example")))
	for _, c := range []struct {
		host string
		want int
	}{{"new.example", served}, {"both.example", served}, {"old.example", refused}} {
		if got, err := ask(t, ca, host.Addr(), "both.example", c.host); err != nil || got != c.want {
			t.Errorf("after, request for %s: %d, %v; want %d", c.host, got, err, c.want)
		}
	}
}

// A server of the user's own does not say which certificate it showed: the host asks its
// configuration for that of the name which the client asked for.
func TestAudit_USE29_AServerOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	var current atomic.Pointer[tls.Certificate]
	current.Store(ca.Certify(t, hosttest.DNS("old.example")))
	cfg := ca.TLS(nil)
	cfg.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "" {
			return nil, errors.New("which name?")
		}
		return current.Load(), nil
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{TLS: cfg, Logger: hosttest.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Shutdown(t.Context()) })
	l := hosttest.Listen(t)
	server := &http.Server{Handler: host.Handler(), TLSConfig: cfg}
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	for _, name := range []string{"old.example", "new.example"} {
		current.Store(ca.Certify(t, hosttest.DNS(name)))
		if got, err := ask(t, ca, l.Addr().String(), name, name); err != nil || got != served {
			t.Errorf("%s: %d, %v", name, got, err)
		}
		if got, err := ask(t, ca, l.Addr().String(), name, "evil.example"); err != nil || got != refused {
			t.Errorf("%s, request for another: %d, %v", name, got, err)
		}
	}
}

// Whoever starts a host whose names nobody can know is told so, and what to write.
func TestAudit_USE29_UnknownNamesAreWarnedOf(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	named := ca.Certify(t, hosttest.DNS("host.example"))
	for name, c := range map[string]struct {
		edit func(*connectplugin.ServeConfig)
		want string
	}{
		"named": {func(c *connectplugin.ServeConfig) { c.TLS.Certificates = []tls.Certificate{*named} }, ""},
		"by address": {func(c *connectplugin.ServeConfig) {
			c.TLS.Certificates = []tls.Certificate{*ca.Certify(t, hosttest.Loopback)}
		}, ""},
		"needs a name": {func(c *connectplugin.ServeConfig) {
			c.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("which name?") }
		}, "GetCertificate"},
		"chosen": {func(c *connectplugin.ServeConfig) {
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return ca.TLS(named), nil }
		}, "GetConfigForClient"},
		"SPIFFE id alone": {func(c *connectplugin.ServeConfig) {
			c.TLS.Certificates = []tls.Certificate{*ca.Certify(t, hosttest.URI("spiffe://test.example/host"))}
		}, "names no host"},
		"common name alone": {func(c *connectplugin.ServeConfig) {
			c.TLS.Certificates = []tls.Certificate{*ca.Certify(t, hosttest.CommonName("host.example"))}
		}, "names no host"},
		"Hosts say it": {func(c *connectplugin.ServeConfig) {
			c.Hosts = []string{"host.example"}
			c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return ca.TLS(named), nil }
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			host := ca.Start(t, nil, func(s *connectplugin.ServeConfig) {
				c.edit(s)
				s.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			})
			warned := strings.Contains(log.String(), "ServeConfig.Hosts")
			if warned != (c.want != "") || !strings.Contains(log.String(), c.want) {
				t.Errorf("logged %q, want a warning of %q", log.String(), c.want)
			}
			host.Stop(t)
		})
	}
}

// What no request can name is no name of a host: an error names the entry of Hosts, also where
// no Authority has to make a certificate of it. A zone is left out, for it means nothing to others.
func TestAudit_USE29_HostsAreNamesAndAddresses(t *testing.T) {
	t.Parallel()
	bad := []string{"", "[::1]", "[::1]:8443", "host.example:8443", "127.0.0.1:8443", "https://host.example", "*.example", "host.example/path", "a b", "host.example\n"}
	for _, name := range bad {
		for _, insecure := range []bool{false, true} {
			cfg := &connectplugin.ServeConfig{Hosts: []string{"localhost", name}, AllowInsecure: insecure}
			if !insecure {
				cfg.TLS = hosttest.NewCA(t).TLS(nil)
				cfg.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") }
			}
			if err := cfg.Validate(); !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "Hosts[1]") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Hosts, c.Policy = []string{"::ffff:127.0.0.1", "fe80::1%lo"}, hosttest.LoggerPolicy()
	})
	_, port, _ := net.SplitHostPort(host.Addr())
	for _, name := range []string{"127.0.0.1", "::ffff:127.0.0.1"} {
		host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.HostURL = "https://" + net.JoinHostPort(name, port) })
	}
}

// elsewhere is a listener that says to listen somewhere else.
type elsewhere struct {
	net.Listener

	addr net.Addr
}

func (l elsewhere) Addr() net.Addr { return l.addr }

// A host that listens beyond its machine with a certificate that an Authority made of no names is reached by nobody from
// another machine, and says so when it starts, with the field. Names, or a certificate of the operator's own, are their word.
func TestAudit_USE29_AHostThatNoOtherMachineCanNameIsWarnedOf(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	dir := filepath.Join(t.TempDir(), "authority")
	stored, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		addr   string
		edit   func(*connectplugin.ServeConfig)
		warned bool
	}{
		"every address":              {"0.0.0.0:8443", nil, true},
		"every address, IPv6":        {"[::]:8443", nil, true},
		"a stored authority":         {"[::]:8443", func(c *connectplugin.ServeConfig) { c.Authority = stored }, true},
		"an address of a network":    {"192.0.2.1:8443", nil, true},
		"this machine":               {"127.0.0.1:8443", nil, false},
		"this machine, IPv6":         {"[::1]:8443", nil, false},
		"this machine, IPv4 in IPv6": {"[::ffff:127.0.0.1]:8443", nil, false},
		"Hosts":                      {"[::]:8443", func(c *connectplugin.ServeConfig) { c.Hosts = []string{"host.example"} }, false},
		"a certificate beside the Authority": {"[::]:8443", func(c *connectplugin.ServeConfig) {
			c.TLS = ca.TLS(ca.Certify(t, hosttest.Loopback))
		}, false},
		"plaintext": {"[::]:8443", func(c *connectplugin.ServeConfig) { c.Authority, c.AllowInsecure = nil, true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, err := net.ResolveTCPAddr("tcp", c.addr)
			if err != nil {
				t.Fatal(err)
			}
			var log hosttest.Buffer
			cfg := &connectplugin.ServeConfig{Authority: hosttest.NewAuthority(t), Logger: slog.New(slog.NewTextHandler(&log, nil))}
			if c.edit != nil {
				c.edit(cfg)
			}
			host, err := connectplugin.NewHost(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- host.Serve(ctx, elsewhere{hosttest.Listen(t), addr}) }()
			hosttest.Eventually(t, "host is serving", func() bool { return strings.Contains(log.String(), "host is serving") })
			end()
			if err := <-served; err != nil {
				t.Error(err)
			}
			told := strings.Contains(log.String(), "level=WARN msg=\"no other machine can reach this host") &&
				strings.Contains(log.String(), "set ServeConfig.Hosts to all names") && strings.Contains(log.String(), "addr="+c.addr)
			if told != c.warned {
				t.Errorf("warned: %t; %s", told, log.String())
			}
		})
	}
}

// A start that waits for the source of its certificate says so in the log, and that it went on.
func TestAudit_USE34_AStartThatWaitsForItsCertificateSaysSo(t *testing.T) {
	t.Parallel()
	for takes, told := range map[time.Duration]bool{time.Second: false, 5 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			ca := hosttest.NewCA(t)
			cert := ca.Certify(t, hosttest.Loopback)
			cfg := ca.TLS(nil)
			var slow atomic.Bool
			slow.Store(true)
			cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				if slow.Load() {
					time.Sleep(takes)
				}
				return cert, nil
			}
			var log hosttest.Buffer
			started := make(chan *connectplugin.Host)
			go func() {
				host, err := connectplugin.NewHost(&connectplugin.ServeConfig{TLS: cfg, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Error(err)
				}
				started <- host
			}()
			time.Sleep(3 * time.Second)
			if says := strings.Contains(log.String(), "the start waits for TLS.GetCertificate, which has not answered yet"); says != told {
				t.Errorf("after 3 s of one that takes %v: %s", takes, log.String())
			}
			host := <-started
			if says := strings.Contains(log.String(), "TLS.GetCertificate answered; the start goes on\" wait=5s"); says != told {
				t.Errorf("at the end of one that takes %v: %s", takes, log.String())
			}
			slow.Store(false)
			if err := host.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A source of certificates that never answers does not keep a start for ever: nothing else ends it.
func TestAudit_USE34_ACertificateThatNeverComesEndsTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never, cfg := make(chan struct{}), hosttest.NewCA(t).TLS(nil)
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			<-never
			return nil, errors.New("too late")
		}
		began := time.Now()
		_, err := connectplugin.NewHost(&connectplugin.ServeConfig{TLS: cfg})
		if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "TLS: GetCertificate has not answered within 10s") {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		close(never)
	})
}

// Whoever ends a start does not wait for a source of certificates that does not answer.
func TestAudit_USE34_AStartThatWaitsForItsCertificateCanBeEnded(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(ctx context.Context, cfg *tls.Config) error{
		"Serve, by StopCh": func(ctx context.Context, cfg *tls.Config) error {
			return connectplugin.Serve(&connectplugin.ServeConfig{Addr: "127.0.0.1:0", TLS: cfg, StopCh: ctx.Done()})
		},
		"ServePlugin, by its context": func(ctx context.Context, cfg *tls.Config) error {
			return connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
				Client:   connectplugin.ClientConfig{HostURL: "https://127.0.0.1:1", SelfID: "storage", TLS: &tls.Config{RootCAs: x509.NewCertPool()}},
				TLS:      cfg,
				Services: []connectplugin.PluginService{{Type: "storage", Version: "1.0.0", Path: "/acme.v1.Storage/", Handler: http.NotFoundHandler()}},
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			never, asked, cfg := make(chan struct{}), make(chan struct{}, 1), hosttest.NewCA(t).TLS(nil)
			defer close(never)
			cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				asked <- struct{}{}
				<-never
				return nil, errors.New("too late")
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- serve(ctx, cfg) }()
			hosttest.Arrival(t, asked)
			cancel()
			if err := hosttest.Arrival(t, ended); err != nil {
				t.Error(err)
			}
		})
	}
}

// A plugin's start waits as long as a host's.
func TestAudit_USE34_ACertificateOfAPluginThatNeverComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		never, cfg := make(chan struct{}), hosttest.NewCA(t).TLS(nil)
		cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			<-never
			return nil, errors.New("too late")
		}
		err := (&connectplugin.PluginServerConfig{
			Client:   connectplugin.ClientConfig{HostURL: "https://127.0.0.1:1", SelfID: "storage", TLS: &tls.Config{RootCAs: x509.NewCertPool()}},
			TLS:      cfg,
			Services: []connectplugin.PluginService{{Type: "storage", Version: "1.0.0", Path: "/acme.v1.Storage/", Handler: http.NotFoundHandler()}},
		}).Validate()
		if !errors.Is(err, connectplugin.ErrInvalidConfig) || !strings.Contains(err.Error(), "TLS: GetCertificate has not answered within 10s") {
			t.Errorf("%v", err)
		}
		close(never)
	})
}
