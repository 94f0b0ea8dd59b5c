package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/proxy"
	"github.com/masegraye/connect-plugin-go/internal/turns"
)

func TestUnreachableProviderFailsFast(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{
		handler: readAllEcho,
		config:  func(c *proxy.Config) { c.Endpoint = endpointOf(t, "https://127.0.0.1:1") },
	})
	res, _ := g.post(t, unaryType, strings.NewReader("x"))
	if res.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", res.StatusCode)
	}
	if r := g.wantClass(t, proxy.ClassUnavailable); !r.Retryable || r.Written || r.Err == nil || r.Latency > patience/2 {
		t.Errorf("result %+v", r)
	}
}

// TestRetryElsewhere forwards a request to a dead provider and then, as the
// result permits, to another one.
func TestRetryElsewhere(t *testing.T) {
	t.Parallel()
	checkLeaks(t)
	target := newServer(t, readAllEcho)
	tlsConfig := &tls.Config{RootCAs: poolOf(target)}
	dead := newProvider(t, proxy.Config{Endpoint: endpointOf(t, "https://127.0.0.1:1"), TLS: tlsConfig})
	alive := newProvider(t, proxy.Config{Endpoint: endpointOf(t, target.URL), TLS: tlsConfig})
	host := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		call := proxy.Call{Path: r.URL.Path}
		if first := dead.Forward(w, r, call); !first.Retryable {
			t.Errorf("first: %+v", first)
		}
		if second := alive.Forward(w, r, call); second.Class != proxy.ClassOK {
			t.Errorf("second: %+v", second)
		}
	})
	client := newClient(t, host)
	for _, body := range []io.Reader{strings.NewReader("hello"), io.MultiReader(strings.NewReader("hello"))} {
		res, err := client.Post(host.URL+"/a", unaryType, body)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(got) != "hello" {
			t.Errorf("body %q", got)
		}
	}
}

func TestProviderHasToProveItself(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*proxy.Config){
		"unknown authority": func(c *proxy.Config) { c.TLS = &tls.Config{} },
		"another name":      func(c *proxy.Config) { c.TLS.ServerName = "other.example" },
		"refused by the host": func(c *proxy.Config) {
			c.TLS.VerifyConnection = func(tls.ConnectionState) error { return errors.New("another key") }
		},
		"refused address": func(c *proxy.Config) {
			c.Permit = func(netip.AddrPort) error { return errors.New("another address") }
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, rigConfig{config: change, handler: func(http.ResponseWriter, *http.Request) { t.Error("provider was called") }})
			g.post(t, unaryType, strings.NewReader("x"))
			if r := g.wantClass(t, proxy.ClassUnavailable); !r.Retryable {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// Of a provider that shows too many certificates none is verified, however good its own is.
func TestAudit_ATK03_ProviderWithTooManyCertificates(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
		one := newServer(t, nil)
		chain := one.TLS.Certificates[0]
		chain.Certificate = slices.Repeat(chain.Certificate, 11)
		many := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("provider was called") }))
		many.EnableHTTP2, many.TLS, many.Config.ErrorLog = true, &tls.Config{Certificates: []tls.Certificate{chain}}, quiet
		many.StartTLS()
		t.Cleanup(many.Close)
		c.Endpoint, c.TLS = endpointOf(t, many.URL), &tls.Config{RootCAs: poolOf(one)}
	}})
	g.post(t, unaryType, strings.NewReader("x"))
	g.wantClass(t, proxy.ClassUnavailable)
}

func TestProviderWithoutHTTP2(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: quiet}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close(); <-done })
		c.Endpoint = endpointOf(t, "http://"+ln.Addr().String())
	}})
	g.post(t, unaryType, strings.NewReader("x"))
	g.wantClass(t, proxy.ClassUnavailable)
}

func TestPlaintextWhereAllowed(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(readAllEcho), Protocols: new(http.Protocols)}
		srv.Protocols.SetUnencryptedHTTP2(true)
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.Serve(ln) }()
		t.Cleanup(func() { _ = srv.Close(); <-done })
		c.Endpoint, c.TLS = endpointOf(t, "http://"+ln.Addr().String()), nil
	}})
	if _, got := g.post(t, unaryType, strings.NewReader("hello")); string(got) != "hello" {
		t.Errorf("body %q", got)
	}
}

func TestProviderRestarts(t *testing.T) {
	t.Parallel()
	g := newRig(t, rigConfig{handler: readAllEcho})
	for range 3 {
		if _, got := g.post(t, unaryType, strings.NewReader("hello")); string(got) != "hello" {
			t.Errorf("body %q", got)
		}
		g.wantClass(t, proxy.ClassOK)
		g.target.CloseClientConnections()
		for deadline := time.Now().Add(patience); g.conns.Load() > 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
}

type resolverFunc func(ctx context.Context, network, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return f(ctx, network, host)
}

func TestAudit_PROTO52_AddressIsResolvedOnceAndPinned(t *testing.T) {
	t.Parallel()
	var lookups atomic.Int64
	dialled := make(chan string, 1)
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
		port := c.Endpoint.String()[strings.LastIndex(c.Endpoint.String(), ":"):]
		c.Endpoint = endpointOf(t, "https://example.com"+port) // a name of the test certificate
		c.Resolver = resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
			if lookups.Add(1) > 1 {
				return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		})
		dial := c.Dial
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled <- address
			return dial(ctx, network, address)
		}
	}})
	for range 3 {
		if _, got := g.post(t, unaryType, strings.NewReader("hello")); string(got) != "hello" {
			t.Errorf("body %q", got)
		}
	}
	if got := <-dialled; !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("dialled %s", got)
	}
	if n := lookups.Load(); n != 1 {
		t.Errorf("%d look-ups for one connection", n)
	}
}

func TestAudit_PROTO52_ForbiddenAddressIsNotDialled(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) {
				c.Endpoint = endpointOf(t, "https://example.com:8443")
				c.Resolver = resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
					return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr(addr)}, nil
				})
				c.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
					t.Errorf("dialled %s", address)
					return nil, errors.New("no")
				}
			}})
			g.post(t, unaryType, strings.NewReader("x"))
			if r := g.wantClass(t, proxy.ClassUnavailable); !errors.Is(r.Err, proxy.ErrAddress) {
				t.Errorf("result %+v", r)
			}
		})
	}
}

// TestAudit_H39_ProxyEnvironmentDoesNotApply is not parallel: it sets the
// environment.
func TestAudit_H39_ProxyEnvironmentDoesNotApply(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	t.Setenv("NO_PROXY", "")
	checkLeaks(t)
	target := newServer(t, readAllEcho)
	var dialled atomic.Value
	p := newProvider(t, proxy.Config{
		Endpoint: endpointOf(t, strings.Replace(target.URL, "127.0.0.1", "example.com", 1)),
		TLS:      &tls.Config{RootCAs: poolOf(target)},
		Resolver: resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialled.Store(address)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	})
	host := newServer(t, func(w http.ResponseWriter, r *http.Request) { p.Forward(w, r, proxy.Call{Path: r.URL.Path}) })
	res, err := newClient(t, host).Post(host.URL+"/a", unaryType, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if got := dialled.Load(); got != target.Listener.Addr().String() {
		t.Errorf("dialled %v", got)
	}
}

// TestMoreCallsThanTheProviderTakes lets calls wait for a free stream.
func TestMoreCallsThanTheProviderTakes(t *testing.T) {
	t.Parallel()
	const perConn, conns, calls = 2, 2, 40
	var now, most atomic.Int64
	g := newRig(t, rigConfig{handler: readAllEcho, config: func(c *proxy.Config) { c.MaxConns = conns }})
	limited := newLimitedServer(t, perConn, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		time.Sleep(time.Millisecond)
		now.Add(-1)
		readAllEcho(w, r)
	})
	p := newProvider(t, proxy.Config{
		Endpoint: endpointOf(t, limited.URL), TLS: &tls.Config{RootCAs: poolOf(limited)},
		MaxConns: conns, Dial: g.dial, DialTimeout: patience, RoomTimeout: patience,
	})
	host := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if result := p.Forward(w, r, proxy.Call{Path: r.URL.Path}); result.Class != proxy.ClassOK {
			t.Errorf("result %+v", result)
		}
	})
	client := newClient(t, host)
	var wg sync.WaitGroup
	for range calls {
		wg.Go(func() {
			res, err := client.Post(host.URL+"/a", unaryType, strings.NewReader("hello"))
			if err != nil {
				t.Error(err)
				return
			}
			got, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if !bytes.Equal(got, []byte("hello")) {
				t.Errorf("body %q", got)
			}
		})
	}
	wg.Wait()
	if most.Load() > perConn*conns || g.conns.Load() > conns {
		t.Errorf("%d calls at once over %d connections", most.Load(), g.conns.Load())
	}
}

// A TLS handshake with a provider takes the turns of the process while it computes.
func TestAudit_USE42_HandshakesWithProvidersTakeTurns(t *testing.T) {
	t.Parallel()
	process, free := turns.NewProcess(1), make(chan bool, 100)
	g := newRig(t, rigConfig{
		handler: func(http.ResponseWriter, *http.Request) {},
		config: func(cfg *proxy.Config) {
			dial := cfg.Dial
			cfg.Turns = process
			cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				c, err := dial(ctx, network, address)
				return &toldConn{Conn: c, wrote: func() { free <- isFree(process.Of(0)) }}, err
			}
		},
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.host.URL+"/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if r := <-g.results; r.Class != proxy.ClassOK {
		t.Errorf("%+v", r)
	}
	if <-free {
		t.Error("a ClientHello was made without a turn")
	}
	if !isFree(process.Of(0)) || !isFree(process.Of(1)) {
		t.Error("a turn is taken after the handshake")
	}
}

// A TLS handshake that fails at what the provider said, for which there was a turn, leaves that to others.
func TestAudit_USE42_AHandshakeThatFailsGivesItsTurnBack(t *testing.T) {
	t.Parallel()
	process := turns.NewProcess(1)
	g := newRig(t, rigConfig{
		handler: func(http.ResponseWriter, *http.Request) {},
		config: func(cfg *proxy.Config) {
			cfg.Turns, cfg.TLS = process, &tls.Config{RootCAs: x509.NewCertPool()} // in which nobody is
		},
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.host.URL+"/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if r := <-g.results; r.Class != proxy.ClassUnavailable || !strings.Contains(r.Err.Error(), "unknown authority") {
		t.Errorf("%+v", r)
	}
	if !isFree(process.Of(0)) || !isFree(process.Of(1)) {
		t.Error("a turn is taken after the handshake")
	}
}

// isFree reports whether there is a turn for whoever wants one now.
func isFree(of *turns.Turns) bool {
	ended, end := context.WithCancel(context.Background())
	end()
	free := of.Await(ended)
	if free {
		of.Give()
	}
	return free
}

// toldConn tells of each write.
type toldConn struct {
	net.Conn

	wrote func()
}

func (c *toldConn) Write(p []byte) (int, error) {
	c.wrote()
	return c.Conn.Write(p)
}
