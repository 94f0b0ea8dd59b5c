package client_test

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

const twoAddresses = "two.test"

// TestAudit_USE08_AHostWithASilentAddress has the host's name stand for another address as well,
// which takes connections and says nothing. It is not parallel: it sets the resolver.
func TestAudit_USE08_AHostWithASilentAddress(t *testing.T) {
	host := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy, c.Hosts = hosttest.LoggerPolicy(), []string{twoAddresses, "127.0.0.1"}
	})
	_, port, err := net.SplitHostPort(host.Addr())
	if err != nil {
		t.Fatal(err)
	}
	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.2", port))
	if err != nil {
		t.Skipf("this machine has no second address: %v", err)
	}
	defer silent.Close()
	before := net.DefaultResolver
	defer func() { net.DefaultResolver = before }()
	net.DefaultResolver = resolver(t, [][4]byte{{127, 0, 0, 2}, {127, 0, 0, 1}})
	cfg := host.ClientConfig(t, "api")
	cfg.HostURL = "https://" + net.JoinHostPort(twoAddresses, port)
	c, err := connectplugin.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const bound = 10 * time.Second // far from the 30 s that a dial may take
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		t.Errorf("connect: %v", err)
	}
}

// resolver answers every question for an IPv4 address with the given ones.
func resolver(t *testing.T, addrs [][4]byte) *net.Resolver {
	t.Helper()
	server, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<10)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			for _, a := range addrs {
				if m.Questions[0].Type == dnsmessage.TypeA {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 1},
						Body:   &dnsmessage.AResource{A: a},
					})
				}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}
