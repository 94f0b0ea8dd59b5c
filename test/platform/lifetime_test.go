package platform_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"
	"testing"
	"time"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A launched plugin gets new certificates for as long as it lives, and serves with them.
func TestLaunchedPluginGetsNewCertificates(t *testing.T) {
	t.Parallel()
	authority, err := connectplugin.NewAuthority(connectplugin.AuthorityConfig{CertificateTTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Authority = authority
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}}}
	})
	_, port, err := net.SplitHostPort(hosttest.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	sp := spec()
	if sp.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
	call := caller(t, h, "echo")
	pid, err := call("pid")
	if err != nil {
		t.Fatal(err)
	}
	first := shownBy(t, "127.0.0.1:"+port)
	hosttest.Eventually(t, "another certificate, of the same key", func() bool {
		now := shownBy(t, "127.0.0.1:"+port)
		return now.NotAfter.After(first.NotAfter) && bytes.Equal(now.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo)
	})
	hosttest.Eventually(t, "the first one has ended", func() bool { return time.Now().After(first.NotAfter) })
	if now, err := call("pid"); err != nil || now != pid {
		t.Errorf("afterwards: %s instead of %s, %v", now, pid, err)
	}
}

// shownBy returns the certificate that is served at an address.
func shownBy(t *testing.T, addr string) *x509.Certificate {
	t.Helper()
	var leaf *x509.Certificate
	conn, err := (&tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, // only looks
		NextProtos:         []string{"h2"}, MinVersion: tls.VersionTLS13,
		VerifyConnection: func(cs tls.ConnectionState) error {
			leaf = cs.PeerCertificates[0]
			return nil
		},
	}}).DialContext(t.Context(), "tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	if leaf == nil {
		t.Fatalf("%s shows no certificate: %v", addr, err)
	}
	return leaf
}

// The identity of a plugin outlives its token, whoever keeps it.
func TestTokensOfThoseThatTheHostKeepsAreRenewed(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second // a busy machine is late by a second
	policy := &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {Provides: []string{"echo"}}, "memory": {Provides: []string{"echo"}}}}
	for name, begin := range map[string]func(*testing.T, *hosttest.Host){
		"adopted": func(t *testing.T, h *hosttest.Host) {
			t.Helper()
			if err := h.Platform().AddPlugin(t.Context(), adoption(sidecar(t, h, "echo", nil))); err != nil {
				t.Fatal(err)
			}
		},
		"in memory": func(t *testing.T, h *hosttest.Host) {
			t.Helper()
			sp, _ := memorySpec()
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": sp})
			if _, err := h.Launcher().GetDefaultService("echo"); err != nil {
				t.Fatal(err)
			}
		},
		"launched": func(t *testing.T, h *hosttest.Host) {
			t.Helper()
			h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
			if _, err := h.Launcher().GetDefaultService("echo"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hosttest.Start(t, func(c *connectplugin.ServeConfig) { c.Policy, c.RuntimeTokenTTL = policy, ttl })
			begin(t, h)
			first := h.Plugins()[0]
			hosttest.Eventually(t, "its token was renewed twice", func() bool {
				now := h.Plugins()
				if len(now) != 1 || now[0].RuntimeID != first.RuntimeID {
					t.Fatalf("it was %+v, and is %+v", first, now)
				}
				return now[0].ExpiresAt.After(first.ExpiresAt.Add(ttl))
			})
			if now := h.Plugins()[0]; len(now.Services) != 1 || now.Services[0] != "echo" {
				t.Errorf("it provides %q", now.Services)
			}
		})
	}
}
