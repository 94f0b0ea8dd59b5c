package edge_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/dns/dnsmessage"

	connectplugin "github.com/masegraye/connect-plugin-go"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// nameServer answers for names in this process: what begins with "here" is loopback, and all
// others are missing.
type nameServer struct {
	mu    sync.Mutex
	asked map[string]int // for addresses of IPv4
	held  map[string]chan struct{}
}

var dns = &nameServer{asked: map[string]int{}, held: map[string]chan struct{}{}}

// hold lets nobody have an answer about a name before it is released.
func (d *nameServer) hold(name string) (release func()) {
	turn := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held[name] = turn
	return func() { close(turn) }
}

func init() { //nolint:gochecknoinits // before any test looks up a name
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go dns.serve(server)
		return client, nil
	}}
}

// times returns how often a name was asked for.
func (d *nameServer) times(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[name]
}

// serve answers one question, as over TCP.
func (d *nameServer) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	raw := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, raw); err != nil {
		return
	}
	var m dnsmessage.Message
	if m.Unpack(raw) != nil || len(m.Questions) != 1 {
		return
	}
	q := m.Questions[0]
	name := strings.TrimSuffix(q.Name.String(), ".")
	d.mu.Lock()
	turn := d.held[name]
	if q.Type == dnsmessage.TypeA {
		d.asked[name]++
	}
	d.mu.Unlock()
	if turn != nil {
		<-turn
	}
	m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
	if strings.HasPrefix(name, "here") {
		m.RCode = dnsmessage.RCodeSuccess
		if q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
	}
	if out, err := m.Pack(); err == nil {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	}
}

// registerAt registers a type of a plugin that says to be at a host.
func registerAt(t *testing.T, c *connectplugin.Client, serviceType, host string) error {
	t.Helper()
	return hosttest.RegisterWith(t, c, &connectpluginv1.RegisterServiceRequest{
		ServiceType: serviceType, Version: "1.0.0", EndpointPath: "/a/", Metadata: map[string]string{"base_url": "https://" + host + ":1"},
	})
}

// Names that plugins state are looked up so many at a time, for each plugin and in all, and not
// again while it is known where they lead, or that they lead nowhere.
func TestAudit_ATK18_LookupsAreBoundedAndKept(t *testing.T) {
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.Rights(map[string][2][]string{"bad": {{"*"}, nil}, "worse": {{"*"}, nil}, "good": {{"*"}, nil}})
		for id, p := range c.Policy.Plugins {
			p.Certificates, p.AllowOwnAddress = nil, true
			c.Policy.Plugins[id] = p
		}
		c.Limits.MaxLookups, c.Limits.MaxLookupsPerPlugin, c.Limits.DialTimeout = 3, 2, hosttest.Wait
	})
	types := make([]string, 9)
	for i := range types {
		types[i] = fmt.Sprintf("type-%d", i)
	}
	bad, worse, good := host.Enrol(t, "bad", hosttest.Providing(types...)), host.Enrol(t, "worse", hosttest.Providing(types...)), host.Enrol(t, "good", hosttest.Providing("own"))
	for i := range 3 {
		if err := registerAt(t, bad, types[i], "missing.edge.test"); connect.CodeOf(err) != connect.CodePermissionDenied {
			t.Errorf("a name that leads nowhere: %v", err)
		}
	}
	if n := dns.times("missing.edge.test"); n != 1 {
		t.Errorf("a name that leads nowhere was looked up %d times, want 1", n)
	}
	var (
		wg       sync.WaitGroup
		releases []func()
	)
	slow := func(c *connectplugin.Client, i int) {
		name := fmt.Sprintf("slow-%d.edge.test", i)
		releases = append(releases, dns.hold(name))
		wg.Go(func() { _ = registerAt(t, c, types[i], name) })
		hosttest.Eventually(t, "it is asked for "+name, func() bool { return dns.times(name) > 0 })
	}
	slow(bad, 3)
	slow(bad, 4)
	if err := registerAt(t, bad, types[5], "slow-5.edge.test"); connect.CodeOf(err) != connect.CodeResourceExhausted || retryHint(err) <= 0 {
		t.Errorf("a plugin looks up as much as it likes: %v", err)
	}
	_ = registerAt(t, good, "own", "here.edge.test")
	if n := dns.times("here.edge.test"); n != 1 {
		t.Errorf("an honest plugin's name was looked up %d times, want 1", n)
	}
	slow(worse, 6)
	if err := registerAt(t, worse, types[7], "slow-7.edge.test"); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("all together look up as much as they like: %v", err)
	}
	_ = registerAt(t, good, "own", "HERE.edge.test.") // which is known
	if n := dns.times("here.edge.test"); n != 1 {
		t.Errorf("an honest plugin's name was looked up %d times, want 1", n)
	}
	for _, release := range releases {
		release()
	}
	wg.Wait()
}
