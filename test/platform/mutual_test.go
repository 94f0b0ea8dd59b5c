package platform_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Nobody but the host calls a launched plugin, and nobody but the plugin answers for it.
func TestAudit_GAPAUTOMTLS_LaunchedProcessKnowsItsHostAlone(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Fatalf("the host: %q, %v", got, err)
	}
	endpoint := h.Plugins()[0].Endpoint
	other, err := h.Authority.PluginTLS("other")
	if err != nil {
		t.Fatal(err)
	}
	other.VerifyConnection = nil // it would refuse whoever is not the host
	foreign, err := hosttest.NewAuthority(t).HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	foreign.RootCAs = h.Authority.CertPool()
	for name, cfg := range map[string]*tls.Config{
		"without a certificate": {RootCAs: h.Authority.CertPool(), MinVersion: tls.VersionTLS13},
		"another plugin":        other,
		"a host of another authority": {
			RootCAs: h.Authority.CertPool(), GetClientCertificate: foreign.GetClientCertificate, MinVersion: tls.VersionTLS13,
		},
	} {
		client := hosttest.HTTPClient(t, cfg)
		c := connect.NewClient[text, text](client, endpoint+echoSay)
		if _, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x"))); err == nil {
			t.Errorf("%s: it answers", name)
		}
	}
	// A plain listener elsewhere does not pass for it.
	if err := h.Launcher().Stop(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
}

// What a launch was given is worth nothing once it has ended.
func TestAudit_GAPAUTOMTLS_EndedLaunchEnrolsNobody(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	launch, err := h.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: h.URL, SelfID: "echo", TLS: launch.PluginTLS(), Timeout: wait})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	// A launch that no launcher began proves no self id.
	if err := c.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a launch of nobody: %v", err)
	}
	launch.Close()
	if err := c.Connect(t.Context()); err == nil {
		t.Error("an ended launch enrols")
	}
}

// Only the host may call PluginControl and PluginIdentity, also through the router.
func TestOnlyTheHostControlsAPlugin(t *testing.T) {
	t.Parallel()
	h := start(t, "echo")
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec()})
	url, client, err := h.Launcher().GetServiceClient("echo", "echo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/connectplugin.v1.PluginControl/Shutdown", "/connectplugin.v1.PluginIdentity/GetPluginInfo", "/healthz"} {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(r)
		if err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Errorf("%s answers", path)
		}
	}
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Errorf("the service: %q, %v", got, err)
	}
}
