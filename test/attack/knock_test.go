package attack_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// knockers are strangers who connect to a plugin from an address of their own.
type knockers struct {
	t     *testing.T
	from  net.Addr
	to    string
	open  atomic.Int32
	begun int
}

func newKnockers(t *testing.T, c *company, from string) *knockers {
	t.Helper()
	return &knockers{t: t, from: &net.TCPAddr{IP: net.ParseIP(from)}, to: strings.TrimPrefix(c.addr, "https://")}
}

// knock connects once and sends what says is the beginning; the connection stays open until
// the plugin ends it, which is counted.
func (k *knockers) knock(says string) {
	k.t.Helper()
	conn, err := (&net.Dialer{LocalAddr: k.from}).DialContext(k.t.Context(), "tcp", k.to)
	if err != nil {
		k.t.Fatal(err)
	}
	k.begun++
	k.open.Add(1)
	gone := make(chan struct{})
	k.t.Cleanup(func() {
		_ = conn.Close()
		<-gone
	})
	_, _ = conn.Write([]byte(says))
	go func() {
		defer close(gone)
		for buf := make([]byte, 64); ; {
			if _, err := conn.Read(buf); err != nil {
				k.open.Add(-1)
				return
			}
		}
	}()
}

// wantOpen waits until no more than so many are open, and checks that there are as many.
func (k *knockers) wantOpen(n int32) {
	k.t.Helper()
	hosttest.Eventually(k.t, "no more are open than the plugin takes", func() bool { return k.open.Load() <= n })
	if open := k.open.Load(); open != n {
		k.t.Errorf("%d of %d connections are open, want %d", open, k.begun, n)
	}
}

// helloBegins is the beginning of a TLS handshake.
const helloBegins = "\x16\x03\x01"

// Strangers who knock at a plugin take only so much of it, of one address and in all; its host
// goes on calling it and gets in anew, from their address, too.
func TestAudit_ATK11_StrangersTakeNoRoomAtAPlugin(t *testing.T) {
	t.Parallel()
	const each, most = 4, 12
	c := startCompany(t, hosttest.URI(hostID), nil, func(_ *company, p *connectplugin.PluginServerConfig) {
		p.Limits = connectplugin.PluginLimits{MaxConnectionsPerPeer: each, MaxConnections: most, ReadHeaderTimeout: 2 * hosttest.Wait}
	})
	wantServed(t, "before", c.call(t))
	neighbours := newKnockers(t, c, "127.0.0.1")
	for i := range 4 * each {
		neighbours.knock([]string{"", helloBegins}[i%2])
	}
	neighbours.wantOpen(each)
	wantServed(t, "beside them", c.call(t))
	c.wantRoomForTheHost(t, "beside them")
	for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"} {
		others := newKnockers(t, c, from)
		for range each {
			others.knock(helloBegins)
		}
	}
	wantServed(t, "beside all of them", c.call(t))
	c.wantRoomForTheHost(t, "beside all of them")
}

// wantRoomForTheHost checks that the host gets in over a connection that it has not yet.
func (c *company) wantRoomForTheHost(t *testing.T, when string) {
	t.Helper()
	again := hosttest.HTTPClient(t, c.ca.TLS(c.cert))
	hosttest.Eventually(t, "the host gets in anew, "+when, func() bool {
		say := connect.NewClient[text, text](again, c.addr+sayProc)
		_, err := say.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
		return err == nil
	})
	wantServed(t, "anew, "+when, callEcho(t.Context(), again, c.addr))
}

// Nor do those who come fast, or who take their time with TLS.
func TestAudit_ATK11_StrangersTakeNoTimeOfAPlugin(t *testing.T) {
	t.Parallel()
	const burst = 5
	c := startCompany(t, hosttest.URI(hostID), nil, func(_ *company, p *connectplugin.PluginServerConfig) {
		p.Limits = connectplugin.PluginLimits{ConnectionsPerSecond: 1e-6, ConnectionBurst: burst, ReadHeaderTimeout: hosttest.Wait}
	})
	fast := newKnockers(t, c, "127.0.0.2")
	for range 4 * burst {
		fast.knock(helloBegins)
	}
	fast.wantOpen(burst)
	wantServed(t, "beside the fast", c.call(t))

	c = startCompany(t, hosttest.URI(hostID), nil, func(_ *company, p *connectplugin.PluginServerConfig) {
		p.Limits.ReadHeaderTimeout = time.Second
	})
	slow := newKnockers(t, c, "127.0.0.2")
	slow.knock(helloBegins)
	slow.knock("")
	wantServed(t, "beside the slow", c.call(t))
	slow.wantOpen(0)
}

// In all a plugin has so many connections, its host's among them, which nobody's take the place of.
func TestAudit_ATK11_APluginHasSoManyConnections(t *testing.T) {
	t.Parallel()
	const most = 3
	ca, listener := hosttest.NewCA(t), hosttest.Listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- connectplugin.ServePlugin(ctx, &connectplugin.PluginServerConfig{
			Client: connectplugin.ClientConfig{
				SelfID: "storage", Logger: hosttest.Logger(t), TLS: ca.TLS(ca.Certify(t, hosttest.DNS("storage.example"), hosttest.Loopback)),
			},
			HostIdentity: hostID, Listener: listener, Services: []connectplugin.PluginService{(&echo{}).service("echo")},
			Limits: connectplugin.PluginLimits{MaxConnections: most},
		})
	}()
	cfg := ca.TLS(ca.Certify(t, hosttest.URI(hostID)))
	cfg.ServerName = "storage.example"
	opened := make(chan *tls.Conn, 1)
	dial := func() {
		conn, err := tls.Dial("tcp", listener.Addr().String(), cfg)
		if err == nil { // the plugin knows its host once it answers in HTTP/2
			_, err = conn.Write([]byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		}
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if err != nil {
			t.Error(err)
			return
		}
		opened <- conn
	}
	var conns []*tls.Conn
	for range most {
		go dial()
		conns = append(conns, hosttest.Arrival(t, opened))
	}
	go dial()
	select {
	case <-opened:
		t.Errorf("a connection beyond %d was taken", most)
	case <-time.After(4 * hosttest.Moment):
	}
	_ = conns[0].Close()
	conns = append(conns[1:], hosttest.Arrival(t, opened))
	for _, conn := range conns {
		_ = conn.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("plugin: %v", err)
	}
}

// held is a stream of a plugin that stays open, as a host opens it.
type held struct {
	end chan error
}

// hold opens one.
func hold(t *testing.T, client connect.HTTPClient, base string, opts ...connect.ClientOption) *held {
	t.Helper()
	h := &held{end: make(chan error, 1)}
	stream, err := connectpluginv1connect.NewHealthServiceClient(client, base, opts...).
		Watch(t.Context(), connect.NewRequest(&connectpluginv1.HealthCheckRequest{}))
	if err != nil || !stream.Receive() {
		t.Fatalf("stream: %v, %v", err, stream.Err())
	}
	go func() {
		for stream.Receive() { // to the end
		}
		err := stream.Err()
		_ = stream.Close()
		h.end <- err
	}()
	return h
}

// A connection to a plugin ends soon after the certificate that its host showed there, with
// every stream on it, unless the host shows a later one on another.
func TestAudit_ATK08_AConnectionToAPluginEndsWithTheHostsCertificate(t *testing.T) {
	t.Parallel()
	for name, renewed := range map[string]bool{"ended": false, "renewed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			streamer := &hosttest.Streamer{}
			c := startCompany(t, hosttest.URI(hostID), nil, func(_ *company, p *connectplugin.PluginServerConfig) {
				p.Limits.CertificateOvertime = time.Second
				p.Services = append(p.Services, streamer.Service("streams"))
			})
			brief := brief(t, c.ca, hostID)
			host := oneConnection(t, c.ca.TLS(brief))
			var streams []*held
			for _, opts := range hosttest.Protocols {
				streams = append(streams, hold(t, host, c.addr+"/streams", opts...))
			}
			wantServed(t, "as long as it lasts", callEcho(t.Context(), host, c.addr))
			later := hosttest.HTTPClient(t, c.ca.TLS(c.ca.Certify(t, hosttest.URI(hostID))))
			if renewed {
				wantServed(t, "with a later one", callEcho(t.Context(), later, c.addr))
				hosttest.Eventually(t, "the overtime is over", func() bool { return time.Now().After(brief.Leaf.NotAfter.Add(4 * time.Second)) })
				wantServed(t, "over the first connection", callEcho(t.Context(), host, c.addr))
			}
			for _, s := range streams {
				if !renewed {
					if err := hosttest.Arrival(t, s.end); err == nil {
						t.Error("a stream ended well")
					}
				} else if len(s.end) > 0 {
					t.Errorf("a stream ended: %v", <-s.end)
				}
			}
			if early := time.Until(brief.Leaf.NotAfter); early > 0 {
				t.Errorf("the streams ended %s before the certificate", early)
			}
			wantServed(t, "anew", callEcho(t.Context(), later, c.addr))
			says := func() bool { return strings.Contains(c.log.String(), "its certificate did") }
			if !renewed { // it is said after the streams have ended
				hosttest.Eventually(t, "the log says why", says)
			} else if says() {
				t.Errorf("the log says: %s", c.log.String())
			}
		})
	}
}

// A host whose certificate renews itself shows plugins the later one by itself, and keeps the
// streams that go through it.
func TestAudit_ATK08_AnHonestHostKeepsItsStreams(t *testing.T) {
	t.Parallel()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{CertificateTTL: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority, c.Policy = authority, policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret, "api": withSecret})
		c.Limits.StreamIdleTimeout = 4 * hosttest.Wait
	})
	host.Authority = authority
	var ends atomic.Int64 // when the certificate that was seen last ends
	streamer := &hosttest.Streamer{}
	plugin := host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
		p.Limits.CertificateOvertime = 12 * time.Second // for a busy machine
		p.TLS = p.Client.TLS.Clone()
		p.TLS.VerifyConnection = noting(&ends)
		p.Services = []connectplugin.PluginService{streamer.Service("streams")}
	})
	api := host.Enrol(t, "api", hosttest.Requiring("streams"))
	var streams []*hosttest.Watching
	for _, opts := range hosttest.Protocols {
		streams = append(streams, hosttest.Streaming(t, api, host, "streams", plugin.Client.RuntimeID(), opts...))
	}
	first := ends.Load()
	hosttest.Eventually(t, "the first certificate is long over", func() bool { return time.Now().Unix() > first+14 })
	for _, s := range streams {
		if code := s.Code(0); code != 0 {
			t.Errorf("a stream ended: %v", code)
		}
	}
	if ends.Load() == first {
		t.Error("the host showed no later certificate")
	}
	if err := plugin.Client.ReportHealth(t.Context(), connectpluginv1.HealthState_HEALTH_STATE_HEALTHY, "", nil); err != nil {
		t.Errorf("the plugin's report: %v", err)
	}
}

// noting notes when the certificate of the peer ends.
func noting(ends *atomic.Int64) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) > 0 {
			ends.Store(cs.PeerCertificates[0].NotAfter.Unix())
		}
		return nil
	}
}
