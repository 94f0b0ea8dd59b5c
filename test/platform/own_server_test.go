package platform_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// A host on a server of the user's own, below a path of it, serves all that a host does: it adopts a plugin that is told
// where the host is, calls pass, an unclean path does not, and it ends at once before its server.
func TestHost_OnAServerOfTheUsersOwn(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	secured, err := authority.HostTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Hosts: []string{"127.0.0.1"}, Logger: hosttest.Logger(t),
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{
			"echo": {Provides: []string{"echo"}}, "user": {Requires: []string{"echo"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/plugins/", http.StripPrefix("/plugins", host.Handler()))
	l := hosttest.Listen(t)
	server := &http.Server{Handler: mux, TLSConfig: secured, ReadHeaderTimeout: hosttest.Wait}
	go func() { _ = server.ServeTLS(l, "", "") }()
	at := "https://" + l.Addr().String()
	mounted := &hosttest.Host{Host: host, Authority: authority, URL: at + "/plugins"}

	config := adoption(sidecar(t, mounted, "echo", nil))
	config.HostURL = mounted.URL
	ctx, cancel := context.WithTimeout(t.Context(), hosttest.Wait)
	defer cancel()
	if err := host.Platform().AddPlugin(ctx, config); err != nil {
		t.Fatalf("AddPlugin: %v", err)
	}
	tlsConfig, err := authority.PluginTLS("user")
	if err != nil {
		t.Fatal(err)
	}
	user := mounted.Enrol(t, "user", func(c *connectplugin.ClientConfig) {
		c.TLS, c.Secret, c.Metadata.Requires = tlsConfig, nil, hosttest.Requires("echo")
	})
	conn, err := user.Service(t.Context(), "echo", "")
	if err != nil {
		t.Fatal(err)
	}
	c := connect.NewClient[text, text](conn.HTTPClient(), conn.BaseURL()+echoSay)
	if _, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); err != nil {
		t.Errorf("a call: %v", err)
	}
	for path, want := range map[string]int{"/plugins/healthz": http.StatusOK, "/plugins/a%2f": http.StatusNotFound} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, at+path, nil)
		resp, err := hosttest.HTTPClient(t, mounted.StrangerTLS()).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
	}
	if err := errors.Join(host.Shutdown(ctx), server.Shutdown(ctx)); err != nil {
		t.Errorf("the end: %v", err)
	}
}

// A server of the user's own that asks for no certificates is what the audit names.
func TestHost_AServerThatAsksForNoCertificate(t *testing.T) {
	t.Parallel()
	authority := hosttest.NewAuthority(t)
	secured, err := authority.HostTLS("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	var audit hosttest.Buffer
	host, err := connectplugin.NewHost(&connectplugin.ServeConfig{
		Authority: authority, Hosts: []string{"127.0.0.1"},
		Policy: &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"user": {}}},
		Audit:  func(e connectplugin.AuditEvent) { _, _ = audit.Write([]byte(e.Reason)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Shutdown(context.Background()) })
	secured.ClientAuth, secured.VerifyConnection = tls.NoClientCert, nil
	tlsConfig, err := authority.PluginTLS("user")
	if err != nil {
		t.Fatal(err)
	}
	client, err := connectplugin.NewClient(connectplugin.ClientConfig{
		HostURL: hosttest.ServeTLS(t, secured, host.Handler()), SelfID: "user", TLS: tlsConfig,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Connect(t.Context()); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("the handshake: %v", err)
	}
	if got := audit.String(); !strings.Contains(got, "set ClientAuth of its tls.Config to tls.VerifyClientCertIfGiven") {
		t.Errorf("the audit says %q", got)
	}
}
