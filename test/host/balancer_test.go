package host_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// proxyListener reads the header of the PROXY protocol, version 1, as a listener of the
// user's does. It reads it with the first word of the connection, not in Accept.
type proxyListener struct{ net.Listener }

func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &proxied{Conn: c, in: bufio.NewReader(c)}, nil
}

type proxied struct {
	net.Conn

	once sync.Once
	in   *bufio.Reader
	from net.Addr
}

func (c *proxied) Read(p []byte) (int, error) {
	c.header()
	return c.in.Read(p)
}

func (c *proxied) RemoteAddr() net.Addr {
	c.header()
	if c.from == nil {
		return c.Conn.RemoteAddr()
	}
	return c.from
}

func (c *proxied) header() {
	c.once.Do(func() {
		line, _ := c.in.ReadString('\n')
		fields := strings.Fields(line)
		if len(fields) == 6 && fields[0] == "PROXY" {
			if at, err := netip.ParseAddrPort(net.JoinHostPort(fields[2], fields[4])); err == nil {
				c.from = net.TCPAddrFromAddrPort(at)
			}
		}
	})
}

// balance passes TCP on to an address, behind what is put before it.
func balance(t *testing.T, to, before string) (addr string) {
	t.Helper()
	l := hosttest.Listen(t)
	var pipes sync.WaitGroup
	pipes.Go(func() {
		for {
			front, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", to)
			if err != nil {
				_ = front.Close()
				continue
			}
			_, _ = io.WriteString(back, before)
			for _, way := range [][2]net.Conn{{front, back}, {back, front}} {
				pipes.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
					_ = way[1].Close()
				})
			}
		}
	})
	t.Cleanup(func() { _ = l.Close(); pipes.Wait() })
	return l.Addr().String()
}

// Behind a listener that reads the PROXY protocol everybody has an address of their own: in
// the audit, and for the budgets that strangers have.
func TestAudit_USE47_ProxyProtocolThroughAListenerOfTheUsers(t *testing.T) {
	t.Parallel()
	audit, authority := make(chan connectplugin.AuditEvent, 1000), hosttest.NewAuthority(t)
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Policy: hosttest.Unproven("logger"), Logger: hosttest.Logger(t),
		Audit:  func(e connectplugin.AuditEvent) { audit <- e },
		Limits: connectplugin.Limits{HandshakesPerSecond: 1e-6, HandshakeBurst: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	l := proxyListener{hosttest.Listen(t)}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	connectFrom := func(address string) error {
		header := "PROXY TCP4 " + address + " 192.0.2.200 4711 8443\r\n"
		if strings.Contains(address, ":") {
			header = "PROXY TCP6 " + address + " 2001:db8::200 4711 8443\r\n"
		}
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{
			HostURL: "https://" + balance(t, l.Addr().String(), header), SelfID: "logger",
			TLS: authority.ClientTLS(), Logger: hosttest.Logger(t), Timeout: hosttest.Wait,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.Connect(t.Context())
	}
	for range 8 { // whose header never comes: they hold nobody else up
		silent, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = silent.Close() })
	}
	refused := 0
	for range 8 { // more than one address may do
		if connectFrom("192.0.2.1") != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the budget of one address has no end")
	}
	for _, address := range []string{"192.0.2.2", "2001:db8::2"} {
		if err := connectFrom(address); err != nil {
			t.Errorf("from %s: %v", address, err)
		}
	}
	issued := map[string]int{}
	for len(audit) > 0 {
		if e := <-audit; e.Kind == connectplugin.AuditIssued {
			issued[e.Peer]++
		}
	}
	if issued["192.0.2.1"] == 0 || issued["192.0.2.2"] != 1 || issued["2001:db8::2"] != 1 || issued["127.0.0.1"] != 0 {
		t.Errorf("identities by address: %v", issued)
	}
}

// What begins with no TLS is named in the log, once for many of them; a PROXY header by its
// name. Who only connects is not worth a word, and the honest beside them is served.
func TestAudit_USE47_WhatIsNoTLSIsNamed(t *testing.T) {
	t.Parallel()
	const proxyBinary = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x00\x20\xfb"
	for name, c := range map[string]struct {
		plaintext   bool
		says, wants string
	}{
		"PROXY 1":              {false, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY header (version 1)"},
		"PROXY 2":              {false, proxyBinary, "PROXY header (version 2)"},
		"PROXY 1 before plain": {true, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "PROXY header (version 1)"},
		"PROXY 2 before plain": {true, proxyBinary, "PROXY header (version 2)"},
		"HTTP/2":               {false, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 in plaintext"},
		"HTTP/1":               {false, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1 in plaintext"},
		"SSH":                  {false, "SSH-2.0-x\r\n", "neither TLS nor HTTP"},
		"TLS to plain":         {true, "\x16\x03\x01\x00\x05hello", "speaks TLS"},
		"nothing":              {false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log hosttest.Buffer
			host := hosttest.Start(t, func(s *connectplugin.ServeConfig) {
				s.Policy, s.Logger = hosttest.LoggerPolicy(), slog.New(slog.NewTextHandler(&log, nil))
				if s.AllowInsecure = c.plaintext; c.plaintext {
					s.Authority = nil
				}
			})
			for range 20 {
				conn, err := net.Dial("tcp", host.Addr())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(conn, c.says)
				if tcp, ok := conn.(*net.TCPConn); ok {
					_ = tcp.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, conn) // until the host has seen it
				_ = conn.Close()
			}
			warned := strings.Count(log.String(), "TLS failed")
			if c.wants == "" && warned > 0 || c.wants != "" && (warned != 1 || !strings.Contains(log.String(), c.wants)) {
				t.Errorf("%d warnings, want %q: %s", warned, c.wants, log.String())
			}
			if !c.plaintext {
				host.Enrol(t, "logger", nil)
			}
		})
	}
}

// terminate is a balancer in HTTP mode: it ends TLS with a certificate that the client
// accepts, and speaks TLS to the host itself.
func terminate(t *testing.T, host *hosttest.Host) (front string) {
	t.Helper()
	served, err := host.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	served.NextProtos = []string{"h2"}
	target, err := url.Parse(host.URL)
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: host.StrangerTLS(), Protocols: &protocols}
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host },
	}
	server := &http.Server{Handler: proxy, TLSConfig: served, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	server.Protocols = &protocols
	l := hosttest.Listen(t)
	go func() { _ = server.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = server.Close(); transport.CloseIdleConnections() })
	return "https://" + l.Addr().String()
}

// A proof that is bound to the connection to a balancer is none at the host: both sides say
// what may be in between. One that is bound to nothing passes, unless the host demands it.
func TestAudit_USE47_AProofThatIsBoundElsewhere(t *testing.T) {
	t.Parallel()
	for _, demanded := range []bool{false, true} {
		var log, clientLog hosttest.Buffer
		host := hosttest.Start(t, func(s *connectplugin.ServeConfig) {
			s.Policy, s.Logger = hosttest.LoggerPolicy(), slog.New(slog.NewTextHandler(&log, nil))
			s.Audit, s.HandshakeAuth.RequireChannelBinding = nil, demanded
		})
		front := terminate(t, host)
		enrol := func(edit func(*connectplugin.ClientConfig)) error {
			cfg := host.ClientConfig(t, "logger")
			cfg.HostURL, cfg.Logger = front, slog.New(slog.NewTextHandler(&clientLog, nil))
			edit(&cfg)
			c, err := connectplugin.NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			return c.Connect(t.Context())
		}
		err := enrol(func(*connectplugin.ClientConfig) {})
		if !errors.Is(err, connectplugin.ErrHandshakeRefused) || !strings.Contains(err.Error(), "bound to this TLS connection") {
			t.Errorf("the client says: %v", err)
		}
		if !strings.Contains(log.String(), "another TLS connection") {
			t.Errorf("the host says: %s", log.String())
		}
		err = enrol(func(c *connectplugin.ClientConfig) {
			c.HTTPClient, c.TLS = hosttest.HTTPClient(t, host.StrangerTLS()), nil
		})
		if (err == nil) == demanded {
			t.Errorf("unbound, binding demanded %t: %v", demanded, err)
		}
		if err := enrol(func(c *connectplugin.ClientConfig) { c.HostURL = host.URL }); err != nil {
			t.Errorf("without the balancer: %v", err)
		}
	}
}

// A client whose connection ends in the middle of TLS hears of what may stand in between.
func TestAudit_USE47_AClientWhoseTLSIsCutOff(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	cfg := host.ClientConfig(t, "logger")
	cfg.HostURL = "https://" + balance(t, host.Addr(), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "PROXY header") {
		t.Errorf("Connect: %v", err)
	}
}

// Instances that share an endpoint replace each other, since nobody could say which of them
// answers there; the host warns of it, and not of a plugin that was started again.
func TestAudit_USE47_InstancesThatShareAnEndpoint(t *testing.T) {
	t.Parallel()
	for lives, want := range map[int]int{2: 0, 12: 1} {
		var log hosttest.Buffer
		host := hosttest.Start(t, func(s *connectplugin.ServeConfig) {
			s.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			s.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
				"logger": hosttest.Allow(func(p *connectplugin.PluginPolicy) {
					p.Provides, p.Endpoint, p.AllowOwnAddress = []string{"logger"}, "https://127.0.0.1:1", false
				}),
			}}
		})
		for range lives {
			c := host.Enrol(t, "logger", hosttest.Providing("logger"))
			_, err := c.RegistryClient().RegisterService(t.Context(), connect.NewRequest(&connectpluginv1.RegisterServiceRequest{
				ServiceType: "logger", Version: "1.0.0", EndpointPath: "/l.v1.L/",
			}))
			if err != nil {
				t.Fatal(err)
			}
		}
		if n := len(host.Registry().GetAllProviders("logger")); n != 1 {
			t.Errorf("%d providers at one endpoint", n)
		}
		if got := strings.Count(log.String(), "an endpoint of its own"); got != want {
			t.Errorf("%d lives: %d warnings, want %d: %s", lives, got, want, log.String())
		}
	}
}

// A provider that will never see its host's certificate, and was not told whom to take for
// it, says so when it starts.
func TestAudit_USE47_AProviderThatCannotTellItsHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	for name, c := range map[string]struct {
		foreign  bool
		identity string
		warned   bool
	}{
		"HTTPClient alone":             {true, "", true},
		"HTTPClient and HostIdentity":  {true, host.Authority.HostIdentity(), false},
		"own transport, a SPIFFE host": {false, "", false},
	} {
		var log hosttest.Buffer
		p := host.StartPlugin(t, "logger", func(s *connectplugin.PluginServerConfig) {
			s.Client.Logger, s.HostIdentity = slog.New(slog.NewTextHandler(&log, nil)), c.identity
			s.Services = []connectplugin.PluginService{{Type: "logger", Version: "1.0.0", Path: "/l.v1.L/", Handler: http.NotFoundHandler()}}
			if c.foreign {
				s.TLS = s.Client.TLS
				s.Client.HTTPClient, s.Client.TLS = hosttest.HTTPClient(t, host.StrangerTLS()), nil
			}
		})
		p.Stop(t)
		if warned := strings.Contains(log.String(), "cannot recognise its host"); warned != c.warned {
			t.Errorf("%s: warned %t: %s", name, warned, log.String())
		}
	}
}
