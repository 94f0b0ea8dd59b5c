package platform_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
)

// Nobody but the host calls a launched plugin, wherever it listens.
func TestAudit_GAPAUTOMTLS_LaunchedProcessKnowsItsHostAlone(t *testing.T) {
	t.Parallel()
	h := start(t, "echo", "other")
	addr := hosttest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	atPort := spec("type=other")
	atPort.Port, _ = strconv.Atoi(port)
	atPort.Provides = []string{"other"}
	h.Launcher().Configure(map[string]connectplugin.PluginSpec{"echo": spec(), "other": atPort})
	if got, err := caller(t, h, "echo")("x"); got != "x" || err != nil {
		t.Fatalf("the host: %q, %v", got, err)
	}
	socket := socketOf(h)
	if _, err := h.Launcher().GetService("other", "other"); err != nil {
		t.Fatal(err)
	}
	sidecar, err := h.Authority.PluginTLS("other")
	if err != nil {
		t.Fatal(err)
	}
	host, err := h.Authority.HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := hosttest.NewAuthority(t).HostTLS()
	if err != nil {
		t.Fatal(err)
	}
	for name, show := range map[string]func(*tls.CertificateRequestInfo) (*tls.Certificate, error){
		"without a certificate":       nil,
		"another plugin":              sidecar.GetClientCertificate,
		"a host of another authority": foreign.GetClientCertificate,
		theHost:                       host.GetClientCertificate,
	} {
		for _, at := range [][2]string{{"unix", socket}, {"tcp", addr}} {
			if err := sayAt(t, at[0], at[1], h, show); (err == nil) != (name == theHost) {
				t.Errorf("%s at %s: %v", name, at[0], err)
			}
		}
	}
}

// theHost is the one who may call.
const theHost = "the host"

// sayAt calls a plugin at an address, with a certificate.
func sayAt(
	t *testing.T, network, addr string, h *hosttest.Host, show func(*tls.CertificateRequestInfo) (*tls.Certificate, error),
) error {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{ // its own name is for its host to verify
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, GetClientCertificate: show, RootCAs: h.Authority.CertPool(),
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	defer transport.CloseIdleConnections()
	c := connect.NewClient[text, text](&http.Client{Transport: transport}, "https://plugin.invalid"+echoSay)
	_, err := c.CallUnary(t.Context(), connect.NewRequest(wrapperspb.String("x")))
	return err
}

// What a launch was given is worth nothing once it has ended, not even what strangers may.
func TestAudit_GAPAUTOMTLS_EndedLaunchEnrolsNobody(t *testing.T) {
	t.Parallel()
	h := hosttest.Start(t, func(c *connectplugin.ServeConfig) {
		c.Policy = &connectplugin.Policy{Plugins: map[string]connectplugin.PluginPolicy{"echo": {}, "guest": {AllowUnproven: true}}}
	})
	launch, err := h.Authority.LaunchTLS(connectplugin.LaunchTLSConfig{ID: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	enrol := func(selfID string) error {
		c, err := connectplugin.NewClient(connectplugin.ClientConfig{HostURL: h.URL, SelfID: selfID, TLS: launch.PluginTLS(), Timeout: wait})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.Connect(t.Context())
	}
	// A launch that no launcher began proves no self id.
	if err := enrol("echo"); !errors.Is(err, connectplugin.ErrHandshakeRefused) {
		t.Errorf("a launch of nobody: %v", err)
	}
	if err := enrol("guest"); err != nil {
		t.Errorf("as anybody: %v", err)
	}
	launch.Close()
	if err := enrol("guest"); err == nil {
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
