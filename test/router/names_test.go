package router_test

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/dns/dnsmessage"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// nameServer answers from a table. The addresses of a name are those of its next
// entry at each look-up; the last one stays.
type nameServer struct {
	addr string

	mu    sync.Mutex
	names map[string][][]string
}

// startNames makes every look-up of this process one at a name server of the
// test's. It is for child processes.
func startNames(t *testing.T, names map[string][][]string) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	s := &nameServer{addr: conn.LocalAddr().String(), names: names}
	go s.serve(conn)
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.addr)
	}}
	return s
}

func (s *nameServer) serve(conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(buf[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		if out, err := s.answer(query).Pack(); err == nil {
			_, _ = conn.WriteTo(out, from)
		}
	}
}

func (s *nameServer) answer(query dnsmessage.Message) *dnsmessage.Message {
	q := query.Questions[0]
	out := &dnsmessage.Message{
		Header:    dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: query.Questions,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimSuffix(q.Name.String(), ".")
	turns, ok := s.names[name]
	if !ok {
		out.RCode = dnsmessage.RCodeNameError
		return out
	}
	if q.Type != dnsmessage.TypeA { // one of the two questions of a look-up
		return out
	}
	for _, a := range turns[0] {
		out.Answers = append(out.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
		})
	}
	if len(turns) > 1 {
		s.names[name] = turns[1:]
	}
	return out
}

// The proxies that the environment names see nothing of what goes between
// plugins and hosts, in either direction.
func TestAudit_H39_ProxyEnvironmentAppliesToNoHop(t *testing.T) {
	if !hosttest.InChild(t, "NO_PROXY=", "no_proxy=") {
		return
	}
	proxy := echo.NewTrap(t, "127.0.0.1", nil)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		if err := os.Setenv(name, "http://"+proxy.Addr); err != nil { //nolint:usetesting // the child runs this test alone, in parallel mode
			t.Fatal(err)
		}
	}
	startNames(t, map[string][][]string{"host.test": {{"127.0.0.1"}}, "plugin.test": {{"127.0.0.1"}}})
	rig := newNamedRig(t, "plugin.test")
	conn, err := rig.Caller.Service(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	capability, err := rig.Caller.Capability(t.Context(), echo.Type, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range hosttest.Protocols {
		for kind, call := range echo.Kinds {
			echo.Want(t, kind, call(t.Context(), conn, opts, nil))
			echo.Want(t, kind, call(t.Context(), capability, opts, nil))
		}
	}
	if n := proxy.Accepted.Load(); n != 0 {
		t.Errorf("the proxy of the environment was used %d times", n)
	}
	// What goes elsewhere is not ours to change: it uses the proxy.
	if resp, err := http.Get("http://host.test/"); err == nil {
		_ = resp.Body.Close()
	}
	if proxy.Accepted.Load() == 0 {
		t.Error("the environment has no effect on anything; the test proves nothing")
	}
}

// newNamedRig is an Rig in which everybody is reached by name.
func newNamedRig(t *testing.T, pluginName string) *echo.Rig {
	t.Helper()
	l := hosttest.Listen(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	rig := &echo.Rig{Host: hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Hosts = echo.Policy(), []string{"host.test"}
		rules := c.Policy.Plugins["provider"]
		rules.Endpoint = "https://" + pluginName + ":" + port
		c.Policy.Plugins["provider"] = rules
		c.CapabilityBroker = connectplugin.NewCapabilityBroker("")
		c.CapabilityBroker.RegisterCapability(hosttest.NewCapability(echo.Service{}.Handler(), echo.Type, "1.0.0"))
	})}
	_, port, _ = net.SplitHostPort(rig.Addr())
	rig.URL = "https://host.test:" + port
	rig.Provider = rig.Provide(t, "provider", echo.Service{}.Handler(), func(c *connectplugin.PluginServerConfig) { c.Listener = l })
	rig.Caller = rig.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	return rig
}

// A name is looked up once and leads to the address that it had then; a name that
// leads to a forbidden address, or to another than the plugin's own, to none.
func TestAudit_PROTO52_NamesThatResolveElsewhere(t *testing.T) {
	if !hosttest.InChild(t) {
		return
	}
	const own, other, metadata = "127.0.0.1", "127.0.0.2", "169.254.169.254"
	startNames(t, map[string][][]string{
		"host.test":        {{own}},
		"own.test":         {{own}},
		"metadata.test":    {{metadata}},
		"elsewhere.test":   {{other}},
		"unspecified.test": {{"0.0.0.0"}},
		"mixed.test":       {{own, metadata}},
		"rebound.test":     {{own}, {other}},
		"rebound-2.test":   {{own}, {metadata}},
	})
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy = echo.Policy() })
	providerTLS, err := host.Authority.PluginTLS("provider")
	if err != nil {
		t.Fatal(err)
	}
	server, elsewhere := echo.NewTrap(t, own, providerTLS), echo.NewTrap(t, other, providerTLS)
	caller := host.Enrol(t, "caller", hosttest.Requiring(echo.Type))
	for name, registered := range map[string]bool{
		"own.test": true, "metadata.test": false, "elsewhere.test": false, "unspecified.test": false, "unknown.test": false,
		"mixed.test": true, "rebound.test": true, "rebound-2.test": true, // pinned to the plugin's own address
	} {
		provider := echo.EnrolProvider(t, host, "provider")
		port := server.Port()
		if !registered {
			port = elsewhere.Port()
		}
		err := echo.Register(t, provider, map[string]string{"base_url": "https://" + name + port})
		if registered && err != nil || !registered && connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("%s: register: %v", name, err)
		}
		to := echo.At(host.URL+"/services/echo/"+provider.RuntimeID(), caller.HTTPClient())
		for range 2 {
			if out := echo.CallUnary(t.Context(), to, nil, nil); (out.Err == nil) != registered {
				t.Errorf("%s: call: %v", name, out.Err)
			}
		}
	}
	if n := elsewhere.Accepted.Load(); n != 0 {
		t.Errorf("the host connected %d times to another address", n)
	}
}

// The same holds for names that policy approves: they are looked up at each dial.
func TestAudit_PROTO52_NamesOfPolicyThatResolveElsewhere(t *testing.T) {
	if !hosttest.InChild(t) {
		return
	}
	startNames(t, map[string][][]string{
		"host.test": {{"127.0.0.1"}}, "own.test": {{"127.0.0.1"}}, "metadata.test": {{"169.254.169.254"}},
		"unspecified.test": {{"0.0.0.0"}}, "mixed.test": {{"127.0.0.1", "169.254.169.254"}},
		"rebound.test": {{"127.0.0.1"}, {"127.0.0.2"}}, // after the first look-up
	})
	for name, reachable := range map[string]bool{"own.test": true, "rebound.test": true, "metadata.test": false, "mixed.test": false, "unspecified.test": false, "unknown.test": false} {
		rig := newNamedRig(t, name)
		for _, opts := range hosttest.Protocols {
			for kind, call := range echo.Kinds {
				out := call(t.Context(), rig.ToProvider(), opts, nil)
				if reachable {
					echo.Want(t, kind, out)
				} else if connect.CodeOf(out.Err) != connect.CodeUnavailable {
					t.Errorf("%s, %s: %v %v, want unavailable", name, kind, out.Messages, out.Err)
				}
			}
		}
	}
}
