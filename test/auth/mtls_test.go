package auth_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"connectrpc.com/connect"

	connectplugin "github.com/masegraye/connect-plugin-go"
	"github.com/masegraye/connect-plugin-go/internal/hosttest"
	"github.com/masegraye/connect-plugin-go/internal/hosttest/echo"
)

// startAuthMTLS serves with the configuration as ConfigureServerTLS returned it,
// except for what edit does, and returns the URL.
func startAuthMTLS(t *testing.T, auth *connectplugin.MTLSAuth, handler http.Handler, edit func(*tls.Config)) string {
	t.Helper()
	cfg, err := auth.ConfigureServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(cfg)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "https://" + ln.Addr().String()
}

func authMTLSClient(t *testing.T, cert *tls.Certificate, roots *x509.CertPool) *http.Client {
	t.Helper()
	client := &http.Client{}
	if err := connectplugin.NewMTLSAuth(cert, roots, nil).ConfigureClientTLS(client); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

func TestAudit_PROTO42_AUTH006_IdentityIsTheVerifiedCertificate(t *testing.T) {
	t.Parallel()
	ca, other := hosttest.NewCA(t), hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("host")), nil, ca.Pool)
	e := &echo.Whoami{}
	mux := e.Handler(connectplugin.AuthInterceptor(auth))
	base := startAuthMTLS(t, auth, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.TLS.Version != tls.VersionTLS13 {
			t.Errorf("spoke %v over TLS %#x", r.Proto, r.TLS.Version)
		}
		auth.Middleware(mux).ServeHTTP(w, r)
	}), nil)
	naked := startAuthMTLS(t, auth, mux, nil)

	honest := authMTLSClient(t, ca.Issue(t, hosttest.CommonName("plugin-a")), ca.Pool)
	spoof := http.Header{
		"X-Forwarded-Client-Cert": {"Subject=\"CN=root\""}, "X-Client-Cn": {"root"}, "X-Ssl-Client-S-Dn": {"CN=root"},
	}
	for _, c := range echo.Calls() {
		got, err := c.Call(t.Context(), honest, base, spoof)
		echo.WantAnswer(t, got, err, "mtls:plugin-a")
		_, err = c.Call(t.Context(), honest, naked, spoof)
		wantAuthRefused(t, err) // nothing in front shows the certificate
	}

	before := e.Calls.Load()
	roots := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, ForceAttemptHTTP2: true}}
	strangers := map[string]*http.Client{
		"no certificate":      roots,
		"foreign authority":   authMTLSClient(t, other.Issue(t, hosttest.CommonName("plugin-a")), ca.Pool),
		"expired":             authMTLSClient(t, ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ca.Pool),
		"for servers only":    authMTLSClient(t, ca.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }), ca.Pool),
		"does not trust host": authMTLSClient(t, ca.Issue(t, hosttest.CommonName("plugin-a")), other.Pool),
	}
	for name, client := range strangers {
		if _, err := echo.AskUnary(t.Context(), client, base, nil); err == nil || connect.IsWireError(err) {
			t.Errorf("%s: got %v, want the TLS handshake to fail", name, err)
		}
	}
	if n := e.Calls.Load(); n != before {
		t.Errorf("strangers reached the handler %d times", n-before)
	}
}

// A server that only asks for certificates, or that speaks plaintext, has no
// verified one to show.
func TestAudit_PROTO42_UnverifiedIsUnauthenticated(t *testing.T) {
	t.Parallel()
	ca, other := hosttest.NewCA(t), hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("host")), nil, ca.Pool)
	token := connectplugin.NewTokenAuth("", authValidateGood)
	mux := (&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(auth, token, connectplugin.NoAuth()))
	alone := (&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(auth))
	forged := authMTLSClient(t, other.Issue(t, hosttest.CommonName("root")), ca.Pool)
	good := authMTLSClient(t, ca.Issue(t, hosttest.CommonName("plugin-a")), ca.Pool)
	none := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, ForceAttemptHTTP2: true}}
	ask := func(mode tls.ClientAuthType) func(*tls.Config) {
		return func(c *tls.Config) { c.ClientAuth = mode }
	}
	plain := httptest.NewServer(auth.Middleware(alone))
	t.Cleanup(plain.Close)

	tests := []struct {
		name   string
		mode   tls.ClientAuthType
		client *http.Client
		header http.Header
		want   string
	}{
		{"forged, only asked for", tls.RequestClientCert, forged, nil, ""},
		{"forged, any accepted", tls.RequireAnyClientCert, forged, nil, ""},
		{"forged beside a good token", tls.RequestClientCert, forged, hosttest.BearerHeader(authGoodToken), ""},
		{"none, good token", tls.VerifyClientCertIfGiven, none, hosttest.BearerHeader(authGoodToken), "token:alice"},
		{"none, bad token", tls.VerifyClientCertIfGiven, none, hosttest.BearerHeader("bad"), ""},
		{"none at all", tls.VerifyClientCertIfGiven, none, nil, "nobody"},
		{"good", tls.VerifyClientCertIfGiven, good, nil, "mtls:plugin-a"},
	}
	for _, tt := range tests {
		base := startAuthMTLS(t, auth, auth.Middleware(mux), ask(tt.mode))
		for _, c := range echo.Calls() {
			got, err := c.Call(t.Context(), tt.client, base, tt.header)
			if tt.want == "" {
				wantAuthRefused(t, err)
				continue
			}
			echo.WantAnswer(t, got, err, tt.want)
		}
	}
	_, err := echo.AskUnary(t.Context(), plain.Client(), plain.URL, nil)
	wantAuthRefused(t, err)
}

func TestAudit_AUTH007_CertificatesOfAllShapes(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := []struct {
		name string
		edit func(*x509.Certificate)
		want string
	}{
		{"no subject at all", func(*x509.Certificate) {}, ""},
		{"organisation only", func(c *x509.Certificate) { c.Subject.Organization = []string{"o"} }, ""},
		{"other URI only", func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://x/y")} }, ""},
		{"common name", hosttest.CommonName("cn"), "mtls:cn"},
		{"DNS before common name", func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test", "b.test"} }, "mtls:a.test"},
		{"SPIFFE before DNS", func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test"}
			c.URIs = []*url.URL{uri("spiffe://td/plugin/p")}
		}, "mtls:spiffe://td/plugin/p"},
		{"two SPIFFE ids", func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "cn", []string{"a.test"}
			c.URIs = []*url.URL{uri("spiffe://td/plugin/p"), uri("spiffe://td/plugin/q")}
		}, ""},
	}
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("host")), nil, ca.Pool)
	base := startAuthMTLS(t, auth, auth.Middleware((&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(auth))), nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := authMTLSClient(t, ca.Issue(t, tt.edit), ca.Pool)
			got, err := echo.AskUnary(t.Context(), client, base, nil)
			if tt.want == "" {
				wantAuthRefused(t, err)
				return
			}
			echo.WantAnswer(t, got, err, tt.want)
		})
	}
}

func TestMTLSAuth_ExtractIdentity(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	shared := map[string]string{"serial": "1"}
	tests := []struct {
		name    string
		extract func(*x509.Certificate) (string, map[string]string)
		want    string
		claims  map[string]string
	}{
		{"own", func(c *x509.Certificate) (string, map[string]string) { return "own-" + c.Subject.CommonName, shared }, "mtls:own-p", map[string]string{"serial": "1"}},
		{"names nobody", func(*x509.Certificate) (string, map[string]string) { return "", shared }, "", nil},
		{"panics", func(c *x509.Certificate) (string, map[string]string) { return c.Subject.Organization[0], nil }, "", nil},
		{"default", nil, "mtls:p", map[string]string{"common_name": "p", "serial": "1234", "issuer": "CN=test authority"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("host")), nil, ca.Pool)
			auth.ExtractIdentity = tt.extract
			e := &echo.Whoami{Observe: func(ctx context.Context, _ http.Header) error {
				claims := connectplugin.GetAuthContext(ctx).Claims
				delete(claims, "not_after")
				if !maps.Equal(claims, tt.claims) {
					return connect.NewError(connect.CodeDataLoss, fmt.Errorf("claims %v", claims))
				}
				claims["serial"] = "altered"
				return nil
			}}
			base := startAuthMTLS(t, auth, auth.Middleware(e.Handler(connectplugin.AuthInterceptor(auth))), nil)
			client := authMTLSClient(t, ca.Issue(t, hosttest.CommonName("p")), ca.Pool)
			for range 2 {
				got, err := echo.AskUnary(t.Context(), client, base, nil)
				if tt.want == "" {
					wantAuthRefused(t, err)
					continue
				}
				echo.WantAnswer(t, got, err, tt.want)
			}
		})
	}
	if shared["serial"] != "1" {
		t.Error("a handler altered the extractor's map")
	}
}

// Alone, without a chain, and as a part of another type it decides alike.
func TestMTLSAuth_AloneAndEmbedded(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("host")), nil, ca.Pool)
	embedded := struct{ *connectplugin.MTLSAuth }{auth}
	client := authMTLSClient(t, ca.Issue(t, hosttest.CommonName("p")), ca.Pool)
	for name, interceptor := range map[string]connect.Interceptor{
		"alone":    auth.ServerInterceptor(),
		"embedded": connectplugin.AuthInterceptor(embedded, connectplugin.NewTokenAuth("", authValidateGood)),
	} {
		mux := (&echo.Whoami{}).Handler(interceptor)
		got, err := echo.AskUnary(t.Context(), client, startAuthMTLS(t, auth, auth.Middleware(mux), nil), nil)
		echo.WantAnswer(t, got, err, "mtls:p")
		naked := startAuthMTLS(t, auth, mux, nil)
		_, err = echo.AskUnary(t.Context(), client, naked, nil)
		wantAuthRefused(t, err)
		if name == "embedded" { // passed over where there is no certificate
			got, err = echo.AskUnary(t.Context(), client, naked, hosttest.BearerHeader(authGoodToken))
			echo.WantAnswer(t, got, err, "token:alice")
		}
	}
}

// A connection can outlive the certificate that it was made with.
func TestMTLSAuth_RefusesCertificatesThatExpiredSince(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(nil, nil, ca.Pool)
	for _, lifetime := range []time.Duration{-time.Second, time.Minute} {
		leaf := ca.Issue(t, func(c *x509.Certificate) {
			c.Subject.CommonName, c.NotAfter = "p", time.Now().Add(lifetime)
		}).Leaf
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.TLS = &tls.ConnectionState{
				HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf},
				VerifiedChains: [][]*x509.Certificate{{leaf, ca.Cert}},
			}
			auth.Middleware((&echo.Whoami{}).Handler(connectplugin.AuthInterceptor(auth))).ServeHTTP(w, r)
		}))
		t.Cleanup(srv.Close)
		got, err := echo.AskUnary(t.Context(), srv.Client(), srv.URL, nil)
		if lifetime < 0 {
			wantAuthRefused(t, err)
			continue
		}
		echo.WantAnswer(t, got, err, "mtls:p")
	}
}

type authRoundTripper func(*http.Request) (*http.Response, error)

func (f authRoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMTLSAuth_ConfigureClientTLS(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("p")), ca.Pool, nil)
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("never") }
	refused := map[string]*http.Client{
		"nil client":        nil,
		"foreign transport": {Transport: authRoundTripper(nil)},
		"nil transport":     {Transport: (*http.Transport)(nil)},
		"dials by itself":   {Transport: &http.Transport{DialTLSContext: dial}},
		"verifies nothing":  {Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}},
	}
	for name, client := range refused {
		var before http.RoundTripper
		if client != nil {
			before = client.Transport
		}
		if err := auth.ConfigureClientTLS(client); !errors.Is(err, connectplugin.ErrInvalidConfig) {
			t.Errorf("%s: got %v", name, err)
		}
		if client != nil && fmt.Sprintf("%p", client.Transport) != fmt.Sprintf("%p", before) {
			t.Errorf("%s: the transport was replaced", name)
		}
	}
	if err := connectplugin.NewMTLSAuth(nil, ca.Pool, nil).ConfigureClientTLS(&http.Client{}); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without a certificate: got %v", err)
	}
}

func TestMTLSAuth_ConfigureClientTLSLeavesSharedTransports(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	auth := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("p")), ca.Pool, nil)
	old := &tls.Config{ServerName: "127.0.0.1", MaxVersion: tls.VersionTLS12}
	shared := &http.Transport{TLSClientConfig: old, MaxIdleConns: 7}
	client := &http.Client{Transport: shared}
	if err := auth.ConfigureClientTLS(client); err != nil {
		t.Fatal(err)
	}
	got, ok := client.Transport.(*http.Transport)
	if !ok || got == shared || shared.TLSClientConfig != old || old.RootCAs != nil || shared.ForceAttemptHTTP2 {
		t.Fatal("the transport that was given changed")
	}
	cfg := got.TLSClientConfig
	if got.MaxIdleConns != 7 || !got.ForceAttemptHTTP2 || cfg.ServerName != "127.0.0.1" || cfg.MinVersion != tls.VersionTLS13 ||
		cfg.MaxVersion != 0 || len(cfg.Certificates) != 1 || !cfg.RootCAs.Equal(ca.Pool) {
		t.Errorf("configured %+v", cfg)
	}
}

func TestMTLSAuth_ConfigureServerTLS(t *testing.T) {
	t.Parallel()
	ca := hosttest.NewCA(t)
	if _, err := connectplugin.NewMTLSAuth(ca.Issue(t, hosttest.CommonName("h")), ca.Pool, nil).ConfigureServerTLS(); !errors.Is(err, connectplugin.ErrInvalidConfig) {
		t.Errorf("without client authorities: got %v", err)
	}
	cfg, err := connectplugin.NewMTLSAuth(nil, nil, ca.Pool).ConfigureServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.ClientAuth != tls.RequireAndVerifyClientCert || cfg.MinVersion != tls.VersionTLS13 ||
		len(cfg.NextProtos) != 1 || cfg.NextProtos[0] != "h2" || len(cfg.Certificates) != 0 {
		t.Errorf("configured %+v", cfg)
	}
}
