package attack_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/wire"
)

// byHand is a plugin's one connection, over which it proves itself by hand.
type byHand struct{ *wire.Conn }

func newByHand(t *testing.T, host *hosttest.Host, cfg *tls.Config) byHand {
	t.Helper()
	conn, err := tls.Dial("tcp", host.Addr(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return byHand{wire.NewConn(t, conn, host.URL)}
}

// proof is a request that was issued so long from now.
func (p byHand) proof(t *testing.T, bound bool, from time.Duration) *connectpluginv1.HandshakeRequest {
	t.Helper()
	m := wire.FreshRequest("storage")
	m.IssuedAt = timestamppb.New(time.Now().Add(from))
	return p.Prove(t, m, bound)
}

// want sends a request and checks what comes of it, zero for an identity.
func (p byHand) want(t *testing.T, what string, m *connectpluginv1.HandshakeRequest, want connect.Code) {
	t.Helper()
	hosttest.WantCode(t, what, p.Handshake(t, m), want)
}

// aged makes a certificate valid before the clock is set.
func aged(c *x509.Certificate) { c.NotBefore = time.Now().Add(-time.Hour) }

// A host whose clock is set, back or ahead, takes the proofs that are bound to their
// connection of those whose clock was set with it and of those whose clock is right; takes
// none twice, of whatever time; and serves and keeps those who are there.
func TestAudit_USE28_AHostWhoseClockIsSet(t *testing.T) {
	if !hosttest.InChild(t) {
		return
	}
	clock := takeClock(t)
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.DNS("localhost"), hosttest.Loopback, aged), func(c *connectplugin.ServeConfig) {
		c.Policy = policyFor(map[string]func(*connectplugin.PluginPolicy){"storage": withSecret, "api": withSecret})
	})
	stranger := ca.TLS(nil)
	enrolAs := func(what, selfID string) *connectplugin.Client {
		c, err := enrol(t, connectplugin.ClientConfig{
			HostURL: host.URL, SelfID: selfID, TLS: stranger, Secret: hosttest.Secret,
			Metadata: connectplugin.PluginMetadata{Requires: hosttest.Requires("echo", "streams")},
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return c
	}
	streamer, served := &hosttest.Streamer{}, &echo{}
	provider := host.StartPlugin(t, "storage", func(p *connectplugin.PluginServerConfig) {
		p.Client.TLS = ca.TLS(ca.Certify(t, hosttest.Loopback, aged))
		p.HostIdentity = "localhost"
		p.Services = []connectplugin.PluginService{served.service("echo"), streamer.Service("streams")}
	}).Client
	api := enrolAs("before", "api")
	callAll := func(what string, c *connectplugin.Client) {
		wantServed(t, what, callEcho(t.Context(), c.HTTPClient(), host.URL+"/services/echo/"+provider.RuntimeID()))
	}
	callAll("before", api)
	var streams []*hosttest.Watching
	for _, opts := range hosttest.Protocols {
		streams = append(streams, hosttest.Streaming(t, api, host, "streams", provider.RuntimeID(), opts...),
			hosttest.Watch(t, api, host.URL, &connectpluginv1.WatchServiceRequest{ServiceType: "echo"}, opts...))
	}
	first := newByHand(t, host, stranger)
	bound, unbound := first.proof(t, true, 0), first.proof(t, false, 0)
	first.want(t, "bound, before", bound, 0)
	first.want(t, "unbound, before", unbound, 0)

	for _, ahead := range []time.Duration{-time.Hour, 30 * time.Minute, -time.Hour, 0} {
		clock.set(ahead)
		what := fmt.Sprintf("set by %s: ", ahead)
		p := newByHand(t, host, stranger)
		for who, from := range map[string]time.Duration{"with the host's": 0, "not set": -ahead} {
			m := p.proof(t, true, from)
			p.want(t, what+who, m, 0)
			p.want(t, what+who+", again", m, connect.CodeUnauthenticated)
			first.want(t, what+who+", on another connection", m, connect.CodeUnauthenticated)
		}
		for _, off := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
			p.want(t, what+"neither", p.proof(t, true, off), connect.CodeUnauthenticated)
		}
		first.want(t, what+"bound, of before", bound, connect.CodeUnauthenticated)
		first.want(t, what+"unbound, of before", unbound, connect.CodeUnauthenticated)
		callAll(what+"who was there", api)
		callAll(what+"a newcomer", enrolAs(what+"a newcomer", "api"))
	}
	for _, s := range streams {
		if code := s.Code(0); code != 0 {
			t.Errorf("a stream ended: %v", code)
		}
	}
	if n := streamer.Open(); n != len(hosttest.Protocols) {
		t.Errorf("%d streams are open", n)
	}
}

// A host whose clock was ahead for a while has certificates that begin days later, its own and
// those that it renewed for plugins: it makes others once the clock is right, and a plugin reads
// what was written again. Nobody is kept out until those begin.
func TestAudit_USE34_AHostWhoseClockWasAhead(t *testing.T) {
	if !hosttest.InChild(t) {
		return
	}
	clock := takeClock(t)
	host := hosttest.Start(t, hosttest.WithPolicy(hosttest.LoggerPolicy()))
	dirs := [2]string{t.TempDir(), t.TempDir()}
	write := func(n int) {
		if err := host.Authority.WriteCredentials(dirs[n], "api"); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	credentials, err := connectplugin.LoadCredentials(connectplugin.CredentialsConfig{Dir: dirs[0]})
	if err != nil {
		t.Fatal(err)
	}
	begin := func(what string) {
		t.Helper()
		write(1) // wakes who renews, who looks once in a minute otherwise
		hosttest.Eventually(t, what, func() bool {
			shown, err := credentials.GetClientCertificate(nil)
			return err == nil && time.Until(shown.Leaf.NotBefore).Abs() < 10*time.Minute
		})
	}
	begin("before")
	clock.set(3 * 24 * time.Hour)
	begin("ahead")
	cfg := host.ClientConfig(t, "api")
	cfg.TLS = credentials
	if _, err := hosttest.EnrolOnce(t.Context(), cfg); err != nil { // a token ends by the clock of the moment
		t.Errorf("ahead: %v", err)
	}
	clock.set(0)
	begin("right again")
	host.Enrol(t, "api", func(c *connectplugin.ClientConfig) { c.TLS = credentials })
}
