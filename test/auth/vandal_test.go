package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/gen/plugin/v1/connectpluginv1connect"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// seenIdentity is who a handler took its caller for.
type seenIdentity struct {
	Caller   connectplugin.Caller
	Identity string
	Provider string
	Claims   map[string]string
	Altered  string // what it was taken for afterwards, where that differs
}

// vandal is a handler that changes all that it can get hold of, and answers who
// its caller was before.
func vandal(w http.ResponseWriter, r *http.Request) {
	var seen seenIdentity
	if c, ok := connectplugin.CallerFromContext(r.Context()); ok {
		seen.Caller = c
		for _, list := range []*[]string{&seen.Caller.Rights.Provides, &seen.Caller.Rights.Requires, &seen.Caller.Rights.Capabilities} {
			*list = slices.Clone(*list)
		}
		for _, list := range [][]string{c.Rights.Provides, c.Rights.Requires, c.Rights.Capabilities} {
			for i := range list {
				list[i] = "everything"
			}
		}
	}
	if a := connectplugin.GetAuthContext(r.Context()); a != nil {
		seen.Identity, seen.Provider, seen.Claims = a.Identity, a.Provider, map[string]string{}
		for k, v := range a.Claims {
			seen.Claims[k] = v
			a.Claims[k] = "altered"
		}
		a.Identity, a.Provider = "admin", "god"
		if a.Claims != nil {
			a.Claims["role"] = "admin"
		}
	}
	if c, ok := connectplugin.CallerFromContext(r.Context()); ok && fmt.Sprint(c) != fmt.Sprint(seen.Caller) {
		seen.Altered = fmt.Sprint(c)
	}
	if a := connectplugin.GetAuthContext(r.Context()); a != nil && (a.Identity != seen.Identity || fmt.Sprint(a.Claims) != fmt.Sprint(seen.Claims)) {
		seen.Altered += fmt.Sprint(a)
	}
	r.Header.Set("X-Plugin-Runtime-Id", "admin")
	r.Header.Set("Authorization", "Bearer admin")
	r.RemoteAddr = "192.0.2.1:1"
	vandaliseTLS(r.TLS)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(seen)
}

// vandaliseTLS makes somebody else's certificate of that of the connection.
func vandaliseTLS(state *tls.ConnectionState) {
	evil := &url.URL{Scheme: "spiffe", Host: "evil.example", Path: "/admin"}
	for _, chain := range append([][]*x509.Certificate{state.PeerCertificates}, state.VerifiedChains...) {
		for i, cert := range chain {
			cert.Subject.CommonName, cert.DNSNames, cert.URIs = "admin", []string{"admin"}, []*url.URL{evil}
			if i == 0 {
				clear(cert.RawSubjectPublicKeyInfo)
			}
			chain[i] = &x509.Certificate{URIs: []*url.URL{evil}, Raw: cert.Raw, NotAfter: cert.NotAfter}
		}
	}
}

// Whatever a handler does to what it was given, its caller's next request on the
// same connection is its caller's.
func TestAudit_AUTH009_HandlersCannotAlterWhoCalls(t *testing.T) {
	t.Parallel()
	shared := map[string]string{"role": "reader", "team": "blue"} // that the validator hands out again and again
	ca := hosttest.NewCA(t)
	host := ca.Start(t, ca.Certify(t, hosttest.Loopback), func(c *connectplugin.ServeConfig) {
		c.Policy = hosttest.PolicyOf("caller", func(p *connectplugin.PluginPolicy) { p.AllowUnproven, p.Requires = true, []string{"a", "b"} })
		c.Plugins = connectplugin.PluginSet{"echo": echo.HostPlugin{Handler: http.HandlerFunc(vandal)}}
		c.Impls = map[string]any{"echo": true}
		c.AuthProviders = []connectplugin.AuthProvider{
			connectplugin.NewTokenAuth("", func(string) (string, map[string]string, error) { return "operator", shared, nil }),
			connectplugin.NewMTLSAuth(nil, nil, nil),
		}
	})
	client := hosttest.HTTPClient(t, ca.TLS(ca.Certify(t, hosttest.CommonName("operator")))) // no plugin's certificate
	ask := func(header http.Header) (seen seenIdentity) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, host.URL+echo.Base, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("status %d", resp.StatusCode)
			return seen
		}
		if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil {
			t.Fatal(err)
		}
		return seen
	}
	bare := hosttest.HTTPClient(t, ca.TLS(nil))
	enrolled, err := connectpluginv1connect.NewHandshakeServiceClient(bare, host.URL).Handshake(t.Context(), connect.NewRequest(hosttest.OldRequest("caller")))
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]http.Header{
		"runtime token": hosttest.IdentityHeader(enrolled.Msg.GetRuntimeId(), enrolled.Msg.GetRuntimeToken()),
		"token":         hosttest.BearerHeader("anything"),
		"certificate":   {},
	}
	for name, header := range headers {
		first := ask(header.Clone())
		if first.Identity == "" || first.Altered != "" || first.Identity == "admin" || strings.Contains(fmt.Sprint(first), "evil") {
			t.Errorf("%s: the first request came from %+v", name, first)
		}
		for range 3 {
			for _, other := range headers { // each may alter what the others get
				ask(other.Clone())
			}
			if again := ask(header.Clone()); fmt.Sprint(again) != fmt.Sprint(first) {
				t.Errorf("%s: the caller was %+v and is %+v", name, first, again)
			}
		}
	}
	if shared["role"] != "reader" || len(shared) != 2 {
		t.Errorf("the validator's claims became %v", shared)
	}
	if code := hosttest.ReportWith(t, client, host.URL, enrolled.Msg.GetRuntimeId(), enrolled.Msg.GetRuntimeToken()); code != 0 {
		t.Errorf("the caller's token on the vandalised connection: %v", code)
	}
}
